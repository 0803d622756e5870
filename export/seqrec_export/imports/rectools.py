"""SASRec as RecTools 0.19 trains it (Kang and McAuley 2018, arXiv 1808.09781, and its own ways).

`SASRecModel.save` writes a pickle of one field, the bytes of a Lightning checkpoint. `pickletools`
lists the file's opcodes without following them, and the bytes are cut out of it.
"""

from __future__ import annotations

import io
import math
import pickletools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from seqrec_export.data.vocabulary import PAD
from seqrec_export.errors import SeqrecError
from seqrec_export.imports import settings
from seqrec_export.imports.checkpoint import NUMPY, Foreign, Held, load_weights_only, mapping
from seqrec_export.imports.parts import (
    BARRED,
    Attention,
    barred,
    history_graphs,
    known_events,
    no_popularity,
    with_reserved,
)
from seqrec_export.imports.run import untrained_model
from seqrec_export.nn.item_search import Catalogue
from seqrec_export.nn.ragged import Ragged, compact

NAME = "rectools_sasrec"
_CLASS = ("rectools.models.nn.transformers.sasrec", "SASRecModel")
_PATH = "rectools.models.nn"
_FOLLOWED: dict[str, tuple[object, ...]] = {
    "cls": ("SASRecModel",),
    "data_preparator_type": (f"{_PATH}.transformers.sasrec.SASRecDataPreparator",),
    "transformer_layers_type": (f"{_PATH}.transformers.sasrec.SASRecTransformerLayers",),
    "lightning_module_type": (f"{_PATH}.transformers.lightning.TransformerLightningModule",),
    "similarity_module_type": (f"{_PATH}.transformers.similarity.DistanceSimilarityModule",),
    "backbone_type": (f"{_PATH}.transformers.torch_backbone.TransformerTorchBackbone",),
    "pos_encoding_type": (f"{_PATH}.transformers.net_blocks.LearnableInversePositionalEncoding",),
    "item_net_constructor_type": (f"{_PATH}.item_net.SumOfEmbeddingsConstructor",),
    "backbone_kwargs": (None, {}),
    "use_pos_emb": (True, False),
    "use_causal_attn": (True, False),
    "use_key_padding_mask": (True, False),
}
_ITEM_NETS = (f"{_PATH}.item_net.IdEmbeddingsItemNet", f"{_PATH}.item_net.CatFeaturesItemNet")


@dataclass(frozen=True, kw_only=True)
class RecToolsConfig:
    """What the network was trained with, and whether answers keep what a user has seen."""

    dim: int
    num_layers: int
    num_heads: int
    max_length: int  # events
    positions: bool
    causal: bool
    padding_masked: bool
    cosine: bool
    scaled: bool
    keep_seen: bool = False


class _Layer(nn.Module):
    """The paper's block with layer norm on the queries alone; the residual is the normed input."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.attention = Attention(dim, num_heads)
        self.query_norm, self.inner_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.inner, self.outer = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """(B, L, D), (B, 1, L, 1 + L) added to the logits, padding's first -> (B, L, D)."""
        asking = self.query_norm(x)
        asked = F.pad(x, (0, 0, 1, 0))  # a zero in front, for all padding: its key is the bias
        x = self.inner_norm(asking + self.attention(asking, asked, bias))
        fed: Tensor = x + self.outer(F.relu(self.inner(x)))
        return fed


