"""Tiny logs whose right answers are known."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from seqrec_export.data.interactions import Interactions

DAY = 86_400


def toy(histories: Sequence[Sequence[str]], **columns: Any) -> Interactions:
    """One event a day, the same days for every user; events in the order user by user."""
    item_ids = sorted({item for history in histories for item in history})
    users = np.repeat(np.arange(len(histories)), [len(h) for h in histories])
    days = np.concatenate([np.arange(len(h)) for h in histories])
    return Interactions(
        user_ids=np.array([f"user {u}" for u in range(len(histories))], dtype=object),
        item_ids=np.array(item_ids, dtype=object),
        users=users.astype(np.int32),
        items=np.array([item_ids.index(i) for h in histories for i in h], np.int32),
        times=days.astype(np.int64) * DAY + 1_600_000_000,
        source="toy",
        **columns,
    )


def cyclic(items: int = 60, users: int = 300, length: int = 12) -> Interactions:
    """User u takes u, u + 1, u + 2, ..., around the catalogue."""
    return toy([[f"item {(u + i) % items}" for i in range(length)] for u in range(users)])


def with_events(interactions: Interactions, chosen: Any, **columns: Any) -> Interactions:
    """The same log with these events only (rows, a mask, or an order), and columns replaced."""
    per_event = ("users", "items", "times", "nanoseconds", "ratings", "event_types")
    present = {f.name: getattr(interactions, f.name) for f in fields(interactions)}
    cut = {n: present[n][chosen] for n in per_event if present[n] is not None}
    return replace(interactions, **(cut | columns))
