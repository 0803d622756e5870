"""What serving costs: Triton over gRPC next to ONNX Runtime and PyTorch in process.

    python -m bench.serving.throughput RUN [--graph NAME] [--concurrency 1,32] [--rounds 3]
                                       [--seconds 4]

Requests are the held-out rows of the run's log, one user each, histories as long as they are.
Triton is the embedded one with its Python-based backend, asked by NVIDIA's own load generator,
`perf_analyzer`, over gRPC on the same cores; in process, as many threads as the concurrency call
one session (or network) with a request each. Contenders take turns, `--rounds` times; shown are
medians.

perf_analyzer is fetched by pip, unless `--perf-analyzer` names one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnxruntime
import torch

from bench.harness.perf_analyzer import Figures, PerfAnalyzer, batching
from seqrec_export.data.raw_requests import Request
from seqrec_export.exporting.exported import Exported, export_run
from seqrec_export.exporting.runtime import answer, session
from seqrec_export.repository.publish import publish
from seqrec_export.serving import server
from seqrec_export.training.train import load
from seqrec_export.verification.cases import stack
from seqrec_export.verification.gate import refused, verify
from seqrec_export.verification.reference import PyTorch


def in_process(
    ask: Callable[[Request], Any], requests: list[Request], threads: int, seconds: float
) -> Figures:
    """Each thread asks one request after the other."""
    latencies: list[list[float]] = [[] for _ in range(threads)]
    end = time.perf_counter() + seconds

    def work(number: int) -> None:
        i = number
        while (began := time.perf_counter()) < end:
            ask(requests[i % len(requests)])
            latencies[number].append(time.perf_counter() - began)
            i += 1

    workers = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    taken = time.perf_counter() - began
    times = sorted(1000 * t for some in latencies for t in some)
    return {
        "requests/s": len(times) / taken,
        "p50": times[len(times) // 2],
        "p99": times[len(times) * 99 // 100],
    }


def verified(run_folder: Path) -> Exported:
    exported = export_run(load(run_folder))
    if said := refused(exported, verify(exported)):
        raise SystemExit(said)
    return exported


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a run of `seqrec-export train` or `build`")
    parser.add_argument("--graph", help="default: the model's first, which recommends or rates")
    parser.add_argument("--concurrency", default="1,32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="a measurement")
    parser.add_argument("--perf-analyzer", type=Path)
    arguments = parser.parse_args()
    exported = verified(arguments.run)
    graph = exported.graphs[arguments.graph or next(iter(exported.graphs))]
    requests = [stack(graph, [row]) for row in exported.run.held_out]
    lengths = [max(values.shape[1] for values in request.values()) for request in requests]
    torch.set_num_threads(1)
    runtime = session(exported.model_file(graph.name), threads=1)
    pytorch = PyTorch(exported.run.net, exported.run.vocabularies)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        publish(exported, folder / "repository")
        load_generator = PerfAnalyzer(arguments.perf_analyzer, folder)
        load_generator.write(requests)
        with server.start(
            folder / "repository", grpc_port=0, http_port=0, metrics_port=0
        ) as triton:
            url = triton.grpc_url

            def over_grpc(concurrency: int) -> Figures:
                before = batching(url, graph.name)
                figures = load_generator.run(url, graph.name, concurrency, arguments.seconds)
                after = batching(url, graph.name)
                return figures | {"batch": (after[0] - before[0]) / (after[1] - before[1])}

            contenders: Mapping[str, Callable[[int], Figures]] = {
                "PyTorch eager, in process": lambda n: in_process(
                    lambda r: pytorch.answer(graph, r), requests, n, arguments.seconds
                ),
                "ONNX Runtime, in process": lambda n: in_process(
                    lambda r: answer(runtime, graph, r), requests, n, arguments.seconds
                ),
                "Triton, gRPC": over_grpc,
            }
            print(
                f"{graph.name}: {len(requests)} requests of {min(lengths)} to {max(lengths)} ids "
                f"(median {statistics.median(lengths):g}), "
                f"{len(exported.run.vocabularies['items']):,} items, {os.cpu_count()} cores, "
                f"onnxruntime {onnxruntime.__version__}, torch {torch.__version__}"
            )
            for concurrency in map(int, arguments.concurrency.split(",")):
                show(concurrency, contenders, arguments.rounds)


def show(concurrency: int, contenders: Mapping[str, Callable[[int], Figures]], rounds: int) -> None:
    measured: dict[str, list[Figures]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, measure in contenders.items():
            measured[name].append(measure(concurrency))
    medians = {
        name: {key: statistics.median(f[key] for f in some) for key in some[0]}
        for name, some in measured.items()
    }
    base = medians["ONNX Runtime, in process"]
    head = ("requests/s", "of ORT", "p50 ms", "less ORT", "p99 ms", "batch")
    print(f"\nconcurrency {concurrency:<14}", *(f"{column:>10}" for column in head))
    for name, row in medians.items():
        columns = (
            f"{row['requests/s']:.0f}",
            f"{row['requests/s'] / base['requests/s']:.2f}",
            f"{row['p50']:.2f}",
            f"{row['p50'] - base['p50']:+.2f}",
            f"{row['p99']:.2f}",
            f"{row.get('batch', 1):.1f}",
        )
        print(f"{name:26}", *(f"{column:>10}" for column in columns), flush=True)


if __name__ == "__main__":
    main()
