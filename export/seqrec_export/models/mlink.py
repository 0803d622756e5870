"""mlink: a GRU over rated items replaces the user vector, so that unseen users fold in.

The head has a ReLU between its layers, without which every user would rank items alike; targets
come after their history; the sequence is read on its time axis (the source read two of 19 steps).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from seqrec_export.contract import Graph, Tolerance
from seqrec_export.data.batches import Indices, gather_items, windows
from seqrec_export.data.histories import Dataset, Part
from seqrec_export.data.vocabulary import PAD, UNKNOWN
from seqrec_export.errors import SeqrecError
from seqrec_export.evaluation.metrics import Metrics
from seqrec_export.evaluation.ratings import predicted_ratings, rating_baselines, rating_metrics
from seqrec_export.models import wire
from seqrec_export.models.model import Batch, Metric, Model
from seqrec_export.models.next_item import NextItem
from seqrec_export.models.retrieval import candidate_scorer, history_encoder
from seqrec_export.models.settings import TWO_OR_MORE, WIDTH, HistorySettings, setting
from seqrec_export.nn import layers
from seqrec_export.nn.ragged import Ragged, compact

_RATING_GAIN = 10.0  # of the first weights; 4 gains less, 20 no more
_STAR_TOLERANCE = Tolerance(1e-5)  # of five stars, as much more of a wider scale


@dataclass(frozen=True, kw_only=True)
class MlinkConfig(HistorySettings):
    """Settings of `mlink`."""

    dim: int = setting(100, "item embedding; the state has one more", WIDTH)
    hidden: int = setting(256, "width of the rating head", WIDTH)
    max_length: int = 19
    dropout: float = 0.3
    unknown_rate: float = 0.02
    learning_rate: float = 2e-3
    lr_decay: float = 0.6
    weight_decay: float = 1e-5
    gradient_clip: float = 1.0
    batch_size: int = setting(256, "ratings a step; a batch norm takes two", TWO_OR_MORE)
    epochs: int = 4
    patience: int = 2


class Mlink(nn.Module):
    """GRU over (item, rating) pairs; an MLP rates a candidate from the last state."""

    stars: Tensor  # () the highest rating, 0 at least
    lowest: Tensor  # () the lowest, 0 at most
    mean_rating: Tensor  # ()

    def __init__(self, config: MlinkConfig, rows: Mapping[str, int]) -> None:
        super().__init__()
        self.config = config
        state = config.dim + 1
        self.items = nn.Embedding(rows["items"], config.dim, padding_idx=PAD)
        nn.init.normal_(self.items.weight[UNKNOWN:], std=config.dim**-0.5)
        self.gru = layers.GRU(state, state)
        with torch.no_grad():  # ratings around their mean are small: they would be learned late
            self.gru.weight_ih_l0[:, -1] *= _RATING_GAIN
        self.cold = nn.Parameter(torch.zeros(state))  # the state before any event
        self.dropout = layers.Dropout(config.dropout)
        # One linear layer over [state, item], written as two: C candidates share the state's part.
        self.from_state = nn.Linear(state, config.hidden, bias=False)
        self.from_item = nn.Linear(config.dim, config.hidden, bias=False)
        self.norm = nn.BatchNorm1d(config.hidden)
        self.rate = nn.Linear(config.hidden, 1)
        self.register_buffer("stars", torch.tensor(5.0))
        self.register_buffer("lowest", torch.tensor(0.0))
        self.register_buffer("mean_rating", torch.tensor(3.0))

    def fill_buffers(self, dataset: Dataset) -> None:
        """Take over the scale of the ratings and their mean, which replaces a missing rating.

        The scale includes 0, so for stars it goes from 0 to the highest. Raises SeqrecError if
        there is no scale.
        """
        assert dataset.histories.ratings is not None
        ratings = dataset.histories.ratings[dataset.trained]
        highest, lowest = max(ratings.max(), np.float32(0)), min(ratings.min(), np.float32(0))
        mean = ratings.mean()
        if not np.isfinite([mean, highest, lowest, highest - lowest]).all():
            raise SeqrecError(
                "mlink takes ratings that are finite numbers, and some of the training part are "
                "not, or are too large to add up; leave those events out, or scale the ratings"
            )
        if highest == lowest:
            raise SeqrecError(
                "mlink learns ratings from how they differ, and all of the training part are 0; "
                "name the column that holds the ratings"
            )
        self.stars.fill_(float(highest))
        self.lowest.fill_(float(lowest))
        self.mean_rating.fill_(float(mean))
        with torch.no_grad():
            share = float((mean - lowest) / (highest - lowest))
            odds = float(np.log(share / (1 - share))) if 0 < share < 1 else 6 * share - 3
            self.rate.bias.fill_(odds)

    def encode(self, history: Ragged, ratings: Tensor) -> Tensor:
        """Item indices, (B, W) stars of the last items -> (B, D + 1) last hidden state."""
        items, stars = compact(
            history,
            (ratings, float("nan")),
            window=self.config.max_length,
            oldest_first_column=True,
        )
        missing = torch.isnan(stars)
        stars = torch.where(missing, self.mean_rating, stars)
        stars = stars.maximum(self.lowest).minimum(self.stars)
        centred = (stars - self.mean_rating) / (self.stars - self.lowest) * (items != PAD)
        x = torch.cat([self.items(items), centred[..., None]], dim=2)
        lengths = (items != PAD).sum(dim=1).clamp(min=1)
        _, state = self.gru(x, lengths)
        return torch.where(layers.known_items(history) > 0, state, self.cold)

    def score(self, user: Tensor, candidates: Ragged) -> Tensor:
        """(B, D + 1), item indices -> (N,) stars."""
        state = self.from_state(self.dropout(user)).index_select(0, candidates.rows)
        items = self.from_item(self.dropout(self.items(candidates.values)))
        hidden = torch.relu(self._normalise(state + items))
        share = torch.sigmoid(self.rate(hidden)[:, 0])
        return self.lowest + share * (self.stars - self.lowest)

    def predict(self, batch: Batch) -> Tensor:
        """(B,) stars of the targets."""
        state = self.encode(Ragged.of(batch["history"]), batch["ratings"])
        return self.score(state, Ragged.of(batch["target"][:, None]))

    def _normalise(self, hidden: Tensor) -> Tensor:
        """(N, H) batch norm over the last axis, for any N, 0 too."""
        if self.training:
            normed: Tensor = self.norm(hidden)
            return normed
        assert self.norm.running_mean is not None
        assert self.norm.running_var is not None
        scale = self.norm.weight * torch.rsqrt(self.norm.running_var + self.norm.eps)
        return (hidden - self.norm.running_mean) * scale + self.norm.bias

    def loss(self, batch: Batch) -> Tensor:
        """Mean squared error of the stars, on the scale 0..1."""
        hidden = {
            n: layers.hide_items(batch[n], self.config.unknown_rate) for n in ("history", "target")
        }
        stars = self.predict(batch | hidden)
        return (((stars - batch["rating"]) / (self.stars - self.lowest)) ** 2).mean()


def graphs(config: MlinkConfig, top_k: int) -> dict[str, Graph]:
    """What Triton serves. `mlink` rates the candidates it is given: no sweep of the catalogue."""
    user = wire.user_embedding(config.dim + 1)
    inputs = (wire.HISTORY, wire.ratings(config.max_length))

    def rate(net: Mlink, history: Ragged, ratings: Tensor, items: Ragged) -> tuple[Tensor, ...]:
        stars = net.score(net.encode(history, ratings), items)
        return layers.mask_unknown(stars, items.values), layers.known_items(history)

    return {
        "mlink": Graph(
            name="mlink",
            meaning="the stars that a user would give to each candidate",
            function=rate,
            inputs=(*inputs, wire.CANDIDATES),
            outputs=(wire.SCORES, wire.KNOWN_ITEMS),
            tolerance=_STAR_TOLERANCE,
        ),
        "mlink_encoder": history_encoder("mlink", inputs, user, "a rated history as a vector"),
        "mlink_scorer": candidate_scorer("mlink", user, score=Mlink.score),
    }


def _tolerance_scale(net: Mlink) -> float:
    """How much wider than five stars the ratings are."""
    return max(1.0, float(net.stars - net.lowest) / 5)


def _inputs(dataset: Dataset, config: MlinkConfig, targets: Indices) -> Batch:
    histories = dataset.histories
    assert histories.ratings is not None
    positions, real = windows(histories.starts(targets), targets, config.max_length)
    ratings = np.where(real, histories.ratings[np.where(real, positions, 0)], 0).astype(np.float32)
    return {
        "history": torch.from_numpy(gather_items(histories, positions, real)),
        "ratings": torch.from_numpy(ratings),
        "target": torch.from_numpy(histories.items[targets]),
        "rating": torch.from_numpy(histories.ratings[targets]),
    }


# Only its batches: what is predicted is the rating of the next item.
_NEXT_ITEM = NextItem(inputs=_inputs, least_rows=2)


def evaluate(net: nn.Module, dataset: Dataset, config: MlinkConfig, part: Part) -> Metrics:
    """RMSE and MAE in stars; on the test part also of users that training never saw."""
    assert isinstance(net, Mlink)

    def predict(targets: Indices) -> Tensor:
        return net.predict(_NEXT_ITEM.inputs_on(net, dataset, config, targets))

    targets = dataset.positions(part)
    return rating_metrics(dataset, targets, predicted_ratings(predict, targets))


MODEL = Model(
    name="mlink",
    summary="GRU over rated items, rates candidates in stars",
    config=MlinkConfig,
    net=Mlink,
    graphs=graphs,
    needs=("ratings",),
    split="last_rating",
    batches=_NEXT_ITEM.batches,
    num_batches=_NEXT_ITEM.num_batches,
    evaluate=evaluate,
    baselines=lambda dataset, config, part: rating_baselines(dataset, dataset.positions(part)),
    metric=Metric(
        name="rmse",
        direction="min",
        baseline="user and item bias",
        headline=("rmse", "mae", "unseen_rmse"),
    ),
    tolerance_scale=_tolerance_scale,
    presets={"source": {"learning_rate": 1e-3, "lr_decay": 1.0, "batch_size": 16}},
)
