"""Checkpoints as RecTools and RecBole write them, of plain networks with random weights.

Neither library is needed: empty classes under their names are pickled. Each network is made of
torch's own modules, called as the libraries call theirs, with padding and one history at a time.
"""

import io
import pickle
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

ITEMS = [f"item {number}" for number in range(30)]
DIM, HEADS, WINDOW = 12, 3, 6
CATEGORIES = 4
ACTIVATIONS = {
    "gelu": F.gelu,
    "relu": F.relu,
    "swish": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


@contextmanager
def named(*names: str) -> Iterator[list[Any]]:
    """An empty class for each dotted name, which pickle finds there."""
    before, made = dict(sys.modules), []
    for name in names:
        module, _, attribute = name.rpartition(".")
        parts = module.split(".")
        for end in range(1, len(parts) + 1):
            parent = ".".join(parts[:end])
            if not hasattr(sys.modules.get(parent), "stub"):
                sys.modules[parent] = ModuleType(parent)
                sys.modules[parent].stub = True  # type: ignore[attr-defined]
        base: Any = Enum if ".enum_type." in name else None
        one = Enum(attribute, ["ANY"]) if base else type(attribute, (), {})
        one.__module__ = module
        setattr(sys.modules[module], attribute, one)
        made.append(one)
    try:
        yield made
    finally:
        for name in sys.modules.keys() - before.keys():
            del sys.modules[name]
        sys.modules.update(before)


def random_weights(net: nn.Module, seed: int = 0) -> nn.Module:
    """All parameters, biases too: a mistake in one has to show."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.6)
    return net.eval()


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.multi_head_attn = nn.MultiheadAttention(DIM, HEADS, batch_first=True)
        self.q_layer_norm, self.ff_layer_norm = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.feed_forward = nn.ModuleDict(
            {"ff_linear_1": nn.Linear(DIM, DIM), "ff_linear_2": nn.Linear(DIM, DIM)}
        )


class RecTools(nn.Module):
    """SASRec over the whole window; unless a key padding mask is used, padding is looked at."""

    def __init__(
        self,
        *,
        blocks: int = 2,
        positions: bool = True,
        causal: bool = True,
        mask: bool = False,
        cosine: bool = False,
        scaled: bool = False,
        categories: bool = False,
    ) -> None:
        super().__init__()
        self.causal, self.mask, self.cosine = causal, mask, cosine
        self.scale = DIM**0.5 if scaled else 1.0
        by_id, by_category = nn.Module(), nn.Module()
        by_id.ids_emb = nn.Embedding(1 + len(ITEMS), DIM)
        nets = [by_id]
        if categories:  # item i has i % 3 of them, the last one none
            of_items = [[]] + [
                [(i + n) % CATEGORIES for n in range(i % 3)] for i in range(len(ITEMS))
            ]
            lengths = torch.tensor([len(of) for of in of_items])
            by_category.embedding_bag = nn.EmbeddingBag(CATEGORIES, DIM, mode="sum")
            by_category.register_buffer("offsets", lengths.cumsum(0) - lengths)
            by_category.register_buffer(
                "emb_bag_inputs", torch.tensor([c for of in of_items for c in of])
            )
            by_category.register_buffer("input_lengths", lengths)
            nets.append(by_category)
        self.item_model = nn.Module()
        self.item_model.item_net_blocks = nn.ModuleList(nets)
        self.pos_encoding_layer = nn.Module()
        self.pos_encoding_layer.pos_emb = nn.Embedding(WINDOW, DIM) if positions else None
        self.transformer_layers = nn.Module()
        self.transformer_layers.transformer_blocks = nn.ModuleList(Block() for _ in range(blocks))
        self.transformer_layers.last_layernorm = nn.LayerNorm(DIM, eps=1e-8)
        self.settings = _rectools_settings(self, blocks, positions, categories)

    def forward(self, history: Sequence[int]) -> Tensor:
        """Rows of the table, oldest first -> (V,) scores of all items but the padding."""
        kept = list(history)[-WINDOW:]
        rows = torch.tensor([[0] * (WINDOW - len(kept)) + kept])
        real = rows != 0
        ids, *others = self.item_model.item_net_blocks
        items = ids.ids_emb.weight
        for bag in others:
            items = items + bag.embedding_bag(bag.emb_bag_inputs, bag.offsets)
        x = items[rows] * self.scale
        if self.pos_encoding_layer.pos_emb is not None:
            x = x + self.pos_encoding_layer.pos_emb(torch.arange(WINDOW).flip(0))
        hidden = ~torch.ones(WINDOW, WINDOW, dtype=torch.bool).tril() if self.causal else None
        if self.mask:
            hidden = (~real | (hidden if self.causal else torch.tensor(False))).expand(WINDOW, -1)
            hidden = hidden & ~torch.eye(WINDOW, dtype=torch.bool)  # of padding, that is finite
        for block in self.transformer_layers.transformer_blocks:
            x = x * real[..., None]
            asking = block.q_layer_norm(x)
            x = asking + block.multi_head_attn(asking, x, x, attn_mask=hidden)[0]
            x = block.ff_layer_norm(x)
            inner = block.feed_forward["ff_linear_1"](x).relu()
            x = x + block.feed_forward["ff_linear_2"](inner)
        user = self.transformer_layers.last_layernorm(x * real[..., None])[0, -1]
        if self.cosine:
            return F.cosine_similarity(user[None], items[1:])
        return items[1:] @ user


def _rectools_settings(
    net: RecTools, blocks: int, positions: bool, categories: bool
) -> dict[str, Any]:
    path = "rectools.models.nn"
    nets = [f"{path}.item_net.IdEmbeddingsItemNet", f"{path}.item_net.CatFeaturesItemNet"]
    of = f"{path}.transformers"
    return {
        "cls": "SASRecModel",
        "data_preparator_type": f"{of}.sasrec.SASRecDataPreparator",
        "n_blocks": blocks,
        "n_heads": HEADS,
        "n_factors": DIM,
        "use_pos_emb": positions,
        "use_causal_attn": net.causal,
        "use_key_padding_mask": net.mask,
        "dropout_rate": 0.2,
        "session_max_len": WINDOW,
        "loss": "softmax",
        "item_net_block_types": nets[: 1 + categories],
        "item_net_constructor_type": f"{path}.item_net.SumOfEmbeddingsConstructor",
        "pos_encoding_type": f"{of}.net_blocks.LearnableInversePositionalEncoding",
        "transformer_layers_type": f"{of}.sasrec.SASRecTransformerLayers",
        "lightning_module_type": f"{of}.lightning.TransformerLightningModule",
        "similarity_module_type": f"{of}.similarity.DistanceSimilarityModule",
        "backbone_type": f"{of}.torch_backbone.TransformerTorchBackbone",
        "data_preparator_kwargs": None,
        "pos_encoding_kwargs": {"use_scale_factor": True} if net.scale != 1 else None,
        "similarity_module_kwargs": {"distance": "cosine"} if net.cosine else None,
        "backbone_kwargs": None,
    }


def rectools_checkpoint(
    net: RecTools,
    settings: Mapping[str, Any] | None = None,
    ids: Sequence[Any] = ITEMS,
    weights: Mapping[str, Any] | None = None,
    **more: Any,
) -> bytes:
    """What Lightning writes; `settings`, `weights` and `more` change a part of it."""
    out = io.BytesIO()
    found = {f"torch_model.{name}": tensor for name, tensor in net.state_dict().items()}
    listed = np.array(["PAD", *ids], dtype=object)
    content = {
        "epoch": 1,
        "pytorch-lightning_version": "2.5.2",
        "state_dict": found | dict(weights or {}),
        "hyper_parameters": {
            "model_config": net.settings | dict(settings or {}),
            "item_external_ids": listed,
            "item_extra_tokens": ("PAD",),
        },
    }
    torch.save(content | more, out)
    return out.getvalue()


def saved_by_rectools(checkpoint: bytes, kind: str = "sasrec.SASRecModel") -> bytes:
    """What `save` of a model writes around it."""
    with named(f"rectools.models.nn.transformers.{kind}") as (model,):
        saved = model()
        saved.fitted_checkpoint = checkpoint
        return pickle.dumps(saved, 5)


class RecBoleSASRec(nn.Module):
    """torch's own encoder, padded behind to the window, places counted from the oldest."""

    def __init__(self, activation: str = "gelu", layers: int = 2, eps: float = 1e-12) -> None:
        super().__init__()
        self.item_embedding = nn.Embedding(1 + len(ITEMS), DIM)
        self.position_embedding = nn.Embedding(WINDOW, DIM)
        self.norm = nn.LayerNorm(DIM, eps)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                DIM, HEADS, 20, 0.0, ACTIVATIONS[activation], eps, batch_first=True
            )
            for _ in range(layers)
        )
        self.settings = {
            "n_layers": layers,
            "n_heads": HEADS,
            "hidden_size": DIM,
            "inner_size": 20,
            "hidden_act": activation,
            "layer_norm_eps": eps,
        }

    def forward(self, history: Sequence[int]) -> Tensor:
        """Rows of the table, oldest first -> (V,) scores of all items but the padding."""
        kept = list(history)[-WINDOW:]
        rows = torch.tensor([kept + [0] * (WINDOW - len(kept))])
        x = self.norm(self.item_embedding(rows) + self.position_embedding(torch.arange(WINDOW)))
        later = ~torch.ones(WINDOW, WINDOW, dtype=torch.bool).tril()
        hidden = (later | (rows == 0)) & ~torch.eye(WINDOW, dtype=torch.bool)
        for block in self.blocks:
            x = block(x, src_mask=hidden)
        return self.item_embedding.weight[1:] @ x[0, len(kept) - 1]

    def named_as_there(self) -> dict[str, Tensor]:
        """The weights by RecBole's names."""
        found = {}
        for name, tensor in self.state_dict().items():
            name = name.replace("blocks.", "trm_encoder.layer.")
            name = name.replace("self_attn.out_proj", "multi_head_attention.dense")
            name = name.replace("norm1", "multi_head_attention.LayerNorm")
            name = name.replace("linear1", "feed_forward.dense_1")
            name = name.replace("linear2", "feed_forward.dense_2")
            name = name.replace("norm2", "feed_forward.LayerNorm")
            head, joint, kind = name.partition("self_attn.in_proj_")
            if joint:
                for part, chunk in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                    found[f"{head}multi_head_attention.{part}.{kind}"] = chunk
            else:
                found[f"LayerNorm.{name[5:]}" if name.startswith("norm.") else name] = tensor
        return found


