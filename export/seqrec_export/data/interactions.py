"""Interactions: what every reader returns, and every model trains on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from seqrec_export.errors import SeqrecError

SECONDS_PER_DAY = 86_400


@dataclass(frozen=True, kw_only=True)
class Sessions:
    """S search sessions: the items that were shown, and what was done with them.

    The candidates of session `s` are `candidates[offsets[s]:offsets[s + 1]]`.
    """

    users: NDArray[np.int32]  # (S,) rows of Interactions.user_ids
    times: NDArray[np.int64]  # (S,) seconds since 1970-01-01 UTC
    offsets: NDArray[np.int64]  # (S + 1,)
    candidates: NDArray[np.int32]  # (M,) rows of Interactions.item_ids
    labels: NDArray[np.float32]  # (M,) 0 nothing, 1 click, 2 cart, 3 purchase


@dataclass(frozen=True, kw_only=True)
class Interactions:
    """N events of U users with V items, in the source's order.

    `user_ids` and `item_ids` hold each distinct id once, as the caller of the served model will
    send it; users and items without an event (from a customer or article table) are included.
    `columns` holds what else the log says of each event, by name, for models that take it: text as
    an array of str objects ("" is missing), or numbers (NaN is missing). A name is an identifier
    and none of the fields here. A model takes a column as text or as numbers, whatever it is.
    """

    user_ids: NDArray[np.object_]  # (U,) distinct str, none of them empty
    item_ids: NDArray[np.object_]  # (V,) distinct str, none of them empty
    users: NDArray[np.int32]  # (N,) rows of user_ids
    items: NDArray[np.int32]  # (N,) rows of item_ids
    times: NDArray[np.int64]  # (N,) seconds since 1970-01-01 UTC, rounded down
    nanoseconds: NDArray[np.int32] | None = None  # (N,) past the second; orders events within it
    ratings: NDArray[np.float32] | None = None  # (N,) stars
    event_types: NDArray[np.int32] | None = None  # (N,) rows of event_type_ids
    event_type_ids: tuple[str, ...] = ()
    user_features: pd.DataFrame | None = None  # U rows, in the order of user_ids
    item_features: pd.DataFrame | None = None  # V rows, in the order of item_ids
    item_table: Path | None = None  # a file in which the reader finds more about items, if asked
    sessions: Sessions | None = None
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # (N,) each
    source: str  # what was read, for people
    notes: tuple[str, ...] = ()  # what the reader noticed, a sentence each
    # Why a column that exists cannot be read: {"ratings": "log.csv, line 3: ..."}.
    unreadable: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        taken = {of.name for of in fields(self)} | _ROLES
        for name, values in self.columns.items():
            if not name.isidentifier() or name in taken:
                raise SeqrecError(
                    f"an extra column is called {name!r}; give it a name of letters, digits and _ "
                    f"that is none of {', '.join(sorted(taken))}"
                )
            if len(values) != len(self.users):
                raise SeqrecError(
                    f"the extra column {name} has {len(values)} values for {len(self.users)} events"
                )

    def column(self, name: str) -> Any:
        """What a log may lack, by its name: a field of this, or an extra column; None without."""
        is_field = name in {of.name for of in fields(self)}
        return getattr(self, name) if is_field else self.columns.get(name)

    def __repr__(self) -> str:
        users, items = len(self.user_ids), len(self.item_ids)
        found = f"{len(self):,} events of {users:,} users with {items:,} items"
        return f"<Interactions of {self.source}: {found}>"

    def __len__(self) -> int:
        return len(self.users)

    @cached_property
    def asked_at(self) -> NDArray[np.int64]:
        """(U,) when a user is asked for, if nobody says it: at the log's last event.

        Seconds since 1970-01-01 UTC; in a log with sessions, at the user's own session.
        """
        now = np.full(len(self.user_ids), self.times.max(initial=0), np.int64)
        if self.sessions is not None:
            now[self.sessions.users] = self.sessions.times
        return now

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 of what was read, not of the file: other columns or units make another log."""
        digest = hashlib.sha256()
        for name in sorted({f.name for f in fields(self)} - _NOT_DATA):
            _digest(digest, name, getattr(self, name))
        return digest.hexdigest()


_ROLES = frozenset({"user", "item", "time", "rating", "event_type"})  # of a table's columns
_NOT_DATA = frozenset({"source", "notes", "unreadable", "item_table"})


def _digest(digest: Any, name: str, value: Any) -> None:
    """Adds a value after its name and length, so that no two logs write the same bytes."""
    if isinstance(value, pd.DataFrame):
        for column in value.columns:
            _digest(digest, f"{name}.{column}", value[column].to_numpy())
    elif isinstance(value, Mapping):
        for column in sorted(value):
            _digest(digest, f"{name}.{column}", value[column])
    elif isinstance(value, Sessions):
        for part in fields(value):
            _digest(digest, f"{name}.{part.name}", getattr(value, part.name))
    elif isinstance(value, np.ndarray) and value.dtype != object:
        digest.update(f"{name} {value.dtype.str} {value.size}\n".encode())
        digest.update(np.ascontiguousarray(value))
    elif value is not None:
        texts = pa.array(value, pa.large_string(), from_pandas=True)
        digest.update(f"{name} text {len(texts)}\n".encode())
        digest.update(np.asarray(texts.is_null()))
        # If no text is missing, the buffers hold the lengths and the bytes, and nothing else.
        for buffer in texts.fill_null("").buffers()[1:]:
            digest.update(memoryview(buffer) if buffer is not None else b"")


def months(times: NDArray[np.int64]) -> NDArray[np.int32]:
    """(N,) seconds since 1970-01-01 UTC -> (N,) month of the year, 1 to 12."""
    since_1970 = times.astype("datetime64[s]").astype("datetime64[M]").astype(np.int64)
    return (since_1970 % 12 + 1).astype(np.int32)
