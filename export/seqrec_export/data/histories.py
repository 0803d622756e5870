"""Interactions -> histories in one flat array with offsets (CSR), vocabularies, and a split.

An example is the position of its target event in the flat array; its history is every earlier
event of the same user. So a split is three arrays of positions, and nothing is copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seqrec_export.contract import Dtype
from seqrec_export.data.extra_columns import as_numbers, as_texts, indexed
from seqrec_export.data.interactions import Interactions, Sessions
from seqrec_export.data.vocabulary import NUM_RESERVED, PAD, UNKNOWN, Vocabulary
from seqrec_export.errors import SeqrecError

SplitKind = Literal["leave_one_out", "time", "last_rating"]
Part = Literal["train", "validation", "test"]
_HELD_OUT = 0.1  # of events (split by time) or of users (last_rating), for each of two parts


@dataclass(frozen=True, kw_only=True)
class Histories:
    """The events of user u are `offsets[u]:offsets[u + 1]` of every array, oldest first."""

    offsets: NDArray[np.int64]  # (U + 1,) by row of Interactions.user_ids
    users: NDArray[np.int32]  # (N,) the row of each event's user
    items: NDArray[np.int64]  # (N,) item indices; UNKNOWN for items that training never saw
    times: NDArray[np.int64]  # (N,) seconds since 1970-01-01 UTC
    ratings: NDArray[np.float32] | None = None  # (N,) stars
    event_types: NDArray[np.int64] | None = None  # (N,) event type indices
    # (N,) each: indices of the vocabulary of that name, or float32, NaN if missing.
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def num_users(self) -> int:
        """Users, with and without events."""
        return len(self.offsets) - 1

    def starts(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """(P,) event positions -> (P,) where the history of each begins."""
        starts: NDArray[np.int64] = self.offsets[self.users[positions]]
        return starts


@dataclass(frozen=True, kw_only=True)
class SessionSet:
    """Sessions with model indices, and where in the flat histories each of them happens."""

    ends: NDArray[np.int64]  # (S,) the history of a session is starts[s]:ends[s]
    starts: NDArray[np.int64]  # (S,)
    times: NDArray[np.int64]  # (S,) seconds since 1970-01-01 UTC
    offsets: NDArray[np.int64]  # (S + 1,)
    candidates: NDArray[np.int64]  # (M,) item indices
    labels: NDArray[np.float32]  # (M,) 0 nothing, 1 click, 2 cart, 3 purchase
    train: NDArray[np.int64]  # rows
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What a model trains on: histories, vocabularies of the training part, and the split."""

    histories: Histories
    vocabularies: Mapping[str, Vocabulary]
    item_counts: NDArray[np.int64]  # (rows of items,) training events of each item index
    user_index: NDArray[np.int64]  # (U,) row of user_ids -> index in the user vocabulary
    trained: NDArray[np.bool_]  # (N,) which events training may look at
    train: NDArray[np.int64]  # (P,) positions of target events
    validation: NDArray[np.int64]
    test: NDArray[np.int64]
    user_features: pd.DataFrame | None  # by row of Interactions.user_ids
    item_features: pd.DataFrame | None  # by item index, NUM_RESERVED empty rows first
    sessions: SessionSet | None
    user_ids: NDArray[np.object_]  # (U,) every user, also those without an index
    notes: tuple[str, ...]

    @property
    def items(self) -> Vocabulary:
        """The catalogue, most popular first."""
        return self.vocabularies["items"]

    @property
    def num_rows(self) -> dict[str, int]:
        """Embedding rows of each vocabulary."""
        return {name: vocabulary.num_rows for name, vocabulary in self.vocabularies.items()}

    def positions(self, part: Part) -> NDArray[np.int64]:
        """The target events of one part of the split."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[part]


def prepare(
    interactions: Interactions,
    split: SplitKind,
    seed: int = 0,
    *,
    held_out_from: tuple[int, int] | None = None,
    new_items: bool = False,
    columns: Mapping[str, Dtype] | None = None,
    hold_back: bool = True,
) -> Dataset:
    """Sort events into histories, split them, and index the ids that training sees.

    `leave_one_out`: a user's last event is the test, the one before it validation.
    `time`: the last tenth of all events is the test, the tenth before it validation; or what
    happened from the second time of `held_out_from` on (seconds since 1970), and from the first.
    `last_rating`: like leave_one_out, and a tenth of the users are never trained on.
    Without `hold_back` all events and sessions are the training part, whatever the split.
    With `new_items`, items with features have an index without an event of the training part.
    `columns` says which extra columns are taken, as strings or as numbers; one that the log does
    not have is missing in every event.

    Raises SeqrecError if nothing is left to train on.
    """
    if len(interactions) == 0 and interactions.sessions is None:
        raise SeqrecError(f"{interactions.source} holds no events; nothing can be trained on it")
    order, offsets = sorted_events(interactions)
    counts = np.diff(offsets)
    users = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    raw_items = interactions.items[order]
    times = interactions.times[order]
    part = np.zeros(len(users), np.int8)
    if hold_back:
        part = _split(users, times, offsets, split, seed, held_out_from)
    is_train = part == 0
    if not is_train.any() and interactions.sessions is None:
        raise SeqrecError(
            f"{interactions.source} leaves nothing to train on: the {split} split holds back all "
            f"of its {len(interactions)} events; give a longer log"
        )
    sessions = interactions.sessions
    session_part = None
    if sessions is not None:
        none = np.zeros(len(sessions.users), np.int8)
        session_part = _split_sessions(sessions, seed) if hold_back else none

    train_counts = np.bincount(raw_items[is_train], minlength=len(interactions.item_ids))
    known = train_counts > 0
    if sessions is not None and session_part is not None:
        rows = np.repeat(np.arange(len(sessions.users)), np.diff(sessions.offsets))
        known[sessions.candidates[session_part[rows] == 0]] = True
    if new_items and interactions.item_features is not None:
        known[:] = True
    items, item_index = _by_popularity(interactions.item_ids, train_counts, known)
    trained_user = np.zeros(len(interactions.user_ids), bool)
    trained_user[users[is_train]] = True
    user_index = np.full(len(interactions.user_ids), UNKNOWN, np.int64)
    user_index[trained_user] = np.arange(trained_user.sum()) + NUM_RESERVED
    vocabularies = {
        "items": items,
        "users": Vocabulary(interactions.user_ids[trained_user]),
        "event_types": Vocabulary(interactions.event_type_ids),
    }
    extra: dict[str, NDArray[Any]] = {}
    for name, dtype in (columns or {}).items():
        vocabulary, extra[name] = _extra(interactions, name, dtype, order, is_train)
        if vocabulary is not None:
            vocabularies[name] = vocabulary
    item_counts = np.zeros(items.num_rows, np.int64)
    item_counts[item_index[known]] = train_counts[known]

    histories = Histories(
        offsets=offsets,
        users=users,
        items=item_index[raw_items],
        times=times,
        ratings=None if interactions.ratings is None else interactions.ratings[order],
        event_types=None
        if interactions.event_types is None
        else interactions.event_types[order].astype(np.int64) + NUM_RESERVED,
        columns=extra,
    )
    alone = int((counts == 1).sum())
    notes = (f"{alone} users have a single event: used for popularity only",) if alone else ()
    item_features = _features_by_index(interactions.item_features, items, item_index, known)
    if item_features is not None:
        for column in item_features.columns:
            if column in extra:
                raise SeqrecError(
                    f"{interactions.source} has {column} of its events and of its items; give the "
                    "events' column another name"
                )
            vocabularies[column] = Vocabulary(sorted(set(item_features[column]) - {""}))
    return Dataset(
        histories=histories,
        vocabularies=vocabularies,
        item_counts=item_counts,
        user_index=user_index,
        trained=is_train,
        train=np.flatnonzero(is_train),
        validation=np.flatnonzero(part == 1),
        test=np.flatnonzero(part == 2),
        user_features=interactions.user_features,
        item_features=item_features,
        sessions=None
        if sessions is None or session_part is None
        else _place_sessions(sessions, session_part, histories, part, item_index),
        user_ids=interactions.user_ids,
        notes=(*interactions.notes, *notes),
    )


def sorted_events(interactions: Interactions) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(N,) order of the events by user, then time; (U + 1,) where each user's events begin."""
    past = () if interactions.nanoseconds is None else (interactions.nanoseconds,)
    # The sort is stable: events of the same time keep the file's order.
    order = np.lexsort((*past, interactions.times, interactions.users))
    return order, event_offsets(interactions)


