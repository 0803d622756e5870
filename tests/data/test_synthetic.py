"""The synthetic shop: counts, determinism, and the structure that its models are to learn."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from seqrec_export.data.interactions import Interactions, Sessions
from seqrec_export.data.readers import synthetic
from seqrec_export.data.readers.synthetic_shop import SPAN, START, Table, make_shop, make_walk
from seqrec_export.errors import SeqrecError

ARRAYS = ("user_ids", "item_ids", "users", "items", "times", "ratings", "event_types")
LAST_TENTH = START + 0.9 * SPAN


@dataclasses.dataclass(frozen=True)
class Split:
    """Events by user, oldest first; each user's last event is the test if there is another one."""

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    time: NDArray[np.int64]
    stars: NDArray[np.float64]
    train: NDArray[np.bool_]
    test: NDArray[np.int64]  # rows; the row before is the user's last event in train
    popularity: NDArray[np.float64]  # (V,) in train
    transitions: NDArray[np.float64]  # (V, V) in train


@pytest.fixture(scope="module")
def shop() -> Interactions:
    return synthetic.generate()


@pytest.fixture(scope="module")
def split(shop: Interactions) -> Split:
    order = np.lexsort((np.arange(len(shop)), shop.users))
    user, item = shop.users[order].astype(np.int64), shop.items[order].astype(np.int64)
    last = np.append(user[1:] != user[:-1], True)
    test = np.flatnonzero(last & np.insert(user[1:] == user[:-1], 0, False))
    follows = (user[1:] == user[:-1]) & ~last[1:]
    size = len(shop.item_ids)
    pairs = item[:-1][follows] * size + item[1:][follows]
    assert shop.ratings is not None
    return Split(
        user=user,
        item=item,
        time=shop.times[order],
        stars=shop.ratings[order].astype(np.float64),
        train=~last,
        test=test,
        popularity=np.bincount(item[~last], minlength=size).astype(np.float64),
        transitions=np.bincount(pairs, minlength=size**2).reshape(size, size).astype(np.float64),
    )


def hit_rate_at_10(scores: NDArray[np.float64], items: NDArray[np.int64]) -> float:
    """(B, V), (B,) -> the share of items that fewer than ten others outscore."""
    own = scores[np.arange(len(items)), items]
    return float(((scores > own[:, None]).sum(axis=1) < 10).mean())


def test_one_seed_gives_one_result(shop: Interactions) -> None:
    again = synthetic.generate()
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(shop, name), getattr(again, name))
    assert shop.sessions is not None
    assert again.sessions is not None
    for field in dataclasses.fields(Sessions):
        np.testing.assert_array_equal(
            getattr(shop.sessions, field.name), getattr(again.sessions, field.name)
        )
    pd.testing.assert_frame_equal(shop.user_features, again.user_features)
    pd.testing.assert_frame_equal(shop.item_features, again.item_features)
    assert (shop.fingerprint, shop.source) == (again.fingerprint, again.source)


def test_another_seed_gives_another_result(shop: Interactions) -> None:
    other = synthetic.generate(seed=1)
    assert other.fingerprint != shop.fingerprint
    assert (other.items != shop.items).mean() > 0.9
    assert set(other.item_ids) != set(shop.item_ids)


def test_every_option_changes_the_fingerprint(shop: Interactions) -> None:
    sizes = ({"users": 1999}, {"items": 999}, {"events": 99_999}, {"sessions": 1999})
    prints = {synthetic.generate(**size).fingerprint for size in sizes}
    assert len(prints | {shop.fingerprint}) == 5


def test_more_users_leave_the_items_as_they_are(shop: Interactions) -> None:
    other = synthetic.generate(users=3000)
    np.testing.assert_array_equal(other.item_ids, shop.item_ids)
    pd.testing.assert_frame_equal(other.item_features, shop.item_features)


