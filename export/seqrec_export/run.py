"""A run folder: what one training left behind. safetensors, JSON and Parquet; no pickle.

config.json            model, settings, seed, data, versions, key
weights.safetensors    parameters and buffers
vocabulary/*.parquet   ids in index order
held_out.json          raw requests before some held-out events, to verify exports with
tensorboard/           what metrics.json has, for `tensorboard --logdir`
metrics.json           test, baselines, validation curve; written last
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from seqrec_export import tracking
from seqrec_export.errors import SeqrecError
from seqrec_export.folders import (
    read_json,
    recover,
    remove,
    replace_folder,
    sha256_json,
    write_json,
)
from seqrec_export.graph import CANDIDATES, Model
from seqrec_export.histories import Dataset, prepare
from seqrec_export.interactions import Interactions
from seqrec_export.models import MODELS
from seqrec_export.raw_requests import RawLog, require_inputs
from seqrec_export.readers import READERS
from seqrec_export.training import fit
from seqrec_export.vocabulary import Vocabulary

_HELD_OUT_ROWS = 64
_OTHER_CANDIDATES = 19  # beside the one that came
_WINDOWS_KEPT = 3  # of a history: what the network sees, and more
_LIBRARIES = ("torch", "lightning", "numpy", "onnx", "onnxscript", "onnx-ir")


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished training."""

    path: Path
    model: Model
    config: Any
    seed: int
    net: nn.Module
    vocabularies: Mapping[str, Vocabulary]
    source: str
    fingerprint: str
    metrics: Mapping[str, Any]
    held_out: tuple[dict[str, list[Any]], ...]  # raw values by input; None is unknown


def run_key(model: Model, config: Any, seed: int, fingerprint: str) -> str:
    """Trainings of the same key give the same weights on the same machine and versions."""
    return sha256_json(
        {
            "model": model.name,
            "config": asdict(config),
            "seed": seed,
            "data": fingerprint,
            "versions": library_versions(),
        }
    )


def library_versions() -> dict[str, str]:
    """Versions of what decides about weights and graphs, this package included."""
    versions = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    return {"seqrec-export": importlib.metadata.version("seqrec-export"), **versions}


def require(model: Model, interactions: Interactions) -> None:
    """Raise SeqrecError if the log lacks a column that the model takes, or it is unreadable."""
    for column in model.needs:
        if getattr(interactions, column) is None and column not in interactions.unreadable:
            raise SeqrecError(
                f"{model.name} needs {column}, which {interactions.source} does not have; "
                f"readers that can give it: {readers_for(model)}"
            )
    require_inputs(model.name, model.graphs(model.config(), 1)[model.name].inputs, interactions)


def readers_for(model: Model) -> str:
    """The readers that give everything a model needs, for people."""
    needed = {_COLUMN[column] for column in model.needs}
    return ", ".join(name for name, reader in READERS.items() if needed <= reader.provides)


_COLUMN = {
    "ratings": "rating",
    "event_types": "event_type",
    "user_features": "user_features",
    "item_features": "item_features",
    "sessions": "sessions",
}


