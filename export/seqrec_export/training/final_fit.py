"""The network that goes out is trained on every event, also on those held back for the figures.

Otherwise what users did last, and the newest items, would be what a served model knows least about.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from seqrec_export.data.histories import Dataset
from seqrec_export.data.vocabulary import Vocabulary
from seqrec_export.models.model import Model, fill_buffers, finish
from seqrec_export.training.carry_over import carry_over
from seqrec_export.training.fit import fit_all
from seqrec_export.training.trainer import begin_deterministic

# Plausible rather than measured: docs/runs.md says so.
_SHARE_OF_EPOCHS = 0.2  # of those up to the chosen one
_SHARE_OF_RATE = 0.5  # of the learning rate, which falls to zero from there

_FOLDER = "final"


def best_epoch(model: Model, curve: Sequence[Mapping[str, float]]) -> int:
    """The epoch whose weights were taken, from 1: the first of the best by validation."""
    values = [epoch[model.metric.name] for epoch in curve]
    return 1 + values.index((max if model.metric.direction == "max" else min)(values))


def final_fit(
    model: Model,
    chosen: nn.Module,
    vocabularies: Mapping[str, Vocabulary],
    everything: Dataset,
    config: Any,
    epochs: int,
    checkpoints: Path,
    *,
    seed: int = 0,
    resume: bool = False,
    progress: bool = True,
) -> tuple[nn.Module, dict[str, Any]]:
    """A network for `everything`, a dataset that holds nothing back, and what its training was.

    `chosen` is the network of the best of `epochs` epochs, with `vocabularies` of its own. The way
    is `config.final_fit`: "continue" goes on from its weights, new ids starting as in any training;
    "scratch" trains a network anew for as many epochs.
    """
    begin_deterministic(seed)
    net = model.net(config, everything.num_rows)
    if config.final_fit == "continue":
        carry_over(model, config, chosen.state_dict(), vocabularies, net, everything.vocabularies)
        epochs = math.ceil(_SHARE_OF_EPOCHS * epochs)
        rate = _SHARE_OF_RATE * config.learning_rate
        config = replace(config, epochs=epochs, learning_rate=rate, lr_decay=0.0, warmup_steps=0)
    fill_buffers(net, everything)
    found = fit_all(
        model,
        net,
        everything,
        config,
        checkpoints / _FOLDER,
        epochs=epochs,
        seed=seed,
        resume=resume,
        progress=progress,
    )
    finish(net)
    events = len(everything.train)
    return net, {"way": config.final_fit, "events": events, **found}
