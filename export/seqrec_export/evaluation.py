"""Full-catalogue evaluation: the rank of every held-out item among all items, never sampled."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqrec_export import metrics
from seqrec_export.batches import Indices, in_order
from seqrec_export.graph import Metrics
from seqrec_export.histories import Dataset
from seqrec_export.vocabulary import NUM_RESERVED

ScoreCatalogue = Callable[[Indices], Tensor]  # (B,) target positions -> (B, V) scores
_SCORES_AT_ONCE = 16_000_000  # floats in memory at a time


def rank_targets(
    score: ScoreCatalogue, dataset: Dataset, positions: Indices, *, remove_seen: bool
) -> NDArray[np.float64]:
    """(P,) target positions -> (P,) ranks from 1 in the whole catalogue.

    Ties share the mean of their ranks. A target that training never saw has the rank infinity: it
    cannot be recommended, and leaving it out would flatter the model. With `remove_seen`, items of
    the user's earlier events are no competitors.
    """
    histories = dataset.histories
    batch_size = max(1, min(1024, _SCORES_AT_ONCE // dataset.items.num_rows))
    ranks = np.full(len(positions), np.inf)
    done = 0
    with torch.inference_mode():
        for batch in in_order(positions, batch_size):
            scores = score(batch).float()
            target = torch.from_numpy(histories.items[batch])[:, None].to(scores.device)
            own = scores.gather(1, target)
            scores[:, :NUM_RESERVED] = -torch.inf
            if remove_seen:
                rows, columns = _earlier_items(dataset, batch)
                scores[rows, columns] = -torch.inf
            better = (scores > own).sum(1)
            # The target itself may have been removed as seen: then it ties with nothing.
            tied = ((scores == own).sum(1) - 1).clamp(min=0)
            rank = (1 + better + tied / 2).double().cpu().numpy()
            known = histories.items[batch] >= NUM_RESERVED
            ranks[done : done + len(batch)] = np.where(known, rank, np.inf)
            done += len(batch)
    return ranks


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
    """HR@K, NDCG@K and MRR of the target events over the whole catalogue."""
    ranks = rank_targets(score, dataset, positions, remove_seen=remove_seen)
    result: Metrics = {"targets": float(len(ranks))}
    for k in ks:
        result[f"hr@{k}"] = metrics.hit_rate_at_k(ranks, k)
        result[f"ndcg@{k}"] = metrics.ndcg_at_k(ranks, k)
    result["mrr"] = metrics.mean_reciprocal_rank(ranks)
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
