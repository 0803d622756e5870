"""Weights of one training for a network of another: each id keeps its rows, wherever it stands.

The catalogue is sorted by popularity, so that a row means another item as soon as a log has grown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from seqrec_export.data.vocabulary import NUM_RESERVED, Vocabulary
from seqrec_export.models.model import Model

_FEW = 8  # rows of the small networks whose shapes are compared


def carry_over(
    model: Model,
    config: Any,
    state: Mapping[str, Tensor],
    before: Mapping[str, Vocabulary],
    net: nn.Module,
    now: Mapping[str, Vocabulary],
) -> None:
    """Copy the weights of a network with the vocabularies `before` into `net`, which has `now`.

    Of ids that are new, `net` keeps what it has; ids that are gone are dropped. A tensor whose rows
    go by several vocabularies, one after another, is copied if these are the same. Buffers are
    copied too: call `fill_buffers` afterwards.
    """
    same = {name for name in now.keys() & before.keys() if now[name].ids == before[name].ids}
    places = {name: _places(before[name], now[name]) for name in now.keys() & before.keys()}
    axes = vocabulary_axes(model, config, now)
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            by = axes[name]
            if name not in state:
                continue
            if all(same >= names for names in by.values()):
                tensor.copy_(state[name])
            elif all(len(names) == 1 for names in by.values()):
                _copy(state[name], tensor, {axis: places[min(by[axis])] for axis in by})


def vocabulary_axes(
    model: Model, config: Any, vocabularies: Iterable[str]
) -> dict[str, dict[int, set[str]]]:
    """Tensor of the network's state -> which of its axes go by which vocabularies.

    Found by what changes its shape when one vocabulary has a row more.
    """
    few = dict.fromkeys(vocabularies, _FEW)
    with torch.random.fork_rng(devices=[]):
        shapes = _shapes(model.net(config, few))
        axes: dict[str, dict[int, set[str]]] = {name: {} for name in shapes}
        for vocabulary in few:
            wider = _shapes(model.net(config, few | {vocabulary: _FEW + 1}))
            for name, shape in shapes.items():
                for axis, (size, wide) in enumerate(zip(shape, wider[name], strict=True)):
                    if size != wide:
                        axes[name].setdefault(axis, set()).add(vocabulary)
    return axes


def _shapes(net: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in net.state_dict().items()}


def _places(before: Vocabulary, now: Vocabulary) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of `now` that `before` had too, and which they were; reserved rows are the same."""
    row = {identifier: i for i, identifier in enumerate(before.ids, NUM_RESERVED)}
    found = np.array([row.get(identifier, -1) for identifier in now.ids], np.int64)
    found = np.concatenate([np.arange(NUM_RESERVED), found])
    rows = np.flatnonzero(found >= 0)
    return rows, found[rows]


def _copy(
    old: Tensor,
    new: Tensor,
    places: Mapping[int, tuple[NDArray[np.int64], NDArray[np.int64]]],
) -> None:
    for axis, (_, rows) in places.items():
        old = old.index_select(axis, torch.from_numpy(rows))
    targets = [
        torch.from_numpy(places[axis][0]) if axis in places else torch.arange(size)
        for axis, size in enumerate(new.shape)
    ]
    new[torch.meshgrid(*targets, indexing="ij")] = old