@pytest.mark.parametrize(
    ("users", "items", "events", "sessions"),
    [(1, 50, 1, 0), (1, 50, 400, 7), (20, 51, 20, 20), (300, 5000, 2001, 1000), (70, 90, 9000, 5)],
)
def test_counts_are_those_asked_for(users: int, items: int, events: int, sessions: int) -> None:
    made = synthetic.generate(users=users, items=items, events=events, sessions=sessions, seed=3)
    assert len(made) == len(made.items) == len(made.times) == events
    assert len(set(made.user_ids)) == len(made.user_ids) == users
    assert len(set(made.item_ids)) == len(made.item_ids) == items
    assert set(made.users) == set(range(users))
    assert made.items.min() >= 0
    assert made.items.max() < items
    assert made.sessions is None if sessions == 0 else len(made.sessions.users) == sessions


def test_ids_are_text_and_keep_their_leading_zero(shop: Interactions) -> None:
    assert all(
        isinstance(item, str) and len(item) == 10 and item[0] == "0" for item in shop.item_ids
    )
    assert shop.user_ids[123] == "u0000123"


def test_dtypes_are_those_of_interactions(shop: Interactions) -> None:
    assert [getattr(shop, name).dtype for name in ARRAYS] == [
        *(object, object, np.int32, np.int32, np.int64, np.float32, np.int32)
    ]
    assert shop.sessions is not None
    assert [getattr(shop.sessions, field.name).dtype for field in dataclasses.fields(Sessions)] == [
        *(np.int32, np.int64, np.int64, np.int32, np.float32)
    ]


def test_events_are_in_time_order_within_two_years(shop: Interactions) -> None:
    assert (np.diff(shop.times) >= 0).all()
    assert shop.times[0] >= START
    assert shop.times[-1] < START + SPAN
    assert shop.times[-1] - shop.times[0] > 0.9 * SPAN


def test_histories_are_heavy_tailed_and_some_events_repeat(
    shop: Interactions, split: Split
) -> None:
    counts = np.bincount(shop.users)
    assert {1, 2} <= set(counts)
    assert (counts > 300).sum() > 10
    rows = np.stack([shop.users, shop.items, shop.times, shop.event_types, shop.ratings], axis=1)
    assert 0.005 < 1 - len(np.unique(rows, axis=0)) / len(shop) < 0.02
    gaps = np.diff(split.time)[split.user[1:] == split.user[:-1]]
    assert gaps.min() >= 0
    assert (gaps < 600).mean() > 0.5
    assert (gaps > 86_400).mean() > 0.1


def test_users_start_and_items_are_released_in_the_last_tenth(shop: Interactions) -> None:
    for rows, total in ((shop.users, len(shop.user_ids)), (shop.items, len(shop.item_ids))):
        before = np.unique(rows[shop.times < LAST_TENTH])
        after = np.unique(rows[shop.times >= LAST_TENTH])
        assert 0.02 < len(np.setdiff1d(after, before)) / total < 0.15


def test_features_are_aligned_and_some_are_missing(shop: Interactions) -> None:
    assert shop.user_features is not None
    assert shop.item_features is not None
    assert len(shop.user_features) == len(shop.user_ids)
    assert len(shop.item_features) == len(shop.item_ids)
    assert shop.item_features.nunique().to_dict() == {
        "garment_group_name": 21,
        "index_group_name": 5,
    }
    assert shop.item_features.notna().all(axis=None)
    age = shop.user_features["age"]
    assert age.dtype == np.float32
    assert 0.005 < age.isna().mean() < 0.03
    assert age.min() >= 16
    status = shop.user_features["club_member_status"]
    assert 0 < status.isna().sum() < len(status) / 10
    assert all(isinstance(value, str) for value in status.dropna())


def test_buying_is_rarer_than_carting_is_rarer_than_viewing(shop: Interactions) -> None:
    assert shop.event_type_ids == ("view", "cart", "buy")
    view, cart, buy = np.bincount(shop.event_types)
    assert view > cart > buy > 0


def test_transitions_beat_popularity(split: Split) -> None:
    items = split.item[split.test]
    popular = np.tile(split.popularity, (len(items), 1))
    counted = split.transitions[split.item[split.test - 1]] + popular / (2 * popular.max())
    popularity, markov = hit_rate_at_10(popular, items), hit_rate_at_10(counted, items)
    assert popularity < 0.1
    assert markov > 2 * popularity
    assert 0.3 < markov < 0.5


