"""Are the answers of an imported network those of the library that trained it?

    python -m bench.imports.equal_answers --rectools A/bin/python --recbole B/bin/python
                             [--data movielens:ml-1m/ratings.dat] [--users 1000] [--json FILE]

Each library trains briefly in a process of its own, saves its network as a user would, and writes
its own 10 best items for 1,000 users. Then the checkpoint is imported, exported, verified,
published and served by Triton, and asked over gRPC, one user a request:

- RecTools: SASRecModel.recommend, with filter_viewed and without; all of the log.
- RecBole: full_sort_topk of SASRec and GRU4Rec, which leaves out nothing; the newest 60 events of
  the log's first 1,200 users, for RecBole takes its time.

An answer is equal if the 10 best scores are the library's, place by place, and each of its items
has the library's score, to 1e-5 of the score (at least of 1); items whose scores are that close may
change places. The libraries want an environment each:

    python -m venv A && A/bin/pip install torch==2.13.0
    A/bin/pip install torch==2.13.0 "rectools[torch]==0.19.0"
    python -m venv B && B/bin/pip install torch==2.13.0
    B/bin/pip install torch==2.13.0 recbole==1.2.1 "numpy<2" "pandas<3" "setuptools<81"
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from seqrec_export.clients.python import Client
from seqrec_export.data.readers import read
from seqrec_export.imports.libraries import import_recbole, import_rectools
from seqrec_export.pipeline import release
from seqrec_export.serving.server import start
from seqrec_export.training.run import Run

FOLDER = Path(__file__).parent
TOP, SERVED = 10, 100  # that the library gives, that the graph gives
TOLERANCE = 1e-5
RECBOLE_USERS, RECBOLE_EVENTS = 1200, 60


@dataclass(frozen=True)
class Found:
    """What became of one checkpoint."""

    model: str
    equal: int
    same_order: int
    asked: int
    largest_difference: float
    training_seconds: float
    import_seconds: float  # with export, verification and publishing
    asking_seconds: float


def main() -> None:
    """Print a line a model; the exit status is 1 if any answer differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rectools", help="Python of an environment with RecTools")
    parser.add_argument("--recbole", help="Python of an environment with RecBole")
    parser.add_argument("--data", default="movielens:ml-1m/ratings.dat")
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    found: list[Found] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        log = pd.DataFrame(events(options.data))
        if options.rectools:
            found += by_rectools(options.rectools, log, folder, options.users)
        if options.recbole:
            for name in ("SASRec", "GRU4Rec"):
                found.append(by_recbole(options.recbole, name, log, folder, options.users))
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in found], indent=1))
    sys.exit(any(one.equal < one.asked for one in found) or not found)


def events(data: str) -> dict[str, Any]:
    """The log, in its order, with the columns of RecBole's atomic files."""
    log = read(data)
    return {
        "user_id:token": log.user_ids[log.users],
        "item_id:token": log.item_ids[log.items],
        "timestamp:float": log.times,
    }


def written(log: pd.DataFrame, folder: Path, name: str) -> Path:
    file = folder / "dataset" / name / f"{name}.inter"
    file.parent.mkdir(parents=True, exist_ok=True)
    log.to_csv(file, sep="\t", index=False)
    return file


