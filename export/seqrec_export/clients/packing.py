"""Rows of raw values as the tensors of a request."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.utils import triton_to_np_dtype

from seqrec_export.errors import SeqrecError

Row = Mapping[str, object]

# By the first letters of a datatype: Python's type for it, and its name in messages.
_KINDS: Mapping[str, tuple[type, str]] = {
    "BYTES": (str, "strings"),
    "BOOL": (bool, "True or False"),
    "FP": (numbers.Real, "numbers"),
    "BF": (numbers.Real, "numbers"),
    "": (numbers.Integral, "whole numbers"),
}

_SHOWN = 80  # characters of a wrong value


@dataclass(frozen=True)
class Tensor:
    """An input or output: `dims` is the shape of one row, -1 if any length is allowed.

    If it is `aligned_with` a history, its last value belongs to the history's last real event, the
    one before to the event before, and so on.
    """

    name: str
    datatype: str
    dims: tuple[int, ...]
    aligned_with: str = ""

    @property
    def unknown(self) -> object:
        """What is sent for a value that the caller does not have."""
        if self.datatype == "BYTES":
            return ""
        return float("nan") if self.datatype.startswith("FP") else 0


def values(value: object) -> list[Any]:
    """A row's value for one input as a list."""
    if value is None:
        return []
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]


def pack(model: str, tensor: Tensor, rows: Sequence[Row]) -> NDArray[Any]:
    """(B, L): each row's values, padded to the longest with unknowns, or laid out by its history.

    Raises SeqrecError for values that the tensor cannot hold.
    """
    if len(tensor.dims) != 1:
        raise SeqrecError(f"{model} takes {tensor.name!r} of shape {tensor.dims}, not a plain list")
    width = tensor.dims[0]
    lists = []
    for i, row in enumerate(rows):
        items = values(row.get(tensor.name))
        where = f"{model}, row {i}, {tensor.name!r}"
        require(where, tensor.datatype, items)
        if tensor.aligned_with:
            items = align(items, values(row.get(tensor.aligned_with)), width, tensor.unknown)
        elif width >= 0 and len(items) not in (0, width):
            raise SeqrecError(f"{where}: takes {width} values, found {len(items)}")
        lists.append(items)
    width = width if width >= 0 else max(map(len, lists))
    array = np.full((len(rows), width), tensor.unknown, triton_to_np_dtype(tensor.datatype))
    for i, items in enumerate(lists):
        array[i, : len(items)] = [
            item.encode() if isinstance(item, str) else item for item in items
        ]
    return array


def align(
    items: Sequence[object], history: Sequence[object], width: int, unknown: object
) -> list[object]:
    """A list that is parallel to a history -> its values for the last `width` real events.

    They are right-aligned, with `unknown` if there is no event or no value. Triton's native backend
    cuts a string at NUL, so an id that begins with it is padding, like the empty one.
    """
    real = [i for i, item in enumerate(history) if isinstance(item, str) and item[:1] not in "\0"]
    last = real[-width:] if width else []
    known = [items[i] if i < len(items) else unknown for i in last]
    return [unknown] * (width - len(known)) + known


def require(where: str, datatype: str, items: Sequence[object]) -> None:
    """Raise SeqrecError for what a datatype cannot hold: another kind, too large, or no UTF-8."""
    kind, name = next(kind for start, kind in _KINDS.items() if datatype.startswith(start))
    for item in items:
        if not isinstance(item, kind) or (isinstance(item, bool) and kind is not bool):
            raise SeqrecError(f"{where}: takes {name}, found {_shown(item)}")
        if isinstance(item, str):
            try:
                item.encode()
            except UnicodeEncodeError as error:
                raise SeqrecError(
                    f"{where}: takes text that has UTF-8, found {_shown(item)}"
                ) from error
        elif kind is not bool and not _fits(datatype, item):
            largest = _largest(datatype)
            raise SeqrecError(f"{where}: {datatype} goes to {largest}, found {_shown(item)}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _fits(datatype: str, number: Any) -> bool:
    """Checked here, as numpy wraps an integer that is too large and turns a float into infinity."""
    dtype = triton_to_np_dtype(datatype)
    if issubclass(dtype, np.integer):
        limits = np.iinfo(dtype)
        return bool(limits.min <= number <= limits.max)
    if abs(number) <= _largest(datatype) or number != number:
        return True
    try:
        double = float(number)
    except OverflowError:  # of a whole number or a fraction
        return False
    with np.errstate(over="ignore"):
        return np.isinf(double) or bool(np.isfinite(dtype(double)))  # rounded down, just beyond


def _largest(datatype: str) -> Any:
    dtype = triton_to_np_dtype(datatype)
    integer = issubclass(dtype, np.integer)
    return int(np.iinfo(dtype).max) if integer else float(np.finfo(dtype).max)
