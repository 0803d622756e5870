"""What only a CUDA card can show: parity there, latency next to eager PyTorch, training speed.

    GOMP_SPINCOUNT=1000 python -m bench.cuda.gpu_check [--model caser sasrec] [--jobs 5]
                                                       [--out bench/results]
    GOMP_SPINCOUNT=1000 python -m bench.cuda.gpu_check \\
        --device cpu --users 200 --items 100 --events 4000

Trains models on the synthetic log, exports and verifies them, `--jobs` at a time, then measures one
after another, and writes one file, again after every model: `<out>/gpu_check-<name of the
device>.json`. Exits 1 if ONNX Runtime has no CUDA
device or a graph is not what it should be. `--device cpu` is a rehearsal: it hides the card, and
what would be measured on it is null and SKIPPED, with the reason. NOTES say what the numbers mean.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
import torch

from seqrec_export.contract import Graph
from seqrec_export.data.histories import Dataset, prepare
from seqrec_export.data.interactions import Interactions
from seqrec_export.data.readers import read
from seqrec_export.data.vocabulary import PAD
from seqrec_export.errors import SeqrecError
from seqrec_export.exporting.exported import Exported, export_run, find_export
from seqrec_export.exporting.runtime import (
    RUNTIME_ERRORS,
    cuda_session,
    feeds,
    session,
    why_no_cuda,
)
from seqrec_export.folders import write_json
from seqrec_export.models.model import Batch, fill_buffers
from seqrec_export.models.registry import MODELS
from seqrec_export.training.train import Run, library_versions, load, train
from seqrec_export.verification.cases import Case, draw
from seqrec_export.verification.gate import verify
from seqrec_export.verification.reference import PyTorch, arguments
from seqrec_export.verification.verdict import CPU, CUDA, Verdict

EAGER = "PyTorch eager"
DEVICES = ("cuda", "cpu")
SIZES = ("users", "items", "events")
REQUESTS = 10  # a round
BATCHES = (1, 8, 64)
STEPS = 20  # a round
NOTES = {
    "parity": "By provider: the largest differences to PyTorch in float64 over all cases.",
    "latency": f"Milliseconds a request: the median of the rounds' means over {REQUESTS} requests "
    "of known ids, histories as long as the window; to_eager is the median of the rounds' ratios. "
    "PyTorch gets tensors of indices on its device and leaves the answer there; ONNX Runtime gets "
    "strings from the host, looks them up, and brings the answer back. float32 without TF32; what "
    "runs on the CPU has one thread.",
    "training": "Targets a second. whole: the training as it was, with the making of batches, "
    "validation and checkpoints, beside those of other models if --jobs is above 1. "
    f"loop: {STEPS} batches made beforehand, to the device, loss, "
    "gradients, Adam; on CUDA in bfloat16 by autocast, as the training; on the CPU with "
    "cpu_threads.",
}
Timed = Callable[[], None]


def interleaved(contenders: Mapping[str, Timed], rounds: int) -> dict[str, list[float]]:
    """Seconds of each in each round; a round that is not counted warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for counted in [False] + [True] * rounds:
        for name, contender in contenders.items():
            began = time.perf_counter()
            contender()
            if counted:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def ratio(these: list[float], those: list[float]) -> float:
    return rounded(median(a / b for a, b in zip(these, those, strict=True)))


def rounded(value: float) -> float:
    return float(f"{value:.4g}")


def skipped(reason: str, *fields: str) -> dict[str, Any]:
    return {"status": "SKIPPED", **dict.fromkeys(fields), "reason": reason}


def parity(verdict: Verdict) -> dict[str, Any]:
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in verdict.as_dict()["results"]:
        rows.setdefault(row["provider"], []).append(row)
    rows.pop("all", None)  # classes of cases that this graph does not have
    worst = ("max_abs_diff", "max_rel_diff")
    return {
        provider: skipped(found[0]["reason"], "cases", *worst)
        if found[0]["status"] == "SKIPPED"
        else {
            "status": "FAIL" if any(row["failed"] for row in found) else "OK",
            "cases": sum(row["cases"] for row in found),
            **{name: max(row[name] for row in found) for name in worst},
        }
        for provider, found in rows.items()
    }


