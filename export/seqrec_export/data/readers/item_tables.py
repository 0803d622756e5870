"""Attributes of items from where they are: a table of items, or what a log's reader knows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from seqrec_export.data.attributes import (
    MANY_VALUES_OF_AN_ITEM,
    ItemAttributes,
    Values,
    places_of,
    wanted_attributes,
)
from seqrec_export.data.interactions import Interactions
from seqrec_export.data.readers.arrow_types import plain
from seqrec_export.data.readers.columns import Columns, column_names, load, require_columns
from seqrec_export.data.readers.delimited import header_layout
from seqrec_export.data.readers.files import (
    NAMES_SHOWN,
    first_line,
    is_parquet,
    lines,
    readable,
    require_file,
)
from seqrec_export.data.readers.frames import opened
from seqrec_export.data.readers.hm import article_ids
from seqrec_export.data.readers.indexing import factorise
from seqrec_export.data.readers.item_values import item_values
from seqrec_export.data.vocabulary import Vocabulary
from seqrec_export.errors import SeqrecError

# What the column of the ids is called, the first that is there; case and underscores do not matter.
ID_NAMES = ("itemid", "item", "articleid", "movieid", "productid", "sku", "id")
_FRAME = "the table of items"
_DAT = ("movieId", "title", "genres")
_NO_GENRE = "(no genres listed)"  # MovieLens


@dataclass(frozen=True, kw_only=True)
class _Source:
    """A table of items whose columns are read when they are asked for."""

    what: str  # for people
    names: tuple[str, ...]  # its columns, without that of the ids
    # Names of columns -> them, (V,) ids, and (N,) the row of each one's id.
    read: Callable[[Sequence[str]], tuple[Columns, pa.Array, NDArray[np.int32]]]
    given: bool = False  # whether the caller chose it, and not the reader of the log
    is_movielens: bool = False


def asked_attributes(
    filter_by: str | Iterable[str] | None,
    ids: Sequence[str] | NDArray[np.object_],
    *,
    log: Interactions | None = None,
    items: Any = None,
    items_id: str | None = None,
) -> ItemAttributes | None:
    """What a caller asks for with `filter_by`: names as `colour` or `genres:|`; None asks nothing.

    `items` may also be a log. Raises SeqrecError for what `read_attributes` refuses, and for a
    table of which nothing is asked.
    """
    if filter_by is None:
        require_named(filter_by, items)
        return None
    if isinstance(items, Interactions):
        log, items = items, None
    wanted = wanted_attributes(filter_by)
    found = read_attributes(wanted, ids, log=log, items=items, id_column=items_id)
    # Too many values are refused now, not after the training.
    many = [
        f"An item has {of.values.shape[1]} values of {of.name}: filters by it look at every item "
        "so many times."
        for of in found.of(Vocabulary(ids))
        if of.values.shape[1] > MANY_VALUES_OF_AN_ITEM
    ]
    return replace(found, notes=(*found.notes, *many))


def require_named(filter_by: str | Iterable[str] | None, items: Any) -> None:
    """Raise SeqrecError for names that cannot be, no file, or a table of which nothing is asked."""
    if filter_by is not None:
        wanted_attributes(filter_by)
        if isinstance(items, str | Path):
            require_file(_path(items))
    elif items is not None:
        raise SeqrecError(
            "a table of items is given, and no attribute is named; name those columns of it that "
            "answers can be filtered by, as --filter-by colour,genres:|"
        )


def read_attributes(
    wanted: Mapping[str, str | None],
    ids: Sequence[str] | NDArray[np.object_],
    *,
    log: Interactions | None = None,
    items: Any = None,
    id_column: str | None = None,
) -> ItemAttributes:
    """The attributes of the items `ids` that are `wanted`, by name with the separator of values.

    `items` is a table of items, a file (CSV or Parquet) or a frame, with the ids in `id_column`,
    or else in one that is called so. A column that it lacks is taken from the log: from its
    features of items, or the file in which its reader finds them. Raises SeqrecError for a name
    that is nowhere, and for a table that has none of the items or says two things of one.
    """
    known = pa.array(ids, pa.large_string())
    sources = [] if items is None else [_given(items, id_column)]
    sources += [] if log is None else _of_log(log)
    _require_found(wanted, sources)
    columns: dict[str, Values] = {}
    notes: list[str] = []
    for source in sources:
        here = [name for name in wanted if name in source.names and name not in columns]
        if not here:
            continue
        with readable(source.what):
            columns |= _read(source, {name: wanted[name] for name in here}, known, notes)
    return ItemAttributes(ids=known, columns=columns, notes=tuple(notes))


def _read(
    source: _Source, wanted: Mapping[str, str | None], known: pa.Array, notes: list[str]
) -> dict[str, Values]:
    table, found, rows = source.read(tuple(wanted))
    at = _matched(source, known, found, notes)
    firsts = _firsts(rows, len(found))
    columns = {}
    for name, separator in wanted.items():
        of_rows = _values(source, table, name, separator)
        _require_agreeing(source, name, of_rows, rows, firsts, found)
        columns[name] = of_rows.taken(np.where(at < 0, -1, firsts[at]))
    notes += table.notes
    return columns


def _values(source: _Source, table: Columns, name: str, separator: str | None) -> Values:
    if separator is None and source.is_movielens and name == "genres":
        separator = "|"
    found = item_values(table, name, separator)
    if source.is_movielens:
        place = pc.index(found.values, pa.scalar(_NO_GENRE, found.values.type)).as_py()
        kept = found.codes != place
        ends = np.concatenate([[0], np.cumsum(kept)])
        found = replace(found, codes=found.codes[kept], offsets=ends[found.offsets])
    return found


def _require_found(wanted: Mapping[str, str | None], sources: Sequence[_Source]) -> None:
    there = {name for source in sources for name in source.names}
    lacking = [name for name in wanted if name not in there]
    if not lacking:
        return
    if not there:
        raise SeqrecError(
            f"nothing says what {lacking[0]} an item has; give a table of the items with a column "
            "of that name, as --items FILE (CSV or Parquet), or the log if its reader knows it"
        )
    has = "; ".join(f"{source.what} has {_shown(source.names)}" for source in sources)
    raise SeqrecError(
        f"no attribute of items is called {lacking[0]}: {has}; name one of these, or give another "
        "table with --items FILE"
    )


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return (", ".join(names[:NAMES_SHOWN]) or "no other column") + more


def _firsts(rows: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """(count,) where each of the ids stands first."""
    firsts = np.empty(count, np.int64)
    firsts[rows[::-1]] = np.arange(len(rows))[::-1]
    return firsts


def _matched(
    source: _Source, known: pa.Array, found: pa.Array, notes: list[str]
) -> NDArray[np.int64]:
    """(K,) where each known item is among those found; -1 if it is not."""
    found = found.cast(pa.large_string())
    at = places_of(known, found)
    if (at < 0).all() and (bare := _without_zeros(known, found)) is not None:
        at = bare
        if (at >= 0).any():
            notes.append(f"The ids of {source.what} were compared without zeros in front.")
    if not source.given:
        return at
    matches = int((at >= 0).sum())
    if not matches:
        raise SeqrecError(
            f"{source.what} has none of the {len(known):,} items: its first id is "
            f"{found[0].as_py()!r}, and an item is called {known[0].as_py()!r}; name the column of "
            "the ids, with --items-id COLUMN"
        )
    if unknown := len(found) - matches:
        notes.append(
            f"{unknown:,} of {len(found):,} items of {source.what} are not among those that can be "
            "recommended."
        )
    if lacking := len(known) - matches:
        notes.append(
            f"{lacking:,} of {len(known):,} items are not in {source.what}: no value of theirs is "
            "known, so that they never come back if one is asked for."
        )
    return at


def _without_zeros(known: pa.Array, found: pa.Array) -> NDArray[np.int64] | None:
    """The same for ids that lost their zeros as numbers, if all are digits and stay distinct."""
    bare = []
    for ids in (known, found):
        if not pc.all(pc.match_substring_regex(ids, r"^\d+$")).as_py():
            return None
        bare.append(pc.utf8_ltrim(ids, "0"))
        if pc.count_distinct(bare[-1]).as_py() != len(ids):
            return None
    return places_of(*bare)


def _require_agreeing(
    source: _Source,
    name: str,
    values: Values,
    rows: NDArray[np.int32],
    firsts: NDArray[np.int64],
    ids: pa.Array,
) -> None:
    """Raise SeqrecError for an id whose rows have other values."""
    again = np.flatnonzero(firsts[rows] != np.arange(len(rows)))
    one, other = values.taken(firsts[rows[again]]), values.taken(again.astype(np.int64))
    if np.array_equal(one.offsets, other.offsets) and np.array_equal(one.codes, other.codes):
        return
    for row in range(len(again)):
        if one.of(row) != other.of(row):
            said = ", then ".join(", ".join(of.of(row)) or "nothing" for of in (one, other))
            raise SeqrecError(
                f"{source.what} has {ids[rows[again[row]]].as_py()!r} twice, with another {name}: "
                f"{said}; write a row an item, and several values as a list, or as a|b with "
                f"--filter-by '{name}:|'"
            )


def _of_log(log: Interactions) -> list[_Source]:
    """What a log says of its items, and what its reader knows to find."""
    sources = []
    if log.item_features is not None:
        names, column = opened(log.item_features)

        def read(wanted: Sequence[str]) -> tuple[Columns, pa.Array, NDArray[np.int32]]:
            table = pa.table({name: plain(column(name)) for name in wanted})
            data = Columns(path=log.source, layout=None, table=table)
            rows = np.arange(len(log.item_ids), dtype=np.int32)
            return data, pa.array(log.item_ids, pa.large_string()), rows

        sources.append(_Source(what="the log", names=tuple(names), read=read))
    if log.item_table is not None:
        sources.append(_of_file(log.item_table, None))
    return sources


def _given(items: Any, id_column: str | None) -> _Source:
    if isinstance(items, str | Path):
        return replace(_of_file(_path(items), id_column), given=True)
    return replace(_of_frame(items, id_column), given=True)


def _path(items: str | Path) -> Path:
    try:
        return Path(items).expanduser()
    except RuntimeError as error:
        raise SeqrecError(f"{items}: {error}; write the whole path") from error


def _of_frame(frame: Any, id_column: str | None) -> _Source:
    index = getattr(getattr(frame, "index", None), "name", None)
    if index is not None and index not in frame.columns:  # as after set_index("item_id")
        frame = frame.reset_index()
    names, column = opened(frame, "a table of items")
    of_ids = _id_column(_FRAME, names, id_column)

    def read(wanted: Sequence[str]) -> tuple[Columns, pa.Array, NDArray[np.int32]]:
        require_columns(_FRAME, names, wanted)
        table = pa.table({name: plain(column(name)) for name in (of_ids, *wanted)})
        if not table.num_rows:
            raise SeqrecError(f"{_FRAME} has columns ({', '.join(names)}) and no rows")
        data = Columns(path=_FRAME, layout=None, table=table)
        return data, *_ids(data, of_ids)

    return _Source(what=_FRAME, names=_others(names, of_ids), read=read)


def _of_file(path: Path, id_column: str | None) -> _Source:
    parquet = is_parquet(require_file(path))
    if not parquet and first_line(path, "latin-1").count("::") == len(_DAT) - 1:
        return _of_dat(path)
    layout = None if parquet else header_layout(path)
    names = column_names(path, layout)
    of_ids = _id_column(path, names, id_column)

    def read(wanted: Sequence[str]) -> tuple[Columns, pa.Array, NDArray[np.int32]]:
        data = load(path, layout, ids=(of_ids, *wanted))
        return data, *_ids(data, of_ids)

    return _Source(
        what=path.name,
        names=_others(names, of_ids),
        read=read,
        is_movielens=of_ids == _DAT[0],
    )


def _of_dat(path: Path) -> _Source:
    """movies.dat of MovieLens, which has no header and is in latin-1."""

    def read(_: Sequence[str]) -> tuple[Columns, pa.Array, NDArray[np.int32]]:
        rows = [line.rstrip("\r\n").split("::") for line in lines(path, "latin-1")]
        for number, row in enumerate(rows, start=1):
            if len(row) != len(_DAT):
                raise SeqrecError(f"{path}, line {number}: expected {'::'.join(_DAT)}, found {row}")
        table = pa.table({name: [row[i] for row in rows] for i, name in enumerate(_DAT)})
        data = Columns(path=path, layout=None, table=table)
        return data, *factorise(data, _DAT[0])

    return _Source(what=path.name, names=_DAT[1:], read=read, is_movielens=True)


def _ids(data: Columns, name: str) -> tuple[pa.Array, NDArray[np.int32]]:
    return article_ids(data) if name == "article_id" else factorise(data, name)


def _others(names: Sequence[str], of_ids: str) -> tuple[str, ...]:
    return tuple(name for name in names if name != of_ids)


def _id_column(path: Path | str, names: Sequence[str], asked: str | None) -> str:
    """The column of the ids: the one that is asked for, or else the first that is called so."""
    if asked is not None:
        require_columns(path, names, (asked,))
        return asked
    for spelling in ID_NAMES:
        matches = [name for name in names if name.lower().replace("_", "") == spelling]
        if len(matches) > 1:
            raise SeqrecError(
                f"{path} has several columns that may be the item's id: {', '.join(matches)}; name "
                "one with --items-id COLUMN"
            )
        if matches:
            return matches[0]
    raise SeqrecError(
        f"{path} has no column that is called item_id, article_id, sku or id; its columns are "
        f"{_shown(names)}; name the one that holds the items' ids with --items-id COLUMN"
    )
