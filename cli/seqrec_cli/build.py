"""`seqrec-export build`, the main command."""

from __future__ import annotations

from seqrec_cli import filters, options
from seqrec_cli.console import note
from seqrec_cli.results import print_built, read_log
from seqrec_export.training.reachable import require_reachable


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
    accept_quality: options.AcceptQuality = False,
    runs: options.Runs = None,
    filter_by: filters.FilterBy = None,
    users: options.Users = None,
    items: filters.ItemsOrFile = None,
    items_id: filters.ItemsId = None,
    events: options.Events = None,
    resume: options.Resume = False,
    retrain: options.Retrain = False,
    mlflow: options.MlflowUri = None,
    json: options.Json = False,
) -> None:
    """Train, export to ONNX, verify against PyTorch, and publish for Triton.

    Work that was done before from the same data, settings and code is not repeated. A model that
    fails the verification is not published: its old version keeps serving; the exit status is 1.
    The same holds for one that does not beat its baseline, mostly popularity, on held-out events.

    Example: `seqrec-export build --model sasrec --data movielens:ml-1m/ratings.dat`
    """
    from seqrec_export.pipeline import build_all
    from seqrec_export.repository.published import require_place

    if mlflow:
        require_reachable(mlflow)
    count, table = filters.count_and_table(items)
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
        filter_by=filter_by,
        items=table,
        items_id=items_id,
        settings=settings,
        synthetic={"users": users, "items": count, "events": events},
    )
    require_place(plan.repository)
    filters.require(plan)
    log = read_log(plan)
    built = build_all(
        [(plan.found[name], plan.config(name)) for name in plan.models],
        log,
        plan.runs,
        plan.repository,
        seed=plan.seed,
        top_k=plan.top_k,
        item_precision=plan.item_precision,
        attributes=filters.asked_attributes(plan, log.item_ids, log),
        keep=keep,
        accept_quality=accept_quality,
        resume=resume,
        retrain=retrain,
        mlflow=mlflow,
        report=note,
    )
    print_built(built, plan.repository, json=json)
