"""Delimited text (CSV and its kin) as Arrow columns of text, and the line that is wrong in it."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from seqrec_export.data.readers.files import (
    UNDECODED,
    broken_gzip,
    first_line,
    is_gzip,
    lines,
    open_stream,
    undecoded,
)
from seqrec_export.data.readers.quoting import QUOTE, quoting
from seqrec_export.errors import SeqrecError

# Values are read as text and parsed by us, so that an error can name its line.
TEXT = pa.string()
ID = pa.dictionary(pa.int32(), pa.string())
# Large blocks: each has a dictionary of its own, and the ids of a log repeat.
BLOCK_BYTES = 16 << 20
SEPARATORS = ",\t;|"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a text file is cut into columns."""

    names: tuple[str, ...]  # every column, in the file's order
    delimiter: str
    header: bool  # whether the first line holds the names
    quoted: bool  # whether "..." may hold the delimiter
    multiline: bool = False  # whether it may hold line ends


def header_layout(path: Path) -> Layout:
    """The layout of a file whose first line names its columns; finds the separator there."""
    line = first_line(path)
    delimiter = max(SEPARATORS, key=line.count)
    fields = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
    names = tuple(name.strip() for name in fields)
    return Layout(names=names, delimiter=delimiter, header=True, quoted=True)


def read_delimited(
    path: Path, layout: Layout, types: Mapping[str, pa.DataType]
) -> tuple[pa.Table, Layout, tuple[str, ...]]:
    """The columns in `types` (TEXT or ID each), the layout as it turned out, and notes.

    Raises SeqrecError naming the first bad line.
    """
    table, error, quotes = _attempt(path, layout, types)
    notes: tuple[str, ...] = ()
    if layout.quoted and quotes:
        places = tuple(layout.names.index(name) for name in types)
        rows = None if table is None else table.num_rows
        meant = quoting(path, layout.delimiter, len(layout.names), places, rows)
        if (meant.quoted, meant.multiline) != (layout.quoted, layout.multiline):
            layout = replace(layout, quoted=meant.quoted, multiline=meant.multiline)
            notes = (meant.note,) if meant.note else ()
            table, error, _ = _attempt(path, layout, types)
    if error is not None:
        raise _explained(path, layout, types, error) from error
    assert table is not None
    if not table.num_rows:
        raise no_rows(path, layout)
    return table, layout, notes


def read_batches(
    path: Path, layout: Layout, types: Mapping[str, pa.DataType]
) -> Iterator[pa.RecordBatch]:
    """Like `read_delimited`, a few thousand rows at a time; quotes are what the layout says."""
    try:
        with open_stream(path) as stream:
            yield from pyarrow.csv.open_csv(stream, *_options(layout, types))
    except (pa.ArrowInvalid, OSError, UnicodeError) as error:
        raise _explained(path, layout, types, error) from error


class _Watched:
    """A stream that remembers whether it held a quote, which costs less than a second look."""

    closed = False

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream, self.quotes = stream, False

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        block: bytes = self._stream.read(size)
        self.quotes = self.quotes or QUOTE in block
        return block

    def readable(self) -> bool:
        """What Arrow asks of a file."""
        return True

    def close(self) -> None:
        """Does nothing: the stream below is closed where it was opened."""


def _attempt(
    path: Path, layout: Layout, types: Mapping[str, pa.DataType]
) -> tuple[pa.Table | None, Exception | None, bool]:
    """(the table, or else what went wrong; whether there was a quote)."""
    with open_stream(path) as stream:
        watched = _Watched(stream)
        try:
            file = pa.PythonFile(watched, mode="r")
            table = pyarrow.csv.read_csv(file, *_options(layout, types))
        except (pa.ArrowInvalid, OSError, UnicodeError) as error:
            return None, error, watched.quotes
    return table, None, watched.quotes


def line_of_row(path: Path, layout: Layout, row: int) -> int:
    """The 1-based line, header included, on which the 0-based row starts."""
    for index, (line, _) in enumerate(records(path, layout)):
        if index == row:
            return line
    raise AssertionError(f"{path} has no row {row}")


def records(path: Path, layout: Layout) -> Iterator[tuple[int, list[str]]]:
    """(line, fields) of each row; blank lines are skipped. Slow: for error messages."""
    text = lines(path, strict=False)
    if layout.header:
        next(text, None)
    first = 2 if layout.header else 1
    if not layout.quoted:
        for number, line in enumerate(text, start=first):
            if line.rstrip("\r\n"):
                yield number, line.rstrip("\r\n").split(layout.delimiter)
        return
    rows = csv.reader(text, delimiter=layout.delimiter)
    start = first
    try:
        for fields in rows:
            if fields:
                yield start, fields
            start = first + rows.line_num
    except csv.Error as error:
        raise SeqrecError(f"{path}, line {start}: {error}; check the quotes there") from error


def no_rows(path: Path, layout: Layout) -> SeqrecError:
    """The error for a file that ends after its header."""
    has = f"only a header ({', '.join(layout.names)})" if layout.header else "only blank lines"
    return SeqrecError(f"{path} holds {has} and no events; export it again")


def _options(
    layout: Layout, types: Mapping[str, pa.DataType]
) -> tuple[pyarrow.csv.ReadOptions, pyarrow.csv.ParseOptions, pyarrow.csv.ConvertOptions]:
    return (
        pyarrow.csv.ReadOptions(
            column_names=list(layout.names),
            skip_rows=int(layout.header),
            block_size=BLOCK_BYTES,
        ),
        pyarrow.csv.ParseOptions(
            delimiter=layout.delimiter,
            quote_char='"' if layout.quoted else False,
            newlines_in_values=layout.multiline,
        ),
        pyarrow.csv.ConvertOptions(
            column_types=dict(types), include_columns=list(types), strings_can_be_null=False
        ),
    )


def _explained(
    path: Path, layout: Layout, types: Mapping[str, pa.DataType], error: Exception
) -> SeqrecError:
    """A second, slower reading that finds the line Arrow stumbled over."""
    if isinstance(error, OSError) and not isinstance(error, pa.ArrowInvalid) and is_gzip(path):
        return broken_gzip(path, error)
    expected, found_any = len(layout.names), False
    places = [layout.names.index(name) for name in types]
    for line, fields in records(path, layout):
        found_any = True
        if len(fields) != expected:
            return SeqrecError(
                f"{path}, line {line}: found {len(fields)} column{'s' * (len(fields) != 1)}, "
                f"expected {expected} ({', '.join(name for name in layout.names if name)}); "
                f"check the separator, {layout.delimiter!r}, and the quotes there"
            )
        for odd in filter(None, (UNDECODED.search(fields[place]) for place in places)):
            return undecoded(path, line, odd[0])
    if not found_any:
        return no_rows(path, layout)
    return SeqrecError(f"{path} cannot be read as delimited text: {error}")
