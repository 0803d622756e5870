"""What a log costs as it grows: read, made into histories, trained on, every user embedded.

    python -m bench.scale.growth [--rows 300000 3000000 31800000] [--formats parquet csv]
                          [--steps histories train embed] [--batches 300 | --whole-epoch]
                          [--folder DIR] [--json FILE]

Logs of H&M's shape (`shop_log.py`) are written under `--folder`, once, and stay there; the full
size takes 5 GB of disk. Each measurement has a process of its own, and its files have been
read once before. `CPU s` counts all threads of the process, `peak GB` is its resident set.

- histories: the `hm` reader, then `prepare` (histories, vocabularies, split by time). Beside it the
  limit: the bytes of the transactions, to read them, and to have Arrow decode their three columns.
- train: `two_tower` with its default settings, the real training loop cut off after `--batches`,
  without the first tenth. `batch share` is the time in which batches are made. The limit is
  that of the matrix products of a step alone, forward and backward.
- embed: `embed_users`, vectors and Parquet file included, with a network that knows every customer.
  Beside it the encoder's own rate (ONNX Runtime on one and the same batch), and writing alone.
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

COLUMNS = ["t_dat", "customer_id", "article_id"]
BATCH_SIZE = 1024  # of embed, its default
Figures = dict[str, float]


class Clock:
    """Wall and CPU seconds since it was made."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def figures(self, name: str) -> Figures:
        return {
            f"{name} s": time.perf_counter() - self.wall,
            f"{name} CPU s": time.process_time() - self.cpu,
        }


def peak_gb() -> float:
    """The largest resident set so far; Linux counts it in KiB, macOS in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def limit(folder: Path) -> Figures:
    """Reading the transactions' bytes, and Arrow decoding the columns that the reader needs."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    (path,) = folder.glob("transactions_train.*")
    clock = Clock()
    with path.open("rb") as file:
        while file.read(16 << 20):
            pass
    found = {"MB": path.stat().st_size / 1e6} | clock.figures("bytes")
    clock = Clock()
    if path.suffix == ".csv":
        ids = pa.dictionary(pa.int32(), pa.string())
        types = {"t_dat": pa.string(), "customer_id": ids, "article_id": ids}
        pyarrow.csv.read_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(block_size=16 << 20),
            convert_options=pyarrow.csv.ConvertOptions(column_types=types, include_columns=COLUMNS),
        )
    else:
        pyarrow.parquet.read_table(path, columns=COLUMNS, read_dictionary=COLUMNS[1:])
    return found | clock.figures("decode")


def histories(folder: Path) -> Figures:
    from seqrec_export.data.histories import prepare
    from seqrec_export.data.readers import read

    clock = Clock()
    log = read(f"hm:{folder}")
    found = clock.figures("read") | {"read GB": peak_gb()}
    clock = Clock()
    dataset = prepare(log, "time", new_items=True)
    found |= clock.figures("prepare") | {"peak GB": peak_gb()}
    sizes = {"users": len(log.user_ids), "items": len(log.item_ids), "train": len(dataset.train)}
    return found | sizes


def train(folder: Path, run: Path, count: int) -> Figures:
    """An epoch of `count` batches (0: all), with no evaluation, into a run that embeds."""
    from dataclasses import replace
    from itertools import islice

    from seqrec_export.data.readers import read
    from seqrec_export.models.registry import MODELS
    from seqrec_export.training.train import train

    model = MODELS["two_tower"]
    marks: list[tuple[float, float, float]] = []  # when a batch was asked for, made, CPU till then
    positives: list[int] = []  # of an epoch, by epoch

    def batches(dataset: Any, *arguments: Any) -> Iterator[Any]:
        positives.append(len(dataset.train))
        source = model.batches(dataset, *arguments)
        for _ in range(total(dataset, arguments[0])):
            asked = time.perf_counter()
            batch = next(source)
            marks.append((asked, time.perf_counter(), time.process_time()))
            yield batch

    def total(*arguments: Any) -> int:
        return min(count or sys.maxsize, model.num_batches(*arguments))

    def evaluate(*arguments: Any) -> dict[str, float]:
        return {model.metric.name: 0.0}

    config = model.config(epochs=1)
    train(
        replace(
            model,
            batches=batches,
            num_batches=total,
            evaluate=evaluate,
            baselines=lambda *_: {},
        ),
        read(f"hm:{folder}"),
        config,
        run,
        progress=False,
    )
    counted = marks[len(marks) // 10 :]
    steps, wall = len(counted) - 1, counted[-1][1] - counted[0][1]
    making = sum(made - asked for asked, made, _ in islice(counted, 1, None))
    rate = steps * config.batch_size / wall
    return {
        "batches": float(len(marks)),
        "positives": float(positives[0]),
        "positives/s": rate,
        "epoch s": positives[0] / rate,
        "positives/CPU s": steps * config.batch_size / (counted[-1][2] - counted[0][2]),
        "batch share": making / wall,
        "limit positives/s": products(config),
        "peak GB": peak_gb(),
    }


def products(config: Any) -> float:
    """Positives a second of the towers' and the logits' matrix products alone."""
    import torch

    batch, width = config.batch_size, config.id_dim + 28
    shapes = [
        *[(batch, width, config.hidden), (batch, config.hidden, config.dim)] * 2,
        (batch, config.dim, batch),
    ]
    pairs = [(torch.randn(rows, k), torch.randn(k, columns)) for rows, k, columns in shapes]

    def step() -> None:
        for left, right in pairs:
            out = left @ right
            _ = out @ right.T, left.T @ out

    return batch / shortest(step)


def embed(folder: Path, run_folder: Path) -> Figures:
    import numpy as np

    from seqrec_export.data.raw_requests import RawLog
    from seqrec_export.data.readers import read
    from seqrec_export.exporting.embed import embed_users, write_vectors
    from seqrec_export.exporting.exported import export_run
    from seqrec_export.exporting.runtime import feeds, session
    from seqrec_export.training.train import load

    clock = Clock()
    run = load(run_folder)
    exported = export_run(run)
    found = clock.figures("export")
    log = read(f"hm:{folder}")
    users = len(log.user_ids)
    clock = Clock()
    with tempfile.TemporaryDirectory(dir=folder.parent) as out:
        vectors, _ = embed_users(run, log, Path(out) / "users.npy")
        found |= clock.figures("embed") | {"peak GB": peak_gb()}
        clock = Clock()
        copy = np.array(np.load(vectors, mmap_mode="r"))
        np.save(Path(out) / "copy.npy", copy)
        write_vectors(log.user_ids, copy, Path(out) / "copy.parquet")
        found |= clock.figures("write")
    graph = exported.graphs["two_tower_encoder"]
    runtime = session(exported.model_file("two_tower_encoder"))
    at = np.arange(min(BATCH_SIZE, users))
    raw = RawLog(log)
    request = raw.requests(graph.inputs, at, raw.offsets[at + 1], raw.times[at], 1)
    fed = feeds(graph, request)
    found["encoder users/s"] = len(at) / shortest(lambda: runtime.run(None, fed))
    return found | {"users": users, "users/s": users / found["embed s"]}


def shortest(function: Callable[[], Any], seconds: float = 2.0) -> float:
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - began)
    return best


