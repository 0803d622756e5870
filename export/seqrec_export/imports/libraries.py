"""Runs from what RecTools and RecBole save."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor, nn

from seqrec_export.data.histories import prepare
from seqrec_export.data.interactions import Interactions
from seqrec_export.data.vocabulary import NUM_RESERVED, Vocabulary
from seqrec_export.errors import SeqrecError
from seqrec_export.imports.checkpoint import Foreign
from seqrec_export.imports.recbole import (
    items_of_inter,
    items_of_json,
    num_rows,
    read_recbole,
    recbole_net,
)
from seqrec_export.imports.rectools import read_rectools, rectools_net
from seqrec_export.imports.run import vocabulary_of, write_import
from seqrec_export.models import registry
from seqrec_export.training.run import Run
from seqrec_export.training.train import held_out_rows


def import_rectools(
    checkpoint: Path | str,
    path: Path | str,
    *,
    keep_seen: bool = False,
    log: Interactions | None = None,
) -> Run:
    """What RecTools' `SASRecModel.save` wrote, or a checkpoint of its training, as a run at `path`.

    Unless `keep_seen`, answers leave out what a history holds, as `recommend` does there with
    `filter_viewed`. `log` tells which items are popular, for users without a known item, and gives
    real requests to verify exports with.
    Raises SeqrecError for what is no checkpoint of SASRec of RecTools 0.19, or a damaged one, and
    names the settings that cannot be followed.
    """
    foreign = read_rectools(Path(checkpoint))
    net = rectools_net(foreign, keep_seen=keep_seen)
    return _import(foreign, net, "rectools_sasrec", foreign.items, Path(checkpoint), path, log)


def import_recbole(
    checkpoint: Path | str,
    path: Path | str,
    *,
    inter: Path | str | None = None,
    items: Path | str | None = None,
    keep_seen: bool = False,
    log: Interactions | None = None,
) -> Run:
    """The checkpoint of RecBole's Trainer for SASRec or GRU4Rec, as a run at `path`.

    The item ids are not in it: `inter` is the atomic file that the network was trained on,
    unchanged and in its order, or `items` a JSON list of ids in RecBole's order. Unless
    `keep_seen`, answers leave out what a history holds; RecBole's `full_sort_topk` keeps it. `log`
    tells which items are popular, for users without a known item, and gives real requests to verify
    exports with.
    Raises SeqrecError for what is no checkpoint of RecBole 1.2, or a damaged one, for ids that do
    not fit to it, and names the settings that cannot be followed.
    """
    foreign = read_recbole(Path(checkpoint))
    net = recbole_net(foreign, keep_seen=keep_seen)
    if (inter is None) == (items is None):
        raise SeqrecError(
            f"{checkpoint} holds no item ids; give either the .inter file that it was trained on, "
            "or a JSON list of ids in RecBole's order"
        )
    if inter is not None:
        ids = items_of_inter(Path(inter), foreign.settings, num_rows(foreign))
    else:
        assert items is not None
        ids = items_of_json(Path(items), num_rows(foreign))
    return _import(foreign, net, _name(foreign), ids, Path(checkpoint), path, log)


def recbole_model(checkpoint: Path | str) -> str:
    """What the model of a RecBole checkpoint is called here, if there is one.

    Raises SeqrecError for what is no checkpoint of RecBole 1.2, or a damaged one.
    """
    return _name(read_recbole(Path(checkpoint)))


def _name(foreign: Foreign) -> str:
    return f"recbole_{foreign.model.lower()}"


def _import(
    foreign: Foreign,
    net: nn.Module,
    name: str,
    items: list[str],
    checkpoint: Path,
    path: Path | str,
    log: Interactions | None,
) -> Run:
    vocabulary, model = vocabulary_of("the catalogue", items), registry.find(name)
    notes, rows = [], []
    popularity = net.get_buffer("popularity")
    if log is None:
        notes.append("no log was given: without a known item, the first ids of the catalogue come")
    else:
        popularity[NUM_RESERVED:] = _counts(log, vocabulary)
        rows = held_out_rows(model, net.config, log, prepare(log, "leave_one_out"), seed=0)
    return write_import(
        Path(path),
        model,
        net.config,
        net,
        {"items": vocabulary},
        source=f"{foreign.library}: {checkpoint.name}",
        held_out=rows,
        notes=notes,
    )


def _counts(log: Interactions, vocabulary: Vocabulary) -> Tensor:
    """(V,) how often each item of the catalogue is in the log, on a logarithmic scale."""
    counts = np.bincount(log.items, minlength=len(log.item_ids)).astype(np.float32)
    found = dict(zip(log.item_ids.tolist(), counts.tolist(), strict=True))
    of_items = Tensor([found.get(item, 0.0) for item in vocabulary.ids])
    if not of_items.any():
        raise SeqrecError(
            f"no item of {log.source} is in the catalogue, whose first ids are "
            f"{', '.join(vocabulary.ids[:3])}; give the log that the network was trained on"
        )
    return of_items.log1p()
