"""Caser: convolutions over the last L items (Tang and Wang 2018, arXiv 1809.07426).

It is trained with BPR on sampled negatives instead of the paper's binary cross-entropy, or with
softmax over the whole catalogue. A shorter history is padded in front, with a row of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from seqrec_export.contract import Graph
from seqrec_export.data.batches import Indices, Negatives, shuffled
from seqrec_export.data.histories import Dataset
from seqrec_export.data.vocabulary import NUM_RESERVED, PAD
from seqrec_export.models import wire
from seqrec_export.models.model import Batch, Metric, Model
from seqrec_export.models.next_item import NextItem, history_inputs
from seqrec_export.models.retrieval import retrieval_graphs
from seqrec_export.models.settings import COUNT, WIDTH, HistorySettings, Range, setting
from seqrec_export.nn import layers, losses
from seqrec_export.nn.item_search import Catalogue
from seqrec_export.nn.ragged import Ragged, compact

_FILTERS = Range(low=1, high=4_096)


@dataclass(frozen=True, kw_only=True)
class CaserConfig(HistorySettings):
    """Settings of `caser`."""

    dim: int = setting(10, "size k of the item and user embeddings", WIDTH)
    # There is a filter of each height up to it, so their weights grow with its square.
    max_length: int = setting(5, "window L", Range(low=1, high=100), unit="events")
    num_vertical: int = setting(4, "vertical filters d', L x 1 each", _FILTERS)
    num_horizontal: int = setting(16, "filters d of each height 1..L", _FILTERS)
    dropout: float = 0.05
    num_negatives: int = setting(
        0, "sampled items a target; 0: the whole catalogue", Range(low=0, high=10_000)
    )
    learning_rate: float = 5e-3
    warmup_steps: int = 100
    batch_size: int = setting(512, "targets a step", COUNT)
    epochs: int = 15


class Caser(nn.Module):
    """Item image of L x k, horizontal and vertical convolutions, and a user vector."""

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
        if "negatives" not in batch:
            return losses.full_softmax(user, self.catalogue, batch["target"])
        candidates = torch.cat([batch["target"][:, None], batch["negatives"]], dim=1)
        scores = self.catalogue.score(user, Ragged.of(candidates)).view_as(candidates)
        return losses.bpr(scores[:, :1], scores[:, 1:])


def graphs(config: CaserConfig, top_k: int) -> dict[str, Graph]:
    """What Triton serves."""
    return retrieval_graphs("caser", (wire.HISTORY, wire.USER_ID), 2 * config.dim, top_k)


def _inputs(dataset: Dataset, config: CaserConfig, targets: Indices) -> Batch:
    user = dataset.user_index[dataset.histories.users[targets]][:, None]
    return history_inputs(dataset, config, targets) | {"user": torch.from_numpy(user)}


def _encode(net: Caser, batch: Batch) -> Tensor:
    return net.encode(Ragged.of(batch["history"]), batch["user"])


_NEXT_ITEM = NextItem(inputs=_inputs, encode=_encode, ks=(10, 20, 50))


def _batches(dataset: Dataset, config: CaserConfig, rng: np.random.Generator) -> Iterator[Batch]:
    negatives = Negatives(dataset) if config.num_negatives else None
    for targets in shuffled(dataset.train, config.batch_size, rng):
        users, items = dataset.histories.users[targets], dataset.histories.items[targets]
        batch = _inputs(dataset, config, targets) | {"target": torch.from_numpy(items)}
        if negatives is not None:
            drawn = [negatives.draw(users, rng) for _ in range(config.num_negatives)]
            batch["negatives"] = torch.from_numpy(np.stack(drawn, axis=1))
        yield batch


MODEL = Model(
    name="caser",
    summary="convolutions over the last items and a user vector (Caser)",
    config=CaserConfig,
    net=Caser,
    graphs=graphs,
    batches=_batches,
    evaluate=_NEXT_ITEM.evaluate,
    baselines=_NEXT_ITEM.baselines,
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