def measured(step: str, *arguments: object) -> Figures:
    """The figures of one step, measured in a process of its own."""
    command = [sys.executable, "-m", "bench.scale.growth", "--measure", step]
    command += map(str, arguments)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def table(title: str, rows: dict[int, Figures], columns: dict[str, str]) -> None:
    """A line a size; `columns` maps headings to formats."""
    widths = {name: max(len(name), 8) + 3 for name in columns}
    print(f"\n{title}\n{'rows':>12}" + "".join(f"{name:>{widths[name]}}" for name in columns))
    for count, figures in rows.items():
        cells = (
            f"{format(figures[name], form) if name in figures else '':>{widths[name]}}"
            for name, form in columns.items()
        )
        print(f"{count:>12,}" + "".join(cells), flush=True)


def per_million(rows: dict[int, Figures], name: str) -> None:
    """Adds CPU seconds a million rows, and as a multiple of those of the size before."""
    before = None
    for count, figures in rows.items():
        each = figures[name] / count * 1e6
        figures["CPU s/M rows"] = each
        if before is not None:
            figures["of the size before"] = each / before
        before = each


def show(results: dict[str, dict[int, Figures]]) -> None:
    for name, rows in results.items():
        step, _, form = name.partition(" ")
        if step == "histories":
            per_million(rows, "CPU s")
            columns = {"read s": ".2f", "read CPU s": ".2f", "prepare s": ".2f"}
            columns |= {"prepare CPU s": ".2f", "peak GB": ".2f", "rows/s": ",.0f"}
            columns |= {"CPU s/M rows": ".2f", "of the size before": ".2f"}
            table(f"histories from {form}", rows, columns)
            table("  the limit", rows, {"MB": ",.1f", "bytes s": ".2f", "decode CPU s": ".2f"})
        elif step == "train":
            columns = {"positives": ",.0f", "batches": ".0f", "positives/s": ",.0f"}
            columns |= {
                "positives/CPU s": ",.0f",
                "limit positives/s": ",.0f",
                "batch share": ".3f",
                "epoch s": ",.0f",
            }
            table("one epoch of two_tower", rows, columns | {"peak GB": ".2f"})
        else:
            per_million(rows, "embed CPU s")
            columns = {"users": ",.0f", "embed s": ".2f", "embed CPU s": ".2f", "users/s": ",.0f"}
            columns |= {"encoder users/s": ",.0f", "write s": ".2f", "export s": ".2f"}
            columns |= {"peak GB": ".2f", "of the size before": ".2f"}
            table("embed", rows, columns)


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[300_000, 3_000_000, 31_800_000])
    parser.add_argument("--formats", nargs="+", default=["parquet", "csv"])
    parser.add_argument("--steps", nargs="+", default=["histories", "train", "embed"])
    parser.add_argument("--batches", type=int, default=300)
    parser.add_argument("--whole-epoch", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "scale")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        step, folder, *rest = options.measure
        functions: dict[str, Callable[..., Figures]] = {
            "limit": limit,
            "histories": histories,
            "train": lambda log, run, count: train(log, Path(run), int(count)),
            "embed": lambda log, run: embed(log, Path(run)),
        }
        print(json.dumps(functions[step](Path(folder), *rest)))
        return
    results: dict[str, dict[int, Figures]] = {}
    for rows in options.rows:
        here = options.folder / str(rows)
        for form in options.formats:
            log = here / form
            if not log.exists():
                command = [sys.executable, "-m", "bench.scale.shop_log", str(rows), form, str(log)]
                subprocess.run(command, check=True)
            if "histories" in options.steps:
                found = measured("limit", log) | measured("histories", log)
                found["CPU s"] = found["read CPU s"] + found["prepare CPU s"]
                found["rows/s"] = rows / (found["read s"] + found["prepare s"])
                results.setdefault(f"histories {form}", {})[rows] = found
        run = here / "two_tower"
        log = here / options.formats[0]
        if "train" in options.steps:
            found = measured("train", log, run, 0 if options.whole_epoch else options.batches)
            results.setdefault("train", {})[rows] = found
        if "embed" in options.steps:
            results.setdefault("embed", {})[rows] = measured("embed", log, run)
        print(f"{rows:,} rows done, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    show(results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
