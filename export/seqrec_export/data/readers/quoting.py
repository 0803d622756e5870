"""Whether quotes enclose fields in a file, or are part of its text: only the file can tell."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seqrec_export.data.readers.files import first_line, lines, open_stream
from seqrec_export.errors import SeqrecError

QUOTE = b'"'
_BLOCK_BYTES = 16 << 20
_LINE_ENDS = (10, 13)
_MARK = b"\xef\xbb\xbf"  # of UTF-8
_SPACED = re.compile(r' +".*" *$', re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Quoting:
    """How a file uses quotes. `note` tells people if that is not what they may expect."""

    quoted: bool  # whether "..." may hold the delimiter
    multiline: bool = False  # whether such a field may hold line ends
    note: str = ""


@dataclass(kw_only=True)
class _Scan:
    """What one look at every quote found."""

    sound: bool = True  # whether each opens or closes a field, or is doubled in one
    fields: int = 0  # enclosed ones
    needed: bool = False  # whether one of these holds a quote, the delimiter or a line end
    multiline: bool = False
    swallows: int = 0  # the first line whose quote encloses another line that looks like a row


def quoting(
    path: Path, delimiter: str, names: int, used: tuple[int, ...], rows: int | None
) -> Quoting:
    """How the quotes of a file with a header of so many names are meant.

    `used`: the places of the columns that are read; `rows`: how many there are if quotes enclose.
    Raises SeqrecError if quotes enclose fields, and one of them is open or is inside a field.
    """
    header = first_line(path)
    found = _scan(path, delimiter, names, used)
    kept = Quoting(quoted=False, note=f"Quotes in {path.name} are part of its text.")
    # Writers of tab-separated text mostly do not quote; one that does quotes its header, or what
    # needs it, or the same columns of every row.
    doubtful = delimiter == "\t" and QUOTE.decode() not in header
    if found.sound and found.swallows and not doubtful:
        raise SeqrecError(
            f"{path}, line {found.swallows}: a quote that is opened there encloses lines that look "
            "like rows; double a quote that is text, or remove it"
        )
    if found.sound:
        regular = rows is not None and found.fields % rows == 0
        if doubtful and (found.swallows or not (found.needed or regular)):
            return kept
        return Quoting(quoted=True, multiline=found.multiline)
    wrong = _first_wrong(path, delimiter, used)
    if wrong is None:
        return Quoting(quoted=True, multiline=True)
    line, why = wrong
    if QUOTE.decode() in header or (delimiter != "\t" and _encloses(path, delimiter)):
        raise SeqrecError(
            f"{path}, line {line}: a quote is left open there, or does not enclose a whole field "
            f"({why}), as others in this file do; double a quote that is text, or remove it"
        )
    return kept


def _scan(path: Path, delimiter: str, names: int, used: tuple[int, ...]) -> _Scan:
    found = _Scan()
    apart = np.zeros(256, np.bool_)  # what may be outside of a quote, another one included
    apart[[*_LINE_ENDS, ord(delimiter), ord(QUOTE)]] = True
    shapes = _Shapes(path, delimiter, names, used)
    inside, line, opened = 0, 1, 0
    for whole in _whole_lines(path):
        before, block, after = _with_quotes(whole) if not inside else (b"", whole, b"")
        line += _count_lines(before)
        text = np.frombuffer(block, np.uint8)
        at = np.flatnonzero(text == ord(QUOTE))
        closes = (np.arange(len(at)) + inside) % 2 == 1
        outer = at + np.where(closes, 1, -1)
        edge = (outer < 0) | (outer == len(text))  # of a line
        outside = np.where(edge, _LINE_ENDS[0], text[np.clip(outer, 0, max(len(text) - 1, 0))])
        if not apart[outside].all():
            found.sound = False
            return found
        doubled = closes & (outside == ord(QUOTE))
        found.fields += int(closes.sum()) - int(doubled.sum())
        ends = np.flatnonzero((text == _LINE_ENDS[0]) | (text == _LINE_ENDS[1]))
        within = ends[(np.searchsorted(at, ends) + inside) % 2 == 1]
        found.multiline |= len(within) > 0
        found.needed |= found.multiline or bool(doubled.any())
        if delimiter == "\t" and not found.needed:
            tabs = np.flatnonzero(text == ord(delimiter))
            found.needed = bool(((np.searchsorted(at, tabs) + inside) % 2 == 1).any())
        for end in within.tolist() if not found.swallows else ():
            if shapes.like_a_row(block, end + 1):
                last = int(np.searchsorted(at, end)) - 1
                found.swallows = line + _count_lines(block[: at[last]]) if last >= 0 else opened
                break
        inside = (inside + len(at)) % 2
        if inside and len(at):
            opened = line + _count_lines(block[: at[-1]])
        line += _count_lines(block) + _count_lines(after)
    found.sound = inside == 0
    return found


def _with_quotes(block: bytes) -> tuple[bytes, bytes, bytes]:
    """A block in three: without quotes, from the first to the last of them, without quotes."""
    first, last = block.find(QUOTE), block.rfind(QUOTE)
    if first < 0:
        return block, b"", b""
    if block.count(QUOTE) % 2:  # one goes on into the next block
        return b"", block, b""
    start = max(block.rfind(b"\n", 0, first), block.rfind(b"\r", 0, first)) + 1
    ends = [at for at in (block.find(b"\n", last), block.find(b"\r", last)) if at >= 0]
    stop = min(ends, default=len(block) - 1) + 1
    return block[:start], block[start:stop], block[stop:]


class _Shapes:
    """What the used fields of the first rows look like; runs of digits count as equal."""

    def __init__(self, path: Path, delimiter: str, names: int, used: tuple[int, ...]) -> None:
        self._delimiter, self._names, self._used = delimiter.encode(), names, used
        rows = csv.reader(lines(path, strict=False), delimiter=delimiter)
        first = [row for _, row in zip(range(3), rows, strict=False)][1:]
        sound = [[field.encode(errors="surrogateescape") for field in row] for row in first]
        sound = [row for row in sound if len(row) == names]
        # A time looks alike in two rows, and so may an id; then it has to look so here as well.
        self._expected = {
            place: _shape(sound[0][place])
            for place in used
            if len(sound) == 2 and _shape(sound[0][place]) == _shape(sound[1][place])
        }

    def like_a_row(self, block: bytes, start: int) -> bool:
        """Whether the line that begins here has every column, and what is used looks right."""
        ends = [at for at in (block.find(b"\n", start), block.find(b"\r", start)) if at >= 0]
        fields = block[start : min(ends, default=len(block))].split(self._delimiter)
        if len(fields) != self._names:
            return False
        texts = [field.strip().strip(QUOTE) for field in fields]
        return all(texts[place] for place in self._used) and all(
            _shape(texts[place]) == shape for place, shape in self._expected.items()
        )


def _shape(text: bytes) -> bytes:
    return re.sub(rb"\d+", b"0", text.strip())


def _whole_lines(path: Path) -> Iterator[bytes]:
    """The file in large blocks that end with a line."""
    rest, first = b"", True
    with open_stream(path) as stream:
        while block := stream.read(_BLOCK_BYTES):
            block = rest + (block.removeprefix(_MARK) if first else block)
            first = False
            cut = max(block.rfind(b"\n"), block.rfind(b"\r")) + 1
            rest = block[cut:]
            if cut:
                yield block[:cut]
    if rest:
        yield rest


def _count_lines(block: bytes) -> int:
    return block.count(b"\n") or block.count(b"\r")


def _first_wrong(path: Path, delimiter: str, used: tuple[int, ...]) -> tuple[int, str] | None:
    """(line, why) of the first row that a strict reading refuses. Slow: for odd files.

    Raises SeqrecError at a used field with a space before its quote, which then encloses nothing.
    """
    rows = csv.reader(lines(path, strict=False), delimiter=delimiter, strict=True)
    start = 1
    try:
        for row in rows:
            if any(_SPACED.match(row[place]) for place in used if place < len(row)):
                raise SeqrecError(
                    f"{path}, line {start}: there is a space between the separator and a quote; "
                    "remove it, or the quotes"
                )
            start = rows.line_num + 1
    except csv.Error as error:
        return start, str(error)
    return None


def _encloses(path: Path, delimiter: str) -> bool:
    """Whether any field is a whole one in quotes."""
    return any(
        len(field) > 1 and field[0] == field[-1] == QUOTE.decode()
        for line in lines(path, strict=False)
        if QUOTE.decode() in line
        for field in line.rstrip("\r\n").split(delimiter)
    )
