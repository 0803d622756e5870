"""Encoders in process: PyTorch eager, TorchScript, torch.compile and ONNX Runtime in one run.

    python -m bench.serving.latency [--models sasrec caser] [--batch 1,8,64] [--length 50]
                                    [--seconds 4]

Prints, for each model and batch, the median time of eager PyTorch and what the others take as a
multiple of it. Networks have the default settings and are not trained; each row of a request is a
history of `--length` ids that the model knows, drawn at random. One thread, no server.

- PyTorch gets indices, ONNX Runtime the callers' strings, which it looks up within its time;
  "no lookup" is the same file without that, fed with the indices.
- All of them do all of the graph: from lists with padding anywhere to the embedding.
- All of them take turns of some 20 ms each, every turn with one call ahead that does not count. A
  multiple is the median over the rounds of turns.
- Times are what the calling thread spends on a processor, so that other processes do not count.
- malloc keeps what is freed. By default it may hand each large tensor of eager PyTorch back to the
  system and fetch it again, which took up to 1,700 page faults and twice the time; or may not,
  depending on what else the process has done before.

"at most" is what the product promises of ONNX Runtime with lookup.
"""

from __future__ import annotations

import argparse
import ctypes
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch
from torch import Tensor, nn

from seqrec_export.contract import Graph
from seqrec_export.data.raw_requests import Request
from seqrec_export.data.vocabulary import Vocabulary
from seqrec_export.exporting.onnx_export import export_graph
from seqrec_export.exporting.runtime import feeds, session
from seqrec_export.models.registry import MODELS
from seqrec_export.verification.reference import PyTorch, arguments

Call = Callable[[], Any]
EAGER, ONNX = "eager", "ONNX Runtime"
OTHERS = ("TorchScript", "torch.compile", ONNX, "no lookup")
VOCABULARIES = {
    "items": 3_500,
    "users": 6_000,
    "event_types": 5,
    "garment_group_name": 21,
    "index_group_name": 5,
}
AT_MOST = {
    ("gru4att", 1): 0.25,
    ("mlink", 1): 0.25,
    ("caser", 1): 0.25,
    ("sasrec", 1): 0.35,
    **{(name, 64): 1.0 for name in MODELS},
}
TURN = 0.02  # seconds


class Padded(nn.Module):
    """A graph over padded lists of indices: the form that TorchScript and torch.compile take."""

    def __init__(self, net: nn.Module, graph: Graph) -> None:
        super().__init__()
        self.net, self.graph = net, graph

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.graph.function(self.net, *arguments(self.graph, tensors))[0]


def draw(graph: Graph, vocabularies: Mapping[str, Vocabulary], batch: int, length: int) -> Request:
    rng = np.random.default_rng(0)
    request: Request = {}
    for spec in graph.inputs:
        axis = spec.shape[1]
        shape = (batch, axis if isinstance(axis, int) else length)
        if spec.vocabulary is not None:
            ids = np.array(vocabularies[spec.vocabulary].ids, dtype=object)
            request[spec.name] = rng.choice(ids, shape)
        else:
            dtype = np.int32 if spec.dtype == "int32" else np.float32
            request[spec.name] = rng.uniform(*spec.usual, shape).astype(dtype)
    return request


def without_lookup(path: Path) -> Path:
    """The same file with indices for strings."""
    model = ir.load(path)
    for position, strings in enumerate(model.graph.inputs):
        if strings.dtype != ir.DataType.STRING:
            continue
        (lookup,) = strings.consumers()
        indices = ir.Value(name=strings.name, shape=strings.shape, type=lookup.outputs[0].type)
        lookup.outputs[0].replace_all_uses_with(indices)
        model.graph.remove(lookup, safe=True)
        model.graph.inputs[position] = indices
    other = path.with_name("indices.onnx")
    ir.save(model, other)
    return other


