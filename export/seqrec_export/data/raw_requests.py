"""Requests as a caller would send them, built from a log: ids as strings, features as they are."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqrec_export.contract import Spec
from seqrec_export.data.batches import Indices, windows
from seqrec_export.data.histories import event_offsets, sorted_events
from seqrec_export.data.interactions import SECONDS_PER_DAY, Interactions, months
from seqrec_export.errors import SeqrecError

Request = dict[str, NDArray[Any]]  # by input: object (str), float32 or int32


# What an input is made of, if a log may lack it.
_MADE_OF = {
    "history_ratings": "ratings",
    "history_event_types": "event_types",
    "age": "user_features",
}


def require_inputs(model: str, inputs: Iterable[Spec], log: Interactions) -> None:
    """Raise SeqrecError if requests of these inputs cannot be cut from the log.

    Event types and ages may be absent, which is a request without them; but not there and
    unreadable.
    """
    for spec in inputs:
        column = _MADE_OF.get(spec.name, "")
        if column in log.unreadable:
            left_out = "; or leave the column out with --columns event_type="
            raise SeqrecError(
                f"{model} takes {column}, but {log.unreadable[column]}"
                + left_out * (column == "event_types")
            )
        if column == "ratings" and log.ratings is None:
            raise SeqrecError(f"{model} needs ratings, which {log.source} does not have")


class RawLog:
    """A log in the order of its histories, from which raw requests are cut."""

    def __init__(self, interactions: Interactions) -> None:
        self._log = interactions
        self.user_ids = interactions.user_ids
        self.offsets = event_offsets(interactions)
        features, self._ages = interactions.user_features, None
        if features is not None and "age" in features:
            self._ages = features["age"].to_numpy(dtype=np.float32)

    # Sorting a large log takes seconds, and not every model's requests have a history.
    @cached_property
    def _order(self) -> NDArray[np.int64]:
        return sorted_events(self._log)[0]

    @cached_property
    def users(self) -> NDArray[np.int32]:
        """(N,) rows of `user_ids`."""
        return self._log.users[self._order]

    @cached_property
    def items(self) -> NDArray[np.object_]:
        """(N,) item ids."""
        items: NDArray[np.object_] = self._log.item_ids[self._log.items[self._order]]
        return items

    @cached_property
    def times(self) -> NDArray[np.int64]:
        """(N,) seconds since 1970-01-01 UTC."""
        return self._log.times[self._order]

    @cached_property
    def _ratings(self) -> NDArray[np.float32] | None:
        return None if self._log.ratings is None else self._log.ratings[self._order]

    @cached_property
    def _types(self) -> NDArray[np.object_] | None:
        if self._log.event_types is None:
            return None
        names = np.array(self._log.event_type_ids, dtype=object)
        types: NDArray[np.object_] = names[self._log.event_types[self._order]]
        return types

    def requests(
        self, inputs: Iterable[Spec], users: Indices, ends: Indices, now: Indices, window: int
    ) -> Request:
        """(B,) users, where their histories end, seconds since 1970 -> one request of B rows.

        A row holds the last `window` events before its end, padded in front; of what is aligned
        with them, as many as its width has.
        """
        positions, real = windows(self.offsets[users], ends, window)
        at = np.where(real, positions, 0)
        return {spec.name: self._input(spec, users, at, real, now) for spec in inputs}

    def _input(
        self, spec: Spec, users: Indices, at: Indices, real: NDArray[np.bool_], now: Indices
    ) -> NDArray[Any]:
        name = spec.name
        if name == "user_id":
            return self.user_ids[users][:, None]
        if name == "age":
            unknown = np.full(len(users), np.nan, np.float32)
            return (unknown if self._ages is None else self._ages[users])[:, None]
        if name == "month":
            return months(now)[:, None]
        if name == "history_gap_days":
            days = np.maximum(now[:, None] - self.times[at], 0) / SECONDS_PER_DAY
            return last_columns(np.where(real, days, np.nan), spec)
        if name == "history_ratings":
            assert self._ratings is not None
            return last_columns(np.where(real, self._ratings[at], np.nan), spec)
        if name == "history_event_types":
            empty = np.full(real.shape, "", dtype=object)
            return empty if self._types is None else np.where(real, self._types[at], "")
        assert name == "history_item_ids", name
        return np.where(real, self.items[at], "")


def last_columns(values: NDArray[Any], spec: Spec) -> NDArray[np.float32]:
    """(B, L) numbers, the newest event's last -> (B, W), the width of `spec`, NaN in front."""
    width = spec.shape[1]
    assert isinstance(width, int)
    columns = np.full((len(values), width), np.nan, np.float32)
    kept = min(width, values.shape[1])
    columns[:, width - kept :] = values[:, values.shape[1] - kept :]
    return columns
