"""The wanted columns of one file, text or Parquet, and where in the file a row stands."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from numpy.typing import NDArray

from seqrec_export.data.readers.arrow_types import is_text, plain
from seqrec_export.data.readers.delimited import ID, TEXT, Layout, line_of_row, read_delimited
from seqrec_export.errors import SeqrecError


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Some columns of a file or a frame, all rows, in its order."""

    path: Path | str  # a str of what is no file, for people
    layout: Layout | None  # None: Parquet or a frame, which have rows and no lines
    table: pa.Table
    notes: list[str] = field(default_factory=list)  # what was noticed on the way, a sentence each

    def place(self, row: int) -> str:
        """Where a 0-based row stands: the file, and its 1-based line or row."""
        if self.layout is None:
            return f"{self.path}, row {row + 1}"
        return f"{self.path}, line {line_of_row(Path(self.path), self.layout, row)}"

    def numbers(self, name: str, *, optional: bool = False) -> NDArray[np.float32]:
        """A column as finite float32; raises SeqrecError at the first value that is none.

        An optional number may be missing: it is NaN then.
        """
        column = self._flat(name) if optional else self.complete(name)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if optional and is_text(column.type):
            column = pc.if_else(pc.equal(column, ""), None, column)
        try:
            values = as_float(column)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            bad = np.zeros(len(column), np.bool_)
            if is_text(column.type):
                texts = as_objects(column)
                bad |= (pd.to_numeric(texts, errors="coerce").isna() & texts.notna()).to_numpy()
            raise self.unparsable(name, column, bad, "a number") from error
        bad = np.abs(values) > np.finfo(np.float32).max  # NaN is not
        if not optional:
            bad |= np.isnan(values)
        if bad.any():
            raise self.unparsable(name, column, bad, "a finite number")
        return values.astype(np.float32)

    def texts(self, name: str) -> NDArray[np.object_]:
        """A column as str objects, None if missing or empty."""
        column = self._flat(name)
        found, rows = dictionary(column)
        distinct = found.cast(pa.string()).to_pylist()
        # The last stands for a missing value, which dictionary() gives the row -1.
        values: NDArray[np.object_] = np.array([*(text or None for text in distinct), None], object)
        return values[rows]

    def values(self, name: str) -> NDArray[Any]:
        """A column as it is: (N,) str objects, "" if missing, or numbers, NaN if missing."""
        column = self._flat(name)
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if is_text(kind) or pa.types.is_boolean(kind):
            texts = [text or "" for text in dictionary(column)[0].cast(pa.string()).to_pylist()]
            if self.layout is not None:  # spaces next to a separator are not part of it
                texts = [text.strip(" ") for text in texts]
            values: NDArray[np.object_] = np.array([*texts, ""], dtype=object)
            return values[dictionary(column)[1]]
        if pa.types.is_integer(kind) and not column.null_count:
            whole: NDArray[np.int64] = column.cast(pa.int64()).to_numpy()
            return whole
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            return as_float(column)
        raise SeqrecError(
            f"{self.path}: column {name} holds {kind}; an extra column holds text or numbers"
        )

    def complete(self, name: str) -> pa.ChunkedArray:
        """A column without a missing value; raises SeqrecError at the first one."""
        column = self._flat(name)
        if column.null_count:
            row = pc.index(pc.is_null(column), True).as_py()
            raise SeqrecError(
                f"{self.place(row)}: {name} is missing ({column.null_count:,} such rows); "
                "drop or fill these rows"
            )
        return column

    def refuse_ids(
        self, name: str, ids: pa.Array, codes: NDArray[np.int32], bad: pa.Array, why: str
    ) -> None:
        """Raises SeqrecError at the first row whose id is bad; `bad` is by distinct id."""
        wrong = bad.to_numpy(zero_copy_only=False)
        if wrong.any():
            row = int(wrong[codes].argmax())
            raise SeqrecError(
                f"{self.place(row)}: {name} is {ids[codes[row]].as_py()!r}, {why} "
                f"({int(wrong[codes].sum()):,} such rows); correct or drop these rows"
            )

    def _flat(self, name: str) -> pa.ChunkedArray:
        column = self.table.column(name)
        if pa.types.is_nested(column.type):
            raise SeqrecError(
                f"{self.path}: column {name} holds {column.type}; write a row per event"
            )
        return column

    def unparsable(
        self, name: str, column: pa.ChunkedArray, bad: NDArray[np.bool_], wanted: str
    ) -> SeqrecError:
        """The error for values that are not what was wanted, naming the first of them."""
        if not bad.any():
            return SeqrecError(f"{self.path}: column {name} holds {column.type}, not {wanted}")
        row = int(bad.argmax())
        return SeqrecError(
            f"{self.place(row)}: {name} {column[row].as_py()!r} is not {wanted} "
            f"({int(bad.sum()):,} such rows); correct or drop them"
        )


