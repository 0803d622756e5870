"""`seqrec-export rollback`."""

from __future__ import annotations

from typing import Annotated

import typer

from seqrec_cli import options
from seqrec_cli.console import note, print_json


def rollback(
    model: Annotated[str, typer.Argument(help="Model, with all of its graphs.")],
    to: Annotated[
        int | None,
        typer.Option(help="Version to go to, older or newer. Default: the one before."),
    ] = None,
    repository: options.Repository = None,
    json: options.Json = False,
) -> None:
    """Take the newest version of a model away, so that the one before it is served.

    Nothing is deleted: --to brings a version back that a rollback took away.

    Example: `seqrec-export rollback sasrec`
    """
    from seqrec_export.repository.rollback import roll_back

    folder = repository or options.DEFAULT_REPOSITORY
    done = roll_back(folder, model, to)
    if json:
        print_json({"graphs": done.graphs, "before": done.before, "version": done.version})
    else:
        typer.echo(f"{', '.join(done.graphs)}: version {done.version}, before {done.before}")
        note(f"undo it with: seqrec-export rollback {model} --to {done.before} -r {folder}")
    # This imports PyTorch, so it comes after the rollback.
    from seqrec_export.repository.describe import report_again

    report_again(folder)
