"""The synthetic shop and its users' walk through it; `synthetic.py` describes the process."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seqrec_export.data.interactions import SECONDS_PER_DAY

START = 1_672_531_200  # 2023-01-01 00:00 UTC
DAYS = 730
SPAN = DAYS * SECONDS_PER_DAY
FOLLOW_IN_VISIT = 0.5

_GARMENTS = (
    *("Jersey Basic", "Jersey Fancy", "Knitwear", "Blouses", "Shirts", "Dresses", "Skirts"),
    *("Trousers", "Denim", "Shorts", "Outdoor", "Blazers", "Swimwear", "Underwear"),
    *("Nightwear", "Socks", "Shoes", "Bags", "Accessories", "Sportswear", "Beauty"),
)
_INDEX_GROUPS = ("Women", "Men", "Children", "Sport", "Basics")
CLUSTERS = len(_GARMENTS)
_GROUP_OF = np.arange(CLUSTERS) * len(_INDEX_GROUPS) // CLUSTERS
SUCCESSORS = np.cumsum([0.4, 0.25, 0.15, 0.12])
_NEW_VISIT, _MOVE, _REPEAT = 0.3, 0.15, 0.01
_FOLLOW_NEW_VISIT, SKIP, HOME = 0.2, 0.25, 0.6
AGE_BANDS = 8  # of eight years, from 16
MONTHS = 12

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Table:
    """Distributions, one per row: draws a value of a given row in proportion to the weights."""

    def __init__(self, rows: Ints, values: Ints, weights: Floats) -> None:
        order = np.argsort(rows, kind="stable")
        self.values = values[order].astype(np.int32)
        rows, weights = rows[order], weights[order]
        # Row r takes up [r, r + 1) of one increasing array, so a single search serves all the rows.
        self.ends = np.cumsum(weights / np.bincount(rows, weights)[rows])
        self.last = np.searchsorted(rows, np.arange(rows[-1] + 1), side="right") - 1

    def draw(self, rows: Ints | NDArray[np.int32], uniform: Floats) -> NDArray[np.int32]:
        """(...) rows, (...) numbers in [0, 1) -> (...) values."""
        found = np.searchsorted(self.ends, rows + uniform, side="right")
        drawn: NDArray[np.int32] = self.values[np.minimum(found, self.last[rows])]
        return drawn


@dataclass(frozen=True, kw_only=True)
class Shop:
    """What is sold and since when, what is chosen after what, and by whom."""

    cluster: Ints  # (V,)
    release: Floats  # (V,) seconds from START
    stand_in: NDArray[np.int32]  # (V,)
    successors: NDArray[np.int32]  # (V, 5)
    bias: Floats  # (V,) stars
    opening: Ints  # items sold from the start
    by_cluster: Table  # cluster -> item, by popularity
    by_age_and_month: Table  # age band * 12 + month -> cluster
    month_of_day: Ints  # (DAYS,) 0 is January

    def contexts(self, bands: Ints, now: Floats) -> Ints:
        """Rows of `by_age_and_month` for users of these age bands at these times."""
        return bands * MONTHS + self.month_of_day[(now / SECONDS_PER_DAY).astype(np.int64)]

    def released(self, items: NDArray[np.int32], now: Floats) -> NDArray[np.int32]:
        """The items, those not yet sold at these times replaced by their stand-ins."""
        return np.where(self.release[items] <= now, items, self.stand_in[items])

    def choose(
        self,
        rng: np.random.Generator,
        *,
        last: NDArray[np.int32],
        before: NDArray[np.int32],
        home: NDArray[np.int32],
        contexts: Ints,
        now: Floats,
        follow: Floats,
    ) -> NDArray[np.int32]:
        """(B,) the items chosen next; `follow` is the probability of taking a successor."""
        which, followed, skipped, at_home, cluster, item = rng.random((6, len(last)))
        origin = np.where(skipped < SKIP, before, last)
        successor = self.successors[origin, np.searchsorted(SUCCESSORS, which, side="right")]
        elsewhere = self.by_age_and_month.draw(contexts, cluster)
        taste = self.by_cluster.draw(np.where(at_home < HOME, home, elsewhere), item)
        return self.released(np.where(followed < follow, successor, taste), now)


@dataclass(frozen=True, kw_only=True)
class Walk:
    """All events step by step: first every user's first one, then the second ones, and so on.

    `order` ranks the users by their number of events, most first, so the users who have a step
    are the first ranks: event `step` of rank `r` is row `starts[step] + r`.
    """

    order: Ints  # (U,) rank -> user
    counts: Ints  # (U,) by rank
    bands: Ints  # (U,) by rank
    starts: Ints  # (steps + 1,)
    items: NDArray[np.int32]
    homes: NDArray[np.int8]
    times: Ints  # seconds from START
    types: NDArray[np.int8]
    ratings: NDArray[np.float32]


def shuffled(rng: np.random.Generator, count: int) -> Ints:
    """0 .. count - 1 in random order."""
    return np.argsort(rng.random(count), kind="stable")


def make_shop(
    rng: np.random.Generator, count: int
) -> tuple[Shop, NDArray[np.object_], pd.DataFrame]:
    """The shop, its item ids and its item features."""
    place = shuffled(rng, count)
    cluster, rank = place % CLUSTERS, place // CLUSTERS
    popularity = 1 / (rank + 3.0)
    by_cluster = Table(cluster, np.arange(count), popularity)

    kind, when = rng.random((2, count))
    when = np.where(kind < 0.08, 0.9 + 0.07 * when, np.where(kind < 0.3, 0.9 * when, 0.0))
    release = np.where(rank < 2, 0.0, when * SPAN)
    from_start = Table(cluster, np.arange(count), popularity * (release == 0))

    own = np.repeat(cluster[:, None], 3, axis=1)
    linked = np.hstack([own, (rng.random((count, 2)) * CLUSTERS).astype(np.int64)])
    # Which of the five is likely must not tell whether it is of the same cluster.
    linked = np.take_along_axis(linked, np.argsort(rng.random((count, 5)), axis=1), axis=1)
    uniform = Table(cluster, np.arange(count), np.ones(count))

    # A cluster's age and month are spread evenly, independently of each other and of its weight.
    ages = 18 + 45 * shuffled(rng, CLUSTERS) / CLUSTERS
    peaks = MONTHS * shuffled(rng, CLUSTERS) / CLUSTERS
    weights = (1 + shuffled(rng, CLUSTERS)) ** -0.4
    band_ages = 20 + 8 * np.arange(AGE_BANDS)[:, None, None]
    bell = 0.05 + np.exp(-0.5 * ((band_ages - ages) / 10) ** 2)
    season = (1.05 + np.cos(2 * np.pi * (np.arange(MONTHS)[:, None] - peaks) / MONTHS)) ** 2
    likely = weights * bell * season
    contexts = np.repeat(np.arange(AGE_BANDS * MONTHS), CLUSTERS)

    days = np.datetime64(START, "s").astype("datetime64[D]") + np.arange(DAYS)
    shop = Shop(
        cluster=cluster,
        release=release,
        stand_in=from_start.draw(cluster, rng.random(count)),
        successors=uniform.draw(linked, rng.random((count, 5))),
        bias=0.35 * rng.standard_normal(count),
        opening=np.flatnonzero(release == 0),
        by_cluster=by_cluster,
        by_age_and_month=Table(
            contexts, np.tile(np.arange(CLUSTERS), AGE_BANDS * MONTHS), likely.ravel()
        ),
        month_of_day=days.astype("datetime64[M]").astype(np.int64) % MONTHS,
    )
    # Gaps of at least one make the ids distinct; nine digits of which the first is not zero.
    gaps = 1 + (rng.random(count) * (8.9e8 / count - 1)).astype(np.int64)
    ids = np.char.add("0", (100_000_000 + np.cumsum(gaps)).astype(str)).astype(object)
    noise = rng.random((4, count))
    garment = np.where(noise[0] < 0.1, (noise[1] * CLUSTERS).astype(np.int64), cluster)
    group = np.where(
        noise[2] < 0.05, (noise[3] * len(_INDEX_GROUPS)).astype(np.int64), _GROUP_OF[cluster]
    )
    features = pd.DataFrame(
        {
            "garment_group_name": np.array(_GARMENTS, dtype=object)[garment],
            "index_group_name": np.array(_INDEX_GROUPS, dtype=object)[group],
        }
    )
    return shop, ids, features


def make_walk(rng: np.random.Generator, shop: Shop, ages: Floats, events: int) -> Walk:
    """(U,) ages -> all events; the one loop is over the steps of the longest history."""
    users = len(ages)
    once = rng.random(users) < 0.02
    heavy = np.cumsum(np.exp(1.2 * rng.standard_normal(users)) * np.where(once, 1e-9, 1.0))
    counts = 1 + np.diff(np.floor(heavy / heavy[-1] * (events - users)), prepend=0).astype(np.int64)
    order = np.argsort(-counts, kind="stable")
    counts = counts[order]
    bands = np.clip((ages[order].astype(np.int64) - 16) // 8, 0, AGE_BANDS - 1)
    late, begin, stay = rng.random((3, users))
    joined: Floats = np.where(late < 0.06, 0.9 + 0.07 * begin, 0.003 + 0.85 * begin**2)
    end = (joined + (0.999 - joined) * (0.25 + 0.75 * stay)) * SPAN
    bias = 0.4 * rng.standard_normal(users)
    liking = 0.5 * rng.standard_normal((users, len(_INDEX_GROUPS)))

    active = users - np.searchsorted(counts[::-1], np.arange(counts[0]), side="right")
    starts = np.concatenate([[0], np.cumsum(active)])
    walk = Walk(
        order=order,
        counts=counts,
        bands=bands,
        starts=starts,
        items=np.empty(events, np.int32),
        homes=np.empty(events, np.int8),
        times=np.empty(events, np.int64),
        types=np.empty(events, np.int8),
        ratings=np.empty(events, np.float32),
    )
    # The state of every user who still has a step to go.
    now = joined * SPAN
    home = shop.by_age_and_month.draw(shop.contexts(bands, now), rng.random(users))
    last = before = np.zeros(users, np.int32)
    kind, stars = np.zeros(users, np.int8), np.zeros(users)
    for step, (start, count) in enumerate(zip(starts[:-1], active, strict=True)):
        now, home, last, before = now[:count], home[:count], last[:count], before[:count]
        kind, stars = kind[:count], stars[:count]
        visit, gap, repeat, move, target, typed = rng.random((6, count))
        new = visit < (_NEW_VISIT if step else 2.0)
        again = (repeat < _REPEAT) & (step > 0)
        remaining, left = end[:count] - now, counts[:count] - step
        jump = remaining * (1 - (1 - gap) ** (1 / (1 + _NEW_VISIT * (left - 1))))
        # Events never go past the end of the stay, however many are left.
        minutes = np.minimum(30 + 570 * gap**2, 0.5 * remaining / left)
        now = now + np.where(again, 0.0, np.where(new, jump, minutes))

        contexts = shop.contexts(bands[:count], now)
        moved = new & ~again & (move < _MOVE)
        home = np.where(moved, shop.by_age_and_month.draw(contexts, target), home)
        follow = np.where(new, _FOLLOW_NEW_VISIT, FOLLOW_IN_VISIT) if step else np.zeros(count)
        chosen = shop.choose(
            rng, last=last, before=before, home=home, contexts=contexts, now=now, follow=follow
        )
        before = last if step else chosen
        last = np.where(again, last, chosen)

        cluster = shop.cluster[last]
        match = cluster == home
        carted, bought = typed > np.where(match, 0.62, 0.7), typed > np.where(match, 0.82, 0.88)
        kind = np.where(again, kind, carted.astype(np.int8) + bought)
        likes = liking[np.arange(count), _GROUP_OF[cluster]] + 0.3 * match
        exact = 3.5 + bias[:count] + shop.bias[last] + likes + 0.5 * rng.standard_normal(count)
        stars = np.where(again, stars, np.clip(np.rint(2 * exact) / 2, 0.5, 5.0))
        rows = slice(start, start + count)
        walk.items[rows], walk.homes[rows], walk.times[rows] = last, home, now
        walk.types[rows], walk.ratings[rows] = kind, stars
    return walk