def event_offsets(interactions: Interactions) -> NDArray[np.int64]:
    """(U + 1,) where each user's events begin, sorted by user."""
    counts = np.bincount(interactions.users, minlength=len(interactions.user_ids))
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _split(
    users: NDArray[np.int32],
    times: NDArray[np.int64],
    offsets: NDArray[np.int64],
    split: SplitKind,
    seed: int,
    held_out_from: tuple[int, int] | None,
) -> NDArray[np.int8]:
    """0 train, 1 validation, 2 test, for each event in history order; -1 is never trained on."""
    part = np.zeros(len(users), np.int8)
    if split == "time":
        validation_from, test_from = held_out_from or (
            np.quantile(times, [1 - 2 * _HELD_OUT, 1 - _HELD_OUT], method="lower")
            if len(times)
            else (0, 0)
        )
        part[times >= validation_from] = 1
        part[times >= test_from] = 2
        return part
    lengths = np.diff(offsets)
    last = offsets[1:] - 1
    part[last[lengths >= 3] - 1] = 1
    part[last[lengths >= 3]] = 2
    part[last[lengths == 2]] = 0
    if split == "last_rating":
        unseen = np.random.default_rng(seed).random(len(lengths)) < _HELD_OUT
        hidden = unseen[users] & (part == 0)
        part[hidden] = -1
        # An unseen user has no validation row: the choice of the epoch must not look at it either.
        part[unseen[users] & (part == 1)] = -1
    return part


