"""ONNX Runtime against PyTorch, on requests as a client would send them: raw strings and numbers.

A graph may be published only if every case holds. Ranked ids are compared tie-aware: ONNX Runtime
gives the lowest index among equal scores, PyTorch any.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from seqrec_export.graph import Graph, Spec
from seqrec_export.layers import LOWEST
from seqrec_export.vocabulary import Vocabulary

Request = dict[str, NDArray[Any]]  # raw tensors: object (str), float32, int32
_BATCHES = (1, 2, 7, 64)
_CONTENTS = ("known", "mixed", "holes", "padding", "unknown", "odd numbers")
_CANDIDATES = (0, 1, 50)
_PLAUSIBLE = 100.0  # no score or vector of a sound request is larger
_NOT_AN_ID = "\N{SNOWMAN} no such id"


@dataclass
class GraphParity:
    """What the comparison of one graph found."""

    graph: str
    atol: float
    cases: int = 0
    max_abs_diff: float = 0.0
    failures: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether the graph may be published."""
        return not self.failures

    def as_dict(self) -> dict[str, Any]:
        """For parity.json."""
        return {
            "graph": self.graph,
            "provider": "CPUExecutionProvider",
            "onnxruntime": onnxruntime.__version__,
            "torch": torch.__version__,
            "atol": self.atol,
            "cases": self.cases,
            "max_abs_diff": self.max_abs_diff,
            "ok": self.ok,
            "failures": self.failures[:20],
        }


