"""SASRec and GRU4Rec as RecBole 1.2 leaves them: the checkpoint of its Trainer, and the item ids.

The ids are not in the checkpoint. RecBole numbers them by their first appearance in the atomic
file, after its filters; so does `items_of_inter`.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from seqrec_export.errors import SeqrecError
from seqrec_export.imports import settings as checked
from seqrec_export.imports.checkpoint import (
    DAMAGED,
    NUMPY,
    Foreign,
    Held,
    damaged,
    load_weights_only,
    mapping,
    restated,
)
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
        config = found.get("config")
        state = mapping(config.state if isinstance(config, Held) else None, "config")
        return Foreign(
            library="RecBole",
            model=state.get("model", ""),
            settings=dict(mapping(state.get("final_config_dict"), "final_config_dict")),
            weights=dict(mapping(found.get("state_dict"), "state_dict")),
        )
    except SeqrecError as error:
        raise SeqrecError(f"{path}: {error}") from error
    except DAMAGED as error:  # of the zip, or of the list of opcodes
        raise SeqrecError(f"{path}: {damaged(error)}") from error


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
    ask = "give the ids with --items FILE, a JSON list of them in RecBole's order"
    for name, known in _UNDERSTOOD.items():
        if settings.get(name) not in known:
            raise SeqrecError(f"{name} = {settings.get(name)!r} changes the numbering; {ask}")
    columns = settings.get("load_col")
    if not isinstance(columns, dict) or set(columns) != {"inter"}:
        raise SeqrecError(f"load_col = {columns!r}: other files may hold items too; {ask}")
    pairs = [p for p in _pairs(path, settings, ask) if not _MISSING.intersection(p)]
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


def _pairs(path: Path, settings: dict[str, Any], ask: str) -> list[tuple[str, str]]:
    """The user and the item of each line, read as RecBole reads it, with pandas."""
    fields = [settings.get(f"{name}_ID_FIELD") for name in ("USER", "ITEM")]
    separator, encoding = settings.get("field_separator"), settings.get("encoding") or "utf-8"
    if not isinstance(separator, str) or len(separator) != 1:
        raise SeqrecError(f"field_separator = {separator!r} is not one character; {ask}")
    try:
        with path.open(encoding=encoding, newline="") as file:
            lines = csv.reader(file, delimiter=separator)
            header = [column.split(":")[0] for column in next(lines, [])]
            header[:1] = [name.removeprefix("\ufeff") for name in header[:1]]
            if lacking := [str(name) for name in fields if name not in header]:
                raise SeqrecError(
                    f"{path} has no column {', '.join(lacking)}; its first line names "
                    f"{', '.join(header) or 'none'}"
                )
            user, item = map(header.index, map(str, fields))
            both = max(user, item)  # RecBole fills in what a line lacks after them
            return [(line[user], line[item]) for line in lines if len(line) > both]
    except (csv.Error, LookupError, TypeError, ValueError) as error:
        raise SeqrecError(f"{path} cannot be read as RecBole reads it: {error}") from error


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
    if table is None or table.dim() != 2 or len(table) < 2:
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
    rows = {"items": num_rows(foreign) + 1}
    weights = {_renamed(name): tensor for name, tensor in foreign.weights.items()}
    weights["items.weight"] = with_reserved(weights["items.weight"])
    return checked.filled(partial(RecBoleSASRec, config, rows), weights, foreign)


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
    rows = {"items": num_rows(foreign) + 1}
    weights: dict[str, Tensor] = {}
    for name, tensor in foreign.weights.items():
        layer = re.fullmatch(r"gru_layers\.(weight_[ih]h)_l(\d+)", name)
        if layer:
            weights[f"gru.{layer[2]}.{layer[1]}_l0"] = tensor
            bias = layer[1].replace("weight", "bias")
            weights[f"gru.{layer[2]}.{bias}_l0"] = tensor.new_zeros(tensor.shape[:1])  # it has none
        else:
            name = name.replace("item_embedding.", "items.").replace("dense.", "out.")
            weights[name] = tensor
    weights["items.weight"] = with_reserved(weights["items.weight"])
    return checked.filled(partial(RecBoleGRU4Rec, config, rows), weights, foreign)
