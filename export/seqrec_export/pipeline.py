"""Train, export, verify, publish: each step for those who call it, and all of them in a row.

What one step returns is what the next one takes: a `Run`, an `Exported`, a `Verified`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from seqrec_export.clients.python import Client
from seqrec_export.contract import Graph, ItemPrecision
from seqrec_export.data.attributes import Attribute, ItemAttributes
from seqrec_export.data.interactions import Interactions
from seqrec_export.errors import SeqrecError
from seqrec_export.exporting.exported import (
    DEFAULT_ITEM_PRECISION,
    DEFAULT_TOP_K,
    Exported,
    Report,
    export_run,
)
from seqrec_export.models.model import Model
from seqrec_export.models.settings import SEED
from seqrec_export.report.page import REPORT_FILE, ModelReport, best_epoch, write_report
from seqrec_export.repository.publish import Published
from seqrec_export.repository.publish import publish as publish_export
from seqrec_export.training import train as training
from seqrec_export.training.train import Run, alone, require_still
from seqrec_export.verification import gate, quality
from seqrec_export.verification.gate import refused
from seqrec_export.verification.reference import Extra, Provider
from seqrec_export.verification.verdict import Verdict


def quiet(text: str) -> None:
    """A report of progress that nobody wants."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Verified:
    """An export, and what was found about each of its graphs."""

    exported: Exported
    verdicts: Mapping[str, Verdict]  # by graph

    @property
    def ok(self) -> bool:
        """Whether it may be published."""
        return not self.refusal

    @property
    def refusal(self) -> str:
        """Why it may not be published, answers and quality; empty if it may."""
        return self.refused()

    @property
    def differs(self) -> str:
        """What is wrong with the graphs that do not answer as PyTorch does; empty if all do."""
        return refused(self.exported, self.verdicts)

    @property
    def shortfall(self) -> str:
        """Why the model is no gain over its own baseline; empty if it is, or nobody can say."""
        run = self.exported.run
        return quality.shortfall(run.model.metric, run.metrics)

    def refused(self, *, accept_quality: bool = False) -> str:
        """The refusal; one for its quality alone is none if that is accepted."""
        said = (
            "" if accept_quality else quality.refusal(self.exported.run.model.name, self.shortfall)
        )
        return "; ".join(filter(None, (self.differs, said)))

    def __repr__(self) -> str:
        return "\n".join(["  ".join(row) for row in self._rows()] + [self.refusal] * (not self.ok))

    def _repr_html_(self) -> str:
        """For notebooks."""
        head = "".join(f"<th>{name}</th>" for name in _COLUMNS)
        rows = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in self._rows())
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        said = f"<p>{escape(self.refusal)}</p>" * (not self.ok)
        return f"<table><tr>{head}</tr>{body}</table>{said}"

    def _rows(self) -> Iterator[tuple[str, ...]]:
        """What stands under _COLUMNS, a graph a line."""
        for name, verdict in self.verdicts.items():
            difference = f"{verdict.largest().max_abs:.1e} of {verdict.tolerance.atol:.0e}"
            told = "OK" if verdict.ok else "FAIL: " + ", ".join(_failed(verdict))
            yield name, f"{verdict.cases:,} requests", difference, told


_COLUMNS = ("graph", "compared", "largest |difference| of what is allowed", "")


def _failed(verdict: Verdict) -> list[str]:
    """The checks that a graph failed."""
    return sorted({failure.check for failure in verdict.failures})


@dataclass(frozen=True, kw_only=True)
class Built:
    """What became of one run."""

    verified: Verified
    published: list[Published]  # nothing if it is refused
    accept_quality: bool = False  # although it is no gain over its baseline

    @property
    def run(self) -> Run:
        """The run that was exported."""
        return self.verified.exported.run

    @property
    def refusal(self) -> str:
        """Why it is not published; empty if it is."""
        return self.verified.refused(accept_quality=self.accept_quality)


def require_all(models: Iterable[Model], log: Interactions) -> None:
    """Raise SeqrecError for what a model lacks, before the first of them trains for an hour."""
    models = list(models)
    for model in models:
        try:
            training.require(model, log)
        except SeqrecError as error:
            if len(models) == 1:
                raise
            raise SeqrecError(
                f"{error}; nothing was trained: choose models with --model"
            ) from error