@dataclass(frozen=True, kw_only=True)
class Optional:
    """Columns that not every model takes: one that cannot be read is left out, and that is noted.

    Columns that the caller has named are `wanted`, and raise.
    """

    wanted: Collection[str] = ()
    unreadable: dict[str, str] = field(default_factory=dict)  # by column of Interactions

    @contextmanager
    def part(self, role: str, *columns: str) -> Iterator[None]:
        """Reads what is one column of the file and `columns` of the interactions."""
        try:
            yield
        except SeqrecError as error:
            if role in self.wanted:
                raise
            self.unreadable.update(dict.fromkeys(columns, str(error)))

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out and why, a sentence each."""
        return tuple(f"Left out: {why}." for why in dict.fromkeys(self.unreadable.values()))


def column_names(path: Path, layout: Layout | None) -> tuple[str, ...]:
    """Every column of the file."""
    if layout is not None:
        return layout.names
    return tuple(_opened(path, ()).schema_arrow.names)


def load(
    path: Path, layout: Layout | None, *, ids: Sequence[str], others: Sequence[str] = ()
) -> Columns:
    """Reads the columns named; no layout means Parquet. `ids` hold few values, often repeated."""
    names = (*ids, *(name for name in others if name not in ids))
    require_columns(path, column_names(path, layout), names)
    if layout is not None:
        types = {name: ID if name in ids else TEXT for name in names}
        table, layout, notes = read_delimited(path, layout, types)
        return Columns(path=path, layout=layout, table=table, notes=[*notes])
    file = _opened(path, ids)
    try:
        table = file.read(columns=list(names))
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error
    if not table.num_rows:
        raise SeqrecError(
            f"{path} has columns ({', '.join(file.schema_arrow.names)}) and no rows; "
            "export it again"
        )
    uuids = _uuid_columns(file)
    table = pa.table({name: plain(table[name], is_uuid=name in uuids) for name in names})
    return Columns(path=path, layout=None, table=table)


def _uuid_columns(file: pyarrow.parquet.ParquetFile) -> set[str]:
    columns = map(file.schema.column, range(len(file.schema.names)))
    return {column.path for column in columns if column.logical_type.type == "UUID"}


def require_columns(path: Path | str, found: Sequence[str], wanted: Sequence[str]) -> None:
    """Raises SeqrecError unless each wanted column exists exactly once."""
    for name in wanted:
        if found.count(name) != 1:
            count = "no column" if name not in found else f"{found.count(name)} columns named"
            hint = " (one column found; check the separator)" if len(found) == 1 else ""
            raise SeqrecError(
                f"{path} has {count} {name}; its columns are {', '.join(found)}{hint}; "
                "rename one, or map it"
            )


def as_float(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """(N,) float64; raises ArrowInvalid if a text is no number."""
    if pa.types.is_boolean(column.type) or pa.types.is_temporal(column.type):
        raise pa.ArrowInvalid(f"{column.type} is not a number")
    if is_text(column.type):
        column = pc.utf8_trim_whitespace(column)
    values: NDArray[np.float64] = column.cast(pa.float64()).to_numpy()
    return values


def dictionary(column: pa.ChunkedArray) -> tuple[pa.Array, NDArray[np.int32]]:
    """(values, (N,) rows of them, -1 for null)."""
    if pa.types.is_dictionary(column.type):
        column = column.unify_dictionaries()
    else:
        # All chunks of the result share one dictionary; unifying would hash it once per chunk.
        column = column.dictionary_encode()
    # Some programs number their categories with unsigned integers, which lack -1.
    rows = [chunk.indices.cast(pa.int32()).fill_null(-1).to_numpy() for chunk in column.chunks]
    return column.chunk(0).dictionary, np.concatenate(rows)


def as_objects(column: pa.ChunkedArray) -> pd.Series[str]:
    """The values as Python objects, for the error path."""
    return pd.Series(column.to_pylist(), dtype=object)


def _opened(path: Path, ids: Sequence[str]) -> pyarrow.parquet.ParquetFile:
    try:
        schema = pyarrow.parquet.read_schema(path)
        coded = [name for name in ids if is_text(schema.field(name).type)]
        # Spark's 96 bits hold microseconds; as nanoseconds the year 9999 would overflow.
        return pyarrow.parquet.ParquetFile(
            path, read_dictionary=coded, coerce_int96_timestamp_unit="us"
        )
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> SeqrecError:
    return SeqrecError(f"{path} is a damaged Parquet file ({error}); fetch it again")
