"""Files as readers meet them: plain or gzipped, missing, empty or cut short."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa

from seqrec_export.errors import SeqrecError

GZIP_MAGIC = b"\x1f\x8b"  # RFC 1952, section 2.3.1
PARQUET_MAGIC = b"PAR1"
NAMES_SHOWN = 12


def require_file(path: Path) -> Path:
    """The path itself, once it is known to be a file that holds something."""
    if path.is_dir():
        raise SeqrecError(f"{path} is a directory; name a file in it: {listing(path)}")
    if not path.exists():
        raise SeqrecError(f"{path} does not exist; {path.parent} holds {listing(path.parent)}")
    try:
        if path.stat().st_size == 0:
            raise SeqrecError(f"{path} is empty (0 bytes); fetch or export it again")
        with path.open("rb"):
            pass
    except OSError as error:
        raise SeqrecError(f"{path} cannot be read: {error.strerror}") from error
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
    return _magic(path) == PARQUET_MAGIC


def lines(path: Path, encoding: str = "utf-8") -> Iterator[str]:
    """Each line with its line end, decompressed; a byte order mark is dropped.

    Raises SeqrecError where gzip is cut short or damaged, and where a line is not in `encoding`.
    """
    number = 0
    with cast(BinaryIO, gzip.open(path) if is_gzip(path) else path.open("rb")) as file:
        try:
            for number, line in enumerate(file, start=1):
                text = line.decode(encoding)
                yield text.removeprefix("\ufeff") if number == 1 else text
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise broken_gzip(path, error) from error
        except UnicodeDecodeError as error:
            raise SeqrecError(
                f"{path}, line {number}: byte {error.object[error.start]:#x} is not {encoding}; "
                f"save the file as {encoding}"
            ) from error


def first_line(path: Path, encoding: str = "utf-8") -> str:
    """The first line without its line end."""
    for line in lines(path, encoding):
        return line.rstrip("\r\n")
    raise SeqrecError(f"{path} is empty once decompressed; fetch or export it again")


def broken_gzip(path: Path, error: Exception) -> SeqrecError:
    """The error for a gzip file that ends too early or fails its checksum."""
    return SeqrecError(f"{path} is a damaged or truncated gzip file ({error}); fetch it again")


def open_stream(path: Path) -> pa.NativeFile:
    """The decompressed bytes, for Arrow."""
    return pa.input_stream(str(path), compression="gzip" if is_gzip(path) else None)


def _magic(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4)
