"""Histories -> padded batches, and negatives, without a loop over users."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from seqrec_export.data.histories import Dataset, Histories
from seqrec_export.data.interactions import SECONDS_PER_DAY
from seqrec_export.data.vocabulary import NUM_RESERVED, PAD, UNKNOWN

Indices = NDArray[np.int64]


def shuffled(
    positions: Indices, batch_size: int, rng: np.random.Generator, least: int = 1
) -> Iterator[Indices]:
    """(P,) positions in a random order, `batch_size` at a time.

    If fewer than `least` are left for the last batch, they are left out.
    """
    order = rng.permutation(len(positions))
    for start in range(0, len(positions), batch_size):
        batch = positions[order[start : start + batch_size]]
        if len(batch) >= least:
            yield batch


def by_length(
    positions: Indices, lengths: Indices, batch_size: int, rng: np.random.Generator
) -> Iterator[Indices]:
    """Like `shuffled`, but a batch holds histories of similar length, for less padding.

    Lengths within an eighth of an octave count as equal, so that batches still mix.
    """
    bucket = np.floor(np.log2(np.maximum(lengths, 1)) * 8)
    order = np.lexsort((rng.random(len(positions)), bucket))
    starts = np.arange(0, len(positions), batch_size)
    for start in rng.permutation(starts):
        yield positions[order[start : start + batch_size]]


def in_order(positions: Indices, batch_size: int) -> Iterator[Indices]:
    """(P,) positions, `batch_size` at a time."""
    for start in range(0, len(positions), batch_size):
        yield positions[start : start + batch_size]


def num_batches(count: int, batch_size: int, least: int = 1) -> int:
    """How many batches `count` examples make; the last may be short, down to `least`."""
    full, rest = divmod(count, batch_size)
    return full + (rest >= least)


def windows(starts: Indices, ends: Indices, window: int) -> tuple[Indices, NDArray[np.bool_]]:
    """The last `window` events of each range -> (B, W) flat positions, (B, W) which are real.

    W is the longest range, at most `window`, at least 1. Right-aligned.
    """
    width = int(max(1, min(window, (ends - starts).max(initial=1))))
    positions = ends[:, None] - width + np.arange(width)
    return positions, positions >= starts[:, None]


def gather_items(histories: Histories, positions: Indices, real: NDArray[np.bool_]) -> Indices:
    """(B, W) flat positions -> (B, W) item indices, PAD if not real."""
    return np.where(real, histories.items[np.where(real, positions, 0)], PAD)


def gather_event_types(
    histories: Histories, positions: Indices, real: NDArray[np.bool_]
) -> Indices:
    """(B, W) flat positions -> (B, W) event type indices, PAD if not real."""
    if histories.event_types is None:
        return np.where(real, UNKNOWN, PAD)
    return np.where(real, histories.event_types[np.where(real, positions, 0)], PAD)


def gather_gap_days(
    histories: Histories,
    positions: Indices,
    real: NDArray[np.bool_],
    request_times: NDArray[np.int64],
) -> NDArray[np.float32]:
    """(B, W) flat positions, (B,) times of the request -> (B, W) days between; 0 if not real."""
    seconds = request_times[:, None] - histories.times[np.where(real, positions, 0)]
    return np.where(real, seconds / SECONDS_PER_DAY, 0.0).astype(np.float32)


def chunks(
    dataset: Dataset, window: int, rng: np.random.Generator | None = None, *, least: int = 1
) -> tuple[Indices, Indices]:
    """Cut each user's training events into as few pieces of at most `window` targets as possible.

    Returns (C,) starts and (C,) ends; a piece begins one event before its first target, if the user
    has one there. `rng` draws where the cuts are, so that an event has a different past in each
    epoch; without it all pieces except a user's first are full. Users with fewer than `least`
    training events are left out.
    """
    histories = dataset.histories
    events = np.bincount(histories.users[dataset.trained], minlength=histories.num_users)
    starts = histories.offsets[:-1]
    count = -(-events // window)
    missing = np.zeros_like(events)  # targets that the last piece of a user is short of
    if rng is not None:
        missing = rng.integers(0, np.maximum(count * window - events, 0) + 1)
        missing[count < 2] = 0
    user = np.repeat(np.arange(len(events)), count)
    within = np.arange(len(user)) - np.repeat(np.cumsum(count) - count, count)
    ends = starts[user] + events[user] + missing[user] - within * window
    last = starts[user] + events[user]
    kept = events[user] >= least
    return np.maximum(starts[user], ends - window - 1)[kept], np.minimum(ends, last)[kept]


class Negatives:
    """Uniform items that the user has no training event with."""

    def __init__(self, dataset: Dataset) -> None:
        self.num_rows = dataset.items.num_rows
        users = dataset.histories.users[dataset.trained].astype(np.int64)
        self._keys = np.unique(users * self.num_rows + dataset.histories.items[dataset.trained])

    def draw(self, users: NDArray[np.int32], rng: np.random.Generator) -> Indices:
        """(B,) users -> (B,) item indices. A user who has everything gets any item."""
        negatives = rng.integers(NUM_RESERVED, self.num_rows, len(users))
        for _ in range(10):  # each round draws again only the few that hit
            keys = users.astype(np.int64) * self.num_rows + negatives
            found = np.searchsorted(self._keys, keys)
            hit = self._keys[np.minimum(found, len(self._keys) - 1)] == keys
            if not hit.any():
                break
            negatives[hit] = rng.integers(NUM_RESERVED, self.num_rows, int(hit.sum()))
        return negatives
