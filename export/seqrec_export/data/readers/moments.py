"""Time columns as they are written: numbers, whole and fraction, or moments of the calendar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from seqrec_export.data.readers.arrow_types import is_text
from seqrec_export.data.readers.columns import as_float, as_objects
from seqrec_export.errors import SeqrecError

Whole = NDArray[np.int64]
PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
NANOSECONDS = 1_000_000_000
# A decimal holds every digit of a number that is written out; a float would round them.
_EXACT = pa.decimal256(60, 9)
_ZONE = r"\s*(UTC|GMT)$"
# Dates written as digits: 20200916, 202009161345, 20200916134510.
_AFTER_DAY = (1, 10_000, 1_000_000)


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """(N,) numbers, rounded down, and what was cut off, from 0 to 1, if any has a fraction."""

    whole: Whole
    fraction: NDArray[np.float64] | None = None


@dataclass(frozen=True, kw_only=True)
class Moments:
    """(N,) seconds since 1970-01-01 UTC, rounded down, and the nanoseconds past them, if any."""

    seconds: Whole
    nanoseconds: NDArray[np.int32] | None = None


def parsed(column: pa.ChunkedArray) -> Numbers | Moments | None:
    """A column without nulls; None if it, or any of its values, is no time.

    A moment without a zone is taken as UTC.
    """
    kind = column.type
    if pa.types.is_integer(kind):
        return _integers(column)
    if pa.types.is_floating(kind):
        return _floats(as_float(column))
    if pa.types.is_decimal(kind):
        return _decimals(column)
    if pa.types.is_date32(kind):
        days: NDArray[np.int32] = column.cast(pa.int32()).to_numpy()
        return Moments(seconds=days.astype(np.int64) * 86_400)
    if pa.types.is_date64(kind):
        return _moments(pc.cast(column, pa.timestamp("ms")))
    if pa.types.is_timestamp(kind):
        return _moments(column)
    return _text(pc.utf8_trim_whitespace(column)) if is_text(kind) else None


def in_format(column: pa.ChunkedArray, form: str) -> Moments | NDArray[np.bool_]:
    """Texts or integers written in a format of strptime; or which rows are not."""
    texts = as_objects(pc.utf8_trim_whitespace(column.cast(pa.string())))
    try:
        dates = pd.to_datetime(texts, format=form, utc=True, errors="coerce")
    except ValueError as error:
        raise SeqrecError(f"time_format is {form!r}: {error}; write it as %d/%m/%Y") from error
    moments = _of_pandas(dates)
    return dates.isna().to_numpy() if moments is None else moments


def of_digits(values: Whole) -> Moments | None:
    """Integers like 20200916 or 20200916134510, all of the same form; None if any is no date."""
    lowest, highest = int(values.min()), int(values.max())
    fitting = [n for n in _AFTER_DAY if 19_000_101 * n <= lowest and highest < 21_010_000 * n]
    if not fitting:
        return None
    (after,) = fitting
    day, time = values // after, values % after * (100 if after == 10_000 else 1)
    months = (day // 10_000 - 1970) * 12 + day // 100 % 100 - 1
    first = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    dates = first + day % 100 - 1
    hour, minute, second = time // 10_000, time // 100 % 100, time % 100
    # Back again: the 31st of April is the first of May.
    same = dates.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) == months
    month = day // 100 % 100
    sound = same & (month >= 1) & (month <= 12) & (day % 100 >= 1)
    if not (sound & (hour < 24) & (minute < 60) & (second < 60)).all():
        return None
    return Moments(seconds=dates * 86_400 + hour * 3_600 + minute * 60 + second)


def not_a_time(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Which rows are no time, if some row is none: of two readings the one with fewer such rows."""
    if pa.types.is_floating(column.type):
        values = as_float(column)
        return ~(np.isfinite(values) & (np.abs(values) < 2.0**63))
    texts = as_objects(column)
    if not all(isinstance(text, str) for text in texts.iloc[:1]):
        return np.zeros(len(texts), np.bool_)
    numbers: NDArray[np.float64] = pd.to_numeric(texts, errors="coerce").to_numpy(np.float64)
    not_number = ~np.isfinite(numbers)
    not_date = _lenient(pa.chunked_array([pa.array(texts, pa.string())])).isna().to_numpy()
    return not_number if not_number.sum() <= not_date.sum() else not_date


def split(values: Whole, per_second: int) -> Moments:
    """(N,) counts of a part of a second since 1970 -> moments."""
    if per_second == 1:
        return Moments(seconds=values)
    seconds = values // per_second
    past = (values - seconds * per_second) * (NANOSECONDS // per_second)
    return Moments(seconds=seconds, nanoseconds=past.astype(np.int32) if past.any() else None)


def _integers(column: pa.ChunkedArray) -> Numbers | None:
    try:
        return Numbers(whole=column.cast(pa.int64()).to_numpy())
    except pa.ArrowInvalid:  # past 2^63
        return None


def _floats(values: NDArray[np.float64]) -> Numbers | None:
    if not (np.isfinite(values) & (np.abs(values) < 2.0**63)).all():
        return None
    whole = np.floor(values)
    fraction = values - whole
    return Numbers(whole=whole.astype(np.int64), fraction=fraction if fraction.any() else None)


def _decimals(column: pa.ChunkedArray) -> Numbers | None:
    """Decimals, or texts of them."""
    try:
        exact = column.cast(_EXACT)
        whole = pc.floor(exact)
        numbers: Whole = whole.cast(pa.int64()).to_numpy()
    except pa.ArrowInvalid:  # past 2^63, or more digits than nine
        try:
            return _floats(as_float(column))
        except pa.ArrowInvalid:
            return None
    fraction: NDArray[np.float64] = pc.subtract(exact, whole).cast(pa.float64()).to_numpy()
    return Numbers(whole=numbers, fraction=fraction if fraction.any() else None)


def _text(text: pa.ChunkedArray) -> Numbers | Moments | None:
    if len(text) and _is_number(text[0].as_py()):
        try:
            return Numbers(whole=text.cast(pa.int64()).to_numpy())
        except pa.ArrowInvalid:
            return _decimals(text)
    if pc.any(pc.match_substring_regex(text, _ZONE)).as_py():
        text = pc.replace_substring_regex(text, _ZONE, "Z")
    for zone in (None, "UTC"):
        for unit in PER_SECOND:  # the coarsest that fits: it holds the most years
            try:
                return _moments(pc.cast(text, pa.timestamp(unit, zone)))
            except pa.ArrowInvalid:
                continue
    return _of_pandas(_lenient(text))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _lenient(text: pa.ChunkedArray) -> pd.Series[Any]:
    """Moments in UTC, NaT if a text is no ISO time. Zones may differ by row."""
    return pd.to_datetime(as_objects(text), format="ISO8601", utc=True, errors="coerce")


def _of_pandas(dates: pd.Series[Any]) -> Moments | None:
    if dates.isna().any():
        return None
    values: NDArray[Any] = dates.dt.tz_localize(None).to_numpy()
    unit, _ = np.datetime_data(values.dtype)
    return split(values.astype(np.int64), PER_SECOND[unit])


def _moments(column: pa.ChunkedArray) -> Moments:
    # Arrow keeps a zoned timestamp in UTC, so dropping the zone changes nothing.
    return split(column.cast(pa.int64()).to_numpy(), PER_SECOND[column.type.unit])
