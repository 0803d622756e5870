"""Full-catalogue evaluation: the rank of every held-out item among all items, never sampled."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqrec_export.data.batches import Indices, in_order
from seqrec_export.data.histories import Dataset
from seqrec_export.data.interactions import SECONDS_PER_DAY
from seqrec_export.data.vocabulary import NUM_RESERVED
from seqrec_export.evaluation import metrics
from seqrec_export.evaluation.metrics import Metrics

ScoreCatalogue = Callable[[Indices], Tensor]  # (B,) target positions -> (B, V) scores
_SCORES_AT_ONCE = 16_000_000  # floats in memory at a time
_USERS_AT_ONCE = 64
_RECENT_SECONDS = 7 * SECONDS_PER_DAY


def rank_targets(
    score: ScoreCatalogue, dataset: Dataset, positions: Indices, *, remove_seen: bool
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(P,) target positions -> (P,) ranks from 1, (P,) among how many items of the catalogue.

    Ties share the mean of their ranks. A target that training never saw has the rank infinity: it
    cannot be recommended, and leaving it out would flatter the model. With `remove_seen`, items of
    the user's earlier events do not compete, and a target among them has the rank infinity.
    """
    histories = dataset.histories
    batch_size = max(1, min(_USERS_AT_ONCE, _SCORES_AT_ONCE // dataset.items.num_rows))
    ranks = np.full(len(positions), np.inf)
    competitors = np.zeros(len(positions), np.int64)
    # Histories of similar length go together: a batch is as wide as its longest.
    by_length = np.argsort(positions - histories.starts(positions), kind="stable")
    with torch.inference_mode():
        for rows in in_order(by_length, batch_size):
            batch = positions[rows]
            scores = score(batch).float()
            target = torch.from_numpy(histories.items[batch])[:, None].to(scores.device)
            own = scores.gather(1, target)
            scores[:, :NUM_RESERVED] = -torch.inf
            if remove_seen:
                scores[_earlier_items(dataset, batch)] = -torch.inf
            better = (scores > own).sum(1)
            tied = (scores == own).sum(1) - 1
            rank = (1 + better + tied / 2).double().cpu().numpy()
            # What is removed as seen, or reserved, is never recommended, so it is never a hit.
            ranked = (scores.gather(1, target) > -torch.inf)[:, 0].cpu().numpy()
            ranks[rows] = np.where(ranked, rank, np.inf)
            competitors[rows] = (scores > -torch.inf).sum(1).cpu().numpy()
    return ranks, competitors


def _earlier_items(dataset: Dataset, positions: Indices) -> tuple[Tensor, Tensor]:
    starts = dataset.histories.starts(positions)
    lengths = positions - starts
    rows = np.repeat(np.arange(len(positions)), lengths)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    columns = dataset.histories.items[starts[rows] + within]
    return torch.from_numpy(rows), torch.from_numpy(columns)


def retrieval_metrics(
    score: ScoreCatalogue,
    dataset: Dataset,
    positions: Indices,
    *,
    ks: Iterable[int] = (10, 20),
    remove_seen: bool = True,
) -> Metrics:
    """HR@K, NDCG@K, MRR and AUC of the target events over the whole catalogue.

    Without targets it gives only their number, 0.
    """
    ranks, competitors = rank_targets(score, dataset, positions, remove_seen=remove_seen)
    result: Metrics = {"targets": float(len(ranks))}
    if not len(ranks):
        return result
    for k in ks:
        result[f"hr@{k}"] = metrics.hit_rate_at_k(ranks, k)
        result[f"ndcg@{k}"] = metrics.ndcg_at_k(ranks, k)
    result["mrr"] = metrics.mean_reciprocal_rank(ranks)
    result["auc"] = metrics.auc(ranks, competitors)
    return result


def constant_scores(scores: NDArray[np.int64] | NDArray[np.float64]) -> ScoreCatalogue:
    """(V,) one score an item for everybody: the popularity baselines."""
    row = torch.from_numpy(scores.astype(np.float64)).float()
    return lambda positions: row.repeat(len(positions), 1)


def popularity_metrics(
    dataset: Dataset,
    positions: Indices,
    *,
    ks: Iterable[int] = (10, 20),
    remove_seen: bool = True,
) -> Metrics:
    """The same figures for "the most popular items of the training part"."""
    score = constant_scores(dataset.item_counts)
    return retrieval_metrics(score, dataset, positions, ks=ks, remove_seen=remove_seen)


def basket_metrics(
    score: ScoreCatalogue, dataset: Dataset, positions: Indices, ks: tuple[int, int] = (12, 100)
) -> Metrics:
    """Recall@K and HR@K of everything that each user bought in a period, and MAP@12.

    One ranking a user, made for the time of their first purchase in the period; nothing is removed
    as seen. MAP@12 is that of the H&M competition: precision at each hit among the first 12, summed
    and divided by min(12, number of relevant items). `new_users_` figures are of users that
    training never saw; `new_items_recall@K` is the share found of all purchases of items that it
    never saw.
    """
    histories = dataset.histories
    users, first = np.unique(histories.users[positions], return_index=True)
    rows = dataset.items.num_rows
    row_of_user = np.searchsorted(users, histories.users[positions])
    relevant = np.unique(row_of_user.astype(np.int64) * rows + histories.items[positions])
    num_relevant = np.bincount(relevant // rows, minlength=len(users))
    deepest = min(max(*ks, 12), rows - NUM_RESERVED)
    hits = np.zeros((len(users), deepest), bool)
    new_item = dataset.item_counts == 0
    new_hits = np.zeros(deepest, np.int64)
    batch_size = max(1, min(1024, _SCORES_AT_ONCE // rows))
    with torch.inference_mode():
        for start in range(0, len(users), batch_size):
            batch = positions[first[start : start + batch_size]]
            scores = score(batch).float()
            scores[:, :NUM_RESERVED] = -torch.inf
            best = scores.topk(deepest, dim=1).indices.cpu().numpy()
            keys = np.arange(start, start + len(batch))[:, None] * rows + best
            place = np.minimum(np.searchsorted(relevant, keys), len(relevant) - 1)
            hit = relevant[place] == keys
            hits[start : start + len(batch)] = hit
            new_hits += (hit & new_item[best]).sum(0)
    precision = hits.cumsum(1) / np.arange(1, deepest + 1)
    average = (precision * hits)[:, :12].sum(1) / np.minimum(num_relevant, 12)
    known = dataset.user_index[users] >= NUM_RESERVED
    result: Metrics = {"targets": float(len(users)), "new_users": float((~known).sum())}
    if new := int(new_item[relevant % rows].sum()):
        result["new_items"] = float(new)
        result |= {f"new_items_recall@{k}": float(new_hits[:k].sum() / new) for k in ks}
    for prefix, chosen in (("", np.ones(len(users), bool)), ("new_users_", ~known)):
        if not chosen.any():
            continue
        for k in ks:
            found = hits[chosen, :k].sum(1)
            result[f"{prefix}recall@{k}"] = float((found / num_relevant[chosen]).mean())
            result[f"{prefix}hr@{k}"] = float((found > 0).mean())
        result[f"{prefix}map@12"] = float(average[chosen].mean())
    return result


def basket_baselines(dataset: Dataset, positions: Indices) -> dict[str, Metrics]:
    """The most bought items of the training part, and of its last week (or tenth)."""
    histories, train = dataset.histories, dataset.train
    times = histories.times[train]
    span = min(_RECENT_SECONDS, int((times.max() - times.min()) * 0.1) + SECONDS_PER_DAY)
    recent = histories.items[train[times > times.max() - span]]
    recent_counts = np.bincount(recent, minlength=dataset.items.num_rows)
    return {
        "popularity": basket_metrics(constant_scores(dataset.item_counts), dataset, positions),
        "recent popularity": basket_metrics(constant_scores(recent_counts), dataset, positions),
    }