def session(path: Path, threads: int = 0) -> onnxruntime.InferenceSession:
    """A CPU session; `threads` 0 takes all cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def random_request(
    graph: Graph,
    vocabularies: Mapping[str, Vocabulary],
    rng: np.random.Generator,
    *,
    batch: int,
    length: int,
    content: str = "mixed",
    candidates: int = 50,
    unequal: bool = False,
) -> Request:
    """One random request for a graph. `unequal` gives parallel lists other lengths."""
    sizes = {"batch": batch, "length": length, "candidates": candidates}
    request: Request = {}
    for spec in graph.inputs:
        shape = []
        for axis in spec.shape:
            if isinstance(axis, int):
                shape.append(axis)
            elif axis in sizes:
                shape.append(sizes[axis])
            else:
                shape.append(max(0, length + (int(rng.integers(-2, 3)) if unequal else 0)))
        request[spec.name] = _random_tensor(spec, tuple(shape), vocabularies, rng, content)
    return request


def _random_tensor(
    spec: Spec,
    shape: tuple[int, ...],
    vocabularies: Mapping[str, Vocabulary],
    rng: np.random.Generator,
    content: str,
) -> NDArray[Any]:
    if spec.dtype == "string":
        assert spec.vocabulary is not None
        ids = vocabularies[spec.vocabulary].strings
        values = ids[rng.integers(2, max(len(ids), 3), shape) % len(ids)]
        choice = rng.random(shape)
        if content == "padding":
            values = np.full(shape, "", dtype=object)
        elif content == "unknown":
            values = np.full(shape, _NOT_AN_ID, dtype=object)
        elif content == "holes":
            values = np.where(choice < 0.4, "", values)
        elif content != "known":
            values = np.where(choice < 0.1, _NOT_AN_ID, np.where(choice < 0.2, "", values))
        return np.asarray(values, dtype=object)
    if spec.dtype == "int32":
        return rng.integers(-1, 15, shape).astype(np.int32)
    scale = 1.0 if spec.name == "user_embedding" else 60.0
    numbers = (rng.standard_normal(shape) * scale).astype(np.float32)
    if content == "odd numbers":
        odd = np.array([np.nan, np.inf, -np.inf, 0.0, 3e38, -1e-38], np.float32)
        numbers = np.where(rng.random(shape) < 0.5, rng.choice(odd, shape), numbers)
    return np.asarray(numbers, dtype=np.float32)


def cases(window: int) -> Iterator[dict[str, Any]]:
    """Batch, length, content and candidates of every case of the grid."""
    lengths = (0, 1, max(window - 1, 1), window, window + 1, 3 * window)
    grid = itertools.product(_BATCHES, lengths, _CONTENTS)
    for i, (batch, length, content) in enumerate(grid):
        yield {
            "batch": batch,
            "length": length,
            "content": content,
            "candidates": _CANDIDATES[i % len(_CANDIDATES)],
            "unequal": i % 5 == 0,
        }


def reference(
    graph: Graph, net: torch.nn.Module, vocabularies: Mapping[str, Vocabulary], request: Request
) -> dict[str, NDArray[Any]]:
    """What PyTorch answers to a raw request; strings are looked up in Python."""
    tensors = []
    for spec in graph.inputs:
        values = request[spec.name]
        if spec.dtype == "string":
            assert spec.vocabulary is not None
            values = vocabularies[spec.vocabulary].encode(values)
        tensors.append(torch.from_numpy(np.ascontiguousarray(values)))
    with torch.inference_mode():
        outputs = graph.function(net, *tensors)
    answers: dict[str, NDArray[Any]] = {}
    for spec, output in zip(graph.outputs, outputs, strict=True):
        array = output.numpy()
        if spec.dtype == "string":
            assert spec.vocabulary is not None
            array = vocabularies[spec.vocabulary].decode(array)
        answers[spec.name] = array
    return answers


def answer(
    runtime: onnxruntime.InferenceSession, graph: Graph, request: Request
) -> dict[str, NDArray[Any]]:
    """What ONNX Runtime answers to a raw request."""
    names = [spec.name for spec in graph.outputs]
    return dict(zip(names, runtime.run(names, request), strict=True))


def compare(
    graph: Graph,
    expected: Mapping[str, NDArray[Any]],
    got: Mapping[str, NDArray[Any]],
    wide: Mapping[str, NDArray[Any]] | None,
) -> tuple[float, list[str]]:
    """Largest absolute difference, and what is wrong, if anything.

    `wide` is the reference's ranking far beyond the K of `expected`, for ids that tie.
    """
    largest, wrong = 0.0, []
    for spec in graph.outputs:
        want, have = expected[spec.name], got[spec.name]
        if want.shape != have.shape:
            wrong.append(f"{spec.name} has the shape {have.shape} instead of {want.shape}")
        elif spec.dtype == "float32":
            if not np.isfinite(have).all():
                wrong.append(f"{spec.name} holds NaN or infinity")
            # LOWEST is a mark, not a number: its place has to agree exactly.
            elif ((want == LOWEST) != (have == LOWEST)).any():
                wrong.append(f"{spec.name} excludes other items")
            elif want.size:
                real = want != LOWEST
                difference = np.abs(np.where(real, want.astype(np.float64) - have, 0)).max()
                magnitude = float(np.abs(np.where(real, want, 0)).max())
                if magnitude < _PLAUSIBLE:
                    largest = max(largest, float(difference))
                # float32 has 7 digits: what comes of a caller's 1e38 is compared in proportion.
                elif difference <= graph.atol * magnitude:
                    continue
                if difference > graph.atol:
                    wrong.append(f"{spec.name} differs by {difference:.3g}")
        elif spec.dtype == "int32" and (want != have).any():
            wrong.append(f"{spec.name} is {have.ravel()[:5]} instead of {want.ravel()[:5]}")
    if wide is not None and not wrong:
        wrong += _ids_out_of_place(graph, got, wide)
    return largest, wrong


def _ids_out_of_place(
    graph: Graph, got: Mapping[str, NDArray[Any]], wide: Mapping[str, NDArray[Any]]
) -> list[str]:
    for row in range(len(got["item_ids"])):
        known = dict(zip(wide["item_ids"][row], wide["scores"][row], strict=True))
        ids = [i for i in got["item_ids"][row] if i]
        if len(set(ids)) != len(ids):
            return ["item_ids holds an id twice"]
        for identifier, score in zip(got["item_ids"][row], got["scores"][row], strict=True):
            # Where the catalogue has no more items, an empty id stands beside LOWEST.
            expected = known.get(identifier, np.inf) if identifier else LOWEST
            if abs(expected - score) > graph.atol:
                return [
                    f"item_ids: {identifier!r} has the score {score}, PyTorch gives it {expected}"
                ]
    return []


def check(
    graph: Graph,
    wide: Graph,
    net: torch.nn.Module,
    vocabularies: Mapping[str, Vocabulary],
    path: Path,
    *,
    window: int,
    seed: int = 0,
) -> GraphParity:
    """Compare one exported graph with PyTorch over the whole grid."""
    runtime = session(path)
    rng = np.random.default_rng(seed)
    result = GraphParity(graph.name, graph.atol)
    ranked = any(spec.name == "item_ids" for spec in graph.outputs)
    has_length = any("length" in spec.shape for spec in graph.inputs)
    for case in cases(window):
        if not has_length and case["length"] not in (0, window):
            continue
        request = random_request(graph, vocabularies, rng, **case)
        expected = reference(graph, net, vocabularies, request)
        full = reference(wide, net, vocabularies, request) if ranked else None
        largest, wrong = compare(graph, expected, answer(runtime, graph, request), full)
        result.cases += 1
        result.max_abs_diff = max(result.max_abs_diff, largest)
        result.failures += [f"{case}: {w}" for w in wrong]
    return result