class RecBoleGRU4Rec(nn.Module):
    """torch's own GRU without biases, and a linear layer."""

    def __init__(self, hidden: int = 10, layers: int = 1) -> None:
        super().__init__()
        self.item_embedding = nn.Embedding(1 + len(ITEMS), DIM)
        self.gru_layers = nn.GRU(DIM, hidden, layers, bias=False, batch_first=True)
        self.dense = nn.Linear(hidden, DIM)
        self.settings = {"embedding_size": DIM, "hidden_size": hidden, "num_layers": layers}

    def forward(self, history: Sequence[int]) -> Tensor:
        """Rows of the table, oldest first -> (V,) scores of all items but the padding."""
        kept = torch.tensor([list(history)[-WINDOW:]])
        states, _ = self.gru_layers(self.item_embedding(kept))
        return self.item_embedding.weight[1:] @ self.dense(states[0, -1])

    def named_as_there(self) -> dict[str, Tensor]:
        """The weights by RecBole's names."""
        return self.state_dict()


RECBOLE_SETTINGS = {
    "data_path": "dataset/log",
    "loss_type": "CE",
    "field_separator": "\t",
    "USER_ID_FIELD": "user_id",
    "ITEM_ID_FIELD": "item_id",
    "MAX_ITEM_LIST_LENGTH": WINDOW,
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    "user_inter_num_interval": "[0,inf)",
    "item_inter_num_interval": "[0,inf)",
    "filter_inter_by_user_or_item": True,
    "rm_dup_inter": None,
    "val_interval": None,
    "benchmark_filename": None,
    "alias_of_item_id": None,
    "device": torch.device("cpu"),
}


