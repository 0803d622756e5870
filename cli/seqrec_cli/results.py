"""What several commands print: a log that was read, figures of trainings, verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from seqrec_cli.console import figures, note, print_json, print_table
from seqrec_export.errors import SeqrecError

if TYPE_CHECKING:
    from pathlib import Path

    from seqrec_cli.options import Plan
    from seqrec_export.data.interactions import Interactions
    from seqrec_export.pipeline import Built
    from seqrec_export.training.train import Run
    from seqrec_export.verification.verdict import Verdict

METRIC_COLUMNS = ("model", "held-out test", "targets", "baseline", "", "epochs", "training")
VERDICT_COLUMNS = ("cases", "largest |difference|", "allowed", "")


def read_log(plan: Plan) -> Interactions:
    """Read what the plan names and say what the reader noticed."""
    if plan.data is not None:
        note(f"reading {plan.data}")
    interactions = plan.read()
    note(
        f"{len(interactions):,} events of {len(interactions.user_ids):,} users with "
        f"{len(interactions.item_ids):,} items"
    )
    for text in interactions.notes:
        note(f"note: {text}")
    return interactions


def note_other_version(run: Run, plan: Plan, therefore: str) -> None:
    """Say if the repository serves another version of a run's model than its last export."""
    from seqrec_export.exporting.exported import find_export
    from seqrec_export.repository.describe import not_served

    if other := not_served(find_export(run), plan.repository):
        note(f"note: {other}; {therefore}")


def metric_row(run: Run) -> tuple[Any, ...]:
    """The cells under METRIC_COLUMNS, with the baseline next to them."""
    model, metrics = run.model, run.metrics
    return (
        model.name,
        figures(metrics["test"], model.metric.headline) or "nothing is held out",
        _targets(metrics["test"]),
        model.metric.baseline,
        figures(metrics["baselines"][model.metric.baseline], model.metric.headline),
        len(metrics["curve"]),
        f"{metrics['seconds']:.0f} s",
    )


def _targets(test: Mapping[str, float]) -> str:
    """What the figures are of: `1,234`, or `1,234, 56 sessions`."""
    sessions = f", {test['sessions']:,.0f} sessions" if "sessions" in test else ""
    return f"{test['targets']:,.0f}{sessions}"


def verdict_cells(verdict: Verdict) -> tuple[Any, ...]:
    """The cells under VERDICT_COLUMNS."""
    return (
        verdict.cases,
        f"{verdict.largest().max_abs:.1e}",
        f"{verdict.tolerance.atol:.0e}",
        "OK" if verdict.ok else f"FAIL ({', '.join(sorted({f.check for f in verdict.failures}))})",
    )


def print_built(built: list[Built], repository: Path, *, json: bool) -> None:
    """Say what was built, for people or for programs; raise SeqrecError for what was refused."""
    if json:
        print_json({one.run.model.name: _as_dict(one) for one in built})
    else:
        if measured := [one.run for one in built if one.run.metrics["test"]]:  # not if imported
            print_table("Test metrics", METRIC_COLUMNS, [metric_row(run) for run in measured])
        print_table(
            f"ONNX Runtime against PyTorch, published in {repository}",
            ("graph", "version", *VERDICT_COLUMNS, "file"),
            [row for one in built for row in _graph_rows(one)],
        )
    stop_if_refused(one.refusal for one in built)


def stop_if_refused(refusals: Iterable[str]) -> None:
    """Raise SeqrecError with the refusals of all models, leaving out empty ones."""
    if said := [text for text in refusals if text]:
        raise SeqrecError("; ".join(said))


def _graph_rows(built: Built) -> list[tuple[Any, ...]]:
    exported = built.verified.exported
    versions = {m.name: f"{m.version}{'' if m.new else ' (unchanged)'}" for m in built.published}
    return [
        (
            name,
            versions.get(name, "not published"),
            *verdict_cells(verdict),
            f"{exported.size(name) / 1e6:.2f} MB",
        )
        for name, verdict in built.verified.verdicts.items()
    ]


def _as_dict(built: Built) -> dict[str, Any]:
    versions = {m.name: {"version": m.version, "new": m.new} for m in built.published}
    return {
        "run": str(built.run.path),
        "exported_anew": built.verified.exported.fresh,
        "metrics": dict(built.run.metrics),
        "quality": {"shortfall": built.verified.shortfall, "accepted": built.accept_quality},
        "refusal": built.refusal,
        "graphs": {
            name: versions.get(name, {"version": None, "new": False}) | verdict.as_dict()
            for name, verdict in built.verified.verdicts.items()
        },
    }
