"""What requests of every length cost in one batch: two or more repositories, one after the other.

    python -m bench.serving.mixed_lengths REPOSITORY REPOSITORY ... [--model NAME ...]
                                  [--concurrency 32] [--longest 100] [--rounds 5] [--seconds 4]
                                  [--url ADDRESS ...]

For two versions of a model, or two ways to send the same request. Each repository has a Triton of
its own, or the one that `--url` names in the same order (NVIDIA's container); the others are
idle while one is measured; they take turns, `--rounds` times. Shown are medians, and how many rows
a run of the model had on average, by the server's own count.

Each request has one user, and a history of 0 to `--longest` ids; every fifth is empty. The layout
of what goes with it is read from the repository's `contract.json`: a list of numbers of any length
gets one for each id, one of fixed width gets them at its end. perf_analyzer is fetched by
pip, unless `--perf-analyzer` names one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness.perf_analyzer import Figures, PerfAnalyzer, batching
from seqrec_export.data.raw_requests import Request
from seqrec_export.folders import read_json
from seqrec_export.repository.published import versions
from seqrec_export.serving import server

EMPTY_EVERY = 5


def requests_of(model: Path, count: int, longest: int) -> list[Request]:
    """The same users for every repository, each laid out as its contract says."""
    contract = read_json(model / "contract.json")
    golden = read_json(model / str(versions(model)[-1]) / "golden.json")
    ids = known_ids(golden)
    requests = []
    for number in range(count):
        rng = np.random.default_rng(number)
        length = 0 if number % EMPTY_EVERY == 0 else int(rng.integers(1, longest + 1))
        numbers = rng.uniform(1, 5, longest).astype(np.float32)
        places = rng.integers(0, 2**31, longest)
        request: Request = {}
        for entry in contract["inputs"]:
            name, size = entry["name"], entry["shape"][1]
            if entry["datatype"] == "BYTES":
                known = ids.get(name) or [""]
                width = size if isinstance(size, int) else 20 if "candidate" in name else length
                chosen = [known[place % len(known)] for place in places[:width]]
                request[name] = np.array([chosen], object).reshape(1, width)
            elif entry["datatype"] != "FP32":
                request[name] = np.zeros((1, size), np.int32)
            elif isinstance(size, int):
                row = np.full(size, np.nan, np.float32)
                kept = min(size, length)
                row[size - kept :] = numbers[length - kept : length]
                request[name] = row[None]
            else:
                request[name] = numbers[None, :length]
        requests.append(request)
    return requests


def known_ids(golden: Mapping[str, Any]) -> dict[str, list[str]]:
    """By input, ids of the golden requests with known ids only."""
    found: dict[str, list[str]] = {}
    for request in golden["requests"]:
        if request["case"].startswith("known ids"):
            for name, tensor in request["inputs"].items():
                if tensor["datatype"] == "BYTES":
                    found.setdefault(name, []).extend(filter(None, tensor["data"]))
    return found


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("repositories", type=Path, nargs="+")
    parser.add_argument("--model", action="append", help="default: gru4att and mlink")
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--longest", type=int, default=100, help="ids of a history")
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="a measurement")
    parser.add_argument("--url", action="append", help="gRPC address of one that runs already")
    parser.add_argument("--perf-analyzer", type=Path)
    options = parser.parse_args()
    if options.url and len(options.url) != len(options.repositories):
        parser.error("give --url once for each repository, or not at all")
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        load_generator = PerfAnalyzer(options.perf_analyzer, Path(temporary))
        urls = dict(zip(options.repositories, options.url or [], strict=False))
        for repository in options.repositories:
            if not options.url:
                running = server.start(repository, grpc_port=0, metrics_port=0)
                urls[repository] = stack.enter_context(running).grpc_url
        print(
            f"{options.concurrency} callers, histories of 0 to {options.longest} ids, "
            f"{os.cpu_count()} cores"
        )
        for model in options.model or ["gru4att", "mlink"]:
            measured: dict[Path, list[Figures]] = {repository: [] for repository in urls}
            for _ in range(options.rounds):
                for repository, url in urls.items():
                    load_generator.write(
                        requests_of(repository / model, options.requests, options.longest)
                    )
                    before = batching(url, model)
                    figures = load_generator.run(url, model, options.concurrency, options.seconds)
                    after = batching(url, model)
                    rows = (after[0] - before[0]) / (after[1] - before[1])
                    measured[repository].append(figures | {"batch": rows})
            show(model, measured)


def show(model: str, measured: Mapping[Path, list[Figures]]) -> None:
    print(f"\n{model:40}{'requests/s':>11}{'of first':>9}{'p50 ms':>8}{'p99 ms':>8}{'rows/run':>9}")
    first = next(iter(measured.values()))
    for repository, figures in measured.items():
        medians = {key: statistics.median(f[key] for f in figures) for key in figures[0]}
        # Of each round, since the machine changes between rounds.
        ratio = statistics.median(
            a["requests/s"] / b["requests/s"] for a, b in zip(figures, first, strict=True)
        )
        print(
            f"{repository!s:40}{medians['requests/s']:>11.0f}{ratio:>9.2f}"
            f"{medians['p50']:>8.2f}{medians['p99']:>8.2f}{medians['batch']:>9.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
