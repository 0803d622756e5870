"""Metrics against cases counted by hand, and against torchmetrics if it has them."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional import mean_absolute_error, mean_squared_error
from torchmetrics.functional.classification import binary_auroc
from torchmetrics.functional.retrieval import (
    retrieval_average_precision,
    retrieval_hit_rate,
    retrieval_normalized_dcg,
    retrieval_recall,
    retrieval_reciprocal_rank,
)

from seqrec_export.data.histories import Dataset, prepare
from seqrec_export.evaluation import metrics
from seqrec_export.evaluation import ranking as evaluation
from seqrec_export.evaluation.ranking import basket_metrics, rank_targets
from support.toys import toy

SEEDS = st.integers(0, 2**32 - 1)
few = settings(max_examples=40, derandomize=True, deadline=None, database=None)
INFINITE = float("inf")


def test_metrics_of_ranks_that_a_person_can_check() -> None:
    ranks = np.array([1.0, 2.0, 3.0, 11.0, INFINITE])
    assert metrics.hit_rate_at_k(ranks, 2) == 2 / 5
    assert metrics.hit_rate_at_k(ranks, 11) == 4 / 5
    assert math.isclose(metrics.ndcg_at_k(ranks, 10), (1 + 1 / math.log2(3) + 1 / 2) / 5)
    assert math.isclose(metrics.mean_reciprocal_rank(ranks), (1 + 1 / 2 + 1 / 3 + 1 / 11) / 5)
    # Of 20 others, 20, 19, 18 and 10 rank below; an item that cannot be recommended is below all.
    below = np.array([20, 19, 18, 10, 0]) / 20
    assert math.isclose(metrics.auc(ranks, np.full(5, 21)), below.mean())


def test_metrics_of_nothing_are_no_numbers() -> None:
    none, no_numbers = np.zeros(0), np.zeros(0, np.float32)
    assert math.isnan(metrics.hit_rate_at_k(none, 10))
    assert math.isnan(metrics.ndcg_at_k(none, 10))
    assert math.isnan(metrics.mean_reciprocal_rank(none))
    assert math.isnan(metrics.auc(none, np.zeros(0, np.int64)))
    assert math.isnan(metrics.rmse(no_numbers, no_numbers))
    assert math.isnan(metrics.mae(no_numbers, no_numbers))


@few
@given(items=st.integers(2, 60), k=st.integers(1, 60), seed=SEEDS)
def test_metrics_of_one_relevant_item_equal_torchmetrics(items: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = torch.from_numpy(rng.permutation(items).astype(np.float32) + 1)  # 0: not retrieved
    relevant = torch.zeros(items, dtype=torch.int64)
    relevant[int(rng.integers(items))] = 1
    own = scores[relevant.bool()]
    rank = np.array([1.0 + float((scores > own).sum())])
    k = min(k, items)
    close = pytest.approx
    assert metrics.hit_rate_at_k(rank, k) == close(float(retrieval_hit_rate(scores, relevant, k)))
    assert metrics.hit_rate_at_k(rank, k) == close(float(retrieval_recall(scores, relevant, k)))
    ndcg = float(retrieval_normalized_dcg(scores, relevant, k))
    assert metrics.ndcg_at_k(rank, k) == close(ndcg, abs=1e-6)
    reciprocal = float(retrieval_reciprocal_rank(scores, relevant))
    assert metrics.mean_reciprocal_rank(rank) == close(reciprocal)
    auroc = float(binary_auroc(scores / (items + 1), relevant))
    assert metrics.auc(rank, np.array([items])) == close(auroc, abs=1e-5)


@few
@given(width=st.integers(1, 12), k=st.integers(1, 12), seed=SEEDS)
def test_metrics_of_labelled_lists_equal_torchmetrics(width: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.permuted(np.tile(np.arange(1, width + 1, dtype=np.float32), (4, 1)), axis=1)
    labels = rng.integers(0, 4, (4, width)).astype(np.float32)
    labels[:, 0] = 1
    labels[rng.random((4, width)) < 0.2] = np.nan  # no candidate
    ndcg = metrics.list_ndcg_at_k(scores, labels, k)
    reciprocal = metrics.list_reciprocal_rank(scores, labels)
    for row in range(4):
        real = ~np.isnan(labels[row])
        if not (labels[row][real] > 0).any():
            assert ndcg[row] == reciprocal[row] == 0
            continue
        chosen = torch.from_numpy(scores[row][real])
        grades = torch.from_numpy(labels[row][real])
        gains = (2**grades - 1).long()  # torchmetrics takes the gain itself
        expected = retrieval_normalized_dcg(chosen, gains, min(k, len(gains)))
        assert ndcg[row] == pytest.approx(float(expected), abs=1e-6)
        expected = retrieval_reciprocal_rank(chosen, (grades > 0).long())
        assert reciprocal[row] == pytest.approx(float(expected))


@few
@given(count=st.integers(1, 30), seed=SEEDS)
def test_errors_of_ratings_equal_torchmetrics(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    predicted, actual = rng.uniform(0.5, 5, (2, count)).astype(np.float32)
    both = torch.from_numpy(predicted), torch.from_numpy(actual)
    rmse = float(mean_squared_error(*both, squared=False))
    assert metrics.rmse(predicted, actual) == pytest.approx(rmse, abs=1e-5)
    assert metrics.mae(predicted, actual) == pytest.approx(
        float(mean_absolute_error(*both)), abs=1e-5
    )


def shop() -> Dataset:
    """One user who takes a, b, c, d, e in turn; d is validation, e the test; f is of others."""
    return prepare(toy([list("abcde"), list("fed")]), "leave_one_out")


def ranks_of(scores: dict[str, float], remove_seen: bool) -> tuple[float, int]:
    """The rank of the first user's test item (e) when every user gets these scores."""
    dataset = shop()
    row = torch.tensor([99.0, 99.0, *(scores[i] for i in dataset.items.ids)])
    ranks, among = rank_targets(
        lambda positions: row.repeat(len(positions), 1),
        dataset,
        dataset.test[:1],
        remove_seen=remove_seen,
    )
    return float(ranks[0]), int(among[0])


