"""SASRec: a causal transformer over the history (Kang and McAuley 2018, arXiv 1808.09781).

Trained with cross-entropy over the whole catalogue at every position, which beats the paper's one
sampled negative (Klenitskiy and Vasilev 2023, arXiv 2309.07602). The decoder shares the item
embedding, as in section III-D of the paper; `tie_weights = False` gives it a matrix of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from seqrec_export import graph, layers, losses
from seqrec_export.batches import Indices, by_length, gather_items, num_batches, windows
from seqrec_export.evaluation import popularity_metrics, retrieval_metrics
from seqrec_export.graph import Batch, Graph, Metrics, Model
from seqrec_export.histories import Dataset, Part
from seqrec_export.ragged import Ragged, compact
from seqrec_export.retrieval import retrieval_graphs
from seqrec_export.vocabulary import NUM_RESERVED, PAD, UNKNOWN


@dataclass(frozen=True, kw_only=True)
class SASRecConfig:
    """Settings of `sasrec`."""

    dim: int = field(default=50, metadata={"help": "size of embeddings and hidden states"})
    num_layers: int = field(default=2, metadata={"help": "transformer layers"})
    num_heads: int = field(default=2, metadata={"help": "attention heads; divides dim"})
    max_length: int = field(default=50, metadata={"help": "window", "unit": "events"})
    dropout: float = field(default=0.2, metadata={"help": "dropout probability"})
    tie_weights: bool = field(default=True, metadata={"help": "decode with the item embedding"})
    unknown_rate: float = field(
        default=0.01, metadata={"help": "share of training inputs replaced by the unknown item"}
    )
    learning_rate: float = field(default=2e-3, metadata={"help": "Adam's step size"})
    lr_decay: float = field(default=0.98, metadata={"help": "learning rate factor an epoch"})
    weight_decay: float = field(default=0.0, metadata={"help": "Adam's weight decay"})
    gradient_clip: float = field(default=0.5, metadata={"help": "largest gradient norm; 0: off"})
    batch_size: int = field(default=32, metadata={"help": "windows a step"})
    epochs: int = field(default=20, metadata={"help": "most passes over the data"})
    patience: int = field(
        default=5, metadata={"help": "stop after so many without gain", "unit": "epochs"}
    )


class _Layer(nn.Module):
    """Post-norm transformer layer; each sub-layer has a norm of its own."""

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.query = nn.Linear(config.dim, config.dim)
        self.key_value = nn.Linear(config.dim, 2 * config.dim)
        self.out = nn.Linear(config.dim, config.dim)
        self.attention_norm = nn.LayerNorm(config.dim)
        self.feed_forward = nn.Sequential(
            nn.Linear(config.dim, config.dim),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.dim, config.dim),
        )
        self.feed_forward_norm = nn.LayerNorm(config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, queries: Tensor, x: Tensor, allowed: Tensor) -> Tensor:
        """(B, Q, D), (B, L, D), (B, Q, L) what each query may look at -> (B, Q, D)."""
        query = self._heads(self.query(queries))
        key, value = (self._heads(part) for part in self.key_value(x).chunk(2, dim=-1))
        logits = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
        weights = logits.masked_fill(~allowed[:, None], float("-inf")).softmax(dim=-1)
        attended = (self.dropout(weights) @ value).transpose(1, 2).flatten(2)
        x = self.attention_norm(queries + self.dropout(self.out(attended)))
        normed: Tensor = self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))
        return normed

    def _heads(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, H, L, D / H)."""
        batch, length, dim = x.shape
        return x.reshape(batch, length, self.num_heads, dim // self.num_heads).transpose(1, 2)


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
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.num_layers))
        self.register_buffer("positions", _sinusoids(config.max_length, config.dim))
        self.register_buffer("popularity", torch.zeros(rows["items"]))

    @property
    def item_vectors(self) -> Tensor:
        """(V, D) what a user embedding is multiplied with."""
        vectors: Tensor = (self.decoder or self.items).weight
        return vectors

    def observe(self, dataset: Dataset) -> None:
        """Take over the popularity order, which answers requests without a known item."""
        self.popularity.copy_(torch.from_numpy(dataset.item_counts).float().log1p())

    def finish(self) -> None:
        """Nothing to derive."""

    def states(self, history: Tensor, *, last_only: bool = False) -> Tensor:
        """(B, L) item indices, right-aligned -> (B, L, D) states, or (B, 1, D) the last."""
        length = history.shape[1]
        start = self.positions.shape[0] - length  # the most recent event has the last position
        x = self.items(history) * self.config.dim**0.5 + self.positions[start:]
        x = self.dropout(self.norm(x))
        step = torch.arange(length, device=history.device)
        causal = step[:, None] >= step[None]
        # Every position may look at itself, so a row of pure padding stays finite.
        allowed = causal & (history != PAD)[:, None] | (step[:, None] == step[None])
        for layer in self.layers[:-1]:
            x = layer(x, x, allowed)
        if last_only:
            last: Tensor = self.layers[-1](x[:, -1:], x, allowed[:, -1:])
            return last
        states: Tensor = self.layers[-1](x, x, allowed)
        return states

    def encode(self, history: Ragged) -> Tensor:
        """Item indices, oldest first, padding anywhere -> (B, D) user embedding."""
        (compacted,) = compact(history, window=self.config.max_length)
        state = self.states(compacted, last_only=True)[:, 0]
        return torch.where(layers.known_items(history) > 0, state, self.cold)

    def score(self, user: Tensor, candidates: Ragged) -> Tensor:
        """(B, D), item indices -> (N,) logits."""
        return layers.dot(self.item_vectors, user, candidates) + self.bias.index_select(
            0, candidates.values
        )

    def score_catalogue(self, user: Tensor) -> Tensor:
        """(B, D) -> (B, V) logits."""
        return user @ self.item_vectors.T + self.bias

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy at every position; the first event is predicted from `cold`."""
        inputs, targets = batch["inputs"], batch["targets"]
        if self.training:
            noise = torch.rand(inputs.shape, device=inputs.device) < self.config.unknown_rate
            inputs = torch.where(noise & (inputs != PAD), UNKNOWN, inputs)
        states = torch.where((inputs != PAD)[..., None], self.states(inputs), self.cold)
        real = targets != PAD
        return losses.full_softmax(states[real], self.item_vectors, self.bias, targets[real])


def _sinusoids(length: int, dim: int) -> Tensor:
    """(L, D) sines and cosines (Vaswani et al. 2017, section 3.5); any dim, odd ones too."""
    step = torch.arange(length, dtype=torch.float64)[:, None]
    rate = torch.exp(-np.log(10_000.0) * (torch.arange(dim) // 2 * 2).double() / dim)
    even = torch.arange(dim) % 2 == 0
    return torch.where(even, torch.sin(step * rate), torch.cos(step * rate)).float()


def graphs(config: SASRecConfig, top_k: int) -> dict[str, Graph]:
    """What Triton serves."""
    return retrieval_graphs("sasrec", (graph.HISTORY,), config.dim, top_k)


def _chunks(dataset: Dataset, config: SASRecConfig) -> tuple[Indices, Indices]:
    """Cut each user's training events into windows, from the end; targets do not overlap."""
    events = np.bincount(
        dataset.histories.users[dataset.trained], minlength=dataset.histories.num_users
    )
    starts = dataset.histories.offsets[:-1]
    chunks = -(-events // config.max_length)
    user = np.repeat(np.arange(len(events)), chunks)
    within = np.arange(len(user)) - np.repeat(np.cumsum(chunks) - chunks, chunks)
    ends = starts[user] + events[user] - within * config.max_length
    return np.maximum(starts[user], ends - config.max_length - 1), ends


def _batches(dataset: Dataset, config: SASRecConfig, rng: np.random.Generator) -> Iterator[Batch]:
    starts, ends = _chunks(dataset, config)
    for rows in by_length(np.arange(len(starts)), ends - starts, config.batch_size, rng):
        # One column of padding in front where there is room: the first event is a target too.
        positions, real = windows(starts[rows] - 1, ends[rows], config.max_length + 1)
        real &= positions >= starts[rows][:, None]
        items = torch.from_numpy(gather_items(dataset.histories, positions, real))
        yield {"inputs": items[:, :-1], "targets": items[:, 1:]}


def _num_batches(dataset: Dataset, config: SASRecConfig) -> int:
    return num_batches(len(_chunks(dataset, config)[0]), config.batch_size)


def evaluate(net: nn.Module, dataset: Dataset, config: SASRecConfig, part: Part) -> Metrics:
    """HR@K and NDCG@K of the held-out events; `seen_kept_` leaves items already seen in."""
    assert isinstance(net, SASRec)
    histories = dataset.histories

    def score(targets: Indices) -> Tensor:
        positions, real = windows(histories.starts(targets), targets, config.max_length)
        device = net.bias.device
        history = torch.from_numpy(gather_items(histories, positions, real)).to(device)
        return net.score_catalogue(net.encode(Ragged.of(history))).cpu()

    targets = dataset.positions(part)
    result = retrieval_metrics(score, dataset, targets)
    if part == "test":
        kept = retrieval_metrics(score, dataset, targets, remove_seen=False)
        result |= {f"seen_kept_{name}": value for name, value in kept.items() if "@" in name}
    return result


def baselines(dataset: Dataset, config: SASRecConfig, part: Part) -> dict[str, Metrics]:
    """Popularity under the same protocol."""
    return {"popularity": popularity_metrics(dataset, dataset.positions(part))}


MODEL = Model(
    name="sasrec",
    summary="causal transformer over item ids (SASRec)",
    config=SASRecConfig,
    net=SASRec,
    graphs=graphs,
    needs=(),
    split="leave_one_out",
    batches=_batches,
    num_batches=_num_batches,
    evaluate=evaluate,
    baselines=baselines,
    monitor="ndcg@10",
    headline=("hr@10", "ndcg@10"),
)
