"""Model: what the rest of the package knows about a recommender."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from seqrec_export.contract import Graph
from seqrec_export.data.histories import Dataset, Part
from seqrec_export.errors import SeqrecError
from seqrec_export.evaluation.metrics import Metrics
from seqrec_export.models.next_item import NEXT_ITEM
from seqrec_export.models.next_item import Batch as Batch


class Net(Protocol):
    """What training needs of a network besides being an nn.Module.

    One that recommends from its items has a `catalogue` too. `fill_buffers(dataset)` and `finish()`
    are optional: see the functions below.
    """

    def loss(self, batch: Batch) -> Tensor:
        """One training batch -> a scalar."""


def fill_buffers(net: nn.Module, dataset: Dataset) -> None:
    """Before training: copy what the data says into a network's buffers, by its `fill_buffers`.

    Without one, the popularity of its catalogue, if that has any, is log(1 + the number of training
    events of each item).
    """
    if (fill := getattr(net, "fill_buffers", None)) is not None:
        fill(dataset)
    elif (catalogue := getattr(net, "catalogue", None)) and catalogue.popularity is not None:
        catalogue.popularity.copy_(torch.from_numpy(dataset.item_counts).float().log1p())


def finish(net: nn.Module) -> None:
    """After training: derive what serving needs (mean vectors, an index), by its `finish`."""
    if (derive := getattr(net, "finish", None)) is not None:
        derive()


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What a model is judged by."""

    name: str  # the validation figure that chooses the epoch
    direction: Literal["min", "max"] = "max"  # what is better
    baseline: str = "popularity"  # what it is shown next to, and has to beat to be published
    headline: tuple[str, ...] = ("hr@10", "ndcg@10")  # the test figures that tables show
    # How many targets of a log it is computed from: if there are none, no epoch can be chosen.
    targets: Callable[[Dataset], int] = lambda dataset: len(dataset.validation)


@dataclass(frozen=True, kw_only=True)
class Model:
    """One recommender: its config, network, graphs, training batches and evaluation.

    What has a default is that of a model of next items (`models.next_item`).
    """

    name: str
    summary: str
    config: type[Any]
    net: Callable[[Any, Mapping[str, int]], nn.Module]  # (config, rows per vocabulary)
    graphs: Callable[[Any, int], dict[str, Graph]]  # (config, top_k)
    needs: tuple[str, ...] = ()  # columns of the interactions, besides user, item and time
    split: Literal["leave_one_out", "time", "last_rating"] = "leave_one_out"
    batches: Callable[[Dataset, Any, np.random.Generator], Iterator[Batch]] = NEXT_ITEM.batches
    num_batches: Callable[[Dataset, Any], int] = NEXT_ITEM.num_batches  # of an epoch
    evaluate: Callable[[nn.Module, Dataset, Any, Part], Metrics] = NEXT_ITEM.evaluate
    baselines: Callable[[Dataset, Any, Part], dict[str, Metrics]] = NEXT_ITEM.baselines
    metric: Metric = Metric(name="ndcg@10")
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # settings by name
    # By how much the tolerance of a network's scores is widened, if they are larger than usual.
    tolerance_scale: Callable[[Any], float] = lambda net: 1.0
    ranks_new_items: bool = False  # items that training never saw, by their features
    cpu_bfloat16: bool = False  # whether a CPU that has bfloat16 trains wide ones faster with it

    @property
    def figures(self) -> dict[str, Any]:
        """What metrics.json says about its figures, for programs that lack the model."""
        of = self.metric
        return {"headline": [*of.headline], "monitor": of.name, "mode": of.direction}

    def __post_init__(self) -> None:
        if not re.fullmatch("[a-z][a-z0-9_]*", self.name):
            raise SeqrecError(
                f"a model is called {self.name!r}, which names folders and identifiers; give it "
                "small letters, digits and _, a letter first"
            )
        if not isinstance(self.config, type):
            raise SeqrecError(
                f"the config of {self.name} is {self.config!r}; give the class itself, a frozen "
                "dataclass that extends Settings"
            )
