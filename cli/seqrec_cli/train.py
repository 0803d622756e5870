"""`seqrec-export train`."""

from __future__ import annotations

from seqrec_cli import options
from seqrec_cli.console import note, print_json, print_table
from seqrec_cli.results import METRIC_COLUMNS, metric_row, read_log
from seqrec_export.training.reachable import require_reachable


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
    from seqrec_export.pipeline import require_all, train_once

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
    require_all(plan.found.values(), interactions)
    finished = [
        train_once(
            plan.found[name],
            interactions,
            plan.config(name),
            plan.runs / name,
            seed=plan.seed,
            resume=resume,
            retrain=retrain,
            mlflow=mlflow,
            report=note,
        )
        for name in plan.models
    ]
    if json:
        print_json({run.model.name: dict(run.metrics) for run in finished})
    else:
        print_table("Test metrics", METRIC_COLUMNS, [metric_row(run) for run in finished])
