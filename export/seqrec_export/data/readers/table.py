"""Any table of events, CSV or Parquet, with a mapping from what it means to its column names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from seqrec_export.data.interactions import Interactions
from seqrec_export.data.readers.columns import (
    Columns,
    Optional,
    column_names,
    load,
    require_columns,
)
from seqrec_export.data.readers.delimited import header_layout
from seqrec_export.data.readers.files import is_parquet, require_file
from seqrec_export.data.readers.indexing import as_ids, event_notes, factorise
from seqrec_export.data.readers.times import OPTIONS, read_times
from seqrec_export.errors import SeqrecError

# What a column may be called if no mapping is given; case and underscores do not matter.
RECOGNISED = {
    "user": ("user", "userid"),
    "item": ("item", "itemid"),
    "time": ("time", "timestamp", "ts"),
    "rating": ("rating",),
    "event_type": ("eventtype",),
}
REQUIRED = ("user", "item", "time")


def read(path: Path, columns: Mapping[str, str] | None = None) -> Interactions:
    """Events of `path`; `columns` maps user, item, time, rating and event_type to column names.

    Columns that are not mapped are recognised by name; a rating or event_type that is mapped to
    nothing is left out. Any other name is an extra column, text or numbers, for models that take
    it. `columns` may also say time_unit, time_origin and time_format. Text may be separated by
    comma, tab, semicolon or bar. Ids are text, whole numbers without ".0". Raises SeqrecError.
    """
    mapping = dict(columns or {})
    time_options = {name: mapping.pop(name) for name in OPTIONS if name in mapping}
    layout = None if is_parquet(require_file(path)) else header_layout(path)
    found = resolved(path, column_names(path, layout), mapping)
    ids = [found[role] for role in ("user", "item", "event_type") if role in found]
    data = load(path, layout, ids=ids, others=tuple(found.values()))
    return interactions(data, found, mapping, time_options, source=f"table:{path}")


def interactions(
    data: Columns,
    found: Mapping[str, str],
    mapping: Mapping[str, str],
    time_options: Mapping[str, str],
    *,
    source: str,
) -> Interactions:
    """Events of columns; `found` is which column has which role, `mapping` what the caller said."""
    users, user_rows = factorise(data, found["user"])
    items, item_rows = factorise(data, found["item"])
    times = read_times(data, found["time"], time_options)
    ratings, types = None, None
    type_ids: tuple[str, ...] = ()
    optional = Optional(wanted=mapping)
    if "rating" in found:
        with optional.part("rating", "ratings"):
            ratings = data.numbers(found["rating"])
    if "event_type" in found:
        with optional.part("event_type", "event_types"):
            kinds, kind_rows = factorise(data, found["event_type"])
            names, rank = np.unique(as_ids(kinds).astype(str), return_inverse=True)
            types, type_ids = rank.astype(np.int32)[kind_rows], tuple(str(name) for name in names)
    extra = [role for role in found if role not in RECOGNISED]
    return Interactions(
        columns={name: data.values(found[name]) for name in extra},
        user_ids=as_ids(users),
        item_ids=as_ids(items),
        users=user_rows,
        items=item_rows,
        times=times.seconds,
        nanoseconds=times.nanoseconds,
        ratings=ratings,
        event_types=types,
        event_type_ids=type_ids,
        source=source,
        notes=tuple(data.notes)
        + times.notes
        + optional.notes
        + event_notes(user_rows, item_rows, times.seconds, times.nanoseconds),
        unreadable=optional.unreadable,
    )


def resolved(path: Path | str, names: Sequence[str], mapping: Mapping[str, str]) -> dict[str, str]:
    """Role -> column name, for every role that is mapped or recognised, and not left out."""
    if lacking := [role for role in REQUIRED if mapping.get(role) == ""]:
        raise SeqrecError(f"{lacking[0]} is mapped to no column; a log needs {', '.join(REQUIRED)}")
    found = {role: name for role, name in mapping.items() if name}
    require_columns(path, names, tuple(found.values()))
    for role, spellings in RECOGNISED.items():
        if role in mapping:
            continue
        matches = [name for name in names if name.lower().replace("_", "") in spellings]
        if len(matches) > 1:
            raise SeqrecError(
                f"{path} has several columns that may be the {role}: {', '.join(matches)}; "
                f"map one, as {role}={matches[0]}"
                + f", or none, as {role}="
                * (role not in REQUIRED)
            )
        if matches:
            found[role] = matches[0]
    if lacking := [role for role in REQUIRED if role not in found]:
        hint = " (one column found; check the separator)" if len(names) == 1 else ""
        raise SeqrecError(
            f"{path} has no column recognised as {', '.join(lacking)}; its columns are "
            f"{', '.join(names)}{hint}; map it, as {lacking[0]}=COLUMN"
        )
    return found
