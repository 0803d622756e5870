"""Files as readers meet them: plain or gzipped, missing, empty or cut short."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa

from seqrec_export.errors import SeqrecError

GZIP_MAGIC = b"\x1f\x8b"  # RFC 1952, section 2.3.1
PARQUET_MAGIC = b"PAR1"
NAMES_SHOWN = 12
_OTHER_FORMATS = {
    rb"\x28\xb5\x2f\xfd": "compressed with zstd",
    rb"BZh[1-9]1AY&": "compressed with bzip2",
    rb"\xfd7zXZ": "compressed with xz",
    rb"PK\x03\x04": "a zip archive (or a spreadsheet)",
    rb"7z\xbc\xaf": "a 7z archive",
    rb"ARROW1": "an Arrow (Feather) file",
    rb"ORC[^ -~]": "an ORC file",
    rb"Obj\x01": "an Avro file",
    rb"SQLite f": "an SQLite database",
    rb"\s*(\{\s*\"|\[\s*[\{\[])": "JSON",
}
# The longer marks first: that of UTF-32 begins with that of UTF-16.
_MARKS = {
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
UNDECODED = re.compile("[\udc80-\udcff]")


def require_file(path: Path) -> Path:
    """The path itself, once it is known to be a file that holds something we can read."""
    try:
        if path.is_dir():
            raise SeqrecError(f"{path} is a directory; name a file in it: {listing(path)}")
        if not path.exists():
            raise SeqrecError(f"{path} does not exist; {path.parent} holds {listing(path.parent)}")
        if not path.is_file():
            raise SeqrecError(
                f"{path} is a pipe or a device, which can be read only once; write it to a file"
            )
        if path.stat().st_size == 0:
            raise SeqrecError(f"{path} is empty (0 bytes); fetch or export it again")
        magic = _magic(path)
    except OSError as error:
        raise SeqrecError(f"{path} cannot be read: {error.strerror}") from error
    for begins, kind in _OTHER_FORMATS.items():
        if re.match(begins, magic):
            raise SeqrecError(f"{path} is {kind}; write it as CSV, gzipped CSV or Parquet")
    return path


def listing(folder: Path) -> str:
    """What a folder holds, for an error message."""
    if not folder.is_dir():
        return "nothing (no such directory)"
    names = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir())
    shown = ", ".join(names[:NAMES_SHOWN]) or "nothing"
    return shown + (f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else "")


def is_gzip(path: Path) -> bool:
    """Whether the content, not the name, is gzip."""
    return _magic(path).startswith(GZIP_MAGIC)


def is_parquet(path: Path) -> bool:
    """Whether the content, not the name, is Parquet."""
    return _magic(path).startswith(PARQUET_MAGIC)


def encoding_of(path: Path) -> str:
    """utf-8 unless the first bytes show that it is UTF-16 or UTF-32, as programs on Windows write.

    No text has a NUL among its first letters: without a mark, they show where the letters are.
    """
    with _opened(path) as file, _gzip_errors(path):
        begins = file.read(4)
    for mark, encoding in _MARKS.items():
        if begins.startswith(mark):
            return encoding
    if len(begins) == 4 and begins.count(0) == 2:
        if begins[1] == begins[3] == 0:
            return "utf-16-le"
        if begins[0] == begins[2] == 0:
            return "utf-16-be"
    return "utf-8"


def lines(path: Path, encoding: str | None = None, *, strict: bool = True) -> Iterator[str]:
    """Each line with its line end (LF, CR LF or CR), decompressed, without a byte order mark.

    Without `encoding`, the file's first bytes decide. Raises SeqrecError if gzip is cut short or
    damaged and, unless `strict` is False, if a line is not in the encoding.
    """
    chosen = encoding or encoding_of(path)
    wide = chosen.startswith(("utf-16", "utf-32"))
    number = 0
    with (
        _opened(path) as file,
        _gzip_errors(path),
        # What is not UTF-8 becomes lone surrogates, so that its line can be named.
        io.TextIOWrapper(
            file, chosen, errors="replace" if wide else "surrogateescape", newline=""
        ) as text,
    ):
        for number, line in enumerate(text, start=1):
            if strict and (odd := UNDECODED.search(line)):
                raise undecoded(path, number, odd[0], chosen)
            yield line.removeprefix("\ufeff") if number == 1 else line


def first_line(path: Path, encoding: str | None = None) -> str:
    """The first line without its line end."""
    for line in lines(path, encoding):
        return line.rstrip("\r\n")
    raise SeqrecError(f"{path} is empty once decompressed; fetch or export it again")


def undecoded(path: Path, line: int, odd: str, encoding: str = "utf-8") -> SeqrecError:
    """The error for a letter that `lines` could not decode."""
    return SeqrecError(
        f"{path}, line {line}: byte {ord(odd) & 0xFF:#x} is not {encoding}; save the file as "
        f"{encoding}"
    )


def broken_gzip(path: Path, error: Exception) -> SeqrecError:
    """The error for a gzip file that ends too early or fails its checksum."""
    return SeqrecError(f"{path} is a damaged or truncated gzip file ({error}); fetch it again")


def open_stream(path: Path) -> pa.NativeFile:
    """The decompressed bytes as UTF-8, for Arrow."""
    stream = pa.input_stream(str(path), compression="gzip" if is_gzip(path) else None)
    encoding = encoding_of(path)
    return stream if encoding == "utf-8" else pa.transcoding_input_stream(stream, encoding, "utf-8")


def _opened(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path) if is_gzip(path) else path.open("rb"))


@contextmanager
def readable(what: object, again: str = "it") -> Iterator[None]:
    """Raise SeqrecError for errors that no reader put into better words.

    They are of the disk, of an encoding, or Arrow's.
    """
    try:
        yield
    except (OSError, UnicodeError, pa.ArrowException) as error:
        said = " ".join(str(error).split())
        raise SeqrecError(
            f"{what} cannot be read: {said}; convert or fetch {again} again"
        ) from error


@contextmanager
def _gzip_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise broken_gzip(path, error) from error


def _magic(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(8)
