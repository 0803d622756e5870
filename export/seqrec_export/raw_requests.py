"""Requests as a caller would send them, built from a log: ids as strings, features as they are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqrec_export.batches import Indices, windows
from seqrec_export.graph import Spec
from seqrec_export.histories import sorted_events
from seqrec_export.interactions import SECONDS_PER_DAY, Interactions, months

Request = dict[str, NDArray[Any]]  # by input: object (str), float32 or int32


class RawLog:
    """A log in the order of its histories, from which raw requests are cut."""

    def __init__(self, interactions: Interactions) -> None:
        order, offsets = sorted_events(interactions)
        self.offsets = offsets  # (U + 1,) the events of user u are offsets[u]:offsets[u + 1]
        self.users = interactions.users[order]
        self.user_ids = interactions.user_ids
        self.items: NDArray[np.object_] = interactions.item_ids[interactions.items[order]]
        self.times = interactions.times[order]
        self._ratings = None if interactions.ratings is None else interactions.ratings[order]
        self._types: NDArray[np.object_] | None = None
        if interactions.event_types is not None:
            names = np.array(interactions.event_type_ids, dtype=object)
            self._types = names[interactions.event_types[order]]
        features, self._ages = interactions.user_features, None
        if features is not None and "age" in features:
            self._ages = features["age"].to_numpy(dtype=np.float32)

    def requests(
        self, inputs: Iterable[Spec], users: Indices, ends: Indices, now: Indices, window: int
    ) -> Request:
        """(B,) users, where their histories end, seconds since 1970 -> one request of B rows.

        A row holds the last `window` events before its end, padded in front.
        """
        positions, real = windows(self.offsets[users], ends, window)
        at = np.where(real, positions, 0)
        return {spec.name: self._input(spec.name, users, at, real, now) for spec in inputs}

    def _input(
        self, name: str, users: Indices, at: Indices, real: NDArray[np.bool_], now: Indices
    ) -> NDArray[Any]:
        if name == "user_id":
            return self.user_ids[users][:, None]
        if name == "age":
            unknown = np.full(len(users), np.nan, np.float32)
            return (unknown if self._ages is None else self._ages[users])[:, None]
        if name == "month":
            return months(now)[:, None]
        if name == "history_gap_days":
            days = np.maximum(now[:, None] - self.times[at], 0) / SECONDS_PER_DAY
            return np.where(real, days, np.nan).astype(np.float32)
        if name == "history_ratings":
            assert self._ratings is not None
            return np.where(real, self._ratings[at], np.nan).astype(np.float32)
        if name == "history_event_types":
            empty = np.full(real.shape, "", dtype=object)
            return empty if self._types is None else np.where(real, self._types[at], "")
        assert name == "history_item_ids", name
        return np.where(real, self.items[at], "")
