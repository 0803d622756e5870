"""`seqrec-export export`: from finished runs to the repository."""

from __future__ import annotations

from typing import Annotated

import typer

from seqrec_cli import filters, options
from seqrec_cli.console import note
from seqrec_cli.results import print_built, read_log

ItemsLog = Annotated[
    str | None,
    typer.Option("--data", help="Log that says what items are, for --filter-by: READER:PATH."),
]


def export(
    model: options.ModelNames = None,
    runs: options.Runs = None,
    repository: options.Repository = None,
    config: options.ConfigFile = None,
    top_k: options.TopK = None,
    item_precision: options.ItemPrecision = None,
    filter_by: filters.FilterBy = None,
    items: filters.ItemsFile = None,
    items_id: filters.ItemsId = None,
    data: ItemsLog = None,
    columns: options.Columns = None,
    keep: options.Keep = 3,
    accept_quality: options.AcceptQuality = False,
    json: options.Json = False,
) -> None:
    """Export finished runs to ONNX, verify them, and publish them for Triton.

    Without --top-k, --item-precision or --filter-by, the values of the run's last export are used.

    Example: `seqrec-export export --model sasrec --top-k 50`
    """
    from seqrec_export.pipeline import release
    from seqrec_export.repository.published import require_place
    from seqrec_export.training.train import load

    plan = options.make_plan(
        config=config,
        models=model,
        runs=runs,
        repository=repository,
        top_k=top_k,
        item_precision=item_precision,
        filter_by=filter_by,
        items=items,
        items_id=items_id,
        data=data,
        columns=columns,
    )
    filters.require(plan)
    # All runs are loaded before the first is published.
    found = [load(plan.runs / name, model) for name, model in plan.found.items()]
    require_place(plan.repository)
    names_any = any(text.strip() for text in plan.filter_by or ())
    log = read_log(plan) if names_any and plan.data is not None else None
    attributes = [
        filters.asked_attributes(plan, run.vocabularies["items"].ids, log) for run in found
    ]
    built = [
        release(
            run,
            plan.repository,
            top_k=plan.top_k,
            item_precision=plan.item_precision,
            attributes=of_run,
            keep=keep,
            accept_quality=accept_quality,
            seed=plan.seed,
            report=note,
        )
        for run, of_run in zip(found, attributes, strict=True)
    ]
    print_built(built, plan.repository, json=json)
