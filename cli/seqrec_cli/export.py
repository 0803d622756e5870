"""`seqrec-export export`: from finished runs to the repository."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from seqrec_cli import options
from seqrec_cli.console import note

if TYPE_CHECKING:
    from seqrec_export.exported import Exported
    from seqrec_export.parity import GraphParity
    from seqrec_export.repository import Published
    from seqrec_export.run import Run


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one model."""

    run: Run
    exported: Exported
    parity: dict[str, GraphParity]
    published: list[Published]

    def rows(self) -> list[tuple[Any, ...]]:
        """A line a graph."""
        return [
            (
                model.name,
                f"{model.version}" if model.new else f"{model.version} (unchanged)",
                self.parity[model.name].cases,
                f"{self.parity[model.name].max_abs_diff:.1e}",
                f"{self.exported.model_file(model.name).stat().st_size / 1e6:.2f} MB",
            )
            for model in self.published
        ]

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "run": str(self.run.path),
            "exported_anew": self.exported.fresh,
            "metrics": dict(self.run.metrics),
            "graphs": {
                model.name: {"version": model.version, "new": model.new}
                | self.parity[model.name].as_dict()
                for model in self.published
            },
        }


def export(
    model: options.ModelNames = None,
    runs: options.Runs = None,
    repository: options.Repository = None,
    config: options.ConfigFile = None,
    top_k: options.TopK = None,
    keep: options.Keep = 3,
    json: options.Json = False,
) -> None:
    """Export finished runs to ONNX, verify them, and publish them for Triton.

    Example: `seqrec-export export --model sasrec --top-k 50`
    """
    from seqrec_cli.build import report
    from seqrec_export.run import load

    plan = options.make_plan(
        config=config, models=model, runs=runs, repository=repository, top_k=top_k
    )
    outcomes = [export_one(load(plan.runs / name), plan, keep=keep) for name in plan.models]
    report(outcomes, plan, json=json)


def export_one(run: Run, plan: options.Plan, *, keep: int) -> Outcome:
    """Export, verify and publish one run."""
    from seqrec_export.exported import export_run, verify_exported
    from seqrec_export.repository import publish

    exported = export_run(run, plan.top_k, report=note)
    if not exported.fresh:
        note(f"{run.model.name}: {exported.folder} is up to date, not exported again")
    parity = verify_exported(exported, seed=plan.seed, report=note)
    published = publish(exported, plan.repository, keep=keep)
    return Outcome(run=run, exported=exported, parity=parity, published=published)
