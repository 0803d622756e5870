"""GRU4Rec: a GRU over the history (Hidasi et al. 2016, arXiv 1511.06939).

Trained with cross-entropy over the catalogue instead of the paper's pairwise losses in a batch;
users' histories take the place of sessions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seqrec_export.contract import Graph
from seqrec_export.data.vocabulary import PAD
from seqrec_export.models import wire
from seqrec_export.models.model import Batch, Model
from seqrec_export.models.retrieval import retrieval_graphs
from seqrec_export.models.settings import HistorySettings
from seqrec_export.nn import layers, losses
from seqrec_export.nn.item_search import Catalogue
from seqrec_export.nn.ragged import Ragged, compact


@dataclass(frozen=True, kw_only=True)
class GRU4RecConfig(HistorySettings):
    """Settings of `gru4rec`, besides those of every training."""

    dim: int = 64
    batch_size: int = 128


class GRU4Rec(nn.Module):
    """Item embedding, GRU, decoder that shares the embedding."""

    popularity: Tensor  # (V,)

    def __init__(self, config: GRU4RecConfig, rows: Mapping[str, int]) -> None:
        super().__init__()
        self.config = config
        self.items = nn.Embedding(rows["items"], config.dim, padding_idx=PAD)
        nn.init.normal_(self.items.weight[PAD + 1 :], std=config.dim**-0.5)
        self.bias = nn.Parameter(torch.zeros(rows["items"]))
        self.gru = layers.GRU(config.dim, config.dim)
        self.dropout = layers.Dropout(config.dropout)
        self.cold = nn.Parameter(torch.zeros(config.dim))  # the state before any event
        self.register_buffer("popularity", torch.zeros(rows["items"]))

    @property
    def catalogue(self) -> Catalogue:
        """What a user embedding is multiplied with."""
        return Catalogue(self.items.weight, self.bias, self.popularity)

    def encode(self, history: Ragged) -> Tensor:
        """Item indices, oldest first, padding anywhere -> (B, D) user embedding."""
        (items,) = compact(history, window=self.config.max_length, oldest_first_column=True)
        lengths = (items != PAD).sum(dim=1).clamp(min=1)
        _, last = self.gru(self.dropout(self.items(items)), lengths)
        return torch.where(layers.known_items(history) > 0, last, self.cold)

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy of each event, after those before it."""
        history = layers.hide_items(batch["history"], self.config.unknown_rate)
        user = self.encode(Ragged.of(history))
        return losses.full_softmax(user, self.catalogue, batch["target"])


def graphs(config: GRU4RecConfig, top_k: int) -> dict[str, Graph]:
    """What Triton serves."""
    return retrieval_graphs("gru4rec", (wire.HISTORY,), config.dim, top_k)


MODEL = Model(
    name="gru4rec",
    summary="GRU over item ids (GRU4Rec)",
    config=GRU4RecConfig,
    net=GRU4Rec,
    graphs=graphs,
)
