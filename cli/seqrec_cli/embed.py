"""`seqrec-export embed`: every user's vector, or every item's."""

from __future__ import annotations

from typing import Annotated

import typer

from seqrec_cli import options
from seqrec_cli.console import note, print_json
from seqrec_cli.results import note_other_version, read_log
from seqrec_export.models.registry import TO_EMBED


def embed(
    model: Annotated[str, typer.Option("--model", "-m", help="Model to embed with.")] = TO_EMBED,
    data: options.Data = None,
    columns: options.Columns = None,
    items: Annotated[
        bool,
        typer.Option("--items", help="Vectors of the model's items instead; no log is read."),
    ] = False,
    out: Annotated[
        str | None,
        typer.Option(
            help="File for the vectors: .npy, and next to it a .parquet of that name. Default: "
            "embeddings.npy, or items.npy."
        ),
    ] = None,
    config: options.ConfigFile = None,
    runs: options.Runs = None,
    repository: options.Repository = None,
    batch_size: Annotated[int, typer.Option(help="Users at a time.")] = 1024,
    resume: options.GoOn = False,
    json: options.Json = False,
) -> None:
    """Encode every user of a log: vectors as .npy, and as a column of a Parquet file.

    Rows are in the order in which users first appear in the log. The exported encoder does the
    work, so these are the vectors that the server gives; if the repository serves another version,
    as after a rollback, a note says so. Work that was stopped goes on from where it was.

    With `--items`, the vectors of the items that the model knows, for a vector store: an item's
    score is the dot product with the user's vector, plus the column `bias` if there is one.

    Example: `seqrec-export embed --model gru4att --data jdsearch:users.txt --out users.npy`
    """
    from seqrec_cli.progress import counting
    from seqrec_export.exporting.embed import embed_items, embed_users, vector_files
    from seqrec_export.training.train import load

    plan = options.make_plan(
        config=config,
        data=data,
        columns=columns,
        models=[model],
        runs=runs,
        repository=repository,
    )
    if out is None:
        out = "items.npy" if items else "embeddings.npy"
    vector_files(out)  # a wrong name is reported before a log is read
    ((name, found),) = plan.found.items()
    run = load(plan.runs / name, found)
    if items:
        what, count = "items", len(run.vocabularies["items"])
        vectors, table = embed_items(run, out)
    else:
        interactions = read_log(plan)
        what, count = "users", len(interactions.user_ids)
        with counting("encoding users") as progress:
            vectors, table = embed_users(
                run,
                interactions,
                out,
                batch_size=batch_size,
                resume=resume,
                progress=lambda done: progress(done, count),
                report=note,
            )
        note_other_version(run, plan, "its scorer does not go with these vectors")
    if json:
        print_json({"vectors": vectors, "table": table, what: count})
    else:
        note(f"{count:,} {what}")
        typer.echo(f"{vectors}\n{table}")
