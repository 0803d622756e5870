"""SASRec: a causal transformer over the history (Kang and McAuley 2018, arXiv 1808.09781).

It is trained with cross-entropy over the whole catalogue at every position, which beats the paper's
one sampled negative (Klenitskiy and Vasilev 2023, arXiv 2309.07602). The decoder shares the item
embedding, as in section III-D of the paper; `tie_weights = False` gives it a matrix of its own.
Besides using sinusoids, each head learns how much an event counts by how many steps ago it was: the
scalar relative positions of T5 (Raffel et al. 2020, arXiv 1910.10683, section 2.1), one a step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from seqrec_export.contract import Graph
from seqrec_export.data.batches import by_length, chunks, gather_items, num_batches, windows
from seqrec_export.data.histories import Dataset
from seqrec_export.data.vocabulary import NUM_RESERVED, PAD
from seqrec_export.errors import SeqrecError
from seqrec_export.models import wire
from seqrec_export.models.model import Batch, Model
from seqrec_export.models.next_item import NextItem
from seqrec_export.models.retrieval import retrieval_graphs
from seqrec_export.models.settings import COUNT, HistorySettings, Range, setting
from seqrec_export.nn import layers, losses
from seqrec_export.nn.item_search import Catalogue
from seqrec_export.nn.ragged import Ragged, compact

# Added to a logit that must not count. Its exponential is 0 in any precision, and being finite (in
# half precision too, and twice) it leaves a row of pure padding finite.
_HIDDEN = -1e4


@dataclass(frozen=True, kw_only=True)
class SASRecConfig(HistorySettings):
    """Settings of `sasrec`."""

    num_layers: int = setting(2, "transformer layers", Range(low=1, high=256))
    num_heads: int = setting(2, "attention heads; divides dim", Range(low=1, high=1_024))
    tie_weights: bool = setting(True, "decode with the item embedding")
    relative_positions: bool = setting(
        True, "each head learns how much a step counts by its distance"
    )
    learning_rate: float = 2e-3
    lr_decay: float = 0.98
    adam_beta2: float = 0.98
    gradient_clip: float = 0.5
    batch_size: int = setting(32, "windows a step", COUNT)
    epochs: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dim % self.num_heads:
            raise SeqrecError(
                f"sasrec: dim {self.dim} is not a multiple of num_heads {self.num_heads}; "
                "change one of them"
            )


class _Layer(nn.Module):
    """Post-norm transformer layer; each sub-layer has a norm of its own.

    Steps are rows of one matrix and heads are taken one by one because of ONNX Runtime's CPU
    kernels: a linear layer over rows is one Gemm, bias included; narrower products cost less than
    transposing to (B, H, L, D / H); and residual and norm over three axes would be fused into
    SkipLayerNormalization, which takes four times as long as the two.
    """

    by_distance: Tensor  # (H, W)

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.scale = (config.dim // config.num_heads) ** -0.5
        self.query = nn.Linear(config.dim, config.dim)
        self.key_value = nn.Linear(config.dim, 2 * config.dim)
        self.out = nn.Linear(config.dim, config.dim)
        self.attention_norm = nn.LayerNorm(config.dim)
        self.feed_forward = nn.Sequential(
            nn.Linear(config.dim, config.dim),
            nn.ReLU(),
            layers.Dropout(config.dropout),
            nn.Linear(config.dim, config.dim),
        )
        self.feed_forward_norm = nn.LayerNorm(config.dim)
        self.dropout = layers.Dropout(config.dropout)
        layers.add_distances(self, config.relative_positions, config.num_heads, config.max_length)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B * L, D), (B, L, L) added to the logits -> (B * L, D)."""
        shape = (*mask.shape[:2], x.shape[1] // self.num_heads)
        step = torch.arange(mask.shape[1], device=x.device)
        column = layers.distances(self.by_distance.shape[1], step)
        attended = []
        for head, by_distance in zip(self._heads(), self.by_distance, strict=True):
            query, key, value = (F.linear(x, *part).view(shape) for part in head)
            logits = torch.baddbmm(
                mask + by_distance[column], query, key.transpose(1, 2), alpha=self.scale
            )
            attended.append((self.dropout(logits.softmax(dim=-1)) @ value).flatten(0, 1))
        return self._close(x, torch.cat(attended, dim=1))

    def last(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, L, D), (B, 1, L) added to the logits -> (B, D): the last step alone, no dropout.

        No step's key or value is computed. A query q meets the key W x + b as (q W) x, as b moves
        all logits alike; the weights add up to 1, so a value's W and b are applied to the sum.
        """
        last = x[:, -1]
        nearest = self.by_distance[:, self.by_distance.shape[1] - mask.shape[2] :]
        attended = []
        for head, by_distance in zip(self._heads(), nearest, strict=True):
            query, (key, _), value = head
            asked = (F.linear(last, *query) @ key)[:, None]
            logits = torch.baddbmm(mask + by_distance, asked, x.transpose(1, 2), alpha=self.scale)
            attended.append(F.linear((logits.softmax(dim=-1) @ x)[:, 0], *value))
        return self._close(last, torch.cat(attended, dim=1))

    def _heads(self) -> Iterator[tuple[tuple[Tensor, Tensor], ...]]:
        """For each head: weight (D / H, D) and bias (D / H,) of its query, key and value."""
        weight = torch.cat([self.query.weight, self.key_value.weight]).chunk(3 * self.num_heads)
        bias = torch.cat([self.query.bias, self.key_value.bias]).chunk(3 * self.num_heads)
        parts = list(zip(weight, bias, strict=True))  # queries of all heads, then keys, then values
        return (tuple(parts[head :: self.num_heads]) for head in range(self.num_heads))

    def _close(self, x: Tensor, attended: Tensor) -> Tensor:
        """(N, D) what was attended from, (N, D) the heads' findings -> (N, D)."""
        x = self.attention_norm(x + self.dropout(self.out(attended)))
        normed: Tensor = self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))
        return normed


