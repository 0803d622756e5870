"""Caser: convolutions over the last L items (Tang and Wang 2018, arXiv 1809.07426).

Trained with BPR on sampled negatives instead of the paper's binary cross-entropy, or with softmax
over the whole catalogue. A history shorter than L is padded in front; padding has a row of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from seqrec_export.contract import Graph
from seqrec_export.data.batches import (
    Indices,
    Negatives,
    gather_items,
    num_batches,
    shuffled,
    windows,
)
from seqrec_export.data.histories import Dataset, Part
from seqrec_export.data.vocabulary import NUM_RESERVED, PAD
from seqrec_export.evaluation.metrics import Metrics
from seqrec_export.evaluation.ranking import popularity_metrics, retrieval_metrics
from seqrec_export.models import wire
from seqrec_export.models.model import Batch, Metric, Model
from seqrec_export.models.retrieval import retrieval_graphs
from seqrec_export.models.settings import COUNT, SHARE, WIDTH, Range, Settings, setting
from seqrec_export.nn import layers, losses
from seqrec_export.nn.item_search import Catalogue
from seqrec_export.nn.ragged import Ragged, compact

_KS = (10, 20, 50)
_FILTERS = Range(low=1, high=4_096)


@dataclass(frozen=True, kw_only=True)
class CaserConfig(Settings):
    """Settings of `caser`."""

    dim: int = setting(10, "size k of the item and user embeddings", WIDTH)
    # There is a filter of each height up to it, so their weights grow with its square.
    max_length: int = setting(5, "window L", Range(low=1, high=100), unit="events")
    num_vertical: int = setting(4, "vertical filters d', L x 1 each", _FILTERS)
    num_horizontal: int = setting(16, "filters d of each height 1..L", _FILTERS)
    dropout: float = setting(0.05, "dropout probability", SHARE)
    unknown_rate: float = setting(
        0.01, "share of training inputs replaced by the unknown item", SHARE
    )
    num_negatives: int = setting(
        0, "sampled items a target; 0: the whole catalogue", Range(low=0, high=10_000)
    )
    learning_rate: float = 5e-3
    warmup_steps: int = 100
    batch_size: int = setting(512, "targets a step", COUNT)
    epochs: int = 15


class Caser(nn.Module):
    """Item image of L x k, horizontal and vertical convolutions, user vector beside."""

    popularity: Tensor  # (V,)

    def __init__(self, config: CaserConfig, rows: Mapping[str, int]) -> None:
        super().__init__()
        self.config = config
        dim, length = config.dim, config.max_length
        self.items = nn.Embedding(rows["items"], dim, padding_idx=PAD)
        self.users = nn.Embedding(rows["users"], dim)
        self.out_vectors = nn.Embedding(rows["items"], 2 * dim)
        self.out_bias = nn.Parameter(torch.zeros(rows["items"]))
        for embedding in (self.items, self.users, self.out_vectors):
            nn.init.normal_(embedding.weight, std=1.0 / embedding.embedding_dim)
        nn.init.zeros_(self.items.weight[PAD : PAD + 1])
        self.vertical = nn.Linear(length, config.num_vertical)
        self.horizontal = nn.ModuleList(
            nn.Conv1d(dim, config.num_horizontal, height) for height in range(1, length + 1)
        )
        width = config.num_vertical * dim + config.num_horizontal * length
        self.dropout = layers.Dropout(config.dropout)
        self.project = nn.Linear(width, dim)
        self.cold = nn.Parameter(torch.zeros(2 * dim))  # the state before any event
        self.register_buffer("popularity", torch.zeros(rows["items"]))

    @property
    def catalogue(self) -> Catalogue:
        """What a user embedding is multiplied with."""
        return Catalogue(self.out_vectors.weight, self.out_bias, self.popularity)

    def finish(self) -> None:
        """An unknown user is the mean of the users that were trained on."""
        with torch.no_grad():
            if len(self.users.weight) > NUM_RESERVED:
                mean = self.users.weight[NUM_RESERVED:].mean(dim=0)
                self.users.weight[:NUM_RESERVED] = mean

    def encode(self, history: Ragged, user: Tensor) -> Tensor:
        """Item indices, (B, 1) user index -> (B, 2 D) `[z, p_u]`."""
        (last,) = compact(history, window=self.config.max_length, fixed_width=True)
        image = self.items(last).transpose(1, 2)  # (B, D, L)
        columns = self.vertical(image).flatten(1)
        heights = [F.relu(convolve(image)).amax(dim=2) for convolve in self.horizontal]
        features = self.dropout(torch.cat([columns, *heights], dim=1))
        state = torch.cat([F.relu(self.project(features)), self.users(user[:, 0])], dim=1)
        return torch.where(layers.known_items(history) > 0, state, self.cold)

    def loss(self, batch: Batch) -> Tensor:
        """BPR of each target against its negatives, or softmax over the catalogue."""
        history = layers.hide_items(batch["history"], self.config.unknown_rate)
        user = self.encode(Ragged.of(history), batch["user"])
        if "target" in batch:
            weight = self.out_vectors.weight
            return losses.full_softmax(user, weight, self.out_bias, batch["target"])
        candidates = batch["candidates"]  # (B, C), the target first
        scores = self.catalogue.score(user, Ragged.of(candidates)).view_as(candidates)
        return losses.bpr(scores[:, :1], scores[:, 1:])


def graphs(config: CaserConfig, top_k: int) -> dict[str, Graph]:
    """What Triton serves."""
    return retrieval_graphs("caser", (wire.HISTORY, wire.USER_ID), 2 * config.dim, top_k)


def _inputs(dataset: Dataset, config: CaserConfig, targets: Indices) -> Batch:
    histories = dataset.histories
    positions, real = windows(histories.starts(targets), targets, config.max_length)
    return {
        "history": torch.from_numpy(gather_items(histories, positions, real)),
        "user": torch.from_numpy(dataset.user_index[histories.users[targets]][:, None]),
    }


def _batches(dataset: Dataset, config: CaserConfig, rng: np.random.Generator) -> Iterator[Batch]:
    negatives = Negatives(dataset) if config.num_negatives else None
    for targets in shuffled(dataset.train, config.batch_size, rng):
        users, items = dataset.histories.users[targets], dataset.histories.items[targets]
        batch = _inputs(dataset, config, targets)
        if negatives is not None:
            drawn = [negatives.draw(users, rng) for _ in range(config.num_negatives)]
            batch["candidates"] = torch.from_numpy(np.stack([items, *drawn], axis=1))
        else:
            batch["target"] = torch.from_numpy(items)
        yield batch


def _num_batches(dataset: Dataset, config: CaserConfig) -> int:
    return num_batches(len(dataset.train), config.batch_size)


def evaluate(net: nn.Module, dataset: Dataset, config: CaserConfig, part: Part) -> Metrics:
    """HR@K, NDCG@K and AUC of the held-out events, items already seen left out."""
    assert isinstance(net, Caser)

    def score(targets: Indices) -> Tensor:
        inputs = _inputs(dataset, config, targets)
        device = net.out_bias.device
        user = net.encode(Ragged.of(inputs["history"].to(device)), inputs["user"].to(device))
        return net.catalogue.scores(user).cpu()

    return retrieval_metrics(score, dataset, dataset.positions(part), ks=_KS)


def baselines(dataset: Dataset, config: CaserConfig, part: Part) -> dict[str, Metrics]:
    """Popularity under the same protocol."""
    return {"popularity": popularity_metrics(dataset, dataset.positions(part), ks=_KS)}


MODEL = Model(
    name="caser",
    summary="convolutions over the last items and a user vector (Caser)",
    config=CaserConfig,
    net=Caser,
    graphs=graphs,
    batches=_batches,
    num_batches=_num_batches,
    evaluate=evaluate,
    baselines=baselines,
    metric=Metric(name="ndcg@10", headline=("hr@10", "ndcg@10", "hr@50", "auc")),
    presets={
        "ml-100k": {"dim": 32, "dropout": 0.5, "learning_rate": 2e-3, "epochs": 25, "patience": 25},
        "ml-1m": {
            "dim": 64,
            "dropout": 0.2,
            "learning_rate": 2e-3,
            "warmup_steps": 200,
            "epochs": 6,
            "patience": 6,
        },
        "source": {
            "num_negatives": 1,
            "learning_rate": 0.04,
            "lr_decay": 1.0,
            "warmup_steps": 0,
            "weight_decay": 1e-5,
            "batch_size": 4096,
            "epochs": 8,
        },
    },
)
