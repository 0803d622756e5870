"""`seqrec-export import`: from a checkpoint of RecTools or RecBole to the repository."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seqrec_cli import options
from seqrec_cli.console import note
from seqrec_cli.results import print_built, read_log

if TYPE_CHECKING:
    from collections.abc import Callable

    from seqrec_export.data.interactions import Interactions
    from seqrec_export.training.run import Run

Checkpoint = Annotated[
    Path,
    typer.Argument(help="What the library saved. It is a pickle; nothing of it is run."),
]
KeepSeen = Annotated[
    bool,
    typer.Option("--keep-seen", help="Let answers hold what is in the history already."),
]
Data = Annotated[
    str | None,
    typer.Option(
        help="The log that it was trained on, as READER:PATH: the most popular items for users "
        "without a known item, and real requests to verify with."
    ),
]

importing = typer.Typer(
    help="Import, export, verify and publish a network that another library trained.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@importing.command()
def rectools(
    checkpoint: Checkpoint,
    keep_seen: KeepSeen = False,
    data: Data = None,
    columns: options.Columns = None,
    runs: options.Runs = None,
    repository: options.Repository = None,
    top_k: options.TopK = None,
    item_precision: options.ItemPrecision = None,
    keep: options.Keep = 3,
    json: options.Json = False,
) -> None:
    """Import SASRec of RecTools 0.19: what `SASRecModel.save` wrote, or a Lightning checkpoint.

    Then it is exported, verified and published as `build` does it.

    Example: `seqrec-export import rectools model.pkl --data movielens:ml-1m/ratings.dat`
    """
    from seqrec_export.imports.libraries import import_rectools

    plan = options.make_plan(
        data=data,
        columns=columns,
        runs=runs,
        repository=repository,
        top_k=top_k,
        item_precision=item_precision,
    )
    _release(
        plan,
        lambda log: import_rectools(
            checkpoint, plan.runs / "rectools_sasrec", keep_seen=keep_seen, log=log
        ),
        keep=keep,
        json=json,
    )


@importing.command()
def recbole(
    checkpoint: Checkpoint,
    inter: Annotated[
        Path | None,
        typer.Option(
            help="Atomic file that it was trained on, unchanged: its order gives the ids."
        ),
    ] = None,
    items: Annotated[
        Path | None,
        typer.Option(help="JSON list of item ids in RecBole's order, in place of --inter."),
    ] = None,
    keep_seen: KeepSeen = False,
    data: Data = None,
    columns: options.Columns = None,
    runs: options.Runs = None,
    repository: options.Repository = None,
    top_k: options.TopK = None,
    item_precision: options.ItemPrecision = None,
    keep: options.Keep = 3,
    json: options.Json = False,
) -> None:
    """Import SASRec or GRU4Rec of RecBole 1.2, with the item ids, which its checkpoint lacks.

    Then it is exported, verified and published as `build` does it.

    Example: `seqrec-export import recbole saved/SASRec-Nov-28-2026.pth --inter ml-1m.inter`
    """
    from seqrec_export.imports.libraries import import_recbole, recbole_model

    plan = options.make_plan(
        data=data,
        columns=columns,
        runs=runs,
        repository=repository,
        top_k=top_k,
        item_precision=item_precision,
    )
    path = plan.runs / recbole_model(checkpoint)
    _release(
        plan,
        lambda log: import_recbole(
            checkpoint, path, inter=inter, items=items, keep_seen=keep_seen, log=log
        ),
        keep=keep,
        json=json,
    )


def _release(
    plan: options.Plan,
    imported: Callable[[Interactions | None], Run],
    *,
    keep: int,
    json: bool,
) -> None:
    from seqrec_export.exporting.exported import DEFAULT_ITEM_PRECISION, DEFAULT_TOP_K
    from seqrec_export.pipeline import release
    from seqrec_export.repository.published import require_place

    require_place(plan.repository)
    run = imported(None if plan.data is None else read_log(plan))
    for text in run.metrics["notes"]:
        note(f"note: {text}")
    built = release(
        run,
        plan.repository,
        top_k=DEFAULT_TOP_K if plan.top_k is None else plan.top_k,
        item_precision=plan.item_precision or DEFAULT_ITEM_PRECISION,
        keep=keep,
        seed=plan.seed,
        report=note,
    )
    print_built([built], plan.repository, json=json)
