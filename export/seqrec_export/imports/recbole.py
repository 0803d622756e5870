"""SASRec and GRU4Rec as RecBole 1.2 leaves them: the checkpoint of its Trainer, and the item ids.

The ids are not in the checkpoint. RecBole numbers them by their first appearance in the atomic
file, after its filters; so does `items_of_inter`.
"""

from __future__ import annotations

import csv
import json
import re
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from seqrec_export.errors import SeqrecError
from seqrec_export.imports import settings as checked
from seqrec_export.imports.checkpoint import NUMPY, Foreign, load_weights_only, restated
from seqrec_export.imports.parts import with_reserved
from seqrec_export.imports.recbole_nets import (
    ACTIVATIONS,
    GRU4RecConfig,
    RecBoleGRU4Rec,
    RecBoleSASRec,
    SASRecConfig,
)

_NAMES = [
    "recbole.config.configurator.Config",
    "recbole.model.sequential_recommender.sasrec.SASRec",
    "recbole.model.sequential_recommender.gru4rec.GRU4Rec",
    "recbole.utils.enum_type.ModelType",
    "recbole.utils.enum_type.InputType",
    "recbole.utils.enum_type.EvaluatorType",
    "yaml.loader.FullLoader",
]


def read_recbole(path: Path) -> Foreign:
    """What RecBole's Trainer left in `path`. It holds no item ids: see `items_of_inter`."""
    data = path.read_bytes()
    if data[:4] != b"PK\x03\x04":
        raise SeqrecError(f"{path}: not a checkpoint of torch.save (a RecBole dataset, perhaps)")
    try:
        found = load_weights_only(restated(data), _NAMES + NUMPY)
        settings = found["config"].state["final_config_dict"]
        model = found["config"].state["model"]
        weights = dict(found["state_dict"])
    except SeqrecError as error:
        raise SeqrecError(f"{path}: {error}") from error
    except (ValueError, zipfile.BadZipFile) as error:
        raise SeqrecError(f"{path}: damaged: {error}") from error
    except (KeyError, AttributeError, TypeError) as error:
        raise SeqrecError(f"{path}: a checkpoint without {error}: not of RecBole 1.2") from error
    return Foreign(library="RecBole", model=model, settings=settings, weights=weights)


# What pandas takes for a missing value: RecBole leaves such rows out.
_MISSING = frozenset(
    [
        "",
        "#N/A",
        "#N/A N/A",
        "#NA",
        "-1.#IND",
        "-1.#QNAN",
        "-NaN",
        "-nan",
        "1.#IND",
        "1.#QNAN",
        "<NA>",
        "N/A",
        "NA",
        "NULL",
        "NaN",
        "None",
        "n/a",
        "nan",
        "null",
    ]
)
# Settings that change which items there are or in which order, and what of them is understood.
_UNDERSTOOD: dict[str, tuple[object, ...]] = {
    "rm_dup_inter": (None,),
    "val_interval": (None,),
    "benchmark_filename": (None,),
    "alias_of_item_id": (None,),
    "filter_inter_by_user_or_item": (True, False),
}
_INTERVAL = re.compile(r"([\[(])\s*(\d+)\s*,\s*inf\s*[\])]")


def items_of_inter(path: Path, settings: dict[str, Any], rows: int) -> list[str]:
    """The item ids of an atomic file as RecBole numbers them: by first appearance, after filters.

    `rows` are those of the item embedding, padding included. Raises SeqrecError if a setting is
    not understood that changes the order, or if the file has another number of items.
    """
    ask = "give the ids with --items FILE, a line an id in RecBole's order"
    for name, known in _UNDERSTOOD.items():
        if settings.get(name) not in known:
            raise SeqrecError(f"{name} = {settings[name]!r} changes the numbering; {ask}")
    columns = settings.get("load_col")
    if columns is None or set(columns) - {"inter"}:
        raise SeqrecError(f"load_col = {columns!r}: other files may hold items too; {ask}")
    with path.open(encoding=settings.get("encoding") or "utf-8", newline="") as file:
        lines = csv.reader(file, delimiter=settings["field_separator"])
        header = [column.split(":")[0] for column in next(lines, [])]
        fields = [settings[f"{name}_ID_FIELD"] for name in ("USER", "ITEM")]
        if lacking := [name for name in fields if name not in header]:
            raise SeqrecError(
                f"{path} has no column {', '.join(lacking)}; its first line names "
                f"{', '.join(header) or 'none'}"
            )
        user, item = map(header.index, fields)
        both = max(user, item)  # RecBole fills in what a line lacks after them
        pairs = [(line[user], line[item]) for line in lines if len(line) > both]
    pairs = [pair for pair in pairs if pair[0] not in _MISSING and pair[1] not in _MISSING]
    least = []
    for name in ("user_inter_num_interval", "item_inter_num_interval"):
        text = settings.get(name)
        found = _INTERVAL.fullmatch(text) if isinstance(text, str) else None
        if text is not None and not found:
            raise SeqrecError(f"{name} = {text!r} is not understood; {ask}")
        least.append(int(found[2]) + (found[1] == "(") if found else 0)
    while True:
        counts = [Counter(pair[side] for pair in pairs) for side in (0, 1)]
        kept = [p for p in pairs if all(counts[s][p[s]] >= least[s] for s in (0, 1))]
        if len(kept) == len(pairs):
            break
        pairs = kept
    items = list(dict.fromkeys(item for _, item in pairs))
    if len(items) + 1 != rows:
        raise SeqrecError(
            f"{path} has {len(items):,} items after RecBole's filters, the network {rows - 1:,}: "
            f"it is not the file that the network was trained on; {ask}"
        )
    return items


