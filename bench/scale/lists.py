"""What a list for every user costs, compared with bare ONNX Runtime; and its memory as users grow.

    python -m bench.scale.lists [--users 10000 100000 1000000] [--items 20000] [--threads 2]
                         [--folder DIR]

Logs of the bench's own making (20 events a user on average, a long tail) and a `sasrec` of dim 64
and window 50 are written under `--folder`, once. For each size:

- bare: feeds of 8,192 users, in batches as the command makes them, are prepared beforehand, and
  `session.run` of ONNX Runtime with as many threads is timed over all of them, before the command
  and after it: with its own defaults, and with threads that do not spin between two operators, as
  the command has it. The faster of the two counts; the slower is in brackets.
- command: the whole `seqrec-export recommend-all`, from the start of its process to its end: it
  reads the log, asks, writes Parquet. Its resident set is sampled ten times a second.

`ratio` is the command's users a second over the bare ones; `work` is the same of CPU seconds a
user, which other work on the machine changes less.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

MEAN_EVENTS, TOP_K, EXPORTED = 20, 20, 100
BARE_USERS = 8_192


def write_log(path: Path, users: int, items: int) -> None:
    """Everyone has an event; every item is of one at least."""
    rng = np.random.default_rng(0)
    counts = np.minimum(1 + rng.geometric(1 / MEAN_EVENTS, users), 1_000)
    of = np.repeat(np.arange(users), counts)
    popular = (rng.pareto(1.0, len(of)) * 20).astype(np.int64) % items
    popular[:items] = np.arange(min(items, len(of)))
    ids = pa.array([f"{i:010d}" for i in range(items)])
    names = pa.array([f"customer-{i:08d}" for i in range(users)])
    table = pa.table(
        {
            "user_id": names.take(pa.array(of)),
            "item_id": ids.take(pa.array(popular)),
            "time": pa.array(1_600_000_000 + np.sort(rng.integers(0, 60_000_000, len(of)))),
        }
    )
    part = path.with_suffix(".part")
    pq.write_table(table, part)
    part.rename(path)


def trained(folder: Path, items: int) -> Path:
    """A sasrec of this many items; how well it was trained changes no cost."""
    from seqrec_export.data.readers import read
    from seqrec_export.exporting.exported import export_run
    from seqrec_export.models.registry import MODELS
    from seqrec_export.training.train import load, train

    path = folder / "sasrec"
    if not path.exists():
        log = folder / "train.parquet"
        write_log(log, items // 10, items)
        config = MODELS["sasrec"].config(dim=64, max_length=50, epochs=1)
        train(MODELS["sasrec"], read(f"table:{log}"), config, path)
    export_run(load(path), EXPORTED)
    return path


def bare(run: Path, log: Path, threads: int) -> None:
    """Print the wall and CPU seconds of a user, of threads that spin and that do not, as JSON."""
    import onnxruntime

    from seqrec_export.data.raw_requests import RawLog
    from seqrec_export.data.readers import read
    from seqrec_export.exporting.exported import find_export
    from seqrec_export.exporting.lists import usual_batch
    from seqrec_export.exporting.whole_histories import whole_feeds
    from seqrec_export.training.train import load

    exported = find_export(load(run))
    graph, table = exported.graphs["sasrec"], read(f"table:{log}")
    raw, size = RawLog(table), usual_batch(exported.run)
    whole = min(BARE_USERS, len(table.user_ids)) // size * size
    prepared = [
        whole_feeds(graph, raw, users, table.asked_at[users], {})
        for users in np.arange(whole).reshape(-1, size)
    ]
    took = []
    for spinning in "10":
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
        session = onnxruntime.InferenceSession(
            exported.model_file("sasrec"), options, providers=["CPUExecutionProvider"]
        )
        session.run(None, prepared[0])
        wall, cpu = time.perf_counter(), time.process_time()
        for feeds in prepared:
            session.run(["item_ids", "scores"], feeds)
        count = sum(len(feeds["history_item_ids_lengths"]) for feeds in prepared)
        took.append([(time.perf_counter() - wall) / count, (time.process_time() - cpu) / count])
    print(json.dumps(took))


def measured(command: list[str]) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds, and the largest resident set that was sampled, in GB."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    largest = 0.0
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        status = Path(f"/proc/{process.pid}/statm")
        while process.poll() is None:
            fields = status.read_text().split()
            if len(fields) > 1:
                largest = max(largest, int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 1e9)
            time.sleep(0.1)
        if process.returncode:
            assert process.stderr is not None
            raise SystemExit(process.stderr.read().decode()[-2_000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - began, cpu, largest


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "lists")
    parser.add_argument("--bare", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        bare(*options.bare, options.threads)
        return
    folder: Path = options.folder / str(options.items)
    folder.mkdir(parents=True, exist_ok=True)
    run = trained(folder, options.items)
    print(f"{options.items:,} items, {options.threads} threads, {TOP_K} of {EXPORTED} items kept")
    columns = ("users", "bare users/s", "users/s", "ratio", "work", "peak GB", "file MB")
    print("".join(f"{name:>15}" for name in columns), flush=True)
    for users in options.users:
        log, out = folder / f"{users}.parquet", folder / "lists.parquet"
        if not log.exists():
            write_log(log, users, options.items)
        alone = [sys.executable, "-m", "bench.scale.lists", "--threads", str(options.threads)]
        alone += ["--bare", str(run), str(log)]
        command = [sys.executable, "-m", "seqrec_cli.main", "recommend-all", "--model", "sasrec"]
        command += ["--data", f"table:{log}", "--runs", str(folder), "--out", str(out)]
        command += ["--top-k", str(TOP_K), "--threads", str(options.threads)]
        first = json.loads(subprocess.check_output(alone).splitlines()[-1])
        wall, cpu, peak = measured(command)
        second = json.loads(subprocess.check_output(alone).splitlines()[-1])
        both = sorted(np.mean([first, second], axis=0).tolist())
        (lone_wall, lone_cpu), (slower, _) = both
        cells = (
            f"{users:,}",
            f"{1 / lone_wall:,.0f} ({1 / slower:,.0f})",
            f"{users / wall:,.0f}",
            f"{lone_wall * users / wall:.2f}",
            f"{lone_cpu * users / cpu:.2f}",
            f"{peak:.2f}",
            f"{out.stat().st_size / 1e6:,.0f}",
        )
        print("".join(f"{cell:>15}" for cell in cells), flush=True)
        out.unlink()


if __name__ == "__main__":
    main()
