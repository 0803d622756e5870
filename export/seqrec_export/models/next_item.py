"""The usual protocol: what comes next, among the whole catalogue.

A model that follows it says how its inputs are made from a log and how its network takes them, if
that is more than the history; the batches of its training, its figures and its baseline follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seqrec_export.data.batches import Indices, gather_items, num_batches, shuffled, windows
from seqrec_export.data.histories import Dataset, Part
from seqrec_export.evaluation.metrics import Metrics
from seqrec_export.evaluation.ranking import ScoreCatalogue, popularity_metrics, retrieval_metrics
from seqrec_export.nn.ragged import Ragged

Batch = dict[str, Tensor]


def history_inputs(dataset: Dataset, config: Any, targets: Indices) -> Batch:
    """(P,) positions of targets -> "history", (P, W) item indices of what came before, PAD first.

    W is the longest history, at most `config.max_length`.
    """
    histories = dataset.histories
    positions, real = windows(histories.starts(targets), targets, config.max_length)
    return {"history": torch.from_numpy(gather_items(histories, positions, real))}


def encode_history(net: Any, inputs: Batch) -> Tensor:
    """A network whose user embedding takes the history alone."""
    user: Tensor = net.encode(Ragged.of(inputs["history"]))
    return user


@dataclass(frozen=True, kw_only=True)
class NextItem:
    """Trains on the events of the training part, each the target of what came before it.

    Evaluates by the rank of each held-out event among all items, never among a sample. The network
    has `catalogue`, whose scores are those of all items for a user embedding.
    """

    inputs: Callable[[Dataset, Any, Indices], Batch] = history_inputs
    encode: Callable[[Any, Batch], Tensor] = encode_history
    ks: tuple[int, ...] = (10, 20)
    least_rows: int = 1  # of a batch: a batch norm over one row has no variance
    keep_seen_too: bool = False  # `seen_kept_` figures of the test part, items already seen left in

    def batches(self, dataset: Dataset, config: Any, rng: np.random.Generator) -> Iterator[Batch]:
        """The inputs and "target", (P,) item indices, of every training event in a random order."""
        for targets in shuffled(dataset.train, config.batch_size, rng, self.least_rows):
            target = torch.from_numpy(dataset.histories.items[targets])
            yield self.inputs(dataset, config, targets) | {"target": target}

    def num_batches(self, dataset: Dataset, config: Any) -> int:
        """How many `batches` there are in an epoch."""
        return num_batches(len(dataset.train), config.batch_size, self.least_rows)

    def inputs_on(self, net: nn.Module, dataset: Dataset, config: Any, targets: Indices) -> Batch:
        """The inputs, on the device of the network."""
        device = next(net.parameters()).device
        inputs = self.inputs(dataset, config, targets)
        return {name: values.to(device) for name, values in inputs.items()}

    def scores(self, net: Any, dataset: Dataset, config: Any) -> ScoreCatalogue:
        """What gives (P,) positions of targets their (P, V) scores, those of all items."""

        def score(targets: Indices) -> Tensor:
            user = self.encode(net, self.inputs_on(net, dataset, config, targets))
            scores: Tensor = net.catalogue.scores(user).cpu()
            return scores

        return score

    def evaluate(self, net: nn.Module, dataset: Dataset, config: Any, part: Part) -> Metrics:
        """HR@K, NDCG@K, MRR and AUC of the held-out events, items already seen left out."""
        score, targets = self.scores(net, dataset, config), dataset.positions(part)
        result = retrieval_metrics(score, dataset, targets, ks=self.ks)
        if self.keep_seen_too and part == "test":
            kept = retrieval_metrics(score, dataset, targets, ks=self.ks, remove_seen=False)
            result |= {f"seen_kept_{name}": value for name, value in kept.items() if "@" in name}
        return result

    def baselines(self, dataset: Dataset, config: Any, part: Part) -> dict[str, Metrics]:
        """Popularity in the training part, by the same protocol."""
        return {"popularity": popularity_metrics(dataset, dataset.positions(part), ks=self.ks)}


NEXT_ITEM = NextItem()
