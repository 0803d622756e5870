"""Train a model into a run folder, in a folder next to it until the run is complete."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from seqrec_export.contract import Dtype, Spec
from seqrec_export.data.histories import Dataset, prepare
from seqrec_export.data.interactions import Interactions
from seqrec_export.data.raw_requests import Input, RawLog, columns_of, require_inputs
from seqrec_export.data.readers import READERS
from seqrec_export.errors import SeqrecError
from seqrec_export.folders import remove, replace_folder, sha256_json
from seqrec_export.models.model import Model, fill_buffers, finish
from seqrec_export.models.registry import is_own, origin
from seqrec_export.models.settings import SEED
from seqrec_export.models.wire import CANDIDATES
from seqrec_export.training import run as run_folder
from seqrec_export.training import tracking, unfinished
from seqrec_export.training.final_fit import best_epoch, final_fit
from seqrec_export.training.fit import DivergedError, enough_memory, fit, require_targets, resolved
from seqrec_export.training.run import (
    Run,
    alone,
    finished,
    finished_key,
    library_versions,
    load,
    require_still,
)

__all__ = [
    "Run",
    "alone",
    "finished",
    "finished_key",
    "held_out_rows",
    "library_versions",
    "load",
    "readers_for",
    "require",
    "require_still",
    "run_key",
    "train",
]

_HELD_OUT_ROWS = 64
_OTHER_CANDIDATES = 19  # besides the one that came
_WINDOWS_KEPT = 3  # of a history: what the network sees, and more


def run_key(model: Model, config: Any, seed: int, fingerprint: str) -> str:
    """Trainings of the same key give the same weights on the same machine and versions.

    It includes the code of a model of another package, as far as that is known.
    """
    return sha256_json(
        {
            "model": model.name,
            "config": asdict(resolved(model, config)),
            "seed": seed,
            "data": fingerprint,
            "versions": library_versions(),
            **({} if is_own(model) else {"origin": origin(model)}),
        }
    )


def require(model: Model, interactions: Interactions) -> None:
    """Raise SeqrecError if a column that the model takes is missing or unreadable."""
    for column in model.needs:
        if column in interactions.unreadable:
            raise SeqrecError(f"{model.name} takes {column}, but {interactions.unreadable[column]}")
        if interactions.column(column) is None:
            raise SeqrecError(
                f"{model.name} needs {column}, which {interactions.source} does not have; "
                f"readers that can give it: {readers_for(model)}"
            )
    inputs = _inputs(model, model.config())
    unread = [s.name for s in inputs if not isinstance(s, Input) and s.name != CANDIDATES.name]
    if unread:
        raise SeqrecError(
            f"{model.name} takes {', '.join(unread)}, which nobody can read from a log; make it an "
            "Input, with `read`"
        )
    require_inputs(model.name, inputs, interactions)


def _inputs(model: Model, config: Any) -> tuple[Spec, ...]:
    """What requests for the model itself hold."""
    graphs = model.graphs(config, 1)
    if not isinstance(graphs, Mapping) or not graphs:
        raise SeqrecError(
            f"{model.name}: graphs gives {type(graphs).__name__}; it has to give Graphs by name"
        )
    if model.name not in graphs:
        raise SeqrecError(
            f"{model.name} has the graphs {', '.join(graphs)}; call one of them {model.name}"
        )
    return graphs[model.name].inputs


def extra_columns(model: Model, config: Any, interactions: Interactions) -> dict[str, Dtype]:
    """The columns of a log that only this model knows, and what it takes each as."""
    known = {of.name for of in fields(Interactions)}
    found = columns_of(model.name, _inputs(model, config))
    for name in model.needs:  # one that no input is made of is what it is
        is_text = name in interactions.columns and interactions.columns[name].dtype == object
        found.setdefault(name, "string" if is_text else "float32")
    return {name: dtype for name, dtype in found.items() if name not in known}


def readers_for(model: Model) -> str:
    """The readers that give everything a model needs, for people."""
    needed = {*model.needs} & {of.name for of in fields(Interactions)}
    extra = {*model.needs} - needed
    return ", ".join(
        f"{name} with --columns {','.join(f'{column}=COLUMN' for column in sorted(extra))}"
        if extra
        else name
        for name, reader in READERS.items()
        if needed <= reader.provides and (reader.takes_columns or not extra)
    )


@enough_memory()
def train(
    model: Model,
    interactions: Interactions,
    config: Any,
    path: Path,
    *,
    seed: int = 0,
    resume: bool = False,
    retrain: bool = False,
    progress: bool = True,
    mlflow: str | None = None,
) -> Run:
    """Train, evaluate on the test part once, and write the run folder at `path`.

    Training uses a folder next to it; the run that was at `path` stays until the new one is
    complete, and the checkpoints until it is in place: after any error `resume` goes on. `mlflow`
    is the URI of a tracking server to log to as well. Raises SeqrecError if another process trains
    for `path`, if `resume` finds a training of other settings or data, and if there is an
    unfinished one without `resume`; `retrain` drops that. It also raises if there is nothing to
    train on or to choose the epoch by. A training that diverges is removed.
    """
    config, seed = resolved(model, config), SEED.checked(seed)
    require(model, interactions)
    description = {
        "model": model.name,
        "origin": origin(model),
        "config": asdict(config),
        "seed": seed,
        "source": interactions.source,
        "fingerprint": interactions.fingerprint,
        "versions": library_versions(),
        "key": run_key(model, config, seed, interactions.fingerprint),
    }
    unfinished.require_place(path)
    with unfinished.alone(path), _kept(path):
        dataset = _dataset(model, interactions, config, seed)
        require_targets(model, dataset, config, interactions.source)
        work = unfinished.begin(path, description, resume=resume, retrain=retrain)
        # This comes first: otherwise a log that cannot be asked about would be noticed after hours.
        held_out = held_out_rows(model, config, interactions, dataset, seed)
        torch.manual_seed(seed)
        net = model.net(config, dataset.num_rows)
        fill_buffers(net, dataset)
        loggers = tracking.loggers(model.name, config, work, mlflow)
        history = fit(
            model,
            net,
            dataset,
            config,
            unfinished.checkpoints_folder(path),
            seed=seed,
            resume=resume,
            progress=progress,
            loggers=loggers,
        )
        finish(net)
        test = model.evaluate(net, dataset, config, "test")
        metrics = {
            "test": test,
            "baselines": model.baselines(dataset, config, "test"),
            "validation_baselines": model.baselines(dataset, config, "validation"),  # of the curve
            "notes": [*dataset.notes, *_without_figures(model, test)],
            "data": {"source": interactions.source, "fingerprint": interactions.fingerprint},
            "versions": library_versions(),
            "figures": model.figures,
            **history,
        }
        if config.final_fit != "none":
            held_back, chosen = dataset, net
            dataset = _dataset(model, interactions, config, seed, hold_back=False)
            net, metrics["final_fit"] = final_fit(
                model,
                chosen,
                held_back.vocabularies,
                dataset,
                config,
                best_epoch(model, history["curve"]),
                unfinished.checkpoints_folder(path),
                seed=seed,
                resume=resume,
                progress=progress,
            )
            metrics["notes"].append(_what_is_served(metrics["final_fit"]))
        tracking.log_results(loggers, metrics)
        _put_in_place(path, description, net, dataset, held_out, metrics)
        return load(path, model)


def _dataset(
    model: Model, interactions: Interactions, config: Any, seed: int, *, hold_back: bool = True
) -> Dataset:
    return prepare(
        interactions,
        model.split,
        seed,
        new_items=model.ranks_new_items,
        columns=extra_columns(model, config, interactions),
        hold_back=hold_back,
    )


@contextmanager
def _kept(path: Path) -> Iterator[None]:
    """Say after a full disk or a similar error that the training is not lost, and how to go on."""
    try:
        yield
    except DivergedError:
        remove(unfinished.work_folder(path))  # to go on from there would end here again
        raise
    except OSError as error:
        if not (kept := unfinished.kept(path)):
            raise
        raise SeqrecError(f"{error.filename or path}: {error.strerror or error}{kept}") from error


def _without_figures(model: Model, test: Mapping[str, float]) -> tuple[str, ...]:
    if any(name in test for name in model.metric.headline):
        return ()
    return (f"nothing of the log is held out to test {model.name} on, so it has no figures",)


def _what_is_served(fitted: Mapping[str, Any]) -> str:
    return (
        f"the served weights are fitted on all {fitted['events']:,} events, also those held back "
        f"({fitted['way']}, {fitted['epochs']} epochs, {fitted['cpu_seconds']:.0f} CPU-seconds); "
        "the figures are those of the network before that"
    )


def _put_in_place(
    path: Path,
    description: Mapping[str, Any],
    net: nn.Module,
    dataset: Dataset,
    held_out: list[dict[str, list[Any]]],
    metrics: Mapping[str, Any],
) -> None:
    """Write the run next to its place and rename it; only then is its training deleted."""
    work, staging = unfinished.work_folder(path), unfinished.staging_folder(path)
    try:
        run_folder.write_run(
            staging, description, _state(net), dataset.vocabularies, held_out, metrics
        )
        curves = work / tracking.TENSORBOARD_FOLDER
        if curves.exists():
            shutil.copytree(curves, staging / tracking.TENSORBOARD_FOLDER)
        unfinished.is_complete(path)
        with alone(path):
            replace_folder(staging, path)
    finally:
        remove(staging)  # a part of a run would only fill the disk
    remove(work)


def held_out_rows(
    model: Model, config: Any, interactions: Interactions, dataset: Dataset, seed: int
) -> list[dict[str, list[Any]]]:
    """What a caller would have sent just before some events of the test part, and what came.

    Raw values by input, for the gate to ask with.
    """
    log, rng = RawLog(interactions), np.random.default_rng(seed)
    targets = rng.permutation(dataset.test)[:_HELD_OUT_ROWS]
    window = _WINDOWS_KEPT * getattr(config, "max_length", 1)
    inputs = _inputs(model, config)
    rows = []
    for i in range(len(targets)):
        at = targets[i : i + 1]
        request = log.requests(inputs, log.users[at], at, log.times[at], window)
        row: dict[str, list[Any]] = {
            name: [None if v != v else v for v in values[0].tolist()]
            for name, values in request.items()
        }
        others = rng.choice(dataset.items.strings, _OTHER_CANDIDATES)
        rows.append(row | {CANDIDATES.name: [log.items[at[0]], *others.tolist()]})
    return rows


def _state(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: t.detach().clone().contiguous() for name, t in net.state_dict().items()}