def train_once(
    model: Model,
    log: Interactions,
    config: Any,
    path: Path,
    *,
    seed: int = 0,
    resume: bool = False,
    retrain: bool = False,
    progress: bool = True,
    mlflow: str | None = None,
    report: Report = quiet,
) -> Run:
    """Train into `path`, or take the finished run of the same data, settings and seed there.

    With the page that shows the training. Raises what `training.train.train` raises.
    """
    seed = SEED.checked(seed)
    key = training.run_key(model, config, seed, log.fingerprint)
    if not retrain and (found := training.finished(path, key, report, model)):
        report(f"{model.name}: {path} already is this run, not trained again")
        return found
    report(f"{model.name}: training")
    run = training.train(
        model,
        log,
        config,
        path,
        seed=seed,
        resume=resume,
        retrain=retrain,
        progress=progress,
        mlflow=mlflow,
    )
    for text in run.metrics["notes"]:
        if text not in log.notes:  # those were said when the log was read
            report(f"note: {text}")
    shown = ModelReport.of(
        model, run.metrics, [], shortfall=quality.shortfall(model.metric, run.metrics)
    )
    if best_epoch(shown) == (last := len(run.metrics["curve"])) - 1:
        report(
            f"note: {model.name}: the best epoch was the last of {last}; more epochs may help "
            f"(--set {model.name}.epochs={2 * last})"
        )
    write_report(path / REPORT_FILE, f"{model.name}: training", [shown])
    return run


def verify_run(
    exported: Exported,
    *,
    seed: int = 0,
    client: Client | None = None,
    report: Report = quiet,
) -> Verified:
    """Compare every graph of an export with PyTorch; with `client`, also what its server answers.

    Raises SeqrecError if another run lies there by now, or no server answers.
    """
    extra = None if client is None else on_triton(client)
    with alone(exported.run.path):
        require_still(exported.run)
        verdicts = gate.verify(exported, seed=seed, extra=extra, report=report)
    return Verified(exported=exported, verdicts=verdicts)


def attributes_of(
    run: Run, attributes: ItemAttributes | None, report: Report = quiet
) -> tuple[Attribute, ...] | None:
    """Those of the items that a run knows, if it is a model that can be filtered by them.

    None stays None: the attributes of the run's last export.
    """
    if attributes is None or not attributes.columns:
        return None if attributes is None else ()
    graphs = run.model.graphs(run.config, DEFAULT_TOP_K).values()
    if not any(graph.filtered for graph in graphs):
        report(f"{run.model.name}: it does not search among all items, so there is no filter")
        return ()
    return attributes.of(run.vocabularies["items"])


def release(
    run: Run,
    repository: Path,
    *,
    top_k: int | None = None,
    item_precision: ItemPrecision | None = None,
    attributes: ItemAttributes | None = None,
    keep: int = 3,
    accept_quality: bool = False,
    seed: int = 0,
    report: Report = quiet,
) -> Built:
    """Export, verify and publish one run; what fails the verification is not published.

    Nor is a model that is no gain over its baseline, unless `accept_quality`. Without `top_k`,
    `item_precision` or `attributes`, they are those of the last export of the run.
    """
    with alone(run.path):  # nobody trains it again before it is published
        require_still(run)
        exported = export_run(
            run, top_k, item_precision, report, attributes=attributes_of(run, attributes, report)
        )
        if not exported.fresh:
            report(f"{run.model.name}: {exported.folder} is up to date, not exported again")
        verified = verify_run(exported, seed=seed, report=report)
        published = []
        if not verified.refused(accept_quality=accept_quality):
            if verified.shortfall:
                report(f"note: {run.model.name} is published although {verified.shortfall}")
            published = publish_export(exported, repository, keep=keep, accepted=verified.shortfall)
    return Built(verified=verified, published=published, accept_quality=accept_quality)


def build_all(
    plan: Iterable[tuple[Model, Any]],
    log: Interactions,
    runs: Path,
    repository: Path,
    *,
    seed: int = 0,
    top_k: int | None = None,
    item_precision: ItemPrecision | None = None,
    attributes: ItemAttributes | None = None,
    keep: int = 3,
    accept_quality: bool = False,
    resume: bool = False,
    retrain: bool = False,
    progress: bool = True,
    mlflow: str | None = None,
    report: Report = quiet,
) -> list[Built]:
    """Models with their configs, one after the other, from a log to the repository.

    `attributes` are of the log's items.
    """
    plan = list(plan)
    require_all((model for model, _ in plan), log)
    attributes = attributes or ItemAttributes.none(log.item_ids)
    built = []
    for model, config in plan:
        run = train_once(
            model,
            log,
            config,
            runs / model.name,
            seed=seed,
            resume=resume,
            retrain=retrain,
            progress=progress,
            mlflow=mlflow,
            report=report,
        )
        done = release(
            run,
            repository,
            top_k=DEFAULT_TOP_K if top_k is None else top_k,
            item_precision=item_precision or DEFAULT_ITEM_PRECISION,
            attributes=attributes,
            keep=keep,
            accept_quality=accept_quality,
            seed=seed,
            report=report,
        )
        built.append(done)
    return built


def on_triton(client: Client) -> Extra:
    """For the gate: the graphs as a Triton serves them. Raises SeqrecError if none answers."""

    def provider(graph: Graph) -> Provider:
        client.probe(graph.name)
        return Provider(
            name=f"Triton at {client.url}",
            answer=partial(client.infer, graph.name),
            tolerance=graph.tolerance,
        )

    return provider
