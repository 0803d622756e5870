"""Small models, their exported graphs, random requests for them, and when two answers are equal."""

from collections.abc import Mapping
from typing import Any

import torch

from seqrec_export.exporting.exported import graphs_of
from seqrec_export.models.registry import MODELS
from seqrec_export.testing.served import (
    LOWEST,
    ODD_NUMBERS,
    TOLERANCE,
    Served,
    Tensors,
    assert_same,
    assert_same_ranking,
    rows,
)

__all__ = [
    "GRAPHS",
    "LOWEST",
    "ODD_NUMBERS",
    "SETTINGS",
    "TOLERANCE",
    "TOP_K",
    "WINDOW",
    "Served",
    "Tensors",
    "assert_same",
    "assert_same_ranking",
    "rows",
    "small_config",
]

torch.set_num_threads(1)  # for tensors this small, threads do little but wait for each other

TOP_K = 30
WINDOW = 9

# Small enough to train in seconds; what is not named has its default.
SETTINGS: Mapping[str, dict[str, Any]] = {
    "gru4att": {"dim": 16, "max_length": WINDOW, "epochs": 6, "targets_per_epoch": 3000},
    "two_tower": {"batch_size": 256, "epochs": 6},
    "mlink": {"dim": 20, "hidden": 32, "max_length": WINDOW, "epochs": 6},
    "caser": {"epochs": 6, "batch_size": 512},
    "sasrec": {"dim": 16, "max_length": WINDOW, "epochs": 6},
}


def small_config(name: str, **other: Any) -> Any:
    return MODELS[name].config(**(SETTINGS[name] | other))


GRAPHS = {
    name: (model, graph)
    for model in MODELS
    for name, graph in graphs_of(MODELS[model], small_config(model), TOP_K).items()
}
