"""Time columns, however written, to whole seconds since 1970-01-01 UTC."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from seqrec_export.interactions import SECONDS_PER_DAY
from seqrec_export.readers.columns import Columns, as_float, as_objects, is_text
from seqrec_export.readers.indexing import encode

# The median decides; 1e11 seconds is the year 5138, and 1e11 milliseconds is 1973.
UNITS = (
    (1e17, 1_000_000_000, "nanoseconds"),
    (1e14, 1_000_000, "microseconds"),
    (1e11, 1_000, "milliseconds"),
)
MICROSECONDS = 1_000_000

Moments = NDArray[Any]  # int64, float64 or datetime64[us]


def seconds(columns: Columns, name: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """((N,) seconds rounded down, notes) of integers, floats, dates, timestamps or their text.

    A timestamp without a zone is taken as UTC. Raises SeqrecError at the first other value.
    """
    column = columns.complete(name)
    if pa.types.is_date32(column.type):
        days: NDArray[np.int32] = column.cast(pa.int32()).to_numpy()
        return days.astype(np.int64) * SECONDS_PER_DAY, ()
    if pa.types.is_dictionary(column.type):
        distinct, codes = encode(column)
        parsed = _parsed(pa.chunked_array([distinct]))
        values = None if parsed is None else parsed[codes]
    else:
        values = _parsed(column)
    if values is None:
        raise columns.unparsable(name, column, _bad(column), "a time (seconds or an ISO date)")
    if values.dtype == np.dtype("datetime64[us]"):
        return values.astype(np.int64) // MICROSECONDS, ()
    return _scaled(values, name)


def _parsed(column: pa.ChunkedArray) -> Moments | None:
    """int64 or float64 numbers, or datetime64[us] in UTC; None where neither fits."""
    kind = column.type
    if pa.types.is_integer(kind):
        return _cast(column, pa.int64())
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        values = as_float(column)
        return values if np.isfinite(values).all() else None
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return _moments(column)
    if not is_text(kind):
        return None
    text = pc.utf8_trim_whitespace(column)
    whole = _cast(text, pa.int64())
    if whole is not None:
        return whole
    fractional = _cast(text, pa.float64())
    if fractional is not None:
        return fractional if np.isfinite(fractional.astype(np.float64)).all() else None
    for wanted in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            return _moments(pc.cast(text, wanted))
        except pa.ArrowInvalid:
            continue
    moments = _lenient(text)
    return None if np.isnat(moments).any() else moments


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> Moments | None:
    try:
        values: Moments = column.cast(kind).to_numpy()
    except pa.ArrowInvalid:
        return None
    return values


def _moments(column: pa.ChunkedArray) -> Moments:
    # Arrow keeps a zoned timestamp in UTC, so dropping the zone changes nothing.
    zone = getattr(column.type, "tz", None)
    column = pc.cast(column, pa.timestamp("us", zone), safe=False)
    values: NDArray[np.int64] = column.cast(pa.int64()).to_numpy()
    return values.view("datetime64[us]")


def _lenient(text: pa.ChunkedArray) -> NDArray[np.datetime64]:
    """datetime64[us]; NaT where the text is no ISO time. Takes zones that differ by row."""
    parsed = pd.to_datetime(as_objects(text), format="ISO8601", utc=True, errors="coerce")
    return parsed.dt.tz_localize(None).to_numpy().astype("datetime64[us]")


def _bad(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Which rows are no time, given that some row is none: the rarer of two readings is wrong."""
    if pa.types.is_floating(column.type):
        return ~np.isfinite(as_float(column))
    values = as_objects(column)
    if not all(isinstance(value, str) for value in values.iloc[:1]):
        return np.zeros(len(values), np.bool_)
    numbers: NDArray[np.float64] = pd.to_numeric(values, errors="coerce").to_numpy(np.float64)
    not_number = ~np.isfinite(numbers)
    not_date = np.isnat(_lenient(pa.chunked_array([pa.array(values, pa.string())])))
    return not_number if not_number.sum() <= not_date.sum() else not_date


def _scaled(values: Moments, name: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    median = float(np.median(values))
    for above, per_second, unit in UNITS:
        if median > above:
            note = f"Column {name} is in {unit} and was divided by {per_second:,}."
            return np.floor_divide(values, per_second).astype(np.int64), (note,)
    return np.floor(values).astype(np.int64) if values.dtype.kind == "f" else values.astype(
        np.int64
    ), ()
