"""The calls of `import seqrec_export as sx`: the pipeline, by names and paths as people write them.

Progress is told on stderr, a line a step; `progress=False` is quiet, and a function is called with
each line instead. Everything raises SeqrecError for a mistake of the caller.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec

from seqrec_export import pipeline
from seqrec_export.clients.filters import Filters, Values, Where
from seqrec_export.clients.python import Client
from seqrec_export.contract import ItemPrecision
from seqrec_export.data.attributes import ItemAttributes
from seqrec_export.data.interactions import Interactions
from seqrec_export.data.readers.item_tables import asked_attributes
from seqrec_export.errors import SeqrecError
from seqrec_export.exporting.exported import (
    DEFAULT_ITEM_PRECISION,
    DEFAULT_TOP_K,
    Exported,
    Report,
    export_run,
)
from seqrec_export.exporting.lists import recommend_all as write_lists
from seqrec_export.imports import libraries, module
from seqrec_export.in_process import Run
from seqrec_export.models import registry
from seqrec_export.models.model import Model
from seqrec_export.models.settings import ITEM_PRECISION, KEEP, SEED, TOP_K, settings_of
from seqrec_export.pipeline import Built, Verified
from seqrec_export.repository import publish as publishing
from seqrec_export.repository.publish import Published
from seqrec_export.repository.published import require_place
from seqrec_export.training import run as run_folder

Progress = bool | Callable[[str], None]
Given = ParamSpec("Given")


def load(path: str | Path, model: str | Model | None = None) -> Run:
    """The finished run in a folder. Nothing that the folder names is imported.

    `model` is for one whose package is not installed: the Model, or package.module:MODEL.
    """
    found = None if model is None else _model(model)
    return Run.of(run_folder.load(_folder(path), found))


def train(
    model: str | Model,
    log: Interactions,
    path: str | Path,
    *,
    preset: str | None = None,
    seed: int = 0,
    resume: bool = False,
    retrain: bool = False,
    mlflow: str | None = None,
    progress: Progress = True,
    **settings: Any,
) -> Run:
    """Train a model on a log into the folder `path`, and evaluate it on held-out events.

    `settings` are the model's own, over those of `preset`, over the defaults. If the folder already
    holds the run of the same data, settings and seed, that one is returned; `retrain` trains again.
    `resume` goes on with a training that was stopped. `mlflow` is the URI of a server to log to.
    """
    found = _model(model)
    _require_log(log)
    run = pipeline.train_once(
        found,
        log,
        _config(found, preset, settings),
        _folder(path),
        seed=seed,
        resume=resume,
        retrain=retrain,
        progress=bool(progress),
        mlflow=mlflow,
        report=_reporter(progress),
    )
    return Run.of(run)


def export(
    run: run_folder.Run,
    *,
    top_k: int | None = None,
    item_precision: ItemPrecision | None = None,
    filter_by: str | Iterable[str] | None = None,
    items: Any = None,
    items_id: str | None = None,
    progress: Progress = True,
) -> Exported:
    """Export the graphs of a run to ONNX, into its folder, unless they lie there from the same run.

    `top_k` is how many items an answer has, `item_precision` how the search holds item vectors,
    `filter_by` the attributes of items that requests can ask for, as ["colour", "genres:|"]; what
    is None is as in the last export of the run, and at first 100, float32 and no attribute.
    `items` says what items are: a table with the ids in the column `items_id` or one that is called
    so (a CSV or Parquet file, or a DataFrame), or the log.
    """
    _require(run, run_folder.Run, "export takes what train, load or import_module gives")
    report, ids = _reporter(progress), run.vocabularies["items"].ids
    attributes = _attributes(filter_by, ids, None, items, items_id, report)
    return export_run(
        run,
        top_k,
        item_precision,
        report,
        attributes=pipeline.attributes_of(run, attributes, report),
    )


def verify(
    exported: Exported,
    *,
    seed: int = 0,
    client: Client | None = None,
    progress: Progress = True,
) -> Verified:
    """Compare an export with PyTorch on raw requests of every kind; it takes a minute or so.

    `seed` draws the requests. With `client`, the answers of its server are compared too. A graph
    that differs, or a model that is no gain over its baseline, raises nothing here: `ok` is False,
    `refusal` says what is wrong, and `publish` refuses it.
    """
    _require(exported, Exported, "verify takes what export gives")
    if client is not None:
        _require(client, Client, 'client takes a Client, as Client("127.0.0.1:8001")')
    return pipeline.verify_run(
        exported, seed=SEED.checked(seed), client=client, report=_reporter(progress)
    )


def publish(
    verified: Verified,
    repository: str | Path = "model_repository",
    *,
    keep: int = 3,
    accept_quality: bool = False,
) -> list[Published]:
    """Publish what passed the verification as the next version of each graph.

    `keep` is how many versions stay, the new one counted. What lies there already gets no new
    version. Raises SeqrecError for what did not pass, or would break the model's callers.
    `accept_quality` publishes a model that is no gain over its baseline, and records it.
    """
    if not isinstance(verified, Verified):
        raise SeqrecError(
            f"publish takes what verify gives, found {type(verified).__name__}; write "
            "publish(verify(exported))"
        )
    if refusal := verified.refused(accept_quality=accept_quality):
        raise SeqrecError(refusal)
    return publishing.publish(
        verified.exported,
        _folder(repository, "repository"),
        keep=KEEP.checked(keep),
        accepted=verified.shortfall,
    )


def build(
    model: str | Model,
    log: Interactions,
    path: str | Path,
    repository: str | Path = "model_repository",
    *,
    preset: str | None = None,
    seed: int = 0,
    resume: bool = False,
    retrain: bool = False,
    mlflow: str | None = None,
    top_k: int | None = None,
    item_precision: ItemPrecision | None = None,
    filter_by: str | Iterable[str] | None = None,
    items: Any = None,
    items_id: str | None = None,
    keep: int = 3,
    accept_quality: bool = False,
    progress: Progress = True,
    **settings: Any,
) -> Built:
    """Train, export, verify and publish in a row; what was done before is not done again.

    The arguments are those of the four; `filter_by` also finds what the log says of its items,
    and `items` comes first. Raises SeqrecError for what does not pass the verification,
    which leaves the repository as it was.
    """
    TOP_K.checked(DEFAULT_TOP_K if top_k is None else top_k)  # before it trains for an hour
    ITEM_PRECISION.checked(DEFAULT_ITEM_PRECISION if item_precision is None else item_precision)
    keep, place = KEEP.checked(keep), _folder(repository, "repository")
    require_place(place)
    _require_log(log)
    report = _reporter(progress)
    attributes = _attributes(filter_by, log.item_ids, log, items, items_id, report)
    run = train(
        model,
        log,
        path,
        preset=preset,
        seed=seed,
        resume=resume,
        retrain=retrain,
        mlflow=mlflow,
        progress=progress,
        **settings,
    )
    built = pipeline.release(
        run,
        place,
        top_k=top_k,
        item_precision=item_precision,
        attributes=attributes,
        keep=keep,
        accept_quality=accept_quality,
        seed=seed,
        report=report,
    )
    if built.refusal:
        raise SeqrecError(built.refusal)
    return built


def recommend_all(
    run: run_folder.Run,
    log: Interactions,
    out: str | Path,
    *,
    k: int = 10,
    users: str | Path | Sequence[str] | Any = None,
    exclude: Values = None,
    allow: Values = None,
    where: Where = None,
    keep_seen: bool = False,
    exclude_from: str | Path | Any = None,
    shard: tuple[int, int] | None = None,
    batch_size: int | None = None,
    threads: int = 0,
    resume: bool = False,
    progress: Progress = True,
) -> Path:
    """Write the `k` best items of every user of the log to a Parquet file, by the exported graph.

    Its columns are `user_id`, `rank` from 1, `item_id` and `score`. `users` are those of a file, a
    frame or a list instead; `exclude`, `allow`, `where` and `keep_seen` hold for all of them,
    `exclude_from` is a table of what not to give to whom. `shard` (2, 4) is a part of the users, in
    a file of its own; `join_lists` puts the parts together. Work that was stopped goes on.
    """
    _require(run, run_folder.Run, "recommend_all takes what train, load or import_module gives")
    _require_log(log)
    report = _reporter(progress)
    filters = Filters(exclude=exclude, allow=allow, where=where, keep_seen=keep_seen)
    shown = 0

    def tell(done: int, total: int) -> None:
        nonlocal shown
        if done * 10 // total > shown:
            shown = done * 10 // total
            report(f"{done:,} of {total:,} users have their lists")

    return write_lists(
        run,
        log,
        out,
        k=k,
        users=users,
        filters=filters.inputs(run.model.name),
        exclude_from=exclude_from,
        shard=shard,
        batch_size=batch_size,
        threads=threads,
        resume=resume,
        progress=tell,
        report=report,
    )


def _answering(make: Callable[Given, run_folder.Run]) -> Callable[Given, Run]:
    """The same, but its run answers."""

    @functools.wraps(make)
    def answering(*args: Given.args, **kwargs: Given.kwargs) -> Run:
        return Run.of(make(*args, **kwargs))

    return answering


import_module = _answering(module.import_module)
import_rectools = _answering(libraries.import_rectools)
import_recbole = _answering(libraries.import_recbole)


def _model(model: str | Model) -> Model:
    if isinstance(model, Model):
        return model
    if not isinstance(model, str):
        raise SeqrecError(
            f"a model is a name, package.module:MODEL or a Model, found {type(model).__name__}"
        )
    return registry.find(model)


def _config(model: Model, preset: str | None, settings: Mapping[str, Any]) -> Any:
    if preset is not None and preset not in model.presets:
        known = ", ".join(model.presets) or "none"
        raise SeqrecError(f"{model.name} has no preset {preset!r}; there are {known}")
    known_settings = settings_of(model.config)
    if unknown := [name for name in settings if name not in known_settings]:
        raise SeqrecError(
            f"{model.name} has no setting {unknown[0]!r}; there are {', '.join(known_settings)}"
        )
    chosen = {} if preset is None else model.presets[preset]
    return model.config(**{**chosen, **settings})


def _attributes(
    filter_by: str | Iterable[str] | None,
    ids: Any,
    log: Interactions | None,
    items: Any,
    items_id: str | None,
    report: Report,
) -> ItemAttributes | None:
    found = asked_attributes(filter_by, ids, log=log, items=items, items_id=items_id)
    for text in found.notes if found else ():
        report(f"note: {text}")
    return found


def _folder(path: str | Path, what: str = "path") -> Path:
    """The folder of that path; `.` and `..` get the names that they stand for."""
    if not isinstance(path, str | Path) or not str(path).strip():
        raise SeqrecError(f"{what} is {path!r}; give the path of a folder, as a text or a Path")
    found = Path(path)
    return found if found.name not in ("", "..") else found.resolve()


def _require(found: object, kind: type, takes: str) -> None:
    if not isinstance(found, kind):
        raise SeqrecError(f"{takes}, found {type(found).__name__}")


def _require_log(log: object) -> None:
    if not isinstance(log, Interactions):
        raise SeqrecError(f"a log is what read or from_frame gives, found {type(log).__name__}")


def _reporter(progress: Progress) -> Report:
    if callable(progress):
        return progress
    return _say if progress else pipeline.quiet


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