class Encoder:
    """One model's encoder in all systems."""

    def __init__(self, name: str, folder: Path) -> None:
        model = MODELS[name]
        config = model.config()
        self.vocabularies = {
            name: Vocabulary(str(i) for i in range(size)) for name, size in VOCABULARIES.items()
        }
        torch.manual_seed(0)
        net = model.net(config, {name: v.num_rows for name, v in self.vocabularies.items()}).eval()
        self.graph = model.graphs(config, 1)[f"{name}_encoder"]
        self.pytorch = PyTorch(net, self.vocabularies)
        self.padded = Padded(net, self.graph).eval()
        path = export_graph(self.graph, net, self.vocabularies, folder)
        self.runtime = session(path, threads=1)
        self.runtime_without_lookup = session(without_lookup(path), threads=1)

    def calls(self, batch: int, length: int, compiler: bool) -> dict[str, Call]:
        """By system; each gives the embeddings of the same request."""
        request = draw(self.graph, self.vocabularies, batch, length)
        tensors = self.pytorch.tensors(self.graph, request)
        strings = feeds(self.graph, request)
        indices = feeds(
            self.graph,
            {s.name: t.numpy() for s, t in zip(self.graph.inputs, tensors, strict=True)},
        )
        # A traced size is a tensor, which sym_min refuses; here no size ever changes.
        with (
            mock.patch("torch.sym_min", lambda a, b: min(int(a), int(b))),
            warnings.catch_warnings(action="ignore"),
        ):
            traced = torch.jit.freeze(torch.jit.trace(self.padded, tuple(tensors)))
        calls: dict[str, Call] = {
            EAGER: lambda: self.padded(*tensors),
            "TorchScript": lambda: traced(*tensors),
            ONNX: lambda: self.runtime.run(None, strings)[0],
            "no lookup": lambda: self.runtime_without_lookup.run(None, indices)[0],
        }
        if compiler:
            torch.compiler.reset()  # or the second shape would be compiled for any shape
            compiled = torch.compile(self.padded)
            calls["torch.compile"] = lambda: compiled(*tensors)
        expected = calls[EAGER]().numpy()
        for system, call in calls.items():
            np.testing.assert_allclose(call(), expected, rtol=1e-4, atol=1e-5, err_msg=system)
        return calls


def timed(calls: Mapping[str, Call], seconds: float) -> dict[str, list[float]]:
    """Seconds a call, one for each turn; the calls take turns."""
    repeats = {}
    for system, call in calls.items():
        for _ in range(5):  # TorchScript optimises in its second and third call
            call()
        start = time.thread_time()
        call()
        repeats[system] = max(2, round(TURN / (time.thread_time() - start)))
    times: dict[str, list[float]] = {system: [] for system in calls}
    end = time.perf_counter() + seconds * len(calls)
    while time.perf_counter() < end:
        for system, call in calls.items():
            call()
            start = time.thread_time()
            for _ in range(repeats[system]):
                call()
            times[system].append((time.thread_time() - start) / repeats[system])
    return times


def row(times: Mapping[str, list[float]]) -> str:
    """Milliseconds of eager, multiples of it for the others."""
    eager = times[EAGER]
    cells = [f"{statistics.median(eager) * 1e3:>9.3f}"]
    for system in OTHERS:
        ratios = [t / e for t, e in zip(times.get(system, ()), eager, strict=False)]
        cells.append(f"{statistics.median(ratios):>13.2f}" if ratios else f"{'-':>13}")
    return " ".join(cells)


def why_no_compiler() -> str:
    """Why torch.compile cannot compile here; empty if it can."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.zeros(8))
    except torch._dynamo.exc.TorchDynamoException as error:
        return str(error).strip().splitlines()[0]
    return ""


def keep_freed_memory() -> None:
    trim_threshold, mmap_threshold = -1, -3  # as malloc.h has them
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, 1 << 30)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--batch", default="1,8,64", help="rows of a request, e.g. 1,64")
    parser.add_argument("--length", type=int, default=50, help="ids a history")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--seconds", type=float, default=4.0, help="of measuring a system")
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    reason = "left out" if options.no_compile else why_no_compiler()
    print(
        f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, "
        f"Python {platform.python_version()}, 1 thread, histories of {options.length}"
    )
    if reason:
        print(f"no torch.compile: {reason}")
    print(f"{'model':<10} {'batch':>5} {'eager ms':>9}", *(f"{s:>13}" for s in OTHERS), " at most")
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        for name in options.models:
            encoder = Encoder(name, Path(folder) / name)
            for batch in map(int, options.batch.split(",")):
                times = timed(encoder.calls(batch, options.length, not reason), options.seconds)
                print(
                    f"{name:<10} {batch:>5}", row(times), AT_MOST.get((name, batch), ""), flush=True
                )


if __name__ == "__main__":
    main()