class SASRec(nn.Module):
    """Item embedding, sinusoidal positions, causal layers, decoder to the catalogue."""

    positions: Tensor  # (max_length, D)
    popularity: Tensor  # (V,)

    def __init__(self, config: SASRecConfig, rows: Mapping[str, int]) -> None:
        super().__init__()
        self.config = config
        self.items = nn.Embedding(rows["items"], config.dim, padding_idx=PAD)
        nn.init.normal_(self.items.weight[NUM_RESERVED:], std=config.dim**-0.5)
        self.decoder = None if config.tie_weights else nn.Embedding(rows["items"], config.dim)
        self.bias = nn.Parameter(torch.zeros(rows["items"]))
        self.cold = nn.Parameter(torch.zeros(config.dim))  # the state before any event
        self.norm = nn.LayerNorm(config.dim)
        self.dropout = layers.Dropout(config.dropout)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.num_layers))
        self.register_buffer("positions", _sinusoids(config.max_length, config.dim))
        self.register_buffer("popularity", torch.zeros(rows["items"]))

    @property
    def catalogue(self) -> Catalogue:
        """What a user embedding is multiplied with."""
        return Catalogue((self.decoder or self.items).weight, self.bias, self.popularity)

    def states(self, history: Tensor, *, last_only: bool = False) -> Tensor:
        """(B, L) item indices, right-aligned -> (B, L, D) states, or (B, 1, D) the last."""
        length = history.shape[1]
        start = self.positions.shape[0] - length  # the most recent event has the last position
        x = self.items(history) * self.config.dim**0.5 + self.positions[start:]
        x = self.dropout(self.norm(x))
        step = torch.arange(length, device=history.device)
        future = torch.where(step[:, None] >= step[None], 0.0, _HIDDEN).to(x.dtype)
        padding = torch.where(history != PAD, 0.0, _HIDDEN).to(x.dtype)[:, None]
        mask, rows = future + padding, x.flatten(0, 1)
        for layer in self.layers[:-1]:
            rows = layer(rows, mask)
        final = self.layers[-1]
        assert isinstance(final, _Layer)
        if last_only:
            return final.last(rows.view_as(x), padding)[:, None]
        states: Tensor = final(rows, mask)
        return states.view_as(x)

    def encode(self, history: Ragged) -> Tensor:
        """Item indices, oldest first, padding anywhere -> (B, D) user embedding."""
        (compacted,) = compact(history, window=self.config.max_length)
        state = self.states(compacted, last_only=True)[:, 0]
        return torch.where(layers.known_items(history) > 0, state, self.cold)

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy at every position; the first event is predicted from `cold`."""
        inputs, targets = batch["inputs"], batch["targets"]
        inputs = layers.hide_items(inputs, self.config.unknown_rate)
        states = torch.where((inputs != PAD)[..., None], self.states(inputs), self.cold)
        real = targets != PAD
        return losses.full_softmax(states[real], self.catalogue, targets[real])


def _sinusoids(length: int, dim: int) -> Tensor:
    """(L, D) sines and cosines (Vaswani et al. 2017, section 3.5); any dim, odd ones too."""
    step = torch.arange(length, dtype=torch.float64)[:, None]
    rate = torch.exp(-np.log(10_000.0) * (torch.arange(dim) // 2 * 2).double() / dim)
    even = torch.arange(dim) % 2 == 0
    return torch.where(even, torch.sin(step * rate), torch.cos(step * rate)).float()


def graphs(config: SASRecConfig, top_k: int) -> dict[str, Graph]:
    """What Triton serves."""
    return retrieval_graphs("sasrec", (wire.HISTORY,), config.dim, top_k)


def _batches(dataset: Dataset, config: SASRecConfig, rng: np.random.Generator) -> Iterator[Batch]:
    starts, ends = chunks(dataset, config.max_length, rng)
    for rows in by_length(np.arange(len(starts)), ends - starts, config.batch_size, rng):
        # One column of padding goes in front if there is room: the first event is a target too.
        positions, real = windows(starts[rows] - 1, ends[rows], config.max_length + 1)
        real &= positions >= starts[rows][:, None]
        items = torch.from_numpy(gather_items(dataset.histories, positions, real))
        yield {"inputs": items[:, :-1], "targets": items[:, 1:]}


def _num_batches(dataset: Dataset, config: SASRecConfig) -> int:
    return num_batches(len(chunks(dataset, config.max_length)[0]), config.batch_size)


MODEL = Model(
    name="sasrec",
    summary="causal transformer over item ids (SASRec)",
    config=SASRecConfig,
    net=SASRec,
    graphs=graphs,
    batches=_batches,
    num_batches=_num_batches,
    evaluate=NextItem(keep_seen_too=True).evaluate,
    cpu_bfloat16=True,
    presets={
        "ml-1m": {
            "dim": 128,
            "num_layers": 3,
            "max_length": 200,
            "learning_rate": 1e-3,
            "lr_decay": 0.0,
            "warmup_steps": 500,
            "batch_size": 8,
            "epochs": 14,
            "patience": 14,
        },
        "source": {
            "tie_weights": False,
            "relative_positions": False,
            "learning_rate": 1e-3,
            "lr_decay": 0.95,
        },
    },
)