def latency(
    exported: Exported, graph: Graph, batch: int, device: str, options: argparse.Namespace
) -> dict[str, Any]:
    run, path = exported.run, exported.model_file(graph.name)
    axes = {axis for spec in graph.inputs for axis in spec.shape}
    window = getattr(run.config, "max_length", 1)
    sizes = {"batch": batch, "length": window, "candidates": 100}
    case, rng = Case(name="known ids", **sizes), np.random.default_rng(options.seed)
    requests = [draw(graph, run.vocabularies, rng, case) for _ in range(REQUESTS)]
    lookup = PyTorch(run.net, run.vocabularies)
    looked_up = (lookup.tensors(graph, request) for request in requests)
    tensors = [[tensor.to(device) for tensor in inputs] for inputs in looked_up]
    flat = [feeds(graph, request) for request in requests]
    net = copy.deepcopy(run.net).to(device).eval()

    def eager() -> None:
        for inputs in tensors:
            graph.function(net, *arguments(graph, inputs))
            wait(device)

    def runtime(loaded: onnxruntime.InferenceSession) -> None:
        for values in flat:
            loaded.run(None, values)

    contenders: dict[str, Timed] = {EAGER: eager, CPU: partial(runtime, session(path, threads=1))}
    if not why_no_cuda():
        contenders[CUDA] = partial(runtime, cuda_session(path))
    with for_inference():
        seconds = interleaved(contenders, options.rounds)
    found: dict[str, Any] = {name: size for name, size in sizes.items() if name in axes}
    for name in (EAGER, CUDA, CPU):
        found[name] = skipped(why_no_cuda(), "median_ms", "to_eager")
        if name in seconds:
            found[name] = {
                "status": "OK",
                "median_ms": rounded(median(seconds[name]) / REQUESTS * 1e3),
                "to_eager": ratio(seconds[name], seconds[EAGER]),
            }
    found[EAGER]["device"] = device
    return found


