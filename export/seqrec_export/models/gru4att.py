"""gru4att: a GRU over items, event types and time gaps, pooled by attention.

The user embedding is dynamic: the vector depends on when it is asked for, through the gap of every
event to the request. It is trained to rank what a session's user clicked or bought over the rest of
what was shown, and to predict the next event; its source never trained it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from seqrec_export.contract import Graph
from seqrec_export.data.batches import (
    Indices,
    by_length,
    chunks,
    gather_event_types,
    gather_gap_days,
    gather_items,
    num_batches,
    shuffled,
    windows,
)
from seqrec_export.data.histories import Dataset, Part
from seqrec_export.data.vocabulary import NUM_RESERVED, PAD, UNKNOWN
from seqrec_export.evaluation.metrics import Metrics
from seqrec_export.evaluation.sessions import (
    candidates_of,
    rankable,
    session_metrics,
    session_popularity,
)
from seqrec_export.models import wire
from seqrec_export.models.model import Batch, Metric, Model
from seqrec_export.models.next_item import NextItem
from seqrec_export.models.retrieval import retrieval_graphs
from seqrec_export.models.settings import COUNT, COUNT_OR_NONE, HistorySettings, Range, setting
from seqrec_export.nn import layers, losses
from seqrec_export.nn.item_search import Catalogue
from seqrec_export.nn.ragged import Ragged, compact

GAP_EDGES = (1.0, 3.0, 7.0, 14.0, 30.0, 60.0, 90.0, 180.0, 365.0, 1000.0)  # days
_GAP_ROWS = NUM_RESERVED + len(GAP_EDGES) + 1  # padding, unknown, below 1 day, ..., from 1000 on


@dataclass(frozen=True, kw_only=True)
class GRU4AttConfig(HistorySettings):
    """Settings of `gru4att`."""

    dim: int = 64
    max_length: int = 100
    dropout: float = 0.1
    relative_positions: bool = setting(
        True, "attention learns how much a step counts by its distance"
    )
    num_negatives: int = setting(
        0, "sampled items a step for the next event; 0: whole catalogue", COUNT_OR_NONE
    )
    targets_per_epoch: int = setting(
        5_000, "next events drawn an epoch", Range(low=0, high=1_000_000_000), unit="events"
    )
    every_event: bool = setting(True, "also train on every event of whole windows, gaps unknown")
    chunks_per_step: int = setting(32, "windows a step of every_event", COUNT)
    learning_rate: float = 4e-3
    warmup_steps: int = 100
    gradient_clip: float = 1.0
    batch_size: int = setting(256, "targets or sessions a step", COUNT)
    epochs: int = 14


class GRU4Att(nn.Module):
    """Sum of three embeddings a step, GRU, attention over the real steps, weighted sum."""

    gap_edges: Tensor  # (E,) days
    by_distance: Tensor  # (W,)
    popularity: Tensor  # (V,)

    def __init__(self, config: GRU4AttConfig, rows: Mapping[str, int]) -> None:
        super().__init__()
        self.config = config
        self.items = nn.Embedding(rows["items"], config.dim, padding_idx=PAD)
        self.event_types = nn.Embedding(rows["event_types"], config.dim, padding_idx=PAD)
        self.gaps = nn.Embedding(_GAP_ROWS, config.dim, padding_idx=PAD)
        for embedding in (self.items, self.event_types, self.gaps):
            nn.init.normal_(embedding.weight[UNKNOWN:], std=config.dim**-0.5)
        self.bias = nn.Parameter(torch.zeros(rows["items"]))
        self.gru = layers.GRU(config.dim, config.dim)
        self.attention = nn.Linear(config.dim, 1)
        # No state says how far back it is; its gap does, which callers may not know.
        layers.add_distances(self, config.relative_positions, config.max_length)
        self.out = nn.Linear(config.dim, config.dim)
        self.dropout = layers.Dropout(config.dropout)
        self.cold = nn.Parameter(torch.zeros(config.dim))  # the state before any event
        self.register_buffer("gap_edges", torch.tensor(GAP_EDGES))
        self.register_buffer("popularity", torch.zeros(rows["items"]))

    @property
    def catalogue(self) -> Catalogue:
        """What a user embedding is multiplied with."""
        return Catalogue(self.items.weight, self.bias, self.popularity)

    def gap_bucket(self, gap_days: Tensor, real: Tensor) -> Tensor:
        """(B, L) days, (B, L) -> (B, L) rows of the gap embedding.

        A missing gap is unknown; a negative one (clocks differ) is less than a day.
        """
        bucket = NUM_RESERVED + (gap_days[..., None] >= self.gap_edges).sum(dim=2)
        bucket = torch.where(torch.isnan(gap_days), UNKNOWN, bucket)
        return torch.where(real, bucket, PAD)

    def states(self, items: Tensor, types: Tensor, gaps: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L) each, real steps first -> (B, L, D) states, (B, L) which steps are real."""
        real = items != PAD
        types = torch.where(real, torch.where(types == PAD, UNKNOWN, types), PAD)
        x = self.items(items) + self.event_types(types) + self.gaps(self.gap_bucket(gaps, real))
        states, _ = self.gru(self.dropout(x), real.sum(dim=1).clamp(min=1))
        return states, real

    def encode(self, history: Ragged, event_types: Ragged, gap_days: Tensor) -> Tensor:
        """Item indices, event types, (B, W) days of the last events -> (B, D) user embedding."""
        items, types, gaps = compact(
            history,
            (event_types, UNKNOWN),
            (gap_days, float("nan")),
            window=self.config.max_length,
            oldest_first_column=True,
        )
        states, real = self.states(items, types, gaps)
        step = torch.arange(items.shape[1], device=items.device)[None]
        newest = len(self.by_distance) - 1
        row = (newest + 1 + step - real.sum(dim=1, keepdim=True)).clamp(max=newest)
        logits = self.attention(states)[..., 0] + self.by_distance[row]
        # The first column always counts, so a row of pure padding stays finite.
        logits = logits.masked_fill(~(real | (step == 0)), float("-inf"))
        pooled = (logits.softmax(dim=1)[:, None] @ states)[:, 0]
        pooled = self.out(self.dropout(pooled))
        return torch.where(layers.known_items(history) > 0, pooled, self.cold)

    def _every_user(self, items: Tensor, types: Tensor) -> Tensor:
        """(B, L) each, real steps first -> (B, L, D): the user after each step.

        The gaps are unknown: they depend on when the request comes, so that no two targets would
        share a step.
        """
        unknown = torch.full(items.shape, torch.nan, device=items.device)
        states, _ = self.states(items, types, unknown)
        step = torch.arange(items.shape[1], device=items.device)
        row = layers.distances(len(self.by_distance), step)
        logits = self.attention(states).transpose(1, 2) + self.by_distance[row]
        weights = logits.masked_fill(step[:, None] < step[None], float("-inf")).softmax(dim=2)
        users: Tensor = self.out(self.dropout(weights @ states))
        return users

    def loss(self, batch: Batch) -> Tensor:
        """Listwise softmax over a session's candidates, or softmax over the catalogue."""
        history = layers.hide_items(batch["history"], self.config.unknown_rate)
        if "targets" in batch:
            users, targets = self._every_user(history, batch["event_types"]), batch["targets"]
            real = targets != PAD
            return losses.full_softmax(users[real], self.catalogue, targets[real])
        event_types = Ragged.of(batch["event_types"])
        user = self.encode(Ragged.of(history), event_types, batch["gap_days"])
        if "candidates" in batch:
            candidates = batch["candidates"]
            scores = self.catalogue.score(user, Ragged.of(candidates)).view_as(candidates)
            return losses.listwise_softmax(scores, batch["labels"], candidates != PAD)
        if "negatives" in batch:
            return losses.sampled_softmax(user, self.catalogue, batch["target"], batch["negatives"])
        return losses.full_softmax(user, self.catalogue, batch["target"])