def _split_sessions(sessions: Sessions, seed: int) -> NDArray[np.int8]:
    """By time; sessions of one time (JDsearch has no clock) are split at random."""
    total = len(sessions.users)
    tie = np.random.default_rng(seed).permutation(total)
    order = np.lexsort((tie, sessions.times))
    part = np.zeros(total, np.int8)
    part[order[int(total * (1 - 2 * _HELD_OUT)) :]] = 1
    part[order[int(total * (1 - _HELD_OUT)) :]] = 2
    return part


def _by_popularity(
    ids: NDArray[np.object_], counts: NDArray[np.int64], known: NDArray[np.bool_]
) -> tuple[Vocabulary, NDArray[np.int64]]:
    """Item vocabulary, and raw row -> index.

    Most popular first, because TopK over ascending scores costs several times as much, and because
    ties then go to the more popular item.
    """
    rows = np.flatnonzero(known)
    rows = rows[np.argsort(-counts[rows], kind="stable")]
    index = np.full(len(ids), UNKNOWN, np.int64)
    index[rows] = np.arange(len(rows)) + NUM_RESERVED
    return Vocabulary(ids[rows]), index


def _extra(
    interactions: Interactions,
    name: str,
    dtype: Dtype,
    order: NDArray[np.int64],
    is_train: NDArray[np.bool_],
) -> tuple[Vocabulary | None, NDArray[Any]]:
    """The vocabulary of an extra column of text, None of numbers; (N,) its values in order."""
    values = interactions.columns.get(name)
    if dtype == "string":
        texts = np.full(len(order), "", object) if values is None else as_texts(values)[order]
        return indexed(texts, is_train)
    if values is None:
        return None, np.full(len(order), np.nan, np.float32)
    return None, as_numbers(name, values, interactions.source)[order]


def _features_by_index(
    features: pd.DataFrame | None,
    items: Vocabulary,
    item_index: NDArray[np.int64],
    known: NDArray[np.bool_],
) -> pd.DataFrame | None:
    if features is None:
        return None
    columns = {}
    for name in features.columns:
        values = np.full(items.num_rows, "", dtype=object)
        values[item_index[known]] = features[name].fillna("").to_numpy(dtype=object)[known]
        columns[name] = values
    return pd.DataFrame(columns, dtype=object)


def _place_sessions(
    sessions: Sessions,
    part: NDArray[np.int8],
    histories: Histories,
    event_part: NDArray[np.int8],
    item_index: NDArray[np.int64],
) -> SessionSet:
    """Find for each session how many events of its user happened strictly before it.

    A session of one part of the split sees no event of a later part: those are a user's last ones.
    """
    event_keys, session_keys = _keys(
        (histories.users, histories.times), (sessions.users, sessions.times)
    )
    ends = np.searchsorted(event_keys, session_keys, side="left")
    starts = histories.offsets[sessions.users]
    for own in (0, 1):
        visible = (event_part >= 0) & (event_part <= own)
        count = np.bincount(histories.users[visible], minlength=histories.num_users)
        ends = np.where(part == own, np.minimum(ends, starts + count[sessions.users]), ends)
    candidates = item_index[sessions.candidates]
    assert PAD not in candidates
    return SessionSet(
        starts=starts,
        ends=ends.astype(np.int64),
        times=sessions.times,
        offsets=sessions.offsets,
        candidates=candidates,
        labels=sessions.labels,
        train=np.flatnonzero(part == 0),
        validation=np.flatnonzero(part == 1),
        test=np.flatnonzero(part == 2),
    )


def _keys(*tables: tuple[NDArray[np.int32], NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    """(users, times) of several tables -> a number for each row that sorts by user, then time."""
    times = [moments for _, moments in tables]
    first = min(int(moments.min(initial=0)) for moments in times)
    span = max(int(moments.max(initial=0)) for moments in times) - first + 1
    users = 1 + max(int(rows.max(initial=0)) for rows, _ in tables)
    if users * span < 1 << 63:
        moments = [some - first for some in times]
    else:
        # If users or years are too many for one number, times become ranks, at most one an event.
        ranks = np.unique(np.concatenate(times), return_inverse=True)[1].ravel()
        moments = np.split(ranks, np.cumsum([len(some) for some in times])[:-1])
        span = len(ranks) + 1
    return [
        rows.astype(np.int64) * span + some for (rows, _), some in zip(tables, moments, strict=True)
    ]
