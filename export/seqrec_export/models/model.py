"""Model: what the rest of the package knows of a recommender."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from torch import Tensor, nn

from seqrec_export.contract import Graph
from seqrec_export.data.histories import Dataset
from seqrec_export.errors import SeqrecError
from seqrec_export.evaluation.metrics import Metrics

Batch = dict[str, Tensor]


class Net(Protocol):
    """What training needs of a network besides being an nn.Module."""

    def observe(self, dataset: Dataset) -> None:
        """Copy what the data says (popularity, features) into buffers, before training."""

    def loss(self, batch: Batch) -> Tensor:
        """One training batch -> a scalar."""

    def finish(self) -> None:
        """Derive what serving needs (mean vectors, item index), after training."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """One recommender: its config, network, graphs, training batches and evaluation."""

    name: str
    summary: str
    config: type[Any]
    net: Callable[[Any, Mapping[str, int]], nn.Module]  # (config, rows per vocabulary)
    graphs: Callable[[Any, int], dict[str, Graph]]  # (config, top_k)
    needs: tuple[str, ...]  # columns of the interactions, besides user, item and time
    split: Literal["leave_one_out", "time", "last_rating"]
    batches: Callable[[Dataset, Any, np.random.Generator], Iterator[Batch]]
    num_batches: Callable[[Dataset, Any], int]
    evaluate: Callable[[nn.Module, Dataset, Any, Literal["validation", "test"]], Metrics]
    baselines: Callable[[Dataset, Any, Literal["validation", "test"]], dict[str, Metrics]]
    monitor: str  # the validation metric that chooses the epoch
    # How many targets it has in a log: with none, no epoch can be chosen.
    choosing: Callable[[Dataset], int] = lambda dataset: len(dataset.validation)
    mode: Literal["min", "max"] = "max"
    headline: tuple[str, ...]  # the test figures that stand in tables
    baseline: str = "popularity"  # the one that stands beside them
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # settings by name
    scale: Callable[[Any], float] = lambda net: 1.0  # of a network's scores, beside the usual ones
    ranks_new_items: bool = False  # items that training never saw, by their features
    cpu_bfloat16: bool = False  # whether a CPU that has bfloat16 trains wide ones faster with it

    @property
    def figures(self) -> dict[str, Any]:
        """What metrics.json says of its figures, for whoever shows them without the model."""
        return {"headline": [*self.headline], "monitor": self.monitor, "mode": self.mode}

    def __post_init__(self) -> None:
        if not re.fullmatch("[a-z][a-z0-9_]*", self.name):
            raise SeqrecError(
                f"a model is called {self.name!r}, which names folders and identifiers; give it "
                "small letters, digits and _, a letter first"
            )
