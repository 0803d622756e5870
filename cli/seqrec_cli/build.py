"""`seqrec-export build`, the main command."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from seqrec_cli import options
from seqrec_cli.console import print_json, print_table
from seqrec_export.training.reachable import require_reachable

if TYPE_CHECKING:
    from seqrec_cli.export import Outcome
    from seqrec_export.data.interactions import Interactions


def build(
    model: options.ModelNames = None,
    data: options.Data = None,
    columns: options.Columns = None,
    repository: options.Repository = None,
    config: options.ConfigFile = None,
    preset: options.Preset = None,
    settings: options.Settings = None,
    seed: options.Seed = None,
    top_k: options.TopK = None,
    item_precision: options.ItemPrecision = None,
    keep: options.Keep = 3,
    runs: options.Runs = None,
    users: options.Users = None,
    items: options.Items = None,
    events: options.Events = None,
    resume: options.Resume = False,
    retrain: options.Retrain = False,
    mlflow: options.MlflowUri = None,
    json: options.Json = False,
) -> None:
    """Train, export to ONNX, verify against PyTorch, and publish for Triton.

    What was done before from the same data, settings and code is not done again. A model that
    fails the verification is not published: its old version keeps serving; the exit status is 1.

    Example: `seqrec-export build --model sasrec --data movielens:ml-1m/ratings.dat`
    """
    from seqrec_cli.train import read_log
    from seqrec_export.repository.published import require_place

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
        repository=repository,
        top_k=top_k,
        item_precision=item_precision,
        settings=settings,
        synthetic={"users": users, "items": items, "events": events},
    )
    require_place(plan.repository)
    outcomes = build_all(
        plan, read_log(plan), keep=keep, resume=resume, retrain=retrain, mlflow=mlflow
    )
    report(outcomes, plan, json=json)


def build_all(
    plan: options.Plan,
    interactions: Interactions,
    *,
    keep: int = 3,
    resume: bool = False,
    retrain: bool = False,
    mlflow: str | None = None,
) -> list[Outcome]:
    """Every model of the plan, from its log to the repository."""
    from seqrec_cli.export import export_one
    from seqrec_cli.train import require_all, train_one
    from seqrec_export.export.exported import DEFAULT_ITEM_PRECISION, DEFAULT_TOP_K

    require_all(plan, interactions)
    plan = replace(
        plan,
        top_k=DEFAULT_TOP_K if plan.top_k is None else plan.top_k,
        item_precision=plan.item_precision or DEFAULT_ITEM_PRECISION,
    )
    outcomes = []
    for name in plan.models:
        run = train_one(plan, name, interactions, resume=resume, retrain=retrain, mlflow=mlflow)
        outcomes.append(export_one(run, plan, keep=keep))
    return outcomes


def report(outcomes: list[Outcome], plan: options.Plan, *, json: bool) -> None:
    """Say what was built, for people or for programs; raise SeqrecError for what was refused."""
    from seqrec_cli.export import VERDICT_COLUMNS, stop_if_refused
    from seqrec_cli.train import METRIC_COLUMNS, metric_row
    from seqrec_export.verification.gate import refused

    if json:
        print_json({outcome.run.model.name: outcome.as_dict() for outcome in outcomes})
    else:
        rows: list[tuple[Any, ...]] = [metric_row(outcome.run) for outcome in outcomes]
        print_table("Test metrics", METRIC_COLUMNS, rows)
        print_table(
            f"ONNX Runtime against PyTorch, published in {plan.repository}",
            ("graph", "version", *VERDICT_COLUMNS, "file"),
            [row for outcome in outcomes for row in outcome.rows()],
        )
    stop_if_refused(refused(outcome.exported, outcome.verdicts) for outcome in outcomes)