@contextmanager
def for_inference() -> Iterator[None]:
    """PyTorch as ONNX Runtime computes, without the determinism that training asked for."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(False)
    try:
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic, warn_only=True)


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def training(
    run: Run, dataset: Dataset, device: str, options: argparse.Namespace
) -> dict[str, Any]:
    epoch = list(run.model.batches(dataset, run.config, np.random.default_rng([run.seed, 0])))
    batches, epochs, seconds = epoch[:STEPS], len(run.metrics["curve"]), run.metrics["seconds"]
    rate = rounded(epochs * sum(map(targets, epoch)) / seconds)
    whole = {"device": device, "epochs": epochs, "seconds": seconds, "targets_per_second": rate}
    able = DEVICES if device == "cuda" else ("cpu",)
    times = interleaved({on: plain_loop(run, dataset, batches, on) for on in able}, options.rounds)
    loop: dict[str, Any] = {"steps": len(batches), "cpu_threads": torch.get_num_threads()}
    for on in DEVICES:
        loop[on] = skipped(why_no_cuda_in_torch(), "targets_per_second", "times_the_cpu")
        if on in times:
            loop[on] = {
                "status": "OK",
                "targets_per_second": rounded(sum(map(targets, batches)) / median(times[on])),
                "times_the_cpu": ratio(times["cpu"], times[on]),
            }
    return {"whole": whole, "loop": loop}


def targets(batch: Batch) -> int:
    """The real ones if a row has many, else one a row; a session is one."""
    if "targets" in batch:
        return int((batch["targets"] != PAD).sum())
    return len(next(iter(batch.values())))


def plain_loop(run: Run, dataset: Dataset, batches: list[Batch], device: str) -> Timed:
    torch.manual_seed(run.seed)
    config = run.config
    net: Any = run.model.net(config, dataset.num_rows)
    fill_buffers(net, dataset)
    net.to(device).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=config.learning_rate)

    def steps() -> None:
        for batch in batches:
            optimizer.zero_grad()
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                loss = net.loss({name: tensor.to(device) for name, tensor in batch.items()})
            loss.backward()
            if config.gradient_clip:
                torch.nn.utils.clip_grad_norm_(net.parameters(), config.gradient_clip)
            optimizer.step()
        wait(device)

    return steps


def prepare_model(
    name: str, interactions: Interactions, path: Path, seed: int
) -> dict[str, dict[str, Any]]:
    """Trains, exports and verifies in a process of its own; by graph, what the gate found."""
    model = MODELS[name]
    run = train(model, interactions, model.config(), path, seed=seed, progress=False)
    return {
        graph: {
            "ok": verdict.ok,
            "failures": [str(failure) for failure in verdict.failures],
            "parity": parity(verdict),
            "pytorch_float32_max_abs_diff": verdict.torch_max_abs,
            "cpu_nodes_on_cuda": verdict.notes.get("cpu_nodes_on_cuda"),
        }
        for graph, verdict in verify(export_run(run), seed=seed).items()
    }


def measure(
    graphs: dict[str, dict[str, Any]],
    interactions: Interactions,
    path: Path,
    options: argparse.Namespace,
) -> dict[str, Any]:
    device = "cpu" if why_no_cuda_in_torch() else "cuda"
    run = load(path)
    exported, model = find_export(run), run.model
    for name, entry in graphs.items():
        graph = exported.graphs[name]
        entry["latency"] = [latency(exported, graph, n, device, options) for n in BATCHES]
    dataset = prepare(interactions, model.split, options.seed, new_items=model.ranks_new_items)
    return {"graphs": graphs, "training": training(run, dataset, device, options)}


def workers(jobs: int) -> ProcessPoolExecutor:
    """Processes that are started afresh: CUDA cannot be used in a fork."""
    return ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"))


def why_no_cuda_in_torch() -> str:
    """ONNX Runtime may have CUDA when PyTorch has not: `torch` can be built without it."""
    without = "" if torch.cuda.is_available() else "this PyTorch finds no CUDA device"
    return why_no_cuda() or without


def device_name() -> str:
    if not why_no_cuda_in_torch():
        return torch.cuda.get_device_name()
    if not why_no_cuda() and shutil.which("nvidia-smi"):
        asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        answer = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
        return answer.splitlines()[0]
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def show(name: str, found: dict[str, Any]) -> None:
    def cells(values: list[float | None]) -> str:
        return "".join(f"{'-' if v is None else format(v, '.3g'):>10}" for v in values)

    print(f"{name:23} batch  diff CPU diff CUDA  eager ms   CUDA ms    CPU ms")
    for graph, entry in found["graphs"].items():
        differences = [entry["parity"].get(p, {}).get("max_abs_diff") for p in (CPU, CUDA)]
        for row in entry["latency"]:
            times = [row[way]["median_ms"] for way in (EAGER, CUDA, CPU)]
            print(f"  {graph:22}{row['batch']:5}{cells([*differences, *times])}")
    whole, loop = found["training"]["whole"], found["training"]["loop"]
    rates = [whole, *(loop[on] for on in DEVICES)]
    print(f"  targets/s: training on {whole['device']}, loop on {', '.join(DEVICES)}", end="")
    print(cells([rate["targets_per_second"] for rate in rates]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("bench/results"))
    parser.add_argument("--model", action="extend", nargs="+", choices=list(MODELS))
    parser.add_argument("--device", choices=DEVICES, default="cuda")
    parser.add_argument("--jobs", type=int, default=1, help="models prepared at a time")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    for size in SIZES:
        parser.add_argument(f"--{size}", help="of the synthetic log")
    options = parser.parse_args()
    if options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before anything asks for a device
    elif why_no_cuda():
        raise SystemExit(why_no_cuda())
    if options.rounds < 1:
        raise SystemExit(f"--rounds is {options.rounds}; give at least 1")
    given = {size: getattr(options, size) for size in SIZES if getattr(options, size)}
    try:
        interactions = read("synthetic:" + ",".join(f"{k}={v}" for k, v in given.items()))
    except SeqrecError as error:
        raise SystemExit(str(error)) from None
    name = device_name()
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    path = options.out / f"gpu_check-{slug}.json"
    report: dict[str, Any] = {
        "device": name,
        "why_no_cuda": why_no_cuda(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": options.seed,
        "log": interactions.source,
        "rounds": options.rounds,
        "versions": library_versions()
        | {"onnxruntime": onnxruntime.__version__, "python": platform.python_version()}
        | {"CUDA of torch": torch.version.cuda},
        "note": NOTES,
        "models": {},
    }
    wrong = []
    with tempfile.TemporaryDirectory() as folder, workers(options.jobs) as pool:
        runs = {model: Path(folder) / model for model in options.model or MODELS}
        prepared = {
            model: pool.submit(prepare_model, model, interactions, run, options.seed)
            for model, run in runs.items()
        }
        wait_for(prepared.values())  # what is timed has the machine to itself
        for model, run in runs.items():
            try:
                found = measure(prepared[model].result(), interactions, run, options)
                show(model, found)
                wrong += [graph for graph, entry in found["graphs"].items() if not entry["ok"]]
            except (*RUNTIME_ERRORS, RuntimeError) as error:  # on CUDA, of this model alone
                traceback.print_exc()
                found = {"error": str(error)}
                wrong.append(model)
            report["models"][model] = found
            write_json(path, report)
    print(path)
    if wrong:
        raise SystemExit(f"{', '.join(wrong)}: failed; the reasons stand in {path}")


if __name__ == "__main__":
    main()