def recbole_checkpoint(
    net: RecBoleSASRec | RecBoleGRU4Rec,
    settings: Mapping[str, Any] | None = None,
    weights: Mapping[str, Any] | None = None,
    model: str | None = None,
    **more: Any,
) -> bytes:
    """What RecBole's Trainer writes; `settings`, `weights` and `more` change a part of it."""
    name = model or type(net).__name__.removeprefix("RecBole")
    names = ["config.configurator.Config", f"model.sequential_recommender.{name.lower()}.{name}"]
    names += [f"utils.enum_type.{kind}Type" for kind in ("Model", "Input", "Evaluator")]
    names = [f"recbole.{name}" for name in names]
    with named(*names, "yaml.loader.FullLoader") as (make, kind, *enums, loader):
        config = make()
        of_enums = {f"of {enum.__name__}": enum.ANY for enum in enums}
        said = RECBOLE_SETTINGS | net.settings | of_enums | dict(settings or {})
        config.final_config_dict = said
        config.model, config.dataset, config.model_class = name, "log", kind
        config.yaml_loader = loader
        content = {
            "config": config,
            "epoch": 1,
            "cur_step": 0,
            "best_valid_score": np.float64(0.25),
            "state_dict": dict(net.named_as_there()) | dict(weights or {}),
            "other_parameter": None,
            "optimizer": {"state": {}, "param_groups": [{"lr": 0.001, "params": [0]}]},
        }
        out = io.BytesIO()
        torch.save(content | more, out, pickle_protocol=4)
        return out.getvalue()


def write(folder: Path, name: str, content: bytes) -> Path:
    file = folder / name
    file.write_bytes(content)
    return file
