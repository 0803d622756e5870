"""One exported graph in ONNX Runtime and in PyTorch, random requests, and when answers agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from seqrec_export.contract import USER_EMBEDDING, Graph, Spec
from seqrec_export.data.vocabulary import Vocabulary
from seqrec_export.exporting.exported import Exported, graphs_of
from seqrec_export.exporting.runtime import answer, session
from seqrec_export.verification.reference import PyTorch

Tensors = dict[str, NDArray[Any]]
LOWEST = np.finfo(np.float32).min
TOLERANCE = 1e-5
ODD_NUMBERS = np.array([np.nan, np.inf, -np.inf, 0.0, 3e38, -3e38, -1e-38], np.float32)
_WITHOUT_FILTER = 0.6  # of the rows, for each filter
_STRANGE = ("no such id", "寿司", "ÿ", " ", "00")


@dataclass(frozen=True)
class Served:
    """One exported graph, in ONNX Runtime and in PyTorch."""

    exported: Exported
    graph: Graph

    @cached_property
    def runtime(self) -> onnxruntime.InferenceSession:
        """ONNX Runtime with the exported file, on one thread."""
        return session(self.exported.model_file(self.graph.name), threads=1)

    @cached_property
    def pytorch(self) -> PyTorch:
        """The network that it was exported from."""
        return PyTorch(self.exported.run.net, self.vocabularies)

    @property
    def vocabularies(self) -> Mapping[str, Vocabulary]:
        """The ids that the run knows."""
        return self.exported.run.vocabularies

    @property
    def window(self) -> int:
        """How many events of a history the model looks at."""
        return getattr(self.exported.run.config, "max_length", 1)

    @property
    def inputs(self) -> dict[str, Spec]:
        """By name."""
        return {spec.name: spec for spec in self.graph.inputs}

    @property
    def outputs(self) -> dict[str, Spec]:
        """By name."""
        return {spec.name: spec for spec in self.graph.outputs}

    @property
    def parallel(self) -> list[str]:
        """The history and the lists that are parallel to it."""
        lists = {name: spec for name, spec in self.inputs.items() if spec.ragged}
        return [
            name
            for name, spec in lists.items()
            if "candidates" not in spec.shape and not spec.narrows
        ]

    @property
    def ranks(self) -> bool:
        """Whether it recommends from its catalogue."""
        return "item_ids" in self.outputs

    @property
    def reads_history(self) -> bool:
        """Whether it takes the history of a user."""
        return "history_item_ids" in self.inputs

    def onnx(self, request: Tensors) -> Tensors:
        """What ONNX Runtime answers."""
        return answer(self.runtime, self.graph, request)

    def torch(self, request: Tensors, graph: Graph | None = None) -> Tensors:
        """What PyTorch answers, of this graph or another one of the model."""
        return self.pytorch.answer(graph or self.graph, request)

    def with_top_k(self, top_k: int) -> Graph:
        """The same graph with another number of answers."""
        run = self.exported.run
        return graphs_of(run.model, run.config, top_k, self.exported.attributes)[self.graph.name]

    def request(
        self,
        rng: np.random.Generator,
        *,
        batch: int,
        length: int,
        candidates: int = 20,
        unequal: bool = False,
        odd: bool = False,
        known: float = 0.7,
        padding: float = 0.15,
    ) -> Tensors:
        """`known` and `padding` are shares of the ids; the others are unknown to the model."""
        tensors = {}
        for name, spec in self.inputs.items():
            sizes = {"batch": batch, "length": length, "candidates": candidates}
            size = length if not unequal else int(rng.integers(0, length + 3))
            shape = [sizes.get(a, size) if isinstance(a, str) else a for a in spec.shape]
            tensors[name] = self._values(rng, spec, shape, odd, known, padding)
            if spec.narrows and spec.ragged:  # else nearly no answer would have an item
                without = rng.random((batch, 1)) < _WITHOUT_FILTER
                tensors[name] = np.where(without, "", tensors[name]).astype(object)
        return tensors

    def _values(
        self,
        rng: np.random.Generator,
        spec: Spec,
        shape: list[int],
        odd: bool,
        known: float,
        padding: float,
    ) -> NDArray[Any]:
        if spec.dtype == "string":
            ids = np.array(self.vocabularies[str(spec.vocabulary)].ids or _STRANGE, dtype=object)
            kind = rng.random(shape)
            unknown = np.array(_STRANGE, dtype=object)[rng.integers(0, len(_STRANGE), shape)]
            values = np.where(kind < known, ids[rng.integers(0, len(ids), shape)], unknown)
            return np.where(kind >= 1 - padding, "", values).astype(object)
        if spec.dtype == "int32":
            low, high = (-(2**31), 2**31) if odd else (0, 13)
            return rng.integers(low, high, shape).astype(np.int32)
        scale = 1.0 if spec.name == USER_EMBEDDING else 40.0
        numbers = (rng.standard_normal(shape) * scale).astype(np.float32)
        if odd:
            numbers = np.where(rng.random(shape) < 0.5, rng.choice(ODD_NUMBERS, shape), numbers)
        return numbers.astype(np.float32)


def rows(tensors: Tensors, chosen: Any) -> Tensors:
    """Some rows of a request or an answer."""
    return {name: values[chosen] for name, values in tensors.items()}


def assert_same(
    got: Tensors, expected: Tensors, tolerance: float = TOLERANCE, but: tuple[str, ...] = ()
) -> None:
    """Numbers within the tolerance, the mark LOWEST exactly; ids if no score ties."""
    assert got.keys() == expected.keys()
    for name in set(got) - set(but):
        have, want = got[name], expected[name]
        assert have.shape == want.shape, name
        if have.dtype == np.float32:
            assert ((have == LOWEST) == (want == LOWEST)).all(), name
            np.testing.assert_allclose(have, want, rtol=0, atol=tolerance, err_msg=name)
        elif name == "item_ids":
            assert_same_ranking(got, expected, tolerance)
        else:
            np.testing.assert_array_equal(have, want, err_msg=name)


def assert_same_ranking(got: Tensors, expected: Tensors, tolerance: float) -> None:
    """Ids may change places, or leave for another at the end, only among equal scores."""
    for row in range(len(got["item_ids"])):
        scores, ids = expected["scores"][row], expected["item_ids"][row]
        known = {i: s for i, s in zip(ids, scores, strict=True) if i}
        for identifier, score in zip(got["item_ids"][row], got["scores"][row], strict=True):
            assert bool(identifier) == bool(score > LOWEST)
            if identifier:
                assert abs(known.get(identifier, scores[-1]) - score) <= tolerance
