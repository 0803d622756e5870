"""A small shop, made from a seed: embedded data on which every model can be trained.

There is no paper about it, so this is the whole process (`synthetic_shop.py` has its constants).

Items. Each belongs to one of 21 latent clusters of equal size. `garment_group_name` is the cluster
(10% drawn again), `index_group_name` its coarser group of five (5% again). Inside a cluster the
popularity of rank r = 0, 1, .. is 1 / (r + 3) (Zipf-Mandelbrot); ranks are random. 70% of the items
are sold from the start, 22% are released during the first 90% of the time and 8% during the last
10%; a cluster's first two ranks are always sold from the start. If an item is chosen before its
release, a stand-in takes its place: an item of the cluster sold from the start, drawn by
popularity. Each item has five successors, of probability .4, .25, .15, .12 and .08: three are of
its own cluster and two of any, each uniform in its cluster.

Users. Ages are 55% N(26, 6) and 45% N(48, 10) years; 1.5% do not tell theirs. 2% of the users have
one event, the others one and a share of the rest in proportion to a log-normal of sigma 1.2. 6%
start in the last 10% of the time, the others at 0.85 u^2 of it, u uniform; each stays for 25% to
100% of what is then left of the 730 days.

Events. With probability 0.3 a new visit starts: its time is the first of as many uniform points in
what is left of the user's stay as visits are still expected; otherwise half a minute to ten minutes
have passed. 1% repeat the user's last event in every column. A user has a home cluster, which moves
at 15% of new visits to a draw from P(cluster | age, month), the product of the cluster's weight, a
bell of 10 years around its age and a wave of the year around its month. The item is then
  - a successor with 0.5 inside a visit and 0.2 in a new one: of the last item (3 in 4) or of the
    one before it (1 in 4);
  - else by popularity from the home cluster (0.6) or from a draw of P(cluster | age, month) (0.4).
70% of the events are views, 18% carts, 12% buys; in the home cluster 62%, 20%, 18%.

Ratings. Each is 3.5 + user bias (sd 0.4) + item bias (0.35) + the user's liking of the cluster's
index group (0.5) + 0.3 in the home cluster + noise (0.5), rounded to half stars, clipped to 0.5..5.
`RATING_NOISE_FLOOR` is the RMSE of a model that knows all but the noise.

Sessions. After a random event of the second half of the user's history (6%: before the first one,
so with an empty history) items are put together in random order: at 15% of sessions none, else one
to three that the user would choose next inside a visit, labelled click 60%, cart 20%, purchase
20%; ten sold from the start; up to 47 more by popularity, half in the home cluster and half in
draws of P(cluster | age, month). Repeats are dropped: 10 to 60 stay. What is clicked is no event.

At the default size, the HR@10 over the full catalogue of each user's last event is 0.06 for
popularity, 0.11 for all but the sequence, 0.37 for counted transitions of the last item, and for
the process itself 0.47 without the home cluster and 0.52 with it. The RMSE is 0.86 stars for the
global mean and 0.67 for user and item bias. The NDCG@10 of sessions is 0.23 for popularity and 0.56
for counted transitions.

All draws are uniform or normal ones of PCG64, which NumPy has not changed since 1.17. Items, users,
events and sessions have a stream each: more users leave the items as they are.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seqrec_export.data.interactions import SECONDS_PER_DAY, Interactions, Sessions
from seqrec_export.data.readers.synthetic_shop import (
    FOLLOW_IN_VISIT,
    SPAN,
    START,
    Floats,
    Ints,
    Shop,
    Walk,
    make_shop,
    make_walk,
    shuffled,
)
from seqrec_export.errors import SeqrecError

RATING_NOISE_FLOOR = 0.496  # stars; 0.520 from noise and rounding, less what clipping takes away

_STATUSES = ("ACTIVE", "PRE-CREATE", "LEFT CLUB", None)
_CHUNK = 65_536  # sessions at a time, so that their 60 columns take little memory
_PLACES = 60  # candidates of a session at most: 3 clicked, 10 of the opening catalogue, 47 others


def generate(
    *,
    users: int = 1000,
    items: int = 600,
    events: int = 40_000,
    sessions: int | None = None,
    seed: int = 0,
) -> Interactions:
    """Exactly this many users, items, events (in time order) and sessions (one a user by default).

    Time and memory grow linearly. The same seed and options give the same arrays.
    Raises SeqrecError for fewer than 1 user, 50 items, one event a user, or a negative number.
    """
    sessions = users if sessions is None else sessions
    for name, value, least in (
        ("users", users, 1),
        ("items", items, 50),
        ("events", events, users),  # every user has one
        ("sessions", sessions, 0),
        ("seed", seed, 0),
    ):
        if value < least:
            raise SeqrecError(f"synthetic {name}={value} is too few; give {name}={least} or more")
    streams = [np.random.Generator(np.random.PCG64([seed, part])) for part in range(4)]
    shop, item_ids, item_features = make_shop(streams[0], items)
    ages = draw_ages(streams[1], users)
    walk = make_walk(streams[2], shop, ages, events)
    made = _make_sessions(streams[3], shop, walk, sessions) if sessions else None

    user_numbers = np.arange(users).astype(str)
    in_time = np.argsort(walk.times, kind="stable")
    ranks = np.arange(events) - np.repeat(walk.starts[:-1], np.diff(walk.starts))
    return Interactions(
        user_ids=np.char.add("u", np.char.zfill(user_numbers, 7)).astype(object),
        item_ids=item_ids,
        users=walk.order.astype(np.int32)[ranks[in_time]],
        items=walk.items[in_time],
        times=walk.times[in_time] + START,
        ratings=walk.ratings[in_time],
        event_types=walk.types[in_time].astype(np.int32),
        event_type_ids=("view", "cart", "buy"),
        user_features=_user_features(streams[1], ages),
        item_features=item_features,
        sessions=made,
        source=f"synthetic:users={users},items={items},events={events},seed={seed}",
    )


def draw_ages(rng: np.random.Generator, count: int) -> Floats:
    """(count,) ages of users in whole years, all of them known."""
    young = rng.random(count) < 0.55
    normal = rng.standard_normal(count)
    years: Floats = np.rint(np.where(young, 26 + 6 * normal, 48 + 10 * normal))
    return np.clip(years, 16, 90)


def _user_features(rng: np.random.Generator, ages: Floats) -> pd.DataFrame:
    told, status = rng.random((2, len(ages)))
    return pd.DataFrame(
        {
            "age": np.where(told < 0.015, np.nan, ages).astype(np.float32),
            "club_member_status": np.array(_STATUSES, dtype=object)[
                np.searchsorted([0.9, 0.97, 0.98], status, side="right")
            ],
        }
    )


def _make_sessions(rng: np.random.Generator, shop: Shop, walk: Walk, count: int) -> Sessions:
    users = len(walk.order)
    ranks = shuffled(rng, users)[np.arange(count) % users]
    place, wait, early = rng.random((3, count))
    empty = early < 0.06
    steps = walk.counts[ranks] - 1 - (0.5 * place * walk.counts[ranks]).astype(np.int64)
    steps = np.where(empty, 0, steps)
    rows = walk.starts[steps] + ranks
    following = walk.starts[np.minimum(steps + 1, walk.counts[ranks] - 1)] + ranks
    pause = np.where(following > rows, walk.times[following] - walk.times[rows], SECONDS_PER_DAY)
    after = 1 + wait * np.clip(pause - 2, 0, SECONDS_PER_DAY)
    now = np.where(empty, walk.times[rows] - 60 - 86_400 * wait, walk.times[rows] + after)
    now = np.minimum(np.floor(now), SPAN - 1)

    in_time = np.argsort(now, kind="stable")
    candidates, labels, lengths = [], [], []
    for begin in range(0, count, _CHUNK):
        chunk = in_time[begin : begin + _CHUNK]
        shown, label, kept = _candidates(
            rng, shop, walk, ranks[chunk], steps[chunk], now[chunk], empty[chunk]
        )
        candidates.append(shown[kept])
        labels.append(label[kept])
        lengths.append(kept.sum(axis=1))
    return Sessions(
        users=walk.order[ranks[in_time]].astype(np.int32),
        times=now[in_time].astype(np.int64) + START,
        offsets=np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64),
        candidates=np.concatenate(candidates),
        labels=np.concatenate(labels),
    )


def _candidates(
    rng: np.random.Generator,
    shop: Shop,
    walk: Walk,
    ranks: Ints,
    steps: Ints,
    now: Floats,
    empty: NDArray[np.bool_],
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.bool_]]:
    """Three (S, 60) arrays: items in random order, their labels, which of them are shown."""
    count = len(ranks)
    rows = walk.starts[steps] + ranks
    home = walk.homes[rows].astype(np.int32)
    contexts = shop.contexts(walk.bands[ranks], now)
    positives, length, first = rng.random((3, count))
    clicks = np.where(positives < 0.15, 0, 1 + ((positives - 0.15) / 0.85 * 3).astype(np.int64))
    columns = np.arange(_PLACES)
    shown = np.empty((count, _PLACES), np.int32)
    for column in range(3):
        shown[:, column] = shop.choose(
            rng,
            last=walk.items[rows],
            before=walk.items[walk.starts[np.maximum(steps - 1, 0)] + ranks],
            home=home,
            contexts=contexts,
            now=now,
            follow=np.where(empty, 0.0, FOLLOW_IN_VISIT),
        )
    stride = len(shop.opening) // 10 * np.arange(10)
    from_start = (first * len(shop.opening)).astype(np.int64)[:, None] + stride
    shown[:, 3:13] = shop.opening[from_start % len(shop.opening)]
    popular = shop.by_age_and_month.draw(contexts[:, None], rng.random((count, _PLACES - 13)))
    cluster = np.where(columns[13:] % 2, home[:, None], popular)
    others = shop.by_cluster.draw(cluster, rng.random((count, _PLACES - 13)))
    shown[:, 13:] = shop.released(others, now[:, None])

    label = 1 + np.searchsorted([0.6, 0.8], rng.random((count, _PLACES)), side="right")
    label = np.where(columns < clicks[:, None], label, 0)
    # The first 16 to 60 places are filled, except those of clicks that were not made.
    keep = (columns < clicks[:, None]) | (columns >= 3)
    keep &= columns < (16 + length * 45).astype(np.int64)[:, None]
    # An item that was drawn twice keeps the larger label: sorted, that is the last of its run.
    packed = np.sort(np.where(keep, shown * 4 + label, -1), axis=1)
    kept = (packed >= 0) & (np.diff(packed // 4, axis=1, append=-2) != 0)
    packed = np.where(kept, packed, -1)
    packed = np.take_along_axis(packed, np.argsort(rng.random((count, _PLACES)), axis=1), axis=1)
    return (packed // 4).astype(np.int32), (packed % 4).astype(np.float32), packed >= 0
