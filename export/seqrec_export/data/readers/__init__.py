"""Readers: one file per log format, each giving Interactions."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from seqrec_export.data.interactions import Interactions
from seqrec_export.data.readers import hm, jdsearch, movielens, table
from seqrec_export.data.readers.files import readable
from seqrec_export.errors import SeqrecError


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A log format. `read` takes what follows `name:`, and the column mapping (empty if none)."""

    name: str
    description: str
    provides: frozenset[str]  # of the columns of Interactions that not every log has
    read: Callable[[str, Mapping[str, str]], Interactions]
    needs_path: bool = True
    takes_columns: bool = False


def read(spec: str, columns: Mapping[str, str] | None = None) -> Interactions:
    """Reads `READER:PATH`, as `movielens:ml-1m/ratings.dat.gz`, or `synthetic:users=2000,seed=0`.

    `columns` maps user, item, time, rating and event_type to column names, for `table`; any other
    name becomes an extra column.
    Raises SeqrecError for an unknown reader, a missing file, and whatever is wrong in the file.
    """
    if not isinstance(spec, str):
        raise SeqrecError(
            f"read takes the text READER:PATH, found {type(spec).__name__}; write "
            '"movielens:ratings.dat" for example; from_frame takes a DataFrame'
        )
    if columns is not None and not isinstance(columns, Mapping):
        raise SeqrecError(
            f"columns is {columns!r}; give a dict of the log's columns by name, as "
            '{"user": "uid", "item": "sku"}'
        )
    if not spec.strip():
        raise SeqrecError("the log has no name; write READER:PATH, or synthetic")
    name, _, rest = spec.partition(":")
    if name not in READERS:
        raise SeqrecError(
            f"no reader is called {name!r}; write READER:PATH with one of {', '.join(READERS)}"
        )
    reader = READERS[name]
    if reader.needs_path and not rest:
        raise SeqrecError(f"{name} needs a path: write {name}:PATH, for {reader.description}")
    if columns and not reader.takes_columns:
        takers = ", ".join(other.name for other in READERS.values() if other.takes_columns)
        raise SeqrecError(f"{name} knows its columns; a column mapping is for {takers}")
    with readable(spec, "the file"):
        log = reader.read(rest, columns or {})
    # Arrow keeps the file's columns for a while; the histories' arrays would come on top of them.
    pa.default_memory_pool().release_unused()
    return log


def _path(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise SeqrecError(f"{text}: {error}; write the whole path") from error


def _synthetic(options: str, columns: Mapping[str, str]) -> Interactions:
    """`users=2000,items=1000` to the generator's keyword arguments."""
    generate = importlib.import_module("seqrec_export.data.readers.synthetic").generate
    known = tuple(inspect.signature(generate).parameters)
    values: dict[str, int] = {}
    for option in filter(None, options.split(",")):
        key, _, value = (part.strip() for part in option.partition("="))
        if key not in known:
            raise SeqrecError(f"synthetic has no option {key!r}; it has {', '.join(known)}")
        if not value.isdecimal():
            raise SeqrecError(f"synthetic: {key} is {value!r}; write a whole number: {key}=100")
        values[key] = int(value)
    result: Interactions = generate(**values)
    return result


_ALL = (
    Reader(
        name="movielens",
        description="a MovieLens ratings.dat, u.data or ratings.csv, or `user item` pairs",
        provides=frozenset({"ratings", "event_types"}),
        read=lambda text, _: movielens.read(_path(text)),
    ),
    Reader(
        name="hm",
        description="a folder with transactions_train, customers and articles, H&M-shaped",
        provides=frozenset({"user_features", "item_features"}),
        read=lambda text, _: hm.read(_path(text)),
    ),
    Reader(
        name="jdsearch",
        description="JDsearch sessions: candidates, labels and the searcher's history",
        provides=frozenset({"event_types", "sessions"}),
        read=lambda text, _: jdsearch.read(_path(text)),
    ),
    Reader(
        name="table",
        description="a CSV or Parquet file with a row per event and a column mapping",
        provides=frozenset({"ratings", "event_types"}),
        read=lambda text, columns: table.read(_path(text), columns),
        takes_columns=True,
    ),
    Reader(
        name="synthetic",
        description="generated events; no file is needed",
        provides=frozenset(
            {"ratings", "event_types", "user_features", "item_features", "sessions"}
        ),
        read=_synthetic,
        needs_path=False,
    ),
)
READERS = {reader.name: reader for reader in _ALL}
