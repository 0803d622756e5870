"""The app: one command a file, and the boundary where mistakes become one line."""

from __future__ import annotations

import io
import os
import shlex
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from seqrec_cli.build import build
from seqrec_cli.clients import clients
from seqrec_cli.console import message
from seqrec_cli.demo import demo
from seqrec_cli.doctor import doctor
from seqrec_cli.embed import embed
from seqrec_cli.export import export
from seqrec_cli.imports import importing
from seqrec_cli.inspect import inspect
from seqrec_cli.machine_errors import said
from seqrec_cli.models import models
from seqrec_cli.playground import playground
from seqrec_cli.recommend import recommend
from seqrec_cli.recommend_all import recommend_all
from seqrec_cli.rollback import rollback
from seqrec_cli.serve import serve
from seqrec_cli.train import train
from seqrec_cli.verify import verify
from seqrec_export.errors import SeqrecError

TRAINING, SERVING = "Training", "Serving"
INTERRUPTED = 130
COMMANDS: tuple[tuple[str, Callable[..., Any]], ...] = (
    (TRAINING, build),
    (TRAINING, train),
    (TRAINING, export),
    (TRAINING, verify),
    (TRAINING, embed),
    (TRAINING, recommend_all),
    (TRAINING, models),
    (SERVING, serve),
    (SERVING, recommend),
    (SERVING, playground),
    (SERVING, inspect),
    (SERVING, clients),
    (SERVING, rollback),
    (SERVING, doctor),
    (SERVING, demo),
)

app = typer.Typer(
    help="Train sequential recommenders, export them to ONNX, serve raw ids from Triton.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="markdown",
)
for panel, command in COMMANDS:
    app.command(rich_help_panel=panel)(command)
app.add_typer(importing, name="import", rich_help_panel=TRAINING)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("seqrec-export"))
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Train sequential recommenders, export them to ONNX, serve raw ids from Triton."""


def main() -> None:
    """Run the app; a user's mistake, or what the machine refuses, is one line and exit status 1."""
    # Threads that spin long at OpenMP's barriers train 4 times slower next to any busy process.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # An id may hold what the terminal's encoding lacks: then it is shown as `\\u5bff`.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except SeqrecError as error:
        typer.secho(f"error: {message(str(error))}", err=True, fg=typer.colors.RED)
        sys.exit(1)
    except OSError as error:
        typer.secho(f"error: {message(said(error))}", err=True, fg=typer.colors.RED)
        sys.exit(1)
    except SystemExit as ended:
        if ended.code == INTERRUPTED and _resumable():  # what Typer makes of Ctrl-C
            again = sys.argv[1:] if "--resume" in sys.argv else [*sys.argv[1:], "--resume"]
            typer.secho(f"stopped; go on with: seqrec-export {shlex.join(again)}", err=True)
            # Everything is on disk, and a library's thread may keep the interpreter from ending
            # (seen once).
            sys.stdout.flush()
            os._exit(INTERRUPTED)
        raise


def _resumable() -> bool:
    return len(sys.argv) > 1 and sys.argv[1] in {"build", "train", "embed", "recommend-all"}


if __name__ == "__main__":
    main()
