"""A model of somebody else, with an input of its own: the device that a request comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seqrec_export.contract import Graph
from seqrec_export.data.batches import Indices
from seqrec_export.data.histories import Dataset
from seqrec_export.data.vocabulary import PAD
from seqrec_export.models import wire
from seqrec_export.models.model import Batch, Model
from seqrec_export.models.next_item import NextItem, history_inputs
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

    def encode(self, history: Ragged, device: Tensor, price: Tensor) -> Tensor:
        (items,) = compact(history, window=self.config.max_length, fixed_width=True)
        euros = torch.where((price >= 0) & (price <= 1000), price, 0.0) / 100
        state = (self.items(items) * self.places).sum(dim=1)
        state = torch.where(layers.known_items(history) > 0, state, 0.0)
        return torch.tanh(state + self.devices(device[:, 0]) + self.price(euros))

    def loss(self, batch: Batch) -> Tensor:
        return losses.full_softmax(encode(self, batch), self.catalogue, batch["target"])


def inputs(dataset: Dataset, config: Config, targets: Indices) -> Batch:
    columns = dataset.histories.columns
    return history_inputs(dataset, config, targets) | {
        "device": torch.from_numpy(columns["device"][targets][:, None]),
        "price": torch.from_numpy(columns["price"][targets][:, None]),
    }


def encode(net: ByDevice, given: Batch) -> Tensor:
    return net.encode(Ragged.of(given["history"]), given["device"], given["price"])


def graphs(config: Config, top_k: int) -> dict[str, Graph]:
    return retrieval_graphs("by_device", (wire.HISTORY, DEVICE, PRICE), config.dim, top_k)


PROTOCOL = NextItem(inputs=inputs, encode=encode)
MODEL = Model(
    name="by_device",
    summary="the last items and the device",
    config=Config,
    net=ByDevice,
    graphs=graphs,
    needs=("device",),
    batches=PROTOCOL.batches,
    evaluate=PROTOCOL.evaluate,
    baselines=PROTOCOL.baselines,
)
