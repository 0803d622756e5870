"""`seqrec-export embed`: every user's vector."""

from __future__ import annotations

from typing import Annotated

import typer

from seqrec_cli import options
from seqrec_cli.console import note, print_json
from seqrec_cli.results import read_log
from seqrec_export.models.registry import TO_EMBED


def embed(
    model: Annotated[str, typer.Option("--model", "-m", help="Model to embed with.")] = TO_EMBED,
    data: options.Data = None,
    columns: options.Columns = None,
    out: Annotated[
        str,
        typer.Option(help="File for the vectors: .npy, and next to it a .parquet of that name."),
    ] = "embeddings.npy",
    config: options.ConfigFile = None,
    runs: options.Runs = None,
    repository: options.Repository = None,
    batch_size: Annotated[int, typer.Option(help="Users at a time.")] = 1024,
    users: options.Users = None,
    items: options.Items = None,
    events: options.Events = None,
    resume: options.Resume = False,
    json: options.Json = False,
) -> None:
    """Encode every user of a log: vectors as .npy, and as a column of a Parquet file.

    Rows are in the order in which users first appear in the log. The exported encoder does the
    work, so these are the vectors that the server gives; if the repository serves another version,
    as after a rollback, a note says so. Work that was stopped goes on from where it was.

    Example: `seqrec-export embed --model gru4att --data jdsearch:users.txt --out users.npy`
    """
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from seqrec_export.exporting.embed import embed_users, vector_files
    from seqrec_export.exporting.exported import find_export
    from seqrec_export.repository.describe import not_served
    from seqrec_export.training.train import load

    plan = options.make_plan(
        config=config,
        data=data,
        columns=columns,
        models=[model],
        runs=runs,
        repository=repository,
        synthetic={"users": users, "items": items, "events": events},
    )
    vector_files(out)  # a wrong name is reported before a log is read
    ((name, found),) = plan.found.items()
    run = load(plan.runs / name, found)
    interactions = read_log(plan)
    from rich.console import Console

    bars = (TextColumn("encoding users"), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*bars, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=len(interactions.user_ids))
        vectors, table = embed_users(
            run,
            interactions,
            out,
            batch_size=batch_size,
            resume=resume,
            progress=lambda done: progress.update(task, completed=done),
            report=note,
        )
    if other := not_served(find_export(run), plan.repository):
        note(f"note: {other}; its scorer does not go with these vectors")
    if json:
        print_json({"vectors": vectors, "table": table, "users": len(interactions.user_ids)})
    else:
        note(f"{len(interactions.user_ids):,} users")
        typer.echo(f"{vectors}\n{table}")
