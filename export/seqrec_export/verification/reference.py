"""What PyTorch answers to a raw request: in float32 as trained, and in float64 as the reference."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from seqrec_export.contract import Graph, Tolerance
from seqrec_export.data.raw_requests import Request
from seqrec_export.data.vocabulary import NUM_RESERVED, Vocabulary
from seqrec_export.nn.layers import LOWEST
from seqrec_export.nn.ragged import Ragged

Answer = dict[str, NDArray[Any]]  # by output
_CATALOGUE_SCORES_AT_ONCE = 8_000_000  # in float64: 64 MB
_VALUES_AT_ONCE = 16_000  # of a list; each candidate may pass through a network of its own


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What the answer to one request should be."""

    single: Answer  # PyTorch in float32
    double: Answer  # PyTorch in float64; floats as float64
    catalogue: NDArray[np.float64] | None  # (B, V) of a graph that ranks, LOWEST if left out

    def rows(self, chosen: slice) -> Reference:
        """The reference of some rows of the request."""
        return Reference(
            single={name: values[chosen] for name, values in self.single.items()},
            double={name: values[chosen] for name, values in self.double.items()},
            catalogue=None if self.catalogue is None else self.catalogue[chosen],
        )


class PyTorch:
    """The network of a run, eager, on the CPU."""

    def __init__(self, net: torch.nn.Module, vocabularies: Mapping[str, Vocabulary]) -> None:
        self.vocabularies = vocabularies
        self.single = net.eval()

    @cached_property
    def double(self) -> torch.nn.Module:
        """The same network in float64."""
        return copy.deepcopy(self.single).double()

    def answer(self, graph: Graph, request: Request) -> Answer:
        """By output, in float32."""
        return self._answer(graph, self.single, self.tensors(graph, request))

    def reference(self, graph: Graph, request: Request) -> Reference:
        """What every other way of computing the graph is compared with."""
        tensors = self.tensors(graph, request)
        single = self._answer(graph, self.single, tensors)
        tensors = [t.double() if t.is_floating_point() else t for t in tensors]
        if graph.reference_scores is None:
            double = self._answer(graph, self.double, tensors)
            return Reference(single=single, double=double, catalogue=None)
        rows = max(1, _CATALOGUE_SCORES_AT_ONCE // self.vocabularies["items"].num_rows)
        with torch.inference_mode():
            parts = [graph.reference_scores(self.double, *p) for p in _parts(graph, tensors, rows)]
        scores = torch.cat(parts)
        scores[:, :NUM_RESERVED] = LOWEST
        best = np.full(single["scores"].shape, LOWEST)  # also of what a small catalogue lacks
        found = scores.topk(min(best.shape[1], scores.shape[1]), dim=1).values
        best[:, : found.shape[1]] = found.numpy()
        double = single | {"scores": best}
        return Reference(single=single, double=double, catalogue=scores.numpy())

    def tensors(self, graph: Graph, request: Request) -> list[torch.Tensor]:
        """A request as the network takes it; strings are looked up in Python."""
        tensors = []
        for spec in graph.inputs:
            values = request[spec.name]
            if spec.dtype == "string":
                assert spec.vocabulary is not None
                values = self.vocabularies[spec.vocabulary].encode(values)
            tensors.append(torch.from_numpy(np.ascontiguousarray(values)))
        return tensors

    def _answer(self, graph: Graph, net: torch.nn.Module, tensors: list[torch.Tensor]) -> Answer:
        rows = max(1, _VALUES_AT_ONCE // max(1, *(tensor.shape[1] for tensor in tensors)))
        with torch.inference_mode():
            parts = [graph.function(net, *part) for part in _parts(graph, tensors, rows)]
        shapes = {spec.shape: t.shape for spec, t in zip(graph.inputs, tensors, strict=True)}
        answers: Answer = {}
        for spec, outputs in zip(graph.outputs, zip(*parts, strict=True), strict=True):
            array = torch.cat(outputs).numpy()
            if spec.ragged:
                array = array.reshape(shapes[spec.shape])
            if spec.dtype == "string":
                assert spec.vocabulary is not None
                array = self.vocabularies[spec.vocabulary].decode(array)
            answers[spec.name] = array
        return answers


def arguments(graph: Graph, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor | Ragged]:
    """What `graph.function` takes after the network, from (B, ...) tensors."""
    return [
        Ragged.of(tensor) if spec.ragged else tensor
        for spec, tensor in zip(graph.inputs, tensors, strict=True)
    ]


def _parts(
    graph: Graph, tensors: list[torch.Tensor], rows: int
) -> Iterator[list[torch.Tensor | Ragged]]:
    for start in range(0, len(tensors[0]), rows):
        yield arguments(graph, [tensor[start : start + rows] for tensor in tensors])


@dataclass(frozen=True, kw_only=True)
class Provider:
    """One way of computing a graph, and how far it may be off."""

    name: str
    answer: Callable[[Request], Answer]
    tolerance: Tolerance


Extra = Callable[[Graph], Provider]