def graphs(config: GRU4AttConfig, top_k: int) -> dict[str, Graph]:
    """What Triton serves."""
    inputs = (wire.HISTORY, wire.EVENT_TYPES, wire.gap_days(config.max_length))
    return retrieval_graphs("gru4att", inputs, config.dim, top_k)


def _inputs(
    dataset: Dataset,
    config: GRU4AttConfig,
    starts: Indices,
    ends: Indices,
    times: NDArray[np.int64],
) -> Batch:
    histories = dataset.histories
    positions, real = windows(starts, ends, config.max_length)
    return {
        "history": torch.from_numpy(gather_items(histories, positions, real)),
        "event_types": torch.from_numpy(gather_event_types(histories, positions, real)),
        "gap_days": torch.from_numpy(gather_gap_days(histories, positions, real, times)),
    }


def _event_inputs(dataset: Dataset, config: GRU4AttConfig, targets: Indices) -> Batch:
    histories = dataset.histories
    return _inputs(dataset, config, histories.starts(targets), targets, histories.times[targets])


def _every_event(dataset: Dataset, starts: Indices, ends: Indices) -> Batch:
    """Histories of one step less than `ends - starts`, and what came after each step."""
    histories = dataset.histories
    # At least two: pieces with only a user's first event have a target and no history.
    positions = starts[:, None] + np.arange(max(2, int((ends - starts).max())))
    real = positions < ends[:, None]
    items = torch.from_numpy(gather_items(histories, positions, real))
    types = torch.from_numpy(gather_event_types(histories, positions, real))
    # The step before the row's last target is its last input.
    history = torch.where(items[:, 1:] == PAD, PAD, items[:, :-1])
    return {
        "history": history,
        "event_types": types[:, :-1].where(history != PAD, PAD),
        "targets": items[:, 1:],
    }


def _session_batch(dataset: Dataset, config: GRU4AttConfig, rows: Indices) -> Batch:
    sessions = dataset.sessions
    assert sessions is not None
    inputs = _inputs(
        dataset, config, sessions.starts[rows], sessions.ends[rows], sessions.times[rows]
    )
    candidates, labels = candidates_of(sessions, rows)
    return inputs | {
        "candidates": torch.from_numpy(candidates),
        "labels": torch.from_numpy(np.nan_to_num(labels)),
    }


