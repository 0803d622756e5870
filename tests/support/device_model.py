"""A model of somebody else, with an input of its own: the device that a request comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from seqrec_export.contract import Graph
from seqrec_export.data.batches import Indices, gather_items, num_batches, shuffled, windows
from seqrec_export.data.histories import Dataset, Part
from seqrec_export.data.vocabulary import PAD
from seqrec_export.evaluation.metrics import Metrics
from seqrec_export.evaluation.ranking import popularity_metrics, retrieval_metrics
from seqrec_export.models import wire
from seqrec_export.models.model import Batch, Model
from seqrec_export.models.retrieval import retrieval_graphs
from seqrec_export.models.settings import Settings
from seqrec_export.nn import layers, losses
from seqrec_export.nn.item_search import Catalogue
from seqrec_export.nn.ragged import Ragged, compact

DEVICE = wire.text_of_request("device", "where the request comes from, as phone", required=True)
PRICE = wire.number_of_request("price", "what the user would pay, in euros", usual=(0.0, 100.0))


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """Plain defaults, without `setting`."""

    dim: int = 16
    max_length: int = 5
    batch_size: int = 64


class ByDevice(nn.Module):
    """The last items, each with a weight of its place, and the device."""

    popularity: Tensor

    def __init__(self, config: Config, rows: Mapping[str, int]) -> None:
        super().__init__()
        self.config = config
        self.items = nn.Embedding(rows["items"], config.dim, padding_idx=PAD)
        self.devices = nn.Embedding(rows["device"], config.dim)
        self.places = nn.Parameter(torch.ones(config.max_length, 1))
        self.price = nn.Linear(1, config.dim)
        self.decoder = nn.Embedding(rows["items"], config.dim)
        self.register_buffer("popularity", torch.zeros(rows["items"]))

    @property
    def catalogue(self) -> Catalogue:
        return Catalogue(self.decoder.weight, None, self.popularity)

    def observe(self, dataset: Dataset) -> None:
        self.popularity.copy_(torch.from_numpy(dataset.item_counts).float().log1p())

    def finish(self) -> None: ...

    def encode(self, history: Ragged, device: Tensor, price: Tensor) -> Tensor:
        (items,) = compact(history, window=self.config.max_length, fixed_width=True)
        euros = torch.where((price >= 0) & (price <= 1000), price, 0.0) / 100
        state = (self.items(items) * self.places).sum(dim=1)
        return torch.tanh(state + self.devices(device[:, 0]) + self.price(euros))

    def score(self, user: Tensor, candidates: Ragged) -> Tensor:
        return layers.dot(self.decoder.weight, user, candidates)

    def loss(self, batch: Batch) -> Tensor:
        history = Ragged.of(batch["history"])
        user = self.encode(history, batch["device"], batch["price"])
        no_bias = torch.zeros(len(self.decoder.weight), device=user.device)
        return losses.full_softmax(user, self.decoder.weight, no_bias, batch["target"])


def inputs_of(dataset: Dataset, config: Config, targets: Indices) -> Batch:
    histories = dataset.histories
    positions, real = windows(histories.starts(targets), targets, config.max_length)
    return {
        "history": torch.from_numpy(gather_items(histories, positions, real)),
        "device": torch.from_numpy(histories.columns["device"][targets][:, None]),
        "price": torch.from_numpy(histories.columns["price"][targets][:, None]),
    }


def batches(dataset: Dataset, config: Config, rng: np.random.Generator) -> Iterator[Batch]:
    for targets in shuffled(dataset.train, config.batch_size, rng):
        target = torch.from_numpy(dataset.histories.items[targets])
        yield inputs_of(dataset, config, targets) | {"target": target}


def evaluate(net: ByDevice, dataset: Dataset, config: Config, part: Part) -> Metrics:
    def score(targets: Indices) -> Tensor:
        given = inputs_of(dataset, config, targets)
        user = net.encode(Ragged.of(given["history"]), given["device"], given["price"])
        return net.catalogue.scores(user).cpu()

    return retrieval_metrics(score, dataset, dataset.positions(part))


def graphs(config: Config, top_k: int) -> dict[str, Graph]:
    return retrieval_graphs("by_device", (wire.HISTORY, DEVICE, PRICE), config.dim, top_k)


MODEL = Model(
    name="by_device",
    summary="the last items and the device",
    config=Config,
    net=ByDevice,
    graphs=graphs,
    needs=("device",),
    split="leave_one_out",
    batches=batches,
    num_batches=lambda dataset, config: num_batches(len(dataset.train), config.batch_size),
    evaluate=evaluate,
    baselines=lambda dataset, config, part: {
        "popularity": popularity_metrics(dataset, dataset.positions(part))
    },
    monitor="ndcg@10",
    headline=("hr@10", "ndcg@10"),
)
