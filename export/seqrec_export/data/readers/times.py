"""What a time column means: its unit and origin, guessed only if the guess is certain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from seqrec_export.data.readers.columns import Columns
from seqrec_export.data.readers.indexing import encode
from seqrec_export.data.readers.moments import (
    NANOSECONDS,
    PER_SECOND,
    Moments,
    Numbers,
    Whole,
    in_format,
    not_a_time,
    of_digits,
    parsed,
    split,
)
from seqrec_export.errors import SeqrecError

UNIT, ORIGIN, FORMAT = "time_unit", "time_origin", "time_format"
OPTIONS = (UNIT, ORIGIN, FORMAT)
SAY_SO = f"say what it is with --columns, by {UNIT}=ms or {UNIT}=d,{ORIGIN}=1899-12-30"
# Nobody logged before 1985, nor after 2100; the four units have no number of these years in common.
EARLIEST, LATEST = 473_385_600, 4_102_444_800
_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_LONGER = {"min": 60, "h": 3_600, "d": 86_400}  # units in seconds
_FARTHEST = 1 << 48  # seconds, nine million years: sums of two stay in int64


@dataclass(frozen=True, kw_only=True)
class Times:
    """(N,) times, and what is worth knowing about how they were read."""

    seconds: NDArray[np.int64]  # since 1970-01-01 UTC, rounded down
    nanoseconds: NDArray[np.int32] | None  # past the second, if any has some
    notes: tuple[str, ...]


def read_times(columns: Columns, name: str, options: Mapping[str, str] | None = None) -> Times:
    """Integers, floats, decimals, dates, timestamps or their text, to the nanosecond.

    A moment without a zone is taken as UTC. `options` may say time_unit, time_origin and
    time_format. Raises SeqrecError at the first value that is no time, and if the unit of numbers
    cannot be told.
    """
    options = options or {}
    column = columns.complete(name)
    found: Numbers | Moments | NDArray[np.bool_] | None
    if FORMAT in options:
        found = in_format(column, options[FORMAT])
        if isinstance(found, np.ndarray):
            raise columns.unparsable(name, column, found, f"written as {options[FORMAT]}")
    elif pa.types.is_dictionary(column.type):
        distinct, codes = encode(column)
        found = _rows(parsed(pa.chunked_array([distinct])), codes)
    else:
        found = parsed(column)
    if found is None:
        wanted = "a time (seconds since 1970, an ISO date, or as time_format=%d/%m/%Y says)"
        raise columns.unparsable(name, column, not_a_time(column), wanted)
    notes: tuple[str, ...] = ()
    if numbers := isinstance(found, Numbers):
        found, notes = _as_moments(columns, name, found, options)
    elif UNIT in options or ORIGIN in options:
        raise SeqrecError(
            f"{columns.path}: column {name} holds dates; {UNIT} and {ORIGIN} are for numbers, "
            "leave them out"
        )
    if UNIT not in options:
        notes += _far_away(columns, name, found.seconds, said=numbers)
    return Times(seconds=found.seconds, nanoseconds=found.nanoseconds, notes=notes)


def _rows(found: Numbers | Moments | None, codes: NDArray[np.int32]) -> Numbers | Moments | None:
    """What distinct values are, for every row."""
    if found is None:
        return None
    if isinstance(found, Numbers):
        fraction = None if found.fraction is None else found.fraction[codes]
        return Numbers(whole=found.whole[codes], fraction=fraction)
    past = None if found.nanoseconds is None else found.nanoseconds[codes]
    return Moments(seconds=found.seconds[codes], nanoseconds=past)


def _as_moments(
    columns: Columns, name: str, numbers: Numbers, options: Mapping[str, str]
) -> tuple[Moments, tuple[str, ...]]:
    if UNIT in options:
        return _scaled(numbers, _unit(options[UNIT]), _origin(options.get(ORIGIN))), ()
    if ORIGIN in options:
        raise SeqrecError(f"{ORIGIN} needs {UNIT} as well: one of {', '.join(_units())}")
    if numbers.fraction is None and (dates := of_digits(numbers.whole)) is not None:
        return dates, (f"Column {name} was read as dates, written like {numbers.whole[0]}.",)
    unit, certain = _guessed(columns, name, numbers.whole)
    moments = _scaled(numbers, unit, 0)
    if not certain:
        return moments, (
            f"Column {name} runs from {_date(moments.seconds.min())} to "
            f"{_date(moments.seconds.max())} if it holds seconds since 1970, as was assumed; "
            f"if not, {SAY_SO}.",
        )
    return moments, () if unit == "s" else (f"Column {name} was read as {_NAMES[unit]}.",)


def _guessed(columns: Columns, name: str, values: Whole) -> tuple[str, bool]:
    """(unit, whether that is certain). Raises SeqrecError if it would be a wild guess."""
    lowest, highest = int(values.min()), int(values.max())
    for unit, per_second in PER_SECOND.items():
        if EARLIEST * per_second <= lowest and highest < LATEST * per_second:
            return unit, True
    likely = {
        unit: (values >= EARLIEST * per_second) & (values < LATEST * per_second)
        for unit, per_second in PER_SECOND.items()
    }
    counts = {unit: int(rows.sum()) for unit, rows in likely.items() if rows.any()}
    main = max(counts, key=lambda unit: counts[unit], default="s")
    others = [unit for unit in counts if unit != main]
    if others:
        row = int(likely[others[0]].argmax())
        raise SeqrecError(
            f"{columns.place(row)}: {name} {values[row]} would be in {_NAMES[others[0]]}, but "
            f"{counts[main]:,} of {len(values):,} rows are in {_NAMES[main]}; correct the column, "
            f"or if it has one unit, {SAY_SO}"
        )
    if 2 * counts.get(main, 0) >= len(values):
        # The few outside of these years are wrong or missing times, whatever the unit.
        early = int((values < EARLIEST * PER_SECOND[main]).sum())
        return main, main != "s" or 20 * early < len(values)
    if highest >= LATEST or lowest <= -LATEST:
        raise SeqrecError(
            f"{columns.path}: column {name} runs from {lowest} to {highest}, which is not a time "
            f"since 1970 in seconds, milliseconds, microseconds or nanoseconds; {SAY_SO}"
        )
    return "s", False


def _scaled(numbers: Numbers, unit: str, origin: int) -> Moments:
    """Numbers of a unit since an origin, in seconds since 1970 -> moments."""
    whole, fraction = numbers.whole, numbers.fraction
    if unit in _LONGER:
        length = _LONGER[unit]
        _check_range(whole, _FARTHEST // length, unit)
        seconds = whole * length + origin
        if fraction is None:
            return Moments(seconds=seconds)
        rest = fraction * length
        past = np.minimum(np.rint(rest % 1 * NANOSECONDS), NANOSECONDS - 1).astype(np.int32)
        seconds += np.floor(rest).astype(np.int64)
        return Moments(seconds=seconds, nanoseconds=past if past.any() else None)
    per_second = PER_SECOND[unit]
    if per_second == 1:
        _check_range(whole, _FARTHEST, unit)
    found = split(whole, per_second)
    seconds, past = found.seconds + origin if origin else found.seconds, found.nanoseconds
    if fraction is not None:
        step = NANOSECONDS // per_second
        more = np.minimum(np.rint(fraction * step), step - 1).astype(np.int32)
        past = more if past is None else past + more
    return Moments(seconds=seconds, nanoseconds=past if past is not None and past.any() else None)


def _check_range(whole: Whole, farthest: int, unit: str) -> None:
    if int(whole.max()) > farthest or int(whole.min()) < -farthest:
        raise SeqrecError(f"times run to {whole.max()}, which is not a time in {unit}; {SAY_SO}")


def _far_away(columns: Columns, name: str, seconds: Whole, *, said: bool) -> tuple[str, ...]:
    """A note on early times among sound ones; raises SeqrecError at late ones: they come last.

    `said` tells whether it was noted before that the whole log is from another time.
    """
    lowest, highest = int(seconds.min()), int(seconds.max())
    if lowest >= EARLIEST and highest < LATEST:
        return ()
    early, late = seconds < EARLIEST, seconds >= LATEST
    if 2 * (int(early.sum()) + int(late.sum())) > len(seconds):
        span = f"{_date(lowest)} to {_date(highest)}"
        return () if said else (f"Column {name} runs from {span}; is that right?",)
    if late.any():
        row = int(late.argmax())
        raise SeqrecError(
            f"{columns.place(row)}: {name} is {_date(seconds[row])} ({int(late.sum()):,} of "
            f"{len(seconds):,} rows are after 2100), and would be the last event of its user; "
            "correct or drop these rows"
        )
    if not early.any():
        return ()
    return (
        f"{int(early.sum()):,} of {len(seconds):,} times are before 1985 (one is {_date(lowest)}) "
        "and come first in their histories; are they missing?",
    )


def _units() -> tuple[str, ...]:
    return (*PER_SECOND, *_LONGER)


def _unit(text: str) -> str:
    short = {name: unit for unit, name in _NAMES.items()} | {"hours": "h", "days": "d"}
    unit = short.get(text, {"minutes": "min"}.get(text, text))
    if unit not in _units():
        raise SeqrecError(f"{UNIT} is {text!r}; give one of {', '.join(_units())}")
    return unit


def _origin(text: str | None) -> int:
    if text is None:
        return 0
    found = parsed(pa.chunked_array([[text]]))
    if not isinstance(found, Moments):
        raise SeqrecError(f"{ORIGIN} is {text!r}; give a date, such as 1899-12-30")
    return int(found.seconds[0])


def _date(seconds: int | np.int64) -> str:
    return str(np.datetime64(int(seconds), "s")).replace("T00:00:00", "")
