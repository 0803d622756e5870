"""`seqrec-export export`: from finished runs to the repository."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from seqrec_cli import options
from seqrec_cli.console import note
from seqrec_export.errors import SeqrecError

if TYPE_CHECKING:
    from seqrec_export.export.exported import Exported
    from seqrec_export.repository.publish import Published
    from seqrec_export.training.train import Run
    from seqrec_export.verification.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one model."""

    run: Run
    exported: Exported
    verdicts: dict[str, Verdict]
    published: list[Published]  # nothing where a verdict is against it

    def rows(self) -> list[tuple[Any, ...]]:
        """A line a graph."""
        versions = {m.name: f"{m.version}{'' if m.new else ' (unchanged)'}" for m in self.published}
        return [
            (
                name,
                versions.get(name, "not published"),
                *verdict_cells(verdict),
                f"{self.exported.size(name) / 1e6:.2f} MB",
            )
            for name, verdict in self.verdicts.items()
        ]

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        versions = {m.name: {"version": m.version, "new": m.new} for m in self.published}
        return {
            "run": str(self.run.path),
            "exported_anew": self.exported.fresh,
            "metrics": dict(self.run.metrics),
            "graphs": {
                name: versions.get(name, {"version": None, "new": False}) | verdict.as_dict()
                for name, verdict in self.verdicts.items()
            },
        }


VERDICT_COLUMNS = ("cases", "largest |difference|", "allowed", "")


def verdict_cells(verdict: Verdict) -> tuple[Any, ...]:
    """What stands under VERDICT_COLUMNS."""
    return (
        verdict.cases,
        f"{verdict.largest().max_abs:.1e}",
        f"{verdict.tolerance.atol:.0e}",
        "OK" if verdict.ok else f"FAIL ({', '.join(sorted({f.check for f in verdict.failures}))})",
    )


def stop_if_refused(refusals: Iterable[str]) -> None:
    """Raise SeqrecError with the refusals of all models; an empty one is none."""
    if said := [text for text in refusals if text]:
        raise SeqrecError("; ".join(said))


def export(
    model: options.ModelNames = None,
    runs: options.Runs = None,
    repository: options.Repository = None,
    config: options.ConfigFile = None,
    top_k: options.TopK = None,
    item_precision: options.ItemPrecision = None,
    keep: options.Keep = 3,
    json: options.Json = False,
) -> None:
    """Export finished runs to ONNX, verify them, and publish them for Triton.

    What is not said about top-k and item precision is as in the last export of the run.

    Example: `seqrec-export export --model sasrec --top-k 50`
    """
    from seqrec_cli.build import report
    from seqrec_export.repository.published import require_place
    from seqrec_export.training.train import load

    plan = options.make_plan(
        config=config,
        models=model,
        runs=runs,
        repository=repository,
        top_k=top_k,
        item_precision=item_precision,
    )
    # All of them, before the first is published.
    found = [load(plan.runs / name, model) for name, model in plan.found.items()]
    require_place(plan.repository)
    outcomes = [export_one(run, plan, keep=keep) for run in found]
    report(outcomes, plan, json=json)


def export_one(run: Run, plan: options.Plan, *, keep: int) -> Outcome:
    """Export, verify and publish one run; what fails the verification is not published."""
    from seqrec_export.export.exported import export_run
    from seqrec_export.repository.publish import publish
    from seqrec_export.training.train import alone, require_still
    from seqrec_export.verification.gate import refused, verify

    with alone(run.path):  # nobody trains it anew before it is published
        require_still(run)
        exported = export_run(run, plan.top_k, plan.item_precision, report=note)
        if not exported.fresh:
            note(f"{run.model.name}: {exported.folder} is up to date, not exported again")
        verdicts = verify(exported, seed=plan.seed, report=note)
        passed = not refused(exported, verdicts)
        published = publish(exported, plan.repository, keep=keep) if passed else []
    return Outcome(run=run, exported=exported, verdicts=verdicts, published=published)