class RecToolsSASRec(nn.Module):
    """SASRec as in RecTools, where padding is not ignored.

    Unless `padding_masked`, each event attends to the padding of the whole window as to keys and
    values that are the projections' biases. They are all equal, so one key stands for them, with
    the logarithm of how many there are added to its logit.
    """

    popularity: Tensor  # (V,)

    def __init__(self, config: RecToolsConfig, rows: Mapping[str, int]) -> None:
        super().__init__()
        self.config = config
        self.scale = math.sqrt(config.dim) if config.scaled else 1.0
        self.items = nn.Embedding(rows["items"], config.dim)
        self.positions = nn.Embedding(config.max_length, config.dim) if config.positions else None
        self.layers = nn.ModuleList(
            _Layer(config.dim, config.num_heads) for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(config.dim, eps=1e-8)
        self.register_buffer("popularity", no_popularity(rows["items"]))

    @property
    def catalogue(self) -> Catalogue:
        """What a user embedding is multiplied with."""
        vectors = self.items.weight
        return Catalogue(_unit(vectors) if self.config.cosine else vectors, None, self.popularity)

    def encode(self, history: Ragged) -> Tensor:
        """Item indices, oldest first, padding anywhere -> (B, D) user embedding."""
        (items,) = compact(known_events(history), window=self.config.max_length)
        length, here = items.shape[1], items != PAD
        known = here[..., None]
        x = self.items(items) * self.scale
        step = torch.arange(length, device=items.device)
        if self.positions is not None:
            x = x + self.positions(length - 1 - step)  # the newest has position 0
        itself = step[:, None] == step[None]  # padding may look at itself: nothing is NaN
        allowed = here[:, None, None] | itself
        if self.config.causal:
            allowed = allowed & (step[:, None] >= step[None])
        bias = torch.cat([self._padding(here, x), barred(allowed, x)], dim=-1)
        for layer in self.layers:
            x = layer(x * known, bias)
        user: Tensor = self.norm(x * known)[:, -1]
        return _unit(user) if self.config.cosine else user

    def _padding(self, here: Tensor, like: Tensor) -> Tensor:
        """(B, L) which steps are real -> (B, 1, L, 1) what is added to the logit of all padding."""
        padding = self.config.max_length - here.sum(dim=1)
        if self.config.padding_masked:
            padding = torch.zeros_like(padding)
        often = torch.where(padding > 0, padding.clamp(min=1).to(like.dtype).log(), BARRED)
        return often[:, None, None, None].expand(-1, 1, here.shape[1], 1)


def _unit(vectors: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / norms.clamp(min=1e-8)


MODEL = untrained_model(
    NAME,
    "SASRec of RecTools, trained there",
    RecToolsConfig,
    RecToolsSASRec,
    partial(history_graphs, NAME),
)


def read_rectools(path: Path) -> Foreign:
    """What `SASRecModel.save` or a checkpoint of its training left in `path`, or SeqrecError."""
    try:
        found = load_weights_only(io.BytesIO(_lightning(path.read_bytes())), NUMPY)
        held = mapping(found.get("hyper_parameters"), "hyper_parameters")
        said = mapping(held.get("model_config"), "model_config")
        weights = mapping(found.get("state_dict"), "state_dict")
        return Foreign(
            library="RecTools",
            model=str(said.get("cls")),
            settings=dict(said),
            weights={str(name).removeprefix("torch_model."): t for name, t in weights.items()},
            items=_items(held),
        )
    except SeqrecError as error:
        raise SeqrecError(f"{path}: {error}") from error


def _items(held: Mapping[str, Any]) -> list[str]:
    """RecTools' own ids, by row, without the padding; they are in an array of objects."""
    extra, ids = held.get("item_extra_tokens"), held.get("item_external_ids")
    if extra not in (("PAD",), ["PAD"]):
        raise SeqrecError(f"item_extra_tokens are {extra!r}; only ('PAD',) is read")
    state = ids.state if isinstance(ids, Held) else None
    listed = state[4] if isinstance(state, tuple) and len(state) == 5 else None
    if not isinstance(listed, list) or not all(type(i) in (int, str) for i in listed):
        raise SeqrecError("item ids that are neither whole numbers nor texts")
    if listed[:1] != ["PAD"]:
        raise SeqrecError(f"the first item id is {listed[:1]} and not PAD")
    items = [str(item) for item in listed[1:]]
    if len(set(items)) != len(items):
        raise SeqrecError("two item ids are the same as texts, such as 1 and '1'")
    return items


def _lightning(data: bytes) -> bytes:
    """The Lightning checkpoint inside what `SASRecModel.save` wrote; `data` itself if it is one."""
    if data[:4] == b"PK\x03\x04":
        return data
    strings: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name.endswith("UNICODE"):
                strings.append(str(argument))
            elif "BINBYTES" in opcode.name and strings and strings[-1] == "fitted_checkpoint":
                if tuple(strings[:2]) != _CLASS:
                    raise SeqrecError(f"holds a {'.'.join(strings[:2])}, not RecTools' SASRecModel")
                assert isinstance(argument, bytes)
                return bytes(argument)
    except ValueError as error:
        raise SeqrecError(
            f"neither saved by RecTools nor a Lightning checkpoint: {error}"
        ) from error
    raise SeqrecError("holds no fitted model (RecTools saves its settings only before `fit`)")


def rectools_net(foreign: Foreign, *, keep_seen: bool = False) -> RecToolsSASRec:
    """The trained network. Raises SeqrecError with the settings that are not followed."""
    settings.require(foreign, _FOLLOWED)
    blocks = foreign.settings.get("item_net_block_types")
    if other := sorted(set(map(str, blocks or ["None"])) - set(_ITEM_NETS)):
        raise settings.refusal(foreign, f"item_net_block_types {', '.join(other)}")
    prepared = settings.keywords(foreign, "data_preparator_kwargs")
    for name in ("add_unix_ts", "extra_cols"):
        if prepared.get(name):
            raise settings.refusal(foreign, f"{name} in data_preparator_kwargs")
    distance = settings.keywords(foreign, "similarity_module_kwargs").get("distance", "dot")
    if distance not in ("dot", "cosine"):
        raise settings.refusal(foreign, f"the distance {distance!r}")
    scaled = settings.keywords(foreign, "pos_encoding_kwargs").get("use_scale_factor")
    dim = settings.number(foreign, "n_factors")
    config = RecToolsConfig(
        dim=dim,
        num_layers=settings.layers(foreign, "transformer_layers.transformer_blocks.", "n_blocks"),
        num_heads=settings.heads(foreign, dim),
        max_length=settings.number(foreign, "session_max_len"),
        positions=foreign.settings["use_pos_emb"],
        causal=foreign.settings["use_causal_attn"],
        padding_masked=foreign.settings["use_key_padding_mask"],
        cosine=distance == "cosine",
        scaled=bool(scaled),
        keep_seen=keep_seen,
    )
    items = with_reserved(_item_vectors(foreign))
    weights = {"items.weight": items} | dict(_renamed(foreign))
    return settings.filled(partial(RecToolsSASRec, config, {"items": len(items)}), weights, foreign)


def _item_vectors(foreign: Foreign) -> Tensor:
    """(1 + V, D) the sum of RecTools' item nets for each item, padding first."""
    blocks: dict[str, dict[str, Tensor]] = {}
    prefix = "item_model.item_net_blocks."
    for name, tensor in foreign.weights.items():
        if name.startswith(prefix):
            number, _, rest = name.removeprefix(prefix).partition(".")
            blocks.setdefault(number, {})[rest] = tensor
    if not blocks:
        raise SeqrecError("RecTools: a checkpoint without item embeddings")
    tables = []
    for block in blocks.values():
        if set(block) == {"ids_emb.weight"}:
            tables.append(block["ids_emb.weight"].float())
        elif set(block) == {"embedding_bag.weight", "offsets", "emb_bag_inputs", "input_lengths"}:
            tables.append(_bags(block))
        else:
            raise settings.refusal(foreign, f"an item net of {', '.join(sorted(block))}")
    if len({table.shape for table in tables}) != 1 or tables[0].dim() != 2:
        raise SeqrecError("RecTools: item nets of different sizes")
    if len(tables[0]) != len(foreign.items) + 1:
        raise SeqrecError(
            f"RecTools: {len(foreign.items):,} item ids and vectors of {len(tables[0]) - 1:,}"
        )
    return torch.stack(tables).sum(0)


def _bags(block: dict[str, Tensor]) -> Tensor:
    """(1 + V, D) the sum of an item's category vectors, from RecTools' flat lists."""
    values, lengths = block["embedding_bag.weight"].float(), block["input_lengths"].long()
    inputs, offsets = block["emb_bag_inputs"].long(), block["offsets"].long()
    begins = lengths.cumsum(0) - lengths
    flat = values.dim() == 2 and all(t.dim() == 1 for t in (lengths, inputs, offsets))
    in_a_row = flat and lengths.min() >= 0 and lengths.sum() == len(inputs)
    if not in_a_row or not torch.equal(offsets, begins) or inputs.min() < 0:
        raise SeqrecError("RecTools: category features that are not listed item by item")
    if inputs.max() >= len(values):
        raise SeqrecError(f"RecTools: a category without one of the {len(values):,} vectors")
    item = torch.arange(len(lengths)).repeat_interleave(lengths)
    return torch.zeros(len(lengths), values.shape[1]).index_add(0, item, values[inputs])


def _renamed(foreign: Foreign) -> list[tuple[str, Tensor]]:
    """RecTools' names -> those here; the item nets are summed elsewhere."""
    names = {
        "pos_encoding_layer.pos_emb.": "positions.",
        "transformer_layers.last_layernorm.": "norm.",
        "transformer_layers.transformer_blocks.": "layers.",
        "multi_head_attn.out_proj.": "attention.out.",
        "q_layer_norm.": "query_norm.",
        "ff_layer_norm.": "inner_norm.",
        "feed_forward.ff_linear_1.": "inner.",
        "feed_forward.ff_linear_2.": "outer.",
    }
    renamed: list[tuple[str, Any]] = []
    for name, tensor in foreign.weights.items():
        if name.startswith("item_model."):
            continue
        for theirs, here in names.items():
            name = name.replace(theirs, here)
        head, joint, kind = name.partition("multi_head_attn.in_proj_")
        if joint:
            if not tensor.dim() or len(tensor) % 3:
                raise settings.refusal(foreign, f"{name} of the shape {tuple(tensor.shape)}")
            parts = zip(("query", "key", "value"), tensor.chunk(3), strict=True)
            renamed += [(f"{head}attention.{part}.{kind}", chunk) for part, chunk in parts]
        else:
            renamed.append((name, tensor))
    return renamed