def trained(python: str, script: str, *arguments: str, folder: Path) -> float:
    """Seconds that a library's process took."""
    begin = time.perf_counter()
    done = subprocess.run(
        [python, str(FOLDER / script), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTHON")},
    )
    if done.returncode:
        sys.exit(f"{script} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return time.perf_counter() - begin


def by_rectools(python: str, log: pd.DataFrame, folder: Path, users: int) -> list[Found]:
    place = folder / "rectools"
    place.mkdir()
    file = str(written(log, folder, "all"))
    seconds = trained(
        python, "by_rectools.py", file, str(place), f"{users}", f"{TOP}", folder=place
    )
    of_log = read(f"table:{table(log, place)}")
    found = []
    for kind in ("viewed", "kept"):
        found.append(
            compared(
                f"RecTools SASRec, filter_viewed={kind == 'viewed'}",
                lambda run, kind=kind: import_rectools(  # type: ignore[misc]
                    place / "model.pkl", run, keep_seen=kind == "kept", log=of_log
                ),
                place,
                kind,
                seconds,
            )
        )
    return found


def by_recbole(python: str, name: str, log: pd.DataFrame, folder: Path, users: int) -> Found:
    place = folder / name
    place.mkdir()
    user, when = log["user_id:token"], log["timestamp:float"]
    part = log[user.isin(user.unique()[:RECBOLE_USERS])]
    newest = part.loc[when[part.index].sort_values(kind="stable").index]
    newest = newest.groupby("user_id:token").tail(RECBOLE_EVENTS)
    part = part[part.index.isin(newest.index)]
    inter = written(part, folder, "part")
    arguments = (name, "part", str(place), f"{users}", f"{TOP}")
    seconds = trained(python, "by_recbole.py", *arguments, folder=folder)
    (checkpoint,) = place.glob("*.pth")
    of_log = read(f"table:{table(part, place)}")
    return compared(
        f"RecBole {name}",
        lambda run: import_recbole(checkpoint, run, inter=inter, keep_seen=True, log=of_log),
        place,
        "kept",
        seconds,
    )


def table(log: pd.DataFrame, folder: Path) -> Path:
    """The log as this package's `table` reads it."""
    file = folder / "log.csv"
    log.set_axis(["user", "item", "time"], axis=1).to_csv(file, index=False)
    return file


def compared(
    model: str, imported: Callable[[Path], Run], place: Path, kind: str, training_seconds: float
) -> Found:
    """Import, release and serve a checkpoint, and ask it what the library was asked."""
    rows = json.loads((place / "answers.json").read_text())
    begin = time.perf_counter()
    run = imported(place / f"run_{kind}")
    repository = place / f"repository_{kind}"
    built = release(run, repository, top_k=SERVED)
    if not built.verified.ok:
        sys.exit(built.verified.refusal)
    released = time.perf_counter()
    with (
        start(repository, grpc_port=0, metrics_port=0) as server,
        Client(server.grpc_url) as client,
    ):
        asking = time.perf_counter()
        answers = [
            client.recommend(run.model.name, [{"history_item_ids": row["history"]}])[0]
            for row in rows
        ]
        asked = time.perf_counter()
    results = [agreed(answer, row[kind]) for answer, row in zip(answers, rows, strict=True)]
    equal, same_order, differences = zip(*results, strict=True)
    found = Found(
        model=model,
        equal=sum(equal),
        same_order=sum(same_order),
        asked=len(rows),
        largest_difference=max(differences),
        training_seconds=training_seconds,
        import_seconds=released - begin,
        asking_seconds=asked - asking,
    )
    print(
        f"{found.model}: {found.equal:,} of {found.asked:,} equal ({found.same_order:,} in the "
        f"same order), largest difference of a score {found.largest_difference:.1e}; "
        f"training {found.training_seconds:.0f} s, from checkpoint to repository "
        f"{found.import_seconds:.0f} s, asking {found.asking_seconds:.1f} s",
        flush=True,
    )
    return found


def agreed(
    answer: list[tuple[str, float]], theirs: dict[str, list[Any]]
) -> tuple[bool, bool, float]:
    """Whether an answer is the library's, tie-aware; in the same order; the largest difference."""
    scores, expected = dict(answer), np.array(theirs["scores"])
    of_their_ids = np.array([scores.get(item, -np.inf) for item in theirs["ids"]])
    by_place = np.array([score for _, score in answer[: len(expected)]])
    difference = max(np.abs(of_their_ids - expected).max(), np.abs(by_place - expected).max())
    slack = TOLERANCE * max(1.0, float(np.abs(expected).max()))
    same_order = [item for item, _ in answer[: len(expected)]] == theirs["ids"]
    return bool(difference <= slack), same_order, float(difference)


if __name__ == "__main__":
    main()
