"""How well the candidates that a session showed are ranked."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from seqrec_export.data.batches import Indices, in_order
from seqrec_export.data.histories import Dataset, Part, SessionSet
from seqrec_export.data.vocabulary import PAD
from seqrec_export.evaluation import metrics
from seqrec_export.evaluation.metrics import Metrics

Rank = Callable[[Indices], NDArray[np.float32]]  # (S,) rows of sessions -> (S, C) scores


def candidates_of(sessions: SessionSet, rows: Indices) -> tuple[Indices, NDArray[np.float32]]:
    """(S,) rows -> (S, C) item indices (PAD: none), (S, C) labels (NaN: none)."""
    starts, ends = sessions.offsets[rows], sessions.offsets[rows + 1]
    width = int(max(1, (ends - starts).max(initial=1)))
    positions = starts[:, None] + np.arange(width)
    real = positions < ends[:, None]
    positions = np.where(real, positions, 0)
    candidates = np.where(real, sessions.candidates[positions], PAD)
    return candidates, np.where(real, sessions.labels[positions], np.nan).astype(np.float32)


def rankable(dataset: Dataset, part: Part) -> Indices:
    """The sessions of a part that have a positive and something to rank it over: their rows."""
    sessions = dataset.sessions
    if sessions is None:
        return np.zeros(0, np.int64)
    rows = {"train": sessions.train, "validation": sessions.validation, "test": sessions.test}[part]
    positives = np.concatenate([[0], np.cumsum(sessions.labels > 0)])
    count = positives[sessions.offsets[rows + 1]] - positives[sessions.offsets[rows]]
    total = sessions.offsets[rows + 1] - sessions.offsets[rows]
    chosen: Indices = rows[(count > 0) & (count < total)]
    return chosen


def session_metrics(dataset: Dataset, part: Part, rank: Rank) -> Metrics:
    """How well `rank`, (S,) rows of sessions -> (S, C) scores, orders what the sessions showed.

    A log without sessions has no figures of them.
    """
    sessions = dataset.sessions
    if sessions is None:
        return {}
    rows = rankable(dataset, part)
    if not len(rows):
        return {"sessions": 0.0}
    ndcg, reciprocal = [np.zeros(0)], [np.zeros(0)]
    with torch.inference_mode():
        for batch in in_order(rows, 512):
            _, labels = candidates_of(sessions, batch)
            scores = rank(batch)
            ndcg.append(metrics.list_ndcg_at_k(scores, labels, 10))
            reciprocal.append(metrics.list_reciprocal_rank(scores, labels))
    return {
        "sessions": float(len(rows)),
        "candidates_ndcg@10": float(np.concatenate(ndcg).mean()),
        "candidates_mrr": float(np.concatenate(reciprocal).mean()),
    }


def session_popularity(dataset: Dataset, part: Part) -> Metrics:
    """The same figures for "the most popular items of the training part"."""
    sessions, counts = dataset.sessions, dataset.item_counts.astype(np.float32)
    if sessions is None:
        return {}
    return session_metrics(dataset, part, lambda rows: counts[candidates_of(sessions, rows)[0]])
