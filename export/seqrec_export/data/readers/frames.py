"""Events of a table in memory: pandas, polars, Arrow, or whatever else gives Arrow a stream."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pandas as pd
import pyarrow as pa

from seqrec_export.data.interactions import Interactions
from seqrec_export.data.readers import table
from seqrec_export.data.readers.arrow_types import plain
from seqrec_export.data.readers.columns import Columns
from seqrec_export.data.readers.times import OPTIONS
from seqrec_export.errors import SeqrecError

FRAME = "the frame"  # in messages; its rows are counted from 1


def from_frame(
    frame: Any,
    *,
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
    rating: str | None = None,
    event_type: str | None = None,
    **columns: str,
) -> Interactions:
    """A log from a DataFrame of pandas or polars, or an Arrow table, with a row per event.

    Each argument is the name of a column; what is not named is recognised by its name, as by the
    reader `table`, and rating="" leaves that column out. Any other name is an extra column, text or
    numbers, for models that take it. time_unit, time_origin and time_format say what times are, if
    they are not seconds since 1970, dates or timestamps. Rows keep their order. Raises SeqrecError
    for what is no frame, for a column that is not there, and at the first row that holds no id,
    time or number, as for a file with these columns.
    """
    named = {"user": user, "item": item, "time": time, "rating": rating, "event_type": event_type}
    mapping = {role: name for role, name in named.items() if name is not None} | columns
    for role, name in mapping.items():
        if not isinstance(name, str):
            raise SeqrecError(
                f"{role} is {type(name).__name__}; give the name of a column of the frame"
            )
    time_options = {name: mapping.pop(name) for name in OPTIONS if name in mapping}
    names, columns_of = opened(frame)
    found = table.resolved(FRAME, names, mapping)
    wanted = list(dict.fromkeys(found.values()))
    read = pa.table({name: plain(columns_of(name)) for name in wanted})
    if not read.num_rows:
        raise SeqrecError(f"{FRAME} has columns ({', '.join(names)}) and no rows")
    data = Columns(path=FRAME, layout=None, table=read)
    try:
        return table.interactions(data, found, mapping, time_options, source="a frame")
    except pa.ArrowException as error:
        said = " ".join(str(error).split())
        raise SeqrecError(f"{FRAME} cannot be read: {said}; convert its columns") from error


def opened(frame: Any, what: str = "a log") -> tuple[Sequence[str], Any]:
    """The names of a frame's columns, and what gives one of them to Arrow.

    Raises SeqrecError if it is no frame, from which `what` cannot be made.
    """
    if isinstance(frame, pd.DataFrame):
        names = [str(name) for name in frame.columns]
        return names, lambda name: _of_pandas(frame.iloc[:, names.index(name)], name)
    if isinstance(frame, pa.RecordBatch):
        frame = pa.Table.from_batches([frame])
    if not isinstance(frame, pa.Table):
        if not hasattr(frame, "__arrow_c_stream__"):
            raise SeqrecError(
                f"{what} is made of a DataFrame of pandas or polars, or an Arrow table, found "
                f"{type(frame).__name__}"
            )
        try:
            frame = pa.table(frame)
        except (pa.ArrowException, TypeError, ValueError) as error:
            said = " ".join(str(error).split())
            raise SeqrecError(
                f"a {type(frame).__name__} is no table that Arrow can read: {said}"
            ) from error
    return frame.column_names, frame.column


def _of_pandas(series: pd.Series[Any], name: str) -> pa.ChunkedArray:
    """A column for Arrow; NaN and NaT are missing. Raises SeqrecError if its types are mixed."""
    if isinstance(series.dtype, pd.PeriodDtype):  # which Arrow takes for numbers
        raise SeqrecError(f"{FRAME}: column {name} holds periods; give it .dt.to_timestamp()")
    try:
        array = pa.Array.from_pandas(series)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        said = " ".join(str(error).split())
        raise SeqrecError(
            f"{FRAME}: column {name} cannot be read: {said}; give it values of one type"
        ) from error
    if pa.types.is_timestamp(array.type) and series.dtype == object:
        # Arrow would read all of them as if they had a zone.
        zones = {value.tzinfo is None for value in series.dropna() if isinstance(value, datetime)}
        if len(zones) > 1:
            raise SeqrecError(
                f"{FRAME}: column {name} holds times with a zone and without one; convert them to "
                "one zone"
            )
    return array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])
