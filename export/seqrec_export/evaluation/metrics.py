"""Metrics as the field defines them, from the rank of the one relevant item.

The metric of zero rows is NaN: 0 would be the best possible error, or the worst hit rate.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Metrics = dict[str, float]  # by name, as hr@10
Ranks = NDArray[np.float64]


def hit_rate_at_k(ranks: Ranks, k: int) -> float:
    """Share of rows whose relevant item is among the first k. (N,) ranks from 1."""
    return float((ranks <= k).mean()) if len(ranks) else math.nan


def ndcg_at_k(ranks: Ranks, k: int) -> float:
    """Mean of 1 / log2(1 + rank) if rank <= k, else 0 (Jarvelin and Kekalainen 2002)."""
    gains = np.where(ranks <= k, 1.0 / np.log2(1.0 + ranks), 0.0)
    return float(gains.mean()) if len(ranks) else math.nan


def mean_reciprocal_rank(ranks: Ranks) -> float:
    """Mean of 1 / rank; an infinite rank counts 0."""
    return float((1.0 / ranks).mean()) if len(ranks) else math.nan


def auc(ranks: Ranks, num_candidates: NDArray[np.int64]) -> float:
    """Mean share of the other candidates that rank below the relevant item, in 0..1."""
    others = np.maximum(num_candidates - 1, 1)
    below = np.where(np.isfinite(ranks), 1.0 - (ranks - 1.0) / others, 0.0)
    return float(np.clip(below, 0.0, 1.0).mean()) if len(ranks) else math.nan


def rmse(predicted: NDArray[np.float32], actual: NDArray[np.float32]) -> float:
    """Root of the mean squared error, in the units of the ratings."""
    error = predicted.astype(np.float64) - actual
    return float(np.sqrt((error**2).mean())) if len(error) else math.nan


def mae(predicted: NDArray[np.float32], actual: NDArray[np.float32]) -> float:
    """Mean absolute error, in the units of the ratings."""
    error = predicted.astype(np.float64) - actual
    return float(np.abs(error).mean()) if len(error) else math.nan


def list_ndcg_at_k(
    scores: NDArray[np.float32], labels: NDArray[np.float32], k: int
) -> NDArray[np.float64]:
    """(S, C) scores, (S, C) graded labels (NaN: no candidate) -> (S,) NDCG@k, gain 2^label - 1."""
    valid = ~np.isnan(labels)
    gains = np.where(valid, 2.0 ** np.nan_to_num(labels) - 1.0, 0.0)
    discount = 1.0 / np.log2(np.arange(2, scores.shape[1] + 2))
    discount[k:] = 0.0
    order = np.argsort(-np.where(valid, scores, -np.inf), axis=1, kind="stable")
    dcg = (np.take_along_axis(gains, order, axis=1) * discount).sum(axis=1)
    ideal = (-np.sort(-gains, axis=1) * discount).sum(axis=1)
    return np.asarray(dcg / np.where(ideal > 0, ideal, 1.0), dtype=np.float64)


def list_reciprocal_rank(
    scores: NDArray[np.float32], labels: NDArray[np.float32]
) -> NDArray[np.float64]:
    """(S, C) scores, (S, C) labels (NaN: no candidate) -> (S,) 1 / rank of the first positive."""
    valid = ~np.isnan(labels)
    order = np.argsort(-np.where(valid, scores, -np.inf), axis=1, kind="stable")
    positive = np.take_along_axis(np.nan_to_num(labels) > 0, order, axis=1)
    first = positive.argmax(axis=1) + 1.0
    return np.where(positive.any(axis=1), 1.0 / first, 0.0)
