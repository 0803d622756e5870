"""Histories in time order, and splits that keep the future from training."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrec_export.data.batches import chunks
from seqrec_export.data.histories import Dataset, _keys, prepare
from seqrec_export.data.interactions import Interactions, Sessions
from seqrec_export.data.readers.synthetic import generate
from seqrec_export.errors import SeqrecError
from support.toys import DAY, toy, with_events

SEEDS = st.integers(0, 2**32 - 1)
SPLITS = ("leave_one_out", "time", "last_rating")
few = settings(max_examples=60, derandomize=True, deadline=None, database=None)


def random_log(seed: int, users: int, events: int) -> Interactions:
    """Events in any order, many at the same time; some users and items have none."""
    rng = np.random.default_rng(seed)
    log = toy([[chr(ord("a") + i) for i in range(12)], *([[]] * (users - 1))])
    return replace(
        log,
        users=rng.integers(0, users, events).astype(np.int32),
        items=rng.integers(0, 9, events).astype(np.int32),
        times=rng.integers(-20, 20, events),
        ratings=rng.uniform(1, 5, events).astype(np.float32),
        event_types=rng.integers(0, 2, events).astype(np.int32),
        event_type_ids=("buy", "view"),
    )


def parts(dataset: Dataset) -> tuple[set[int], set[int], set[int]]:
    return set(dataset.train), set(dataset.validation), set(dataset.test)


@few
@given(seed=SEEDS, users=st.integers(1, 9), events=st.integers(1, 60))
def test_histories_are_the_events_of_each_user_in_time_order(
    seed: int, users: int, events: int
) -> None:
    log = random_log(seed, users, events)
    dataset = prepare(log, "leave_one_out")
    histories, items = dataset.histories, dataset.items
    for user in range(users):
        mine = [e for e in range(events) if log.users[e] == user]
        mine.sort(key=lambda e: log.times[e])  # stable: events of one time keep their order
        part = slice(histories.offsets[user], histories.offsets[user + 1])
        assert histories.times[part].tolist() == [log.times[e] for e in mine]
        assert histories.ratings[part].tolist() == [log.ratings[e] for e in mine]
        types = dataset.vocabularies["event_types"].decode(histories.event_types[part])
        assert types.tolist() == [log.event_type_ids[log.event_types[e]] for e in mine]
        assert (histories.users[part] == user).all()
        known = [log.item_ids[log.items[e]] for e in mine]
        assert items.decode(histories.items[part]).tolist() == [
            i if i in items.ids else "" for i in known
        ]


@few
@given(seed=SEEDS, users=st.integers(1, 9), events=st.integers(1, 60))
def test_leave_one_out_holds_back_the_last_two_of_three_or_more(
    seed: int, users: int, events: int
) -> None:
    dataset = prepare(random_log(seed, users, events), "leave_one_out")
    train, validation, test = parts(dataset)
    offsets = dataset.histories.offsets.tolist()
    assert test == {e - 1 for s, e in itertools.pairwise(offsets) if e - s >= 3}
    assert validation == {t - 1 for t in test}
    assert train == set(range(events)) - validation - test


@few
@given(seed=SEEDS, users=st.integers(1, 9), events=st.integers(30, 90))
def test_time_holds_back_the_end_of_all_events(seed: int, users: int, events: int) -> None:
    log = random_log(seed, users, events)
    try:
        dataset = prepare(log, "time")
    except SeqrecError:  # too many events of one time: nothing is before it
        assert (np.sort(log.times)[: int(0.8 * (events - 1)) + 1] == log.times.max()).any() or (
            np.sort(log.times)[int(0.8 * (events - 1))] == log.times.min()
        )
        return
    times = dataset.histories.times
    train, validation, test = (times[sorted(part)] for part in parts(dataset))
    assert len(train) + len(validation) + len(test) == events
    assert train.max() < min([*validation, *test])
    assert validation.max(initial=-99) < test.min()
    assert len(test) >= 0.1 * events  # events of one time stay together
    assert (times >= test.min()).sum() == len(test)


@few
@given(seed=SEEDS, users=st.integers(20, 60))
def test_last_rating_never_trains_on_unseen_users(seed: int, users: int) -> None:
    log = random_log(seed, users, users * 6)
    dataset = prepare(log, "last_rating", seed)
    train, validation, test = parts(dataset)
    trained = set(dataset.histories.users[sorted(train)])
    assert not train & validation
    assert not (train | validation) & test
    assert set(np.flatnonzero(dataset.trained)) == train
    for event in test:
        user = dataset.histories.users[event]
        assert event == dataset.histories.offsets[user + 1] - 1
        # A user is either trained on up to the validation event, or not at all.
        assert (event - 1 in validation) == (user in trained)
    known = set(np.flatnonzero(dataset.user_index > 1))
    assert known == trained


@few
@given(seed=SEEDS, split=st.sampled_from(SPLITS))
def test_vocabularies_and_counts_come_from_training_events_only(seed: int, split: str) -> None:
    log = random_log(seed, 12, 80)
    log = replace(log, times=np.random.default_rng(seed).permutation(80).astype(np.int64))
    dataset = prepare(log, split, seed)
    order = np.lexsort((log.times, log.users))
    counts: dict[str, int] = {}
    for event in dataset.train:
        item = log.item_ids[log.items[order[event]]]
        counts[item] = counts.get(item, 0) + 1
    assert dict(zip(dataset.items.ids, dataset.item_counts[2:], strict=True)) == counts
    assert (np.diff(dataset.item_counts[2:]) <= 0).all()  # most popular first
    users = {log.user_ids[u] for u in dataset.histories.users[dataset.train]}
    assert set(dataset.vocabularies["users"].ids) == users


@pytest.mark.parametrize("split", SPLITS)
def test_a_log_that_leaves_nothing_to_train_on_is_refused(split: str) -> None:
    log = toy([["a"]])
    with pytest.raises(SeqrecError, match="no events"):
        prepare(with_events(log, slice(0, 0)), split)
    at_once = toy([[], *[["a", "b", "c"]] * 3])
    at_once = replace(at_once, times=np.full(9, DAY))
    if split == "time":
        with pytest.raises(SeqrecError, match="train"):
            prepare(at_once, split)
    else:
        assert len(prepare(at_once, split, seed=1).train) > 0


@few
@given(seed=SEEDS)
def test_sessions_see_the_events_strictly_before_them(seed: int) -> None:
    log = random_log(seed, 6, 40)
    rng = np.random.default_rng(seed)
    sessions = Sessions(
        users=rng.integers(0, 6, 20).astype(np.int32),
        times=rng.integers(-25, 25, 20),
        offsets=np.arange(21) * 2,
        candidates=rng.integers(0, 12, 40).astype(np.int32),
        labels=np.tile(np.array([0, 1], np.float32), 20),
    )
    dataset = prepare(replace(log, sessions=sessions), "leave_one_out")
    placed, histories = dataset.sessions, dataset.histories
    split = (placed.train, placed.validation, placed.test)
    assert sorted(np.concatenate(split)) == list(range(20))
    for earlier, later in itertools.pairwise(split):
        assert placed.times[earlier].max() <= placed.times[later].min()
    for s in range(20):
        mine = np.flatnonzero(histories.users == sessions.users[s])
        before = [e for e in mine if histories.times[e] < sessions.times[s]]
        # What is held back as a target is no input either, until its part of the split.
        if s in placed.train:
            before = [e for e in before if e in dataset.train]
        elif s in placed.validation:
            before = [e for e in before if e not in dataset.test]
        assert list(range(placed.starts[s], placed.ends[s])) == before


def test_items_of_a_catalogue_are_known_without_a_sale_to_who_asks_for_them() -> None:
    log = generate(users=60, items=400, events=300, sessions=0, seed=0)
    assert len(prepare(log, "time", new_items=True).items) == 400
    assert len(prepare(replace(log, item_features=None), "time", new_items=True).items) < 400
    known = prepare(log, "time")
    assert len(known.items) < 400
    assert (known.item_counts[2:] > 0).all()
    assert known.item_features is not None
    assert len(known.item_features) == known.items.num_rows


@few
@given(seed=SEEDS, users=st.integers(1, 9), events=st.integers(1, 60))
def test_a_split_by_time_can_be_told_when(seed: int, users: int, events: int) -> None:
    log = random_log(seed, users, events)
    begin = int(log.times.min()) + 1  # or nothing would be left to train on
    dataset = prepare(log, "time", held_out_from=(begin, begin + 5))
    times = dataset.histories.times
    assert (times[dataset.train] < begin).all()
    assert ((times[dataset.validation] >= begin) & (times[dataset.validation] < begin + 5)).all()
    assert (times[dataset.test] >= begin + 5).all()
    assert sum(map(len, parts(dataset))) == events


@few
@given(
    seed=SEEDS,
    users=st.integers(1, 9),
    events=st.integers(1, 60),
    window=st.integers(1, 12),
    drawn=st.booleans(),
)
def test_chunks_hold_every_training_event_as_a_target_once(
    seed: int, users: int, events: int, window: int, drawn: bool
) -> None:
    log = random_log(seed, users, events)
    dataset = prepare(log, "leave_one_out")
    histories = dataset.histories
    rng = np.random.default_rng(seed) if drawn else None
    starts, ends = chunks(dataset, window, rng)
    targets = []
    for start, end in zip(starts, ends, strict=True):
        assert histories.users[start] == histories.users[end - 1]
        first = start == histories.offsets[histories.users[start]]
        own = list(range(start + 1, end))
        if first and len(own) < window:  # a user's first event has nothing before it
            own.insert(0, start)
        assert 0 < len(own) <= window
        targets += own
    assert sorted(targets) == np.flatnonzero(dataset.trained).tolist()
    assert len(starts) == len(chunks(dataset, window)[0])


@few
@given(
    seed=SEEDS,
    users=st.sampled_from([1, 9, 1 << 23, 1 << 24, (1 << 31) - 1]),
    span=st.sampled_from([1, 1 << 31, 1 << 41, 1 << 61]),
)
def test_users_and_times_are_in_order_however_many_there_are(
    seed: int, users: int, span: int
) -> None:
    rng = np.random.default_rng(seed)
    tables = []
    for rows in (30, 20):
        user = rng.choice([0, users // 2, users - 1], rows).astype(np.int32)
        tables.append((user, rng.choice([-span, 0, span - 1, *rng.integers(0, span, 3)], rows)))
    keys = np.concatenate(_keys(*tables))
    pairs = np.array([pair for table in tables for pair in zip(*table, strict=True)])
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    rises = (np.diff(pairs[order], axis=0) != 0).any(axis=1)
    assert ((np.diff(keys[order]) > 0) == rises).all()
    assert (np.diff(keys[order]) >= 0).all()
