"""How good the models are: the README's table of held-out figures, next to baselines and goals.

    pip install implicit scikit-surprise
    python -m bench.quality.held_out DATA [--quick] [--only TASK] [--seeds 3] [--workers 2]
                                          [--results DIR]

DATA is a folder that holds the public logs as their sources name them (see `TASKS`); a task whose
log is not there is named as missing. Each training has one thread, `--workers` of them run at a
time, longest first. What is finished is kept in DIR under a key of settings, data and versions and
is not computed again; a training that was stopped goes on from its last epoch. `--quick` is one
seed of each.

Every figure is of the test part, which nothing but this looks at; the epoch is chosen on the
validation part. Ranks are among the whole catalogue. Baselines see the same histories.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import torch

from bench.quality import baselines
from seqrec_export.data.histories import Dataset, prepare
from seqrec_export.data.interactions import Interactions
from seqrec_export.data.readers import read
from seqrec_export.evaluation.metrics import Metrics
from seqrec_export.folders import read_json, remove, sha256_json, write_json
from seqrec_export.models.model import fill_buffers, finish
from seqrec_export.models.registry import MODELS
from seqrec_export.training.fit import fit
from seqrec_export.training.train import library_versions

Figures = Mapping[str, Metrics]  # by the name of the contender


@dataclass(frozen=True, kw_only=True)
class Goal:
    metric: str
    bound: float | str  # a figure, or the contender whose figure it is
    factor: float = 1.0  # of the bound
    below: bool = False

    def met(self, own: Metrics, others: Figures) -> bool | None:
        bound = self.bound if isinstance(self.bound, float) else None
        if isinstance(self.bound, str):
            if self.bound not in others or self.metric not in others[self.bound]:
                return None
            bound = others[self.bound][self.metric]
        assert bound is not None
        value = own[self.metric]
        return value < bound * self.factor if self.below else value >= bound * self.factor

    def __str__(self) -> str:
        of = f"{self.factor:g} x " if self.factor != 1 else ""
        return f"{self.metric} {'<' if self.below else '>='} {of}{self.bound}"


@dataclass(frozen=True, kw_only=True)
class Task:
    """One line of the table: a model, a log, and what it is measured against."""

    model: str
    data: str  # with {} for the folder
    metrics: tuple[str, ...]
    preset: str | None = None
    held_out_from: tuple[int, int] | None = None  # as `prepare` takes it
    compare: Callable[[Dataset, Interactions], Figures] | None = None
    notebook: str = "-"  # what the source of the model reports
    goals: tuple[Goal, ...] = ()
    cpu_minutes: float = 1.0  # about, for the order

    def config(self) -> Any:
        model = MODELS[self.model]
        return model.config(**(model.presets[self.preset] if self.preset else {}))

    def dataset(self, log: Interactions, seed: int) -> Dataset:
        model = MODELS[self.model]
        return prepare(
            log,
            model.split,
            seed,
            held_out_from=self.held_out_from,
            new_items=model.ranks_new_items,
        )


def midnight(day: str) -> int:
    """Seconds since 1970-01-01 UTC."""
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp())


ONE_MILLION = "movielens:{}/ml-1m/ml-1m_sasrec.txt.gz"
RANKED = ("hr@10", "ndcg@10", "hr@20", "ndcg@20")
TASKS = {
    "sasrec, MovieLens-1M": Task(
        model="sasrec",
        data=ONE_MILLION,
        preset="ml-1m",
        metrics=(*RANKED, "seen_kept_hr@10", "seen_kept_ndcg@10", "seen_kept_hr@20"),
        compare=baselines.next_item,
        notebook="HR@20 0.209, seen kept",
        goals=(Goal(metric="hr@10", bound=0.325), Goal(metric="ndcg@10", bound=0.188)),
        cpu_minutes=24,
    ),
    "gru4att, MovieLens-1M": Task(
        model="gru4att",
        data=ONE_MILLION,
        preset="ml-1m",
        metrics=RANKED,
        notebook="never trained",
        goals=(Goal(metric="hr@10", bound="sasrec, MovieLens-1M", factor=0.9),),
        cpu_minutes=20,
    ),
    "caser, MovieLens-1M": Task(
        model="caser",
        data=ONE_MILLION,
        preset="ml-1m",
        metrics=(*RANKED, "hr@50", "auc"),
        cpu_minutes=9,
    ),
    "caser, MovieLens-100K": Task(
        model="caser",
        data="movielens:{}/ml-100k/u.data.gz",
        preset="ml-100k",
        metrics=("hr@10", "ndcg@10", "hr@50", "auc"),
        compare=baselines.next_item,
        notebook="HR@50 0.397, AUC 0.753",
        goals=(Goal(metric="hr@50", bound=0.45), Goal(metric="auc", bound=0.85)),
        cpu_minutes=3,
    ),
    "gru4att, sessions": Task(
        model="gru4att",
        data="synthetic:users=4000,items=2000,events=120000,sessions=8000",
        metrics=("candidates_ndcg@10", "candidates_mrr", "hr@10", "ndcg@10"),
        compare=baselines.sessions,
        notebook="never trained",
        goals=(
            Goal(metric="candidates_ndcg@10", bound="popularity"),
            Goal(metric="candidates_ndcg@10", bound="untrained"),
        ),
        cpu_minutes=5,
    ),
    "mlink, ml-latest-small": Task(
        model="mlink",
        data="movielens:{}/ml-latest-small/ratings.csv.gz",
        metrics=("rmse", "mae", "unseen_rmse", "unseen_mae"),
        compare=baselines.ratings,
        notebook="MAE 0.65 to 0.90 stars, on training data",
        goals=tuple(
            Goal(metric=metric, bound=bound, below=True)
            for metric in ("rmse", "mae")
            for bound in ("user and item bias", "item kNN (Surprise)", "SVD (Surprise)")
        ),
        cpu_minutes=1,
    ),
    "two_tower, H&M week": Task(
        model="two_tower",
        data="hm:{}/hm",
        metrics=(
            *("recall@12", "recall@100", "map@12"),
            *("new_users_recall@100", "new_users_map@12", "new_items_recall@100"),
        ),
        # Four days to train on, the fifth to choose the epoch, two to test.
        held_out_from=(midnight("2020-09-20"), midnight("2020-09-21")),
        compare=baselines.first_five_days,
        notebook="never ran",
        goals=tuple(
            Goal(metric=metric, bound=bound)
            for metric in ("recall@100", "map@12")
            for bound in ("popularity, five days", "recent popularity, five days")
        ),
        cpu_minutes=4,
    ),
}


def end_with_the_bench() -> None:
    """In a worker: it would train to the end if the bench were killed."""
    bench = parent_process()
    assert bench

    def wait() -> None:
        bench.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def one_training(name: str, folder: str, seed: int, results: Path) -> dict[str, Any]:
    """Test metrics of one seed, and what its training took."""
    torch.set_num_threads(1)
    task, model = TASKS[name], MODELS[TASKS[name].model]
    log = read(task.data.format(folder))
    config = task.config()
    work = results / _file_name(f"{name}, seed {seed}")
    key = _key(task, log, seed)
    if (finished := _finished(work / "result.json", key)) is not None:
        return finished
    if _finished(work / "begun.json", key) is None:
        remove(work)
        write_json(work / "begun.json", {"key": key})
    dataset = task.dataset(log, seed)
    torch.manual_seed(seed)
    net = model.net(config, dataset.num_rows)
    fill_buffers(net, dataset)
    history = fit(
        model, net, dataset, config, work, seed=seed, resume=True, progress=sys.stderr.isatty()
    )
    finish(net)
    result = {
        "key": key,
        "test": model.evaluate(net, dataset, config, "test"),
        "epochs": len(history["curve"]),
        **history,
    }
    write_json(work / "result.json", result)
    return result


def one_comparison(name: str, folder: str, seed: int, results: Path) -> dict[str, Any]:
    """Test metrics of the baselines."""
    torch.set_num_threads(1)
    task, model = TASKS[name], MODELS[TASKS[name].model]
    log = read(task.data.format(folder))
    path = results / _file_name(f"{name}, seed {seed}, baselines.json")
    key = _key(task, log, seed) + baselines.VERSION
    if (finished := _finished(path, key)) is not None:
        return finished
    dataset = task.dataset(log, seed)
    figures = dict(model.baselines(dataset, task.config(), "test"))
    figures |= task.compare(dataset, log) if task.compare else {}
    write_json(path, {"key": key, "figures": figures})
    return {"key": key, "figures": figures}


def _file_name(text: str) -> str:
    return text.replace(", ", "-").replace(" ", "-")


def _key(task: Task, log: Interactions, seed: int) -> str:
    return sha256_json([task.model, vars(task.config()), log.fingerprint, seed, library_versions()])


def _finished(path: Path, key: str) -> dict[str, Any] | None:
    found = read_json(path) if path.exists() else None
    return found if found is not None and found["key"] == key else None


def _missing(task: Task, folder: str) -> Path | None:
    reader, _, path = task.data.format(folder).partition(":")
    return Path(path) if reader != "synthetic" and not Path(path).exists() else None


def mean_and_spread(some: Sequence[Metrics], metric: str) -> tuple[float, float]:
    values = [one[metric] for one in some if metric in one]
    spread = statistics.stdev(values) if len(values) > 1 else float("nan")
    return (statistics.fmean(values) if values else float("nan")), spread


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="folder of the public logs")
    parser.add_argument("--only", action="append", choices=list(TASKS))
    parser.add_argument("--quick", action="store_true", help="one seed of each task")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--results", type=Path, default=Path("build/quality"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    seeds = range(1 if options.quick else options.seeds)
    chosen = {name: TASKS[name] for name in options.only or TASKS}
    for name, task in list(chosen.items()):
        if missing := _missing(task, options.data):
            print(f"{name}: left out, there is no {missing}")
            del chosen[name]
    options.results.mkdir(parents=True, exist_ok=True)

    order = sorted(chosen, key=lambda name: -chosen[name].cpu_minutes)
    trained: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in chosen}
    compared: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in chosen}
    with ProcessPoolExecutor(options.workers, get_context("spawn"), end_with_the_bench) as pool:
        jobs = {}
        for name in order:
            for seed in seeds:
                job = pool.submit(one_training, name, options.data, seed, options.results)
                jobs[job] = trained, name, seed
        for name in order:
            # Only a split that is drawn gives the baselines other figures.
            for seed in seeds if MODELS[chosen[name].model].split == "last_rating" else (0,):
                job = pool.submit(one_comparison, name, options.data, seed, options.results)
                jobs[job] = compared, name, seed
        for job in as_completed(jobs):
            kind, name, seed = jobs[job]
            kind[name][seed] = job.result()
            what = "trained" if kind is trained else "baselines done"
            print(f"{name}, seed {seed}: {what}", file=sys.stderr, flush=True)

    rows = report(chosen, trained, compared)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


def report(
    chosen: Mapping[str, Task],
    trained: Mapping[str, Mapping[int, Mapping[str, Any]]],
    compared: Mapping[str, Mapping[int, Mapping[str, Any]]],
) -> dict[str, Any]:
    """Print one block a task; returns the same for programs."""
    own: dict[str, Metrics] = {}
    rows: dict[str, Any] = {}
    for name, task in chosen.items():
        runs = [trained[name][seed] for seed in sorted(trained[name])]
        tests = [run["test"] for run in runs]
        own[name] = {metric: mean_and_spread(tests, metric)[0] for metric in task.metrics}
        names = {contender for found in compared[name].values() for contender in found["figures"]}
        others = {
            contender: [found["figures"][contender] for found in compared[name].values()]
            for contender in sorted(names)
        }
        minutes = statistics.fmean(run["cpu_seconds"] for run in runs) / 60
        preset = f", preset {task.preset}" if task.preset else ""
        print(f"\n{name}{preset}: {len(runs)} seeds, {minutes:.1f} CPU-minutes each")
        print(f"  notebook: {task.notebook}")
        width = max(len(contender) for contender in (task.model, *others))
        print("  " + " " * width + "".join(f"  {metric:>20}" for metric in task.metrics))
        for contender, some in {task.model: tests, **others}.items():
            cells = []
            for metric in task.metrics:
                mean, spread = mean_and_spread(some, metric)
                if math.isnan(mean):
                    cells.append("-")
                else:
                    cells.append(
                        f"{mean:.4f}" + ("" if math.isnan(spread) else f" +- {spread:.4f}")
                    )
            print(f"  {contender:{width}}" + "".join(f"  {cell:>20}" for cell in cells))
        figures: dict[str, Metrics] = {
            contender: {m: mean_and_spread(some, m)[0] for m in task.metrics}
            for contender, some in others.items()
        }
        goals = {str(goal): goal.met(own[name], own | figures) for goal in task.goals}
        for goal, met in goals.items():
            verdict = {True: "met", False: "MISSED", None: "not compared"}[met]
            print(f"  goal {goal}: {verdict}")
        rows[name] = {
            "preset": task.preset,
            "cpu_minutes": minutes,
            "seeds": {str(seed): run["test"] for seed, run in trained[name].items()},
            "baselines": figures,
            "goals": goals,
        }
    return rows


if __name__ == "__main__":
    main()