def test_the_process_itself_reaches_half_of_the_last_events() -> None:
    """The ceiling of every model: it is told the home cluster, which a model can but infer."""
    streams = [np.random.Generator(np.random.PCG64([0, part])) for part in range(3)]
    shop, _, _ = make_shop(streams[0], 1000)
    walk = make_walk(streams[2], shop, synthetic.draw_ages(streams[1], 2000), 100_000)
    ranks = np.flatnonzero(walk.counts > 1)
    people, steps = np.arange(len(ranks)), walk.counts[ranks] - 1
    rows = walk.starts[steps] + ranks
    last = walk.items[walk.starts[steps - 1] + ranks]
    before = walk.items[walk.starts[np.maximum(steps - 2, 0)] + ranks]
    home = walk.homes[walk.starts[steps - 1] + ranks]
    now = walk.times[rows].astype(np.float64)

    def dense(table: Table, columns: int) -> NDArray[np.float64]:
        full = np.zeros((len(table.last), columns))
        owner = np.searchsorted(table.last, np.arange(len(table.values)))
        full[owner, table.values] = np.diff(table.ends, prepend=0)
        return full

    successors = np.zeros((len(ranks), 1000))
    for column, likely in enumerate((0.4, 0.25, 0.15, 0.12, 0.08)):
        np.add.at(successors, (people, shop.successors[last, column]), 0.75 * likely)
        np.add.at(successors, (people, shop.successors[before, column]), 0.25 * likely)
    season = dense(shop.by_age_and_month, 21)[shop.contexts(walk.bands[ranks], now)]
    items = dense(shop.by_cluster, 1000)

    def hit_rate(homes: NDArray[np.float64]) -> float:
        in_visit = 0.5 * successors + 0.5 * (0.6 * homes + 0.4 * season) @ items
        moved = 0.85 * homes + 0.15 * season
        new_visit = 0.2 * successors + 0.8 * (0.6 * moved + 0.4 * season) @ items
        mixed = 0.99 * (0.7 * in_visit + 0.3 * new_visit)
        user, late = np.nonzero(shop.release > now[:, None])
        np.add.at(mixed, (user, shop.stand_in[late]), mixed[user, late])
        mixed[user, late] = 0
        mixed[people, last] += 0.01
        return hit_rate_at_10(mixed, walk.items[rows].astype(np.int64))

    blind, told = hit_rate(season), hit_rate(np.eye(21)[home])
    assert 0.43 < blind < told < 0.56