def test_only_items_of_training_are_ranked_and_other_targets_are_misses() -> None:
    assert set(shop().items.ids) == {"a", "b", "c", "f"}  # e is in held-out events only
    assert ranks_of({"a": 1, "b": 2, "c": 3, "f": 4}, remove_seen=False) == (INFINITE, 4)


def one_target(history: str, target: str, scores: dict[str, float]) -> float:
    others = [list("abcdefgh")] * 2  # so that training knows every item
    dataset = prepare(toy([[*history, target], *others, *others]), "leave_one_out")
    dataset = replace(dataset, test=dataset.test[:1])
    row = torch.tensor([99.0, 99.0, *(scores.get(i, 0.0) for i in dataset.items.ids)])
    ranks, _ = rank_targets(
        lambda positions: row.repeat(len(positions), 1), dataset, dataset.test, remove_seen=True
    )
    return float(ranks[0])


def test_ties_share_the_mean_of_their_ranks() -> None:
    # c (the target), d and e tie behind f: the places 2, 3 and 4.
    assert one_target("abg", "c", {"f": 2, "c": 1, "d": 1, "e": 1}) == 3


def test_items_already_seen_are_no_competitors() -> None:
    scores = {"a": 9.0, "b": 8.0, "g": 7.0, "f": 2.0, "c": 1.0}
    assert one_target("abg", "c", scores) == 2


def test_a_target_that_is_removed_as_seen_is_a_miss() -> None:
    assert one_target("abc", "a", {"a": 9}) == INFINITE


@few
@given(seed=SEEDS, at_once=st.sampled_from([1, 60, 10**9]))
def test_basket_metrics_equal_torchmetrics_a_user(seed: int, at_once: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "_SCORES_AT_ONCE", at_once)
        assert_basket_metrics_equal_torchmetrics(seed)


def assert_basket_metrics_equal_torchmetrics(seed: int) -> None:
    rng = np.random.default_rng(seed)
    letters = [chr(ord("a") + i) for i in range(20)]
    users = [list(rng.choice(letters, 12)) for _ in range(6)]
    dataset = prepare(toy([letters, *users]), "time")
    scores = torch.from_numpy(
        rng.permuted(np.tile(np.arange(1, 23, dtype=np.float32), (7, 1)), axis=1)
    )[:, : dataset.items.num_rows]
    ks = (3, 8)
    got = basket_metrics(
        lambda positions: scores[dataset.histories.users[positions]].clone(),
        dataset,
        dataset.test,
        ks,
    )
    expected: dict[str, list[float]] = {}
    for user in np.unique(dataset.histories.users[dataset.test]):
        mine = dataset.histories.items[dataset.test][dataset.histories.users[dataset.test] == user]
        bought = torch.zeros(dataset.items.num_rows, dtype=torch.int64)
        bought[torch.from_numpy(mine[mine >= 2])] = 1
        if (mine < 2).any() or not bought.any():
            return  # an item that training never saw has no place in torchmetrics' list
        row, relevant = scores[user][2:], bought[2:]
        for k in ks:
            expected.setdefault(f"recall@{k}", []).append(retrieval_recall(row, relevant, k))
            expected.setdefault(f"hr@{k}", []).append(retrieval_hit_rate(row, relevant, k))
        order = row.argsort(descending=True)[:12]
        hits = relevant[order].tolist()
        precisions = [sum(hits[: i + 1]) / (i + 1) for i, hit in enumerate(hits) if hit]
        expected.setdefault("map@12", []).append(
            sum(precisions) / min(12, int(relevant.sum())) if precisions else 0.0
        )
        if int(relevant.sum()) <= 8 == len(hits):
            average = retrieval_average_precision(row, relevant)
            assert expected["map@12"][-1] == pytest.approx(float(average))
    for name, values in expected.items():
        assert got[name] == pytest.approx(float(np.mean(values)), abs=1e-6), name


@pytest.mark.parametrize("at_once", [1, 10**9])
def test_purchases_of_items_that_training_never_saw_are_counted_apart(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "_SCORES_AT_ONCE", at_once)
    log = toy([["a", "b", "c", "a", "new", "b"], ["b", "a", "c", "b", "new", "newer"]])
    features = pd.DataFrame({"group": [""] * len(log.item_ids)}, dtype=object)
    times = np.array([1, 2, 3, 4, 9, 9] * 2)
    log = replace(log, item_features=features, times=times)
    dataset = prepare(log, "time", held_out_from=(9, 9), new_items=True)
    first = {"new": 5.0, "b": 4.0, "a": 3.0, "c": 2.0, "newer": 1.0}
    row = torch.tensor([0.0, 0.0, *(first[item] for item in dataset.items.ids)])
    got = basket_metrics(lambda p: row.repeat(len(p), 1), dataset, dataset.test, (1, 5))
    assert got["new_items"] == 3  # "new" twice and "newer"
    assert got["new_items_recall@1"] == pytest.approx(2 / 3)
    assert got["new_items_recall@5"] == 1
    assert got["recall@1"] == pytest.approx(0.5)  # one of two each
