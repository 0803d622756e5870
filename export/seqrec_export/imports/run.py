"""A run folder of a network that was not trained here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from seqrec_export.contract import Graph, Tolerance
from seqrec_export.data.vocabulary import Vocabulary
from seqrec_export.errors import SeqrecError
from seqrec_export.folders import read_json, remove, replace_folder, sha256_json
from seqrec_export.models.model import Metric, Model
from seqrec_export.training.run import CONFIG_FILE, Run, alone, library_versions, write_run
from seqrec_export.training.unfinished import require_place

# Nobody knows how large somebody else's scores are: near 100, float32 has steps of 8e-6.
IMPORT_TOLERANCE = Tolerance(2e-5, 1e-6)
Row = Mapping[str, Sequence[Any]]  # raw values by input, as a caller would send them


def untrained_model(
    name: str,
    summary: str,
    config: type[Any],
    net: Callable[[Any, Mapping[str, int]], nn.Module],
    graphs: Callable[[Any, int], dict[str, Graph]],
) -> Model:
    """A model whose runs are imported; to train or to measure it raises SeqrecError."""

    def untrained(*_: Any, **__: Any) -> Any:
        raise SeqrecError(f"{name} was trained elsewhere; it cannot be trained here")

    return Model(
        name=name,
        summary=summary,
        config=config,
        net=net,
        graphs=graphs,
        batches=untrained,
        num_batches=untrained,
        evaluate=untrained,
        baselines=untrained,
        metric=Metric(name="", headline=()),
    )


def vocabulary_of(name: str, ids: Sequence[str]) -> Vocabulary:
    """Ids in the order of a network's rows. Raises SeqrecError if two are the same, or one empty.

    A number is no id: on the wire all ids are strings, and "01193" is another one than 1193.
    """
    texts = list(ids)
    wrong = next((i for i, text in enumerate(texts) if not isinstance(text, str) or not text), None)
    if wrong is not None:
        raise SeqrecError(
            f"the id {texts[wrong]!r} at place {wrong} of {name} is not a text of at least one "
            "character; give every id as callers will send it"
        )
    if len(set(texts)) != len(texts):
        seen: set[str] = set()
        twice = next(text for text in texts if text in seen or seen.add(text))  # type: ignore[func-returns-value]
        raise SeqrecError(f"the id {twice!r} is in {name} twice; every row needs an id of its own")
    if not texts:
        raise SeqrecError(f"{name} holds no ids; give one for every row of the network")
    return Vocabulary(texts)


def write_import(
    path: Path,
    model: Model,
    config: Any,
    net: nn.Module,
    vocabularies: Mapping[str, Vocabulary],
    *,
    source: str,
    held_out: Sequence[Row] = (),
    notes: Sequence[str] = (),
) -> Run:
    """Write the run folder at `path`, in place of the run that was there, and return it.

    It has no figures: the tool that trained the network has them, and `source` names that tool.
    Raises SeqrecError if something lies there that is not a run.
    """
    state = {name: t.detach().clone().contiguous() for name, t in net.state_dict().items()}
    fingerprint = _hash(state, vocabularies)
    description = {
        "model": model.name,
        "config": asdict(config),
        "seed": 0,
        "source": source,
        "fingerprint": fingerprint,
        "versions": library_versions(),
        "origin": {"imported": True},
    }
    description["key"] = sha256_json(description)
    metrics = {
        "test": {},
        "baselines": {},
        "validation_baselines": {},
        "curve": [],
        "seconds": 0.0,
        "config": asdict(config),
        "notes": [f"imported from {source}, which has the figures of its training", *notes],
        "data": {"source": source, "fingerprint": fingerprint},
        "versions": library_versions(),
    }
    rows = [{name: list(values) for name, values in row.items()} for row in held_out]
    staging = path.with_name(f".{path.name}.importing")
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path):
        require_place(path)
        _require_same_model(path, model)
        remove(staging)
        staging.mkdir()
        try:
            write_run(staging, description, state, vocabularies, rows, metrics)
            replace_folder(staging, path)
        finally:
            remove(staging)
    return Run(
        path=path,
        model=model,
        config=config,
        seed=0,
        net=net.eval(),
        vocabularies=vocabularies,
        source=source,
        fingerprint=fingerprint,
        metrics=metrics,
        held_out=tuple(rows),
    )


def _require_same_model(path: Path, model: Model) -> None:
    """Raise SeqrecError if the run at `path` is of another model: nobody meant to replace it."""
    file = path / CONFIG_FILE
    try:
        found = read_json(file).get("model") if file.exists() else model.name
    except (ValueError, AttributeError):
        return  # a damaged run, of which nobody knows what it was
    if found != model.name:
        raise SeqrecError(
            f"{path} holds a run of {found}, not of {model.name}; give another folder, or remove it"
        )


def _hash(state: Mapping[str, Tensor], vocabularies: Mapping[str, Vocabulary]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.cpu().numpy().tobytes())
    for name, vocabulary in sorted(vocabularies.items()):
        digest.update("\0".join([name, *vocabulary.ids]).encode())
    return digest.hexdigest()
