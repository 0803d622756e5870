"""`seqrec-export recommend-all`: the best items of every user."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from seqrec_cli import lists, options
from seqrec_cli.console import note, print_json
from seqrec_cli.results import note_other_version, read_log
from seqrec_export.errors import SeqrecError
from seqrec_export.models.registry import TO_ASK


def recommend_all(
    model: Annotated[str, typer.Option("--model", "-m", help="Model to ask.")] = TO_ASK,
    data: options.Data = None,
    columns: options.Columns = None,
    out: Annotated[str, typer.Option(help="Parquet file for the lists.")] = "lists.parquet",
    top_k: Annotated[int, typer.Option(help="Items in a list, at most.")] = 10,
    users: Annotated[
        Path | None,
        typer.Option(
            help="CSV or Parquet with a column user_id: whom to make lists for, in this order. "
            "Default: every user of the log."
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="Item ids that nobody gets, as 1193,661; may be repeated."),
    ] = None,
    exclude_from: Annotated[
        Path | None,
        typer.Option(help="CSV or Parquet with user_id and item_id: what not to give to whom."),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(help="Item ids, as 1193,661: nobody gets another one; may be repeated."),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="Only items with one of these values, as genres=Comedy,Drama, of an attribute of "
            "`build --filter-by`; repeat for several."
        ),
    ] = None,
    keep_seen: Annotated[
        bool, typer.Option("--keep-seen", help="What a user has had may come back.")
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(help="Only a part of the users, as 2/4, into lists.2-of-4.parquet."),
    ] = None,
    join: Annotated[
        int | None,
        typer.Option(help="Put together the files of that many shards; nothing else is read."),
    ] = None,
    config: options.ConfigFile = None,
    runs: options.Runs = None,
    repository: options.Repository = None,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Users at a time. Default: 256, fewer if the catalogue is large."),
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="Threads; 0 takes all cores.")] = 0,
    resume: options.GoOn = False,
    json: options.Json = False,
) -> None:
    """Write the best items of every user to Parquet: user_id, rank, item_id, score.

    The exported graph does the work, so these are the answers that the server gives, with every
    event of the log as the history. Users whom the log does not know get the popular items. Work
    that was stopped goes on from where it was. Parts made with --shard and put together with --join
    are the file that one run writes.

    Example: `seqrec-export recommend-all --model sasrec --data movielens:ml-1m/ratings.dat
    --top-k 20 --out lists.parquet`
    """
    from seqrec_cli.progress import counting
    from seqrec_export.exporting.list_files import join_lists, list_file
    from seqrec_export.exporting.lists import recommend_all as write_all
    from seqrec_export.models.settings import TOP_K
    from seqrec_export.training.train import load

    if join is not None:
        given = {
            "--data": data,
            "--users": users,
            "--exclude": exclude,
            "--exclude-from": exclude_from,
            "--allow": allow,
            "--where": where,
            "--keep-seen": keep_seen or None,
            "--shard": shard,
        }
        if said := [name for name, value in given.items() if value is not None]:
            raise SeqrecError(
                f"--join reads the files of the shards alone; leave out {', '.join(said)}"
            )
        _print(join_lists(out, join), json=json)
        return
    part = _shard(shard)
    TOP_K.checked(top_k, "--top-k")
    list_file(out, part)  # a wrong name is reported before a log is read
    filters = lists.filters(exclude, allow, where, keep_seen=keep_seen)
    plan = options.make_plan(
        config=config,
        data=data,
        columns=columns,
        models=[model],
        runs=runs,
        repository=repository,
    )
    ((name, found),) = plan.found.items()
    run = load(plan.runs / name, found)
    interactions = read_log(plan)
    with counting("making lists") as progress:
        path = write_all(
            run,
            interactions,
            out,
            k=top_k,
            users=users,
            filters=filters.inputs(name),
            exclude_from=exclude_from,
            shard=part,
            batch_size=batch_size,
            threads=threads,
            resume=resume,
            progress=progress,
            report=note,
        )
    note_other_version(run, plan, "it answers otherwise")
    _print(path, json=json)


def _print(path: Path, *, json: bool) -> None:
    import pyarrow.parquet as pq

    rows = pq.read_metadata(path).num_rows
    if json:
        print_json({"lists": path, "rows": rows})
    else:
        note(f"{rows:,} rows")
        typer.echo(path)


def _shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    if (found := re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", text)) is None:
        raise SeqrecError(f"--shard is {text!r}; write which one and of how many, as 2/4")
    return int(found[1]), int(found[2])
