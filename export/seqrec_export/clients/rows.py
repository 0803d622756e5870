"""Rows of raw values, asked of whatever answers tensors: a server, or a graph in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2

from seqrec_export.clients.packing import Row, Tensor, pack
from seqrec_export.contract import ALIGNED_WITH
from seqrec_export.errors import SeqrecError

# What a model gives, by what a caller asks it for.
GIVES: Mapping[str, str] = {"recommend": "item_ids", "score": "scores", "encode": "_embedding"}
Infer = Callable[[dict[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]  # inputs -> outputs


@dataclass(frozen=True)
class Signature:
    """What a model takes and gives, by name."""

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    max_batch_size: int
    instances: int

    @classmethod
    def of(cls, config: Any) -> Signature:
        """That of a ModelConfig."""
        followed = {
            name.removeprefix(ALIGNED_WITH): parameter.string_value
            for name, parameter in config.parameters.items()
            if name.startswith(ALIGNED_WITH)
        }
        return cls(
            inputs={e.name: _tensor(e, followed.get(e.name, "")) for e in config.input},
            outputs={entry.name: _tensor(entry) for entry in config.output},
            max_batch_size=config.max_batch_size,
            instances=sum(g.count * max(1, len(g.gpus)) for g in config.instance_group) or 1,
        )

    @property
    def method(self) -> str:
        """The method that fits the model: `recommend`, `score`, `encode`, or only `call`."""
        given = [m for m, end in GIVES.items() if any(name.endswith(end) for name in self.outputs)]
        return given[0] if given else "call"


def call(
    model: str, signature: Signature, rows: Sequence[Row], infer: Infer
) -> list[dict[str, object]]:
    """Each row's outputs: BYTES as list[str], others as arrays. As many rows at a time as go.

    Raises SeqrecError for values that the model does not take.
    """
    require_rows(model, rows)
    size = signature.max_batch_size or 1
    results: list[dict[str, object]] = []
    for start in range(0, len(rows), size):
        results += _batch(model, signature, rows[start : start + size], infer)
    return results


def require_rows(model: str, rows: object) -> None:
    """Raise SeqrecError for what is no list of rows."""
    if isinstance(rows, Mapping):
        raise SeqrecError(f"{model} takes a list of rows, found one row; put it in brackets")
    if not isinstance(rows, Sequence):
        raise SeqrecError(f"{model} takes a list of rows, found {type(rows).__name__}")
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise SeqrecError(
                f"{model}, row {i}: takes a dict of values by input, found {type(row).__name__}"
            )


def at_most(k: int | None, top_k: int | None) -> int | None:
    """How many items to give, of the two names that it goes by."""
    if k is not None and top_k is not None:
        raise SeqrecError(f"k={k} and top_k={top_k} are the same; give one of them")
    return top_k if k is None else k


def no_input(model: str, name: str, signature: Signature) -> SeqrecError:
    """The error for an input that a model does not have."""
    return SeqrecError(f"{model} takes no {name!r}; it takes {listed(signature.inputs)}")


def listed(names: Iterable[str]) -> str:
    """Names for people, in the order of the alphabet."""
    return ", ".join(sorted(names))


def decoded(array: NDArray[Any]) -> NDArray[Any]:
    """Strings as str; other values as they are."""
    if array.dtype != object:
        return array
    texts = [item.decode() for item in array.ravel()]
    return np.array(texts, dtype=object).reshape(array.shape)


def _batch(
    model: str, signature: Signature, rows: Sequence[Row], infer: Infer
) -> list[dict[str, object]]:
    for name in {name for row in rows for name in row} - signature.inputs.keys():
        raise no_input(model, name, signature)
    batched = signature.max_batch_size > 0
    tensors = {}
    for name, tensor in signature.inputs.items():
        array = pack(model, tensor, rows)
        tensors[name] = array if batched else array[0]
    results: list[dict[str, object]] = [{} for _ in rows]
    for name, array in infer(tensors).items():
        for result, part in zip(results, array if batched else [array], strict=True):
            result[name] = part.ravel().tolist() if part.dtype == object else part
    return results


def _tensor(entry: Any, aligned_with: str = "") -> Tensor:
    """A model configuration's input or output."""
    datatype = model_config_pb2.DataType.Name(entry.data_type).removeprefix("TYPE_")
    datatype = datatype.replace("STRING", "BYTES")
    return Tensor(entry.name, datatype, tuple(entry.dims), aligned_with)
