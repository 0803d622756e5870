"""A column of a table of items -> the values of each row: text, one or several."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from seqrec_export.data.attributes import Values
from seqrec_export.data.readers.arrow_types import is_text, plain
from seqrec_export.data.readers.columns import Columns, dictionary
from seqrec_export.errors import SeqrecError

_SPLIT = "|"  # the separator that most tables have which hold several values in a text
_SPLIT_NOTED = 0.1  # of the distinct values


def item_values(columns: Columns, name: str, separator: str | None) -> Values:
    """The values of each row of a column; lists hold several, and so does text with a separator.

    Numbers are text without ".0", booleans true or false; nothing, null and NaN are no value.
    Raises SeqrecError for a column of anything else. What is odd goes into `columns.notes`.
    """
    column = columns.table.column(name)
    rows, flat = _flattened(column)
    if not len(flat):
        return Values.of_pairs(len(column), rows, pa.array([], pa.large_string()))
    flat = plain(flat)
    if pa.types.is_nested(flat.type):
        raise _no_values(columns, name, flat.type)
    distinct, codes = dictionary(flat)
    texts = _as_text(columns, name, distinct)
    there = (codes >= 0) & texts.is_valid().to_numpy(zero_copy_only=False)[codes]
    rows, codes = rows[there], codes[there]
    if separator is None:
        _note_unsplit(columns, name, texts)
        return Values.of_pairs(len(column), rows, texts.take(pa.array(codes)))
    rows, places, parts = _split(columns, name, separator, rows, codes, texts)
    return Values.of_pairs(len(column), rows, parts.take(pa.array(places)))


def _flattened(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], pa.ChunkedArray]:
    """((P,) rows, (P,) values): as many of them as a list holds, and one of what is no list."""
    if not _is_list(column.type):
        return np.arange(len(column)), column
    counts = pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
    chunks = [pc.list_flatten(chunk) for chunk in column.chunks]
    return np.repeat(np.arange(len(column)), counts), pa.chunked_array(
        chunks, column.type.value_type
    )


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )


def _as_text(columns: Columns, name: str, distinct: pa.Array) -> pa.Array:
    """Distinct values -> text; null is no value."""
    kind = distinct.type
    if is_text(kind):
        texts = _without_point(distinct.cast(pa.large_string()))
    elif pa.types.is_floating(kind):
        floats = distinct.to_numpy(zero_copy_only=False)
        texts = pa.array([_number(value) for value in floats], pa.large_string())
    elif pa.types.is_decimal(kind):  # Arrow writes some as 1.2E+3
        written = [None if value is None else f"{value:f}" for value in distinct.to_pylist()]
        texts = _without_point(pa.array(written, pa.large_string()))
    elif (
        pa.types.is_boolean(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_date(kind)
        or pa.types.is_null(kind)
    ):
        texts = distinct.cast(pa.large_string())
    else:
        raise _no_values(columns, name, kind)
    if pc.any(pc.match_substring(texts, "\0")).as_py():
        raise SeqrecError(
            f"{columns.path}: a value of {name} holds a NUL, which ends a text for many programs; "
            "correct it"
        )
    return pc.if_else(pc.equal(texts, ""), None, texts)


def _no_values(columns: Columns, name: str, kind: pa.DataType) -> SeqrecError:
    return SeqrecError(
        f"{columns.path}: column {name} holds {kind}; items are filtered by text, numbers, "
        "booleans, dates, or lists of these"
    )


def _number(value: np.floating[np.typing.NBitBase]) -> str | None:
    """The shortest text of a number of its precision; a whole one has no point."""
    if math.isnan(value):
        return None
    if math.isfinite(value) and value == math.floor(value) and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def _without_point(texts: pa.Array) -> pa.Array:
    """As for ids: if all are whole numbers, some of them with a point, they lose it."""
    numbers = pc.match_substring_regex(texts.drop_null(), r"^(-?\d+(\.0+)?)?$")
    return pc.replace_substring_regex(texts, r"\.0+$", "") if pc.all(numbers).as_py() else texts


def _split(
    columns: Columns,
    name: str,
    separator: str,
    rows: NDArray[np.int64],
    codes: NDArray[np.int32],
    texts: pa.Array,
) -> tuple[NDArray[np.int64], NDArray[np.int64], pa.Array]:
    """The same of the parts between separators; empty parts are no value."""
    if not pc.any(pc.match_substring(texts, separator)).as_py():
        columns.notes.append(f"No value of {name} holds {separator!r}: each is one value.")
    lists = pc.split_pattern(texts, separator)
    parts = pc.list_flatten(lists)
    counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy().astype(np.int64)
    starts = np.cumsum(counts) - counts
    counts, starts = counts[codes], starts[codes]
    ends = np.cumsum(counts)
    places = np.repeat(starts - (ends - counts), counts) + np.arange(counts.sum())
    rows = np.repeat(rows, counts)
    there = pc.not_equal(parts, "").to_numpy(zero_copy_only=False)[places]
    return rows[there], places[there], parts


def _note_unsplit(columns: Columns, name: str, texts: pa.Array) -> None:
    several = int(pc.sum(pc.match_substring(texts, _SPLIT)).as_py() or 0)
    if several > _SPLIT_NOTED * len(texts):
        columns.notes.append(
            f"{several:,} of {len(texts):,} values of {name} hold {_SPLIT!r}: if these are several "
            f"values, name it as {name}:{_SPLIT}."
        )