def items_of_json(path: Path, rows: int) -> list[str]:
    """The item ids of a JSON list, a text each, in the order of the network's rows.

    `rows` are those of the item embedding, padding included. Raises SeqrecError.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SeqrecError(f"{path} holds no JSON: {error}") from error
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise SeqrecError(f"{path} has to hold a list of texts, an item id each")
    if len(found) + 1 != rows:
        raise SeqrecError(f"{path} has {len(found):,} ids, the network {rows - 1:,} items")
    return found


def num_rows(foreign: Foreign) -> int:
    """Rows of RecBole's item embedding, padding's included, or SeqrecError."""
    table = foreign.weights.get("item_embedding.weight")
    if not isinstance(table, Tensor) or table.dim() != 2:
        raise SeqrecError(f"RecBole {foreign.model}: a checkpoint without item_embedding.weight")
    return len(table)


def recbole_net(foreign: Foreign, *, keep_seen: bool = False) -> nn.Module:
    """The trained network. Raises SeqrecError with the settings that are not followed."""
    nets = {"SASRec": _sasrec, "GRU4Rec": _gru4rec}
    if foreign.model not in nets:
        raise SeqrecError(
            f"RecBole's {foreign.model} cannot be imported, only {' and '.join(nets)}; export the "
            "module itself with seqrec_export.import_module"
        )
    return nets[foreign.model](foreign, keep_seen)


def _sasrec(foreign: Foreign, keep_seen: bool) -> RecBoleSASRec:
    checked.require(foreign, {"hidden_act": tuple(ACTIVATIONS), "loss_type": ("CE", "BPR")})
    dim, eps = checked.number(foreign, "hidden_size"), foreign.settings.get("layer_norm_eps")
    if not isinstance(eps, float) or not 0 < eps < 1:
        raise checked.refusal(foreign, f"layer_norm_eps = {eps!r}")
    config = SASRecConfig(
        dim=dim,
        inner=checked.number(foreign, "inner_size"),
        num_layers=checked.layers(foreign, "trm_encoder.layer.", "n_layers"),
        num_heads=checked.heads(foreign, dim),
        max_length=checked.number(foreign, "MAX_ITEM_LIST_LENGTH"),
        activation=foreign.settings["hidden_act"],
        eps=eps,
        keep_seen=keep_seen,
    )
    net = RecBoleSASRec(config, {"items": num_rows(foreign) + 1})
    weights = {_renamed(name): tensor for name, tensor in foreign.weights.items()}
    checked.fill(net, weights | {"items.weight": with_reserved(weights["items.weight"])}, foreign)
    return net


def _renamed(name: str) -> str:
    """RecBole's name of a weight of SASRec -> the one here."""
    for theirs, here in {
        "item_embedding.": "items.",
        "position_embedding.": "positions.",
        "trm_encoder.layer.": "layers.",
        "multi_head_attention.LayerNorm.": "attention_norm.",
        "multi_head_attention.dense.": "attention.out.",
        "multi_head_attention.": "attention.",
        "feed_forward.LayerNorm.": "inner_norm.",
        "feed_forward.dense_1.": "inner.",
        "feed_forward.dense_2.": "outer.",
    }.items():
        name = name.replace(theirs, here)
    return name.replace("LayerNorm.", "norm.") if name.startswith("LayerNorm.") else name


def _gru4rec(foreign: Foreign, keep_seen: bool) -> RecBoleGRU4Rec:
    checked.require(foreign, {"loss_type": ("CE", "BPR")})
    config = GRU4RecConfig(
        dim=checked.number(foreign, "embedding_size"),
        hidden=checked.number(foreign, "hidden_size"),
        num_layers=checked.number(foreign, "num_layers", 100),
        max_length=checked.number(foreign, "MAX_ITEM_LIST_LENGTH"),
        keep_seen=keep_seen,
    )
    net = RecBoleGRU4Rec(config, {"items": num_rows(foreign) + 1})
    weights: dict[str, Tensor] = {}
    for name, tensor in foreign.weights.items():
        layer = re.fullmatch(r"gru_layers\.(weight_[ih]h)_l(\d+)", name)
        if layer:
            weights[f"gru.{layer[2]}.{layer[1]}_l0"] = tensor
            bias = layer[1].replace("weight", "bias")
            weights[f"gru.{layer[2]}.{bias}_l0"] = tensor.new_zeros(len(tensor))  # it has none
        else:
            name = name.replace("item_embedding.", "items.").replace("dense.", "out.")
            weights[name] = tensor
    weights["items.weight"] = with_reserved(weights["items.weight"])
    checked.fill(net, weights, foreign)
    return net