def test_age_and_month_beat_popularity(shop: Interactions, split: Split) -> None:
    assert shop.user_features is not None
    assert shop.item_features is not None
    bands = (shop.user_features["age"].fillna(35).to_numpy()[split.user] // 10).astype(np.int64)
    months = pd.to_datetime(split.time, unit="s").month.to_numpy()
    contexts = bands * 13 + months
    garments = pd.factorize(shop.item_features["garment_group_name"])[0]
    liked = np.ones((contexts.max() + 1, 21))
    np.add.at(liked, (contexts[split.train], garments[split.item[split.train]]), 1)
    liked /= liked.sum(axis=1, keepdims=True)
    usual = np.bincount(garments[split.item[split.train]], minlength=21) / split.train.sum()

    items = split.item[split.test]
    popular = np.tile(split.popularity, (len(items), 1))
    dated = popular * (liked / usual)[contexts[split.test]][:, garments]
    assert hit_rate_at_10(dated, items) > 1.2 * hit_rate_at_10(popular, items)


def test_ratings_hold_user_bias_item_bias_and_taste(shop: Interactions, split: Split) -> None:
    assert shop.item_features is not None
    assert set(split.stars) <= set(np.arange(1, 11) / 2)
    user, item = split.user[split.train], split.item[split.train]
    mean = split.stars[split.train].mean()
    rest = split.stars[split.train] - mean

    def shrunk(
        rows: NDArray[np.int64], size: int, left: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        return np.bincount(rows, left, minlength=size) / (np.bincount(rows, minlength=size) + 2)

    by_item, by_user = np.zeros(len(shop.item_ids)), np.zeros(len(shop.user_ids))
    for _ in range(5):
        by_item = shrunk(item, len(by_item), rest - by_user[user])
        by_user = shrunk(user, len(by_user), rest - by_item[item])
    groups = pd.factorize(shop.item_features["index_group_name"])[0].astype(np.int64)
    left = rest - by_user[user] - by_item[item]
    by_taste = shrunk(user * 5 + groups[item], 5 * len(by_user), left)

    user, item, stars = split.user[split.test], split.item[split.test], split.stars[split.test]
    bias = mean + by_user[user] + by_item[item]
    guesses = (mean, bias, bias + by_taste[user * 5 + groups[item]])
    rmse = [float(np.sqrt(np.mean((stars - guess) ** 2))) for guess in guesses]
    assert rmse[0] > 1.15 * rmse[1]
    assert rmse[1] > 1.05 * rmse[2]
    assert rmse[2] > synthetic.RATING_NOISE_FLOOR


def test_sessions_are_well_formed(shop: Interactions) -> None:
    sessions = shop.sessions
    assert sessions is not None
    assert sorted(sessions.users) == list(range(len(shop.user_ids)))
    assert (np.diff(sessions.times) >= 0).all()
    assert sessions.times[-1] < START + SPAN
    lengths = np.diff(sessions.offsets)
    assert sessions.offsets[0] == 0
    assert sessions.offsets[-1] == len(sessions.candidates) == len(sessions.labels)
    assert lengths.min() >= 10
    assert lengths.max() <= 60
    owner = np.repeat(np.arange(len(lengths)), lengths)
    shown = owner * len(shop.item_ids) + sessions.candidates
    assert len(np.unique(shown)) == len(shown)
    assert set(sessions.labels) == {0, 1, 2, 3}
    clicks = np.bincount(owner, sessions.labels > 0)
    assert 0.1 < (clicks == 0).mean() < 0.2
    assert clicks.max() == 3
    first = np.full(len(shop.user_ids), np.iinfo(np.int64).max)
    np.minimum.at(first, shop.users, shop.times)
    assert 0.02 < (first[sessions.users] >= sessions.times).mean() < 0.1


def test_clicks_follow_the_history_more_than_popularity(shop: Interactions, split: Split) -> None:
    sessions = shop.sessions
    assert sessions is not None
    starts = np.searchsorted(split.user, np.arange(len(shop.user_ids) + 1))

    def ndcg_at_10(score: Callable[[NDArray[np.int64], NDArray[np.int32]], object]) -> float:
        gains = 1 / np.log2(np.arange(2, 12))
        found = []
        for s, user in enumerate(sessions.users):
            rows = slice(sessions.offsets[s], sessions.offsets[s + 1])
            clicked = sessions.labels[rows] > 0
            if clicked.any():
                mine = slice(starts[user], starts[user + 1])
                seen = np.searchsorted(split.time[mine], sessions.times[s])
                history = split.item[mine][:seen]
                order = np.argsort(-np.asarray(score(history, sessions.candidates[rows])))[:10]
                found.append(gains[: len(order)] @ clicked[order] / gains[: clicked.sum()].sum())
        return float(np.mean(found))

    popularity = split.popularity / split.popularity.max() / 2
    by_popularity = ndcg_at_10(lambda _, shown: popularity[shown])
    by_history = ndcg_at_10(
        lambda history, shown: popularity[shown] + split.transitions[history[-1:]][:, shown].sum(0)
    )
    assert by_history > 1.5 * by_popularity


@pytest.mark.parametrize(
    "options",
    [{"users": 0}, {"items": 49}, {"events": 999}, {"sessions": -1}, {"seed": -1}],
)
def test_impossible_sizes_are_refused_with_advice(options: dict[str, int]) -> None:
    [(name, value)] = options.items()
    with pytest.raises(SeqrecError, match=rf"{name}={value} is too few; give {name}=\d+ or more"):
        synthetic.generate(**options)