def _event_batch(
    dataset: Dataset, config: GRU4AttConfig, targets: Indices, rng: np.random.Generator
) -> Batch:
    batch = _event_inputs(dataset, config, targets)
    batch["target"] = torch.from_numpy(dataset.histories.items[targets])
    if config.num_negatives:
        negatives = rng.integers(NUM_RESERVED, dataset.items.num_rows, config.num_negatives)
        batch["negatives"] = torch.from_numpy(negatives)
    return batch


def _drawn_targets(dataset: Dataset, config: GRU4AttConfig) -> int:
    return min(config.targets_per_epoch, len(dataset.train))


def _chunks(
    dataset: Dataset, config: GRU4AttConfig, rng: np.random.Generator | None = None
) -> tuple[Indices, Indices]:
    if not config.every_event:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return chunks(dataset, config.max_length, rng, least=2)


def _steps(dataset: Dataset, config: GRU4AttConfig) -> tuple[int, int, int]:
    """How many steps an epoch has for drawn events, for every event, and for sessions."""
    return (
        num_batches(_drawn_targets(dataset, config), config.batch_size),
        num_batches(len(_chunks(dataset, config)[0]), config.chunks_per_step),
        num_batches(len(rankable(dataset, "train")), config.batch_size),
    )


def _batches(dataset: Dataset, config: GRU4AttConfig, rng: np.random.Generator) -> Iterator[Batch]:
    drawn = rng.choice(dataset.train, _drawn_targets(dataset, config), replace=False)
    lengths = np.minimum(drawn - dataset.histories.starts(drawn), config.max_length)
    events = by_length(drawn, lengths, config.batch_size, rng)
    starts, ends = _chunks(dataset, config, rng)
    pieces = by_length(np.arange(len(starts)), ends - starts, config.chunks_per_step, rng)
    sessions = shuffled(rankable(dataset, "train"), config.batch_size, rng)
    kinds = (
        (_event_batch(dataset, config, targets, rng) for targets in events),
        (_every_event(dataset, starts[rows], ends[rows]) for rows in pieces),
        (_session_batch(dataset, config, rows) for rows in sessions),
    )
    for kind in rng.permutation(np.repeat(np.arange(3), _steps(dataset, config))):
        yield next(kinds[kind])


def _encode(net: GRU4Att, batch: Batch) -> Tensor:
    history, event_types = (Ragged.of(batch[name]) for name in ("history", "event_types"))
    return net.encode(history, event_types, batch["gap_days"])


_NEXT_ITEM = NextItem(inputs=_event_inputs, encode=_encode)


def evaluate(net: nn.Module, dataset: Dataset, config: GRU4AttConfig, part: Part) -> Metrics:
    """Next events over the catalogue, and sessions over their candidates if there are any.

    `selection` is what chooses the epoch: NDCG@10 over candidates, else over the catalogue.
    """
    assert isinstance(net, GRU4Att)

    def rank(rows: Indices) -> NDArray[np.float32]:
        batch = _session_batch(dataset, config, rows)
        batch = {name: values.to(net.bias.device) for name, values in batch.items()}
        scores = net.catalogue.score(_encode(net, batch), Ragged.of(batch["candidates"]))
        return scores.view_as(batch["candidates"]).float().cpu().numpy()

    result = _NEXT_ITEM.evaluate(net, dataset, config, part) | session_metrics(dataset, part, rank)
    return result | _selection(result)


def _selection(result: Metrics) -> Metrics:
    chooses = "candidates_ndcg@10" if "candidates_ndcg@10" in result else "ndcg@10"
    return {"selection": result[chooses]} if chooses in result else {}


def baselines(dataset: Dataset, config: GRU4AttConfig, part: Part) -> dict[str, Metrics]:
    """Popularity, and the same network untrained (what the source delivered)."""
    popularity = _NEXT_ITEM.baselines(dataset, config, part)["popularity"]
    popularity |= session_popularity(dataset, part)
    torch.manual_seed(0)
    untrained = GRU4Att(config, dataset.num_rows).eval()
    return {
        "popularity": popularity | _selection(popularity),
        "untrained": evaluate(untrained, dataset, config, part),
    }


MODEL = Model(
    name="gru4att",
    summary="GRU over items, event types and time gaps, attention-pooled",
    config=GRU4AttConfig,
    net=GRU4Att,
    graphs=graphs,
    batches=_batches,
    num_batches=lambda dataset, config: sum(_steps(dataset, config)),
    evaluate=evaluate,
    baselines=baselines,
    metric=Metric(
        name="selection",
        headline=("hr@10", "ndcg@10", "candidates_ndcg@10", "candidates_mrr"),
        targets=lambda dataset: len(rankable(dataset, "validation")) or len(dataset.validation),
    ),
    cpu_bfloat16=True,
    presets={
        "ml-1m": {
            "dim": 256,
            "max_length": 200,
            "dropout": 0.3,
            "learning_rate": 2e-3,
            "warmup_steps": 200,
            "chunks_per_step": 16,
            "epochs": 10,
            "patience": 10,
        },
        "source": {"relative_positions": False, "every_event": False},
    },
)
