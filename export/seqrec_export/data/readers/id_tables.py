"""Tables of ids: whom to make lists for, and which items not to give to whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from seqrec_export.data.readers.arrow_types import plain
from seqrec_export.data.readers.columns import Columns, column_names, load
from seqrec_export.data.readers.delimited import header_layout
from seqrec_export.data.readers.files import is_parquet, readable, require_file
from seqrec_export.data.readers.frames import opened
from seqrec_export.data.readers.indexing import as_ids, factorise
from seqrec_export.data.readers.item_tables import ID_NAMES
from seqrec_export.errors import SeqrecError

# What a column is called; case and underscores do not matter.
_USER = ("userid", "user", "customerid", "customer", "uid", "id")
_ITEM = ID_NAMES
_FRAME = "the table"


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """P pairs of a user and an item."""

    what: str  # for people
    user_ids: NDArray[np.object_]  # distinct
    item_ids: NDArray[np.object_]  # distinct
    users: NDArray[np.int32]  # (P,) rows of user_ids
    items: NDArray[np.int32]  # (P,) rows of item_ids


def read_users(given: str | Path | Sequence[str] | Any) -> tuple[NDArray[np.object_], int]:
    """The users that a file (CSV or Parquet), a frame or a list names, and how many more times.

    Each is there once, in the order in which they come first. Raises SeqrecError for a table
    without a column of users, and for an id that is missing.
    """
    if isinstance(given, list | tuple | np.ndarray):
        if wrong := [user for user in given if not isinstance(user, str) or not user]:
            raise SeqrecError(f"users holds {wrong[0]!r}; give ids, each a text that is not empty")
        return np.array(list(dict.fromkeys(given)), object), len(given) - len(set(given))
    data, (name,) = _read(given, (("user", _USER),))
    ids, rows = factorise(data, name)
    return as_ids(ids), len(rows) - len(ids)


def read_pairs(given: str | Path | Any) -> Pairs:
    """The pairs of user and item that a file (CSV or Parquet) or a frame holds, a row each."""
    data, (user, item) = _read(given, (("user", _USER), ("item", _ITEM)))
    user_ids, users = factorise(data, user)
    item_ids, items = factorise(data, item)
    return Pairs(
        what=str(data.path),
        user_ids=as_ids(user_ids),
        item_ids=as_ids(item_ids),
        users=users,
        items=items,
    )


def _read(given: Any, roles: Sequence[tuple[str, Sequence[str]]]) -> tuple[Columns, list[str]]:
    """The columns that have these roles, and what they are called."""
    if not isinstance(given, str | Path):
        names, column = opened(given, "a table of ids")
        chosen = _chosen(_FRAME, names, roles)
        table = pa.table({name: plain(column(name)) for name in chosen})
        return Columns(path=_FRAME, layout=None, table=table), chosen
    path = Path(given).expanduser()
    with readable(path):
        layout = None if is_parquet(require_file(path)) else header_layout(path)
        chosen = _chosen(path, column_names(path, layout), roles)
        return load(path, layout, ids=chosen), chosen


def _chosen(
    path: Path | str, names: Sequence[str], roles: Sequence[tuple[str, Sequence[str]]]
) -> list[str]:
    chosen: list[str] = []
    for role, spellings in roles:
        called = {name.lower().replace("_", ""): name for name in reversed(names)}
        found = [called[spelling] for spelling in spellings if spelling in called]
        found = [name for name in found if name not in chosen]
        if not found:
            raise SeqrecError(
                f"{path} has no column of the {role}s; its columns are {', '.join(names)}; call "
                f"it {role}_id, in a first line with the names of the columns if it is CSV"
            )
        chosen.append(found[0])
    return chosen
