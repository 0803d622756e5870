"""`seqrec-export train`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from seqrec_cli import options
from seqrec_cli.console import figures, note, print_json, print_table
from seqrec_export.errors import SeqrecError
from seqrec_export.training.reachable import require_reachable

if TYPE_CHECKING:
    from seqrec_export.data.interactions import Interactions
    from seqrec_export.training.train import Run


def train(
    model: options.ModelNames = None,
    data: options.Data = None,
    columns: options.Columns = None,
    config: options.ConfigFile = None,
    preset: options.Preset = None,
    settings: options.Settings = None,
    seed: options.Seed = None,
    runs: options.Runs = None,
    users: options.Users = None,
    items: options.Items = None,
    events: options.Events = None,
    resume: options.Resume = False,
    retrain: options.Retrain = False,
    mlflow: options.MlflowUri = None,
    json: options.Json = False,
) -> None:
    """Train models and evaluate them on held-out events.

    A training that was stopped is not lost: go on with --resume, or drop it with --retrain.

    Example: `seqrec-export train --model sasrec --data movielens:ml-1m/ratings.dat --set dim=64`
    """
    if mlflow:
        require_reachable(mlflow)
    plan = options.make_plan(
        config=config,
        data=data,
        columns=columns,
        models=model,
        preset=preset,
        seed=seed,
        runs=runs,
        settings=settings,
        synthetic={"users": users, "items": items, "events": events},
    )
    interactions = read_log(plan)
    require_all(plan, interactions)
    finished = [
        train_one(plan, name, interactions, resume=resume, retrain=retrain, mlflow=mlflow)
        for name in plan.models
    ]
    if json:
        print_json({run.model.name: dict(run.metrics) for run in finished})
    else:
        print_table("Test metrics", METRIC_COLUMNS, [metric_row(run) for run in finished])


METRIC_COLUMNS = ("model", "held-out test", "targets", "baseline", "", "epochs", "training")


def metric_row(run: Run) -> tuple[Any, ...]:
    """One line of the table of metrics, the baseline beside."""
    model, metrics = run.model, run.metrics
    return (
        model.name,
        figures(metrics["test"], model.headline) or "nothing is held out",
        _targets(metrics["test"]),
        model.baseline,
        figures(metrics["baselines"][model.baseline], model.headline),
        len(metrics["curve"]),
        f"{metrics['seconds']:.0f} s",
    )


def _targets(test: Mapping[str, float]) -> str:
    """What the figures are of: `1,234`, or `1,234, 56 sessions`."""
    sessions = f", {test['sessions']:,.0f} sessions" if "sessions" in test else ""
    return f"{test['targets']:,.0f}{sessions}"


def read_log(plan: options.Plan) -> Interactions:
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


def require_all(plan: options.Plan, interactions: Interactions) -> None:
    """Raise SeqrecError for what a model lacks, before the first of them trains for an hour."""
    from seqrec_export.training.train import require

    for name in plan.models:
        try:
            require(plan.found[name], interactions)
        except SeqrecError as error:
            if len(plan.models) == 1:
                raise
            raise SeqrecError(
                f"{error}; nothing was trained: choose models with --model"
            ) from error


def train_one(
    plan: options.Plan,
    name: str,
    interactions: Interactions,
    *,
    resume: bool,
    retrain: bool,
    mlflow: str | None = None,
) -> Run:
    """Train one model, or take the finished run of the same data, settings and seed."""
    from seqrec_export.report.page import REPORT_FILE, ModelReport, write_report
    from seqrec_export.training import train as run

    path = plan.runs / name
    chosen = plan.found[name]
    model_config = plan.config(name)
    key = run.run_key(chosen, model_config, plan.seed, interactions.fingerprint)
    if not retrain and (found := run.finished(path, key, note, chosen)):
        note(f"{name}: {path} already is this run, not trained again")
        return found
    note(f"{name}: training")
    trained = run.train(
        chosen,
        interactions,
        model_config,
        path,
        seed=plan.seed,
        resume=resume,
        retrain=retrain,
        progress=True,
        mlflow=mlflow,
    )
    for text in trained.metrics["notes"]:
        if text not in interactions.notes:  # those were said when the log was read
            note(f"note: {text}")
    shown = ModelReport.of(chosen, trained.metrics, [])
    write_report(path / REPORT_FILE, f"{name}: training", [shown])
    return trained
