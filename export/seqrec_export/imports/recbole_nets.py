"""SASRec and GRU4Rec as in RecBole 1.2: padded at the end, places counted from the oldest event.

Kang and McAuley 2018 (arXiv 1808.09781); Hidasi et al. 2016 (arXiv 1511.06939).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from seqrec_export.data.vocabulary import PAD
from seqrec_export.imports.parts import (
    Attention,
    barred,
    history_graphs,
    known_events,
    no_popularity,
)
from seqrec_export.imports.run import untrained_model
from seqrec_export.nn import layers
from seqrec_export.nn.item_search import Catalogue
from seqrec_export.nn.ragged import Ragged, compact

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "relu": F.relu,
    "swish": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


@dataclass(frozen=True, kw_only=True)
class SASRecConfig:
    """What the network was trained with, and whether answers keep what a user has seen."""

    dim: int
    inner: int
    num_layers: int
    num_heads: int
    max_length: int  # events
    activation: str
    eps: float  # of the layer norms
    keep_seen: bool = False


@dataclass(frozen=True, kw_only=True)
class GRU4RecConfig:
    """What the network was trained with, and whether answers keep what a user has seen."""

    dim: int
    hidden: int
    num_layers: int
    max_length: int  # events
    keep_seen: bool = False


class _Layer(nn.Module):
    """A block with layer norm after each residual, as in BERT."""

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__()
        norm = partial(nn.LayerNorm, config.dim, config.eps)
        self.attention = Attention(config.dim, config.num_heads)
        self.attention_norm, self.inner_norm = norm(), norm()
        self.inner = nn.Linear(config.dim, config.inner)
        self.outer = nn.Linear(config.inner, config.dim)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """(B, L, D), added to the logits of the attention -> (B, L, D)."""
        x = self.attention_norm(x + self.attention(x, x, bias))
        fed: Tensor = self.inner_norm(x + self.outer(self.activation(self.inner(x))))
        return fed


class RecBoleSASRec(nn.Module):
    """Item and place embedding, layer norm, causal layers; the state of the newest event."""

    popularity: Tensor  # (V,)

    def __init__(self, config: SASRecConfig, rows: Mapping[str, int]) -> None:
        super().__init__()
        self.config = config
        self.items = nn.Embedding(rows["items"], config.dim)
        self.positions = nn.Embedding(config.max_length, config.dim)
        self.norm = nn.LayerNorm(config.dim, config.eps)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.num_layers))
        self.register_buffer("popularity", no_popularity(rows["items"]))

    @property
    def catalogue(self) -> Catalogue:
        """What a user embedding is multiplied with."""
        return Catalogue(self.items.weight, None, self.popularity)

    def encode(self, history: Ragged) -> Tensor:
        """Item indices, oldest first, padding anywhere -> (B, D) user embedding."""
        items, last = _oldest_first(history, self.config.max_length)
        step = torch.arange(items.shape[1], device=items.device)
        x = self.norm(self.items(items) + self.positions(step))
        # Padding comes last, so an event may look at all but what comes later.
        bias = barred(step[:, None] >= step[None], x)[None, None]
        for layer in self.layers:
            x = layer(x, bias)
        return _at(x, last)


class RecBoleGRU4Rec(nn.Module):
    """Stacked GRUs, then a linear layer; the state of the newest event."""

    popularity: Tensor  # (V,)

    def __init__(self, config: GRU4RecConfig, rows: Mapping[str, int]) -> None:
        super().__init__()
        self.config = config
        self.items = nn.Embedding(rows["items"], config.dim)
        sizes = [config.dim, *[config.hidden] * config.num_layers]
        self.gru = nn.ModuleList(map(layers.GRU, sizes, sizes[1:]))
        self.out = nn.Linear(config.hidden, config.dim)
        self.register_buffer("popularity", no_popularity(rows["items"]))

    @property
    def catalogue(self) -> Catalogue:
        """What a user embedding is multiplied with."""
        return Catalogue(self.items.weight, None, self.popularity)

    def encode(self, history: Ragged) -> Tensor:
        """Item indices, oldest first, padding anywhere -> (B, D) user embedding."""
        items, last = _oldest_first(history, self.config.max_length)
        states = self.items(items)
        for layer in self.gru:
            states, newest = layer(states, last + 1)
        user: Tensor = self.out(newest)
        return user


def _oldest_first(history: Ragged, window: int) -> tuple[Tensor, Tensor]:
    """Item indices -> (B, L) the newest of them, padding last, (B,) the place of the newest."""
    (items,) = compact(known_events(history), window=window, oldest_first_column=True)
    return items, (items != PAD).sum(dim=1).clamp(min=1) - 1


def _at(states: Tensor, last: Tensor) -> Tensor:
    """(B, L, D), (B,) -> (B, D)."""
    return states.gather(1, last[:, None, None].expand(-1, 1, states.shape[2]))[:, 0]


SASREC, GRU4REC = (
    untrained_model(
        f"recbole_{name.lower()}", f"{name} of RecBole, trained there", config, net, graphs
    )
    for name, config, net, graphs in (
        ("SASRec", SASRecConfig, RecBoleSASRec, partial(history_graphs, "recbole_sasrec")),
        ("GRU4Rec", GRU4RecConfig, RecBoleGRU4Rec, partial(history_graphs, "recbole_gru4rec")),
    )
)
