"""How far predicted ratings are from those that were given."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqrec_export.data.batches import Indices, in_order
from seqrec_export.data.histories import Dataset
from seqrec_export.data.vocabulary import UNKNOWN
from seqrec_export.evaluation import metrics
from seqrec_export.evaluation.metrics import Metrics


def predicted_ratings(
    predict: Callable[[Indices], Tensor], positions: Indices
) -> NDArray[np.float32]:
    """(P,) target positions -> (P,) what `predict` says of them, a thousand at a time."""
    predicted = [np.zeros(0, np.float32)]
    with torch.inference_mode():
        for batch in in_order(positions, 1024):
            predicted.append(predict(batch).float().cpu().numpy())
    return np.concatenate(predicted)


def rating_metrics(dataset: Dataset, positions: Indices, predicted: NDArray[np.float32]) -> Metrics:
    """RMSE and MAE in the units of the ratings, those of users that training never saw apart."""
    histories = dataset.histories
    assert histories.ratings is not None
    actual = histories.ratings[positions]
    unseen = dataset.user_index[histories.users[positions]] == UNKNOWN
    result = {"targets": float(len(positions))}
    if not unseen.all():
        result["rmse"] = metrics.rmse(predicted[~unseen], actual[~unseen])
        result["mae"] = metrics.mae(predicted[~unseen], actual[~unseen])
    if unseen.any():
        result["unseen_users"] = float(unseen.sum())
        result["unseen_rmse"] = metrics.rmse(predicted[unseen], actual[unseen])
        result["unseen_mae"] = metrics.mae(predicted[unseen], actual[unseen])
    return result


def rating_baselines(dataset: Dataset, positions: Indices) -> dict[str, Metrics]:
    """Global mean, item mean, and user-plus-item bias (Koren 2010, damped means).

    The user's bias is taken from every rating before the target, so unseen users have one too.
    """
    histories = dataset.histories
    assert histories.ratings is not None
    trained = dataset.trained
    mean = float(histories.ratings[trained].mean())
    rows = dataset.items.num_rows
    count = np.bincount(histories.items[trained], minlength=rows)
    deviation = np.bincount(
        histories.items[trained], histories.ratings[trained] - mean, minlength=rows
    )
    item_mean = mean + deviation / np.maximum(count, 1)
    item_bias = deviation / (count + 10.0)
    residual = np.concatenate(
        [[0.0], np.cumsum(histories.ratings - mean - item_bias[histories.items])]
    )
    starts = histories.starts(positions)
    user_bias = (residual[positions] - residual[starts]) / (positions - starts + 5.0)
    items = histories.items[positions]
    predictions = {
        "global mean": np.full(len(positions), mean),
        "item mean": item_mean[items],
        "user and item bias": mean + item_bias[items] + user_bias,
    }
    return {
        name: rating_metrics(dataset, positions, values.astype(np.float32))
        for name, values in predictions.items()
    }