def train(
    model: Model,
    interactions: Interactions,
    config: Any,
    path: Path,
    *,
    seed: int = 0,
    resume: bool = False,
    progress: bool = True,
    mlflow: str | None = None,
) -> Run:
    """Train, evaluate on the test part once, and write the run folder at `path`.

    Training goes on in a folder beside; the run that was at `path` stays until the new one is
    complete. `mlflow` is the URI of a tracking server to log to as well. Raises SeqrecError where
    `resume` finds a training of other settings or data.
    """
    require(model, interactions)
    key = run_key(model, config, seed, interactions.fingerprint)
    work = path.with_name(f".{path.name}.training")
    description = {
        "model": model.name,
        "config": asdict(config),
        "seed": seed,
        "source": interactions.source,
        "fingerprint": interactions.fingerprint,
        "versions": library_versions(),
        "key": key,
    }
    if resume and (work / "config.json").exists():
        if read_json(work / "config.json")["key"] != key:
            raise SeqrecError(
                f"{work} was begun with other settings, data or versions; repeat them, or start "
                "anew without --resume"
            )
    else:
        remove(work)
        write_json(work / "config.json", description)
    dataset = prepare(interactions, model.split, seed)
    torch.manual_seed(seed)
    net = model.net(config, dataset.num_rows)
    net.observe(dataset)  # type: ignore[operator]
    loggers = tracking.loggers(model.name, config, work, mlflow)
    history = fit(
        model,
        net,
        dataset,
        config,
        work / "checkpoints",
        seed=seed,
        resume=resume,
        progress=progress,
        loggers=loggers,
    )
    net.finish()  # type: ignore[operator]
    metrics = {
        "test": model.evaluate(net, dataset, config, "test"),
        "baselines": model.baselines(dataset, config, "test"),
        "validation_baselines": model.baselines(dataset, config, "validation"),  # beside the curve
        "notes": list(dataset.notes),
        "data": {"source": interactions.source, "fingerprint": interactions.fingerprint},
        "versions": library_versions(),
        **history,
    }
    tracking.log_results(loggers, metrics)
    remove(work / "checkpoints")
    save_file(_state(net), work / "weights.safetensors")
    for name, vocabulary in dataset.vocabularies.items():
        file = work / "vocabulary" / f"{name}.parquet"
        file.parent.mkdir(exist_ok=True)
        pq.write_table(pa.table({"id": pa.array(list(vocabulary.ids), pa.string())}), file)
    write_json(work / "held_out.json", _held_out(model, config, interactions, dataset, seed))
    write_json(work / "metrics.json", metrics)
    replace_folder(work, path)
    return load(path)


def _held_out(
    model: Model, config: Any, interactions: Interactions, dataset: Dataset, seed: int
) -> list[dict[str, list[Any]]]:
    """What a caller would have sent just before some events of the test part, and what came."""
    log, rng = RawLog(interactions), np.random.default_rng(seed)
    targets = rng.permutation(dataset.test)[:_HELD_OUT_ROWS]
    window = _WINDOWS_KEPT * getattr(config, "max_length", 1)
    inputs = model.graphs(config, 1)[model.name].inputs
    raw = [spec for spec in inputs if spec.name != CANDIDATES.name]
    rows = []
    for i in range(len(targets)):
        at = targets[i : i + 1]
        request = log.requests(raw, log.users[at], at, log.times[at], window)
        row: dict[str, list[Any]] = {
            name: [None if v != v else v for v in values[0].tolist()]
            for name, values in request.items()
        }
        others = rng.choice(dataset.items.strings, _OTHER_CANDIDATES)
        rows.append(row | {CANDIDATES.name: [log.items[at[0]], *others.tolist()]})
    return rows


def _state(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: t.detach().clone().contiguous() for name, t in net.state_dict().items()}


def finished_key(path: Path) -> str | None:
    """The key of the finished run at `path`, or None."""
    recover(path)
    if not (path / "metrics.json").exists():
        return None
    key: str = read_json(path / "config.json")["key"]
    return key


def load(path: Path) -> Run:
    """Read a run folder. Raises SeqrecError where it is none, or not finished."""
    recover(path)
    if not (path / "metrics.json").exists():
        raise SeqrecError(f"{path} holds no finished run; run `seqrec-export train` first")
    description = read_json(path / "config.json")
    if description["model"] not in MODELS:
        raise SeqrecError(
            f"{path} is a run of {description['model']}, which this version does not have; "
            f"it has {', '.join(MODELS)}"
        )
    model = MODELS[description["model"]]
    config = model.config(**description["config"])
    vocabularies = {
        file.stem: Vocabulary(pq.read_table(file)["id"].to_pylist())
        for file in sorted((path / "vocabulary").glob("*.parquet"))
    }
    rows = {name: vocabulary.num_rows for name, vocabulary in vocabularies.items()}
    net = model.net(config, rows)
    net.load_state_dict(load_file(path / "weights.safetensors"))
    held_out = path / "held_out.json"
    return Run(
        path=path,
        model=model,
        config=config,
        seed=description["seed"],
        net=net.eval(),
        vocabularies=vocabularies,
        source=description["source"],
        fingerprint=description["fingerprint"],
        metrics=read_json(path / "metrics.json"),
        held_out=tuple(read_json(held_out)) if held_out.exists() else (),
    )
