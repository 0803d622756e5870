"""What `held_out.py` compares the models with: good libraries, and what the generator knows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from seqrec_export.data.batches import Indices
from seqrec_export.data.histories import Dataset, prepare
from seqrec_export.data.interactions import Interactions
from seqrec_export.data.readers import synthetic, synthetic_shop
from seqrec_export.data.vocabulary import NUM_RESERVED, UNKNOWN
from seqrec_export.evaluation import metrics
from seqrec_export.evaluation.metrics import Metrics
from seqrec_export.evaluation.ranking import retrieval_metrics
from seqrec_export.evaluation.sessions import candidates_of, session_metrics
from seqrec_export.models.registry import MODELS

VERSION = "1"  # changes with whatever changes a figure

_NEIGHBOURS = (20, 50, 100, 200)
_FACTORS = (64, 128)
_KS = (10, 20, 50)


def next_item(dataset: Dataset, log: Interactions) -> dict[str, Metrics]:
    """Item kNN and ALS of `implicit`, their one setting each chosen on the validation part."""
    try:
        import implicit
        from scipy import sparse
    except ImportError as error:
        print(f"implicit was not compared: {error}; pip install implicit")
        return {}

    histories, rows = dataset.histories, dataset.items.num_rows

    def matrix(events: Indices) -> sparse.csr_matrix:
        pairs = np.unique(histories.users[events].astype(np.int64) * rows + histories.items[events])
        ones = np.ones(len(pairs), np.float32)
        shape = (histories.num_users, rows)
        return sparse.csr_matrix((ones, (pairs // rows, pairs % rows)), shape=shape)

    trained = np.flatnonzero(dataset.trained)
    train = matrix(trained)
    before_test = matrix(np.concatenate([trained, dataset.validation]))

    def of_kind(make: Callable[[int], object], sizes: tuple[int, ...]) -> tuple[int, Metrics]:
        fitted = {}
        for size in sizes:
            model = fitted[size] = make(size)
            model.fit(train, show_progress=False)

        def figures(size: int, seen: sparse.csr_matrix, targets: Indices) -> Metrics:
            model = fitted[size]

            def score(batch: Indices) -> torch.Tensor:
                users = histories.users[batch]
                if hasattr(model, "similarity"):
                    return torch.from_numpy(np.asarray((seen[users] @ model.similarity).todense()))
                vectors = model.recalculate_user(users, seen[users])
                return torch.from_numpy(vectors @ model.item_factors.T)

            return retrieval_metrics(score, dataset, targets, ks=_KS)

        best = max(sizes, key=lambda size: figures(size, train, dataset.validation)["ndcg@10"])
        return best, figures(best, before_test, dataset.test)

    neighbours, knn = of_kind(
        lambda size: implicit.nearest_neighbours.CosineRecommender(K=size, num_threads=1),
        _NEIGHBOURS,
    )
    factors, als = of_kind(
        lambda size: implicit.als.AlternatingLeastSquares(
            factors=size, random_state=0, num_threads=1, use_gpu=False
        ),
        _FACTORS,
    )
    return {
        f"item kNN (implicit, K={neighbours})": knn,
        f"ALS (implicit, {factors} factors)": als,
    }


def ratings(dataset: Dataset, log: Interactions) -> dict[str, Metrics]:
    """SVD and item kNN of Surprise, fitted on every rating before the held-out ones.

    So they see the earlier ratings of the users that `mlink` never trains on: they have no other
    way to rate for them.
    """
    try:
        import surprise
    except ImportError as error:
        print(f"Surprise was not compared: {error}; pip install scikit-surprise")
        return {}

    histories = dataset.histories
    assert histories.ratings is not None
    earlier = np.setdiff1d(np.arange(len(histories.items)), dataset.test)
    earlier = earlier[histories.items[earlier] != UNKNOWN]
    frame = pd.DataFrame(
        {
            "user": histories.users[earlier],
            "item": histories.items[earlier],
            "stars": histories.ratings[earlier],
        }
    )
    stars = histories.ratings
    reader = surprise.Reader(rating_scale=(float(stars.min()), float(stars.max())))
    known = surprise.Dataset.load_from_df(frame, reader).build_full_trainset()
    users, items = histories.users[dataset.test], histories.items[dataset.test]
    actual = stars[dataset.test]
    unseen = dataset.user_index[users] == UNKNOWN
    similarity = {"name": "pearson_baseline", "user_based": False}
    result = {}
    for name, model in (
        ("SVD (Surprise)", surprise.SVD(random_state=0)),
        ("item kNN (Surprise)", surprise.KNNBaseline(sim_options=similarity, verbose=False)),
    ):
        model.fit(known)
        pairs = zip(users, items, strict=True)
        predicted = np.array([model.predict(u, i).est for u, i in pairs], np.float32)
        result[name] = {
            "rmse": metrics.rmse(predicted[~unseen], actual[~unseen]),
            "mae": metrics.mae(predicted[~unseen], actual[~unseen]),
            "unseen_rmse": metrics.rmse(predicted[unseen], actual[unseen]),
            "unseen_mae": metrics.mae(predicted[unseen], actual[unseen]),
        }
    return result


def first_five_days(dataset: Dataset, log: Interactions) -> dict[str, Metrics]:
    """Popularity with the day on which `two_tower` only chooses its epoch: it gets no such day."""
    model = MODELS["two_tower"]
    test_from = int(dataset.histories.times[dataset.test].min())
    given = prepare(log, "time", held_out_from=(test_from, test_from), new_items=True)
    figures = model.baselines(given, model.config(), "test")
    return {f"{name}, five days": values for name, values in figures.items()}


def sessions(dataset: Dataset, log: Interactions) -> dict[str, Metrics]:
    """What the process itself would answer that drew the sessions, hidden state and all."""
    odds = _Odds(dataset, log)
    return {"generator's optimum": session_metrics(dataset, "test", odds)}


class _Odds:
    """How much likelier each candidate is chosen than shown for another reason."""

    def __init__(self, dataset: Dataset, log: Interactions) -> None:
        assert dataset.sessions is not None
        assert log.sessions is not None
        self.sessions = dataset.sessions
        users, items, events = len(log.user_ids), len(log.item_ids), len(log)
        # The streams of `synthetic.generate`, seed 0.
        streams = [np.random.Generator(np.random.PCG64([0, part])) for part in range(3)]
        self.shop, _, _ = synthetic_shop.make_shop(streams[0], items)
        ages = synthetic.draw_ages(streams[1], users)
        self.walk = synthetic_shop.make_walk(streams[2], self.shop, ages, events)
        self.rank = np.argsort(self.walk.order)[log.sessions.users]
        self.now = log.sessions.times - synthetic_shop.START
        row_of = {id_: row for row, id_ in enumerate(log.item_ids)}
        rows = [row_of[id_] for id_ in dataset.items.ids]
        self.item_row = np.concatenate([np.zeros(NUM_RESERVED, np.int64), rows]).astype(np.int64)
        clusters = synthetic_shop.CLUSTERS
        self.within = _weights(self.shop.by_cluster, clusters, items)  # cluster -> item
        contexts = synthetic_shop.AGE_BANDS * synthetic_shop.MONTHS
        self.clusters = _weights(self.shop.by_age_and_month, contexts, clusters)

    def __call__(self, rows: Indices) -> NDArray[np.float32]:
        candidates, _ = candidates_of(self.sessions, rows)
        shown = self.item_row[candidates]
        scores = np.zeros(candidates.shape, np.float32)
        for i, session in enumerate(rows):
            scores[i] = self.odds(int(session))[shown[i]]
        return scores

    def odds(self, session: int) -> NDArray[np.float64]:
        """(V,) by row of the log's item ids."""
        shop, walk, rank = self.shop, self.walk, int(self.rank[session])
        now = float(self.now[session])
        steps = walk.starts[np.arange(walk.counts[rank])] + rank
        past = int(np.searchsorted(walk.times[steps], now, side="left"))
        home = int(walk.homes[steps[max(past - 1, 0)]])
        bands = walk.bands[rank : rank + 1]
        context = int(shop.contexts(bands, np.array([now]))[0])
        elsewhere = self.clusters[context] @ self.within
        taste = synthetic_shop.HOME * self.within[home] + (1 - synthetic_shop.HOME) * elsewhere
        chosen = taste
        if past:
            last = walk.items[steps[past - 1]]
            before = walk.items[steps[max(past - 2, 0)]]
            follow = np.zeros(len(taste))
            shares = np.diff(synthetic_shop.SUCCESSORS, prepend=0.0, append=1.0)
            skip = synthetic_shop.SKIP
            for origin, share in ((last, 1 - skip), (before, skip)):
                np.add.at(follow, shop.successors[origin], share * shares)
            rate = synthetic_shop.FOLLOW_IN_VISIT
            chosen = rate * follow + (1 - rate) * taste
        others = 25 * self._on_sale((self.within[home] + elsewhere) / 2, now)
        others[shop.opening] += 10 / len(shop.opening)
        odds: NDArray[np.float64] = self._on_sale(chosen, now) / np.maximum(others, 1e-12)
        return odds

    def _on_sale(self, chances: NDArray[np.float64], now: float) -> NDArray[np.float64]:
        """What is not sold yet leaves its chances to its stand-in."""
        stands_for = np.where(self.shop.release <= now, np.arange(len(chances)), self.shop.stand_in)
        return np.bincount(stands_for, chances, minlength=len(chances))


def _weights(table: synthetic_shop.Table, rows: int, values: int) -> NDArray[np.float64]:
    """(rows, values) the probabilities of a Table."""
    result = np.zeros((rows, values))
    row_of = np.searchsorted(table.last, np.arange(len(table.values)))
    np.add.at(result, (row_of, table.values), np.diff(table.ends, prepend=0.0))
    return result
