"""Requests as a caller would send them, built from a log: ids as strings, features as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqrec_export.contract import Dtype, Spec
from seqrec_export.data.batches import Indices, windows
from seqrec_export.data.extra_columns import as_numbers, as_texts
from seqrec_export.data.histories import event_offsets, sorted_events
from seqrec_export.data.interactions import Interactions
from seqrec_export.errors import SeqrecError

Request = dict[str, NDArray[Any]]  # by input: object (str), float32 or int32


@dataclass(frozen=True, kw_only=True)
class Input(Spec):
    """A tensor that callers send, and how it is read from a log.

    `read` gives what B requests would have held: (B, L) or (B, 1) str objects, float32 or int32.
    `column` is what it is made of, if a log may lack it: the name of a field of Interactions, or of
    one of its extra columns. Without that column the input is unknown in every request, unless it
    is `required`; a column that is there and unreadable stops the model in any case.
    """

    read: Callable[[Asked, Spec], NDArray[Any]] = field(compare=False, repr=False)
    column: str = ""
    required: bool = False
    leave_out: str = ""  # the option that leaves out a column that was recognised by its name


def columns_of(model: str, inputs: Iterable[Spec]) -> dict[str, Dtype]:
    """The columns that inputs are made of, and what each is taken as. Raises SeqrecError."""
    found: dict[str, Dtype] = {}
    for spec in (s for s in inputs if isinstance(s, Input) and s.column):
        if found.setdefault(spec.column, spec.dtype) != spec.dtype:
            raise SeqrecError(f"{model} takes {spec.column} as text and as a number; take one")
    return found


def require_inputs(model: str, inputs: Iterable[Spec], log: Interactions) -> None:
    """Raise SeqrecError if requests of these inputs cannot be cut from the log."""
    for spec in inputs:
        if not isinstance(spec, Input):
            continue
        if spec.column in log.unreadable:
            left_out = f"; or leave the column out with {spec.leave_out}" if spec.leave_out else ""
            raise SeqrecError(
                f"{model} takes {spec.column}, but {log.unreadable[spec.column]}{left_out}"
            )
        if spec.required and log.column(spec.column) is None:
            raise SeqrecError(f"{model} needs {spec.column}, which {log.source} does not have")


class RawLog:
    """A log in the order of its histories, from which raw requests are cut."""

    def __init__(self, interactions: Interactions) -> None:
        self._log = interactions
        self.user_ids = interactions.user_ids
        self.offsets = event_offsets(interactions)

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
    def ratings(self) -> NDArray[np.float32] | None:
        """(N,) stars."""
        return None if self._log.ratings is None else self._log.ratings[self._order]

    @cached_property
    def event_types(self) -> NDArray[np.object_] | None:
        """(N,) event type ids."""
        if self._log.event_types is None:
            return None
        names = np.array(self._log.event_type_ids, dtype=object)
        types: NDArray[np.object_] = names[self._log.event_types[self._order]]
        return types

    def user_numbers(self, feature: str) -> NDArray[np.float32] | None:
        """(U,) a number of each user, NaN if missing."""
        features = self._log.user_features
        if features is None or feature not in features:
            return None
        return features[feature].to_numpy(dtype=np.float32)

    def texts(self, column: str) -> NDArray[np.object_] | None:
        """(N,) an extra column as text, "" if missing; None if the log does not have it."""
        if column not in self._columns:
            found = self._log.columns.get(column)
            self._columns[column] = None if found is None else as_texts(found)[self._order]
        return self._columns[column]

    def numbers(self, column: str) -> NDArray[np.float32] | None:
        """(N,) an extra column as numbers, NaN if missing; None if the log does not have it."""
        if column not in self._columns:
            found = self._log.columns.get(column)
            self._columns[column] = (
                None if found is None else as_numbers(column, found, self._log.source)[self._order]
            )
        return self._columns[column]

    @cached_property
    def _columns(self) -> dict[str, NDArray[Any] | None]:
        return {}  # a model takes a column as text or as numbers, not as both

    def requests(
        self, inputs: Iterable[Spec], users: Indices, ends: Indices, now: Indices, window: int
    ) -> Request:
        """(B,) users, where their histories end, seconds since 1970 -> one request of B rows.

        A row holds the last `window` events before its end, padded in front; of what is aligned
        with them, as many as its width has. What no log holds, such as candidates, is left out.
        """
        positions, real = windows(self.offsets[users], ends, window)
        at = np.where(real, positions, 0)
        asked = Asked(log=self, users=users, ends=ends, now=now, at=at, real=real)
        return {spec.name: spec.read(asked, spec) for spec in inputs if isinstance(spec, Input)}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """B requests of a log's users, each with what its user had done before."""

    log: RawLog
    users: Indices  # (B,) rows of log.user_ids
    ends: Indices  # (B,) where in the log's order each history ends
    now: Indices  # (B,) seconds since 1970-01-01 UTC
    at: Indices  # (B, L) where in the log's order the events of each history are
    real: NDArray[np.bool_]  # (B, L) False if there is no event

    def of_history(self, values: NDArray[Any] | None, missing: Any) -> NDArray[Any]:
        """(N,) by event, in the log's order -> (B, L) of the history, oldest first."""
        if values is None:
            return np.full(self.real.shape, missing, object if missing == "" else None)
        return np.where(self.real, values[self.at], missing)

    def of_event(self, values: NDArray[Any] | None, missing: Any) -> NDArray[Any]:
        """(N,) by event, in the log's order -> (B, 1) of the event that each request led to.

        For a request that came after all events of its user it is `missing`.
        """
        found = np.full(len(self.users), missing, object if missing == "" else np.float32)
        if values is not None:
            led = self.ends < self.log.offsets[np.asarray(self.users) + 1]
            found[led] = values[self.ends[led]]
        return found[:, None]

    def of_user(self, values: NDArray[Any] | None, missing: Any) -> NDArray[Any]:
        """(U,) by user -> (B, 1)."""
        found = np.full(len(self.users), missing) if values is None else values[self.users]
        return found[:, None]


def last_columns(values: NDArray[Any], spec: Spec) -> NDArray[np.float32]:
    """(B, L) numbers, the newest event's last -> (B, W), the width of `spec`, NaN in front."""
    width = spec.shape[1]
    assert isinstance(width, int)
    columns = np.full((len(values), width), np.nan, np.float32)
    kept = min(width, values.shape[1])
    columns[:, width - kept :] = values[:, values.shape[1] - kept :]
    return columns
