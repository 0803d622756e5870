"""`seqrec-export serve`."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from seqrec_cli import options
from seqrec_cli.console import note
from seqrec_export.errors import SeqrecError


def serve(
    repository: options.Repository = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    grpc_port: Annotated[int, typer.Option(help="gRPC port; 0 takes a free one.")] = 8001,
    http_port: Annotated[int, typer.Option(help="HTTP port; 0 takes a free one.")] = 8000,
    metrics_port: Annotated[int, typer.Option(help="Metrics port; 0 takes a free one.")] = 8002,
    poll: Annotated[
        int | None, typer.Option(help="Look for new versions every so many seconds.")
    ] = None,
    log: Annotated[Path | None, typer.Option(help="File for the server's log.")] = None,
) -> None:
    """Serve a repository with the embedded Triton until Ctrl-C.

    Example: `seqrec-export serve --repository model_repository --poll 2`
    """
    from seqrec_export import server
    from seqrec_export.repository import models

    # What stops a service, and Ctrl-C also where a shell started this in the background.
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, signal.default_int_handler)
    folder = repository or options.DEFAULT_REPOSITORY
    names = models(folder)
    note(f"starting Triton with {len(names)} models of {folder}")
    with server.start(
        folder,
        host=host,
        grpc_port=grpc_port,
        http_port=http_port,
        metrics_port=metrics_port,
        poll_seconds=poll,
        log=log,
    ) as running:
        typer.echo(f"gRPC {running.grpc_url}  HTTP {running.http_url}  {running.metrics_url}")
        typer.echo(f"ready: {', '.join(names)}; Ctrl-C stops it")
        try:
            status = running.wait()
        except KeyboardInterrupt:
            note("stopping")
            return
    raise SeqrecError(f"Triton ended by itself with status {status}; its log is {running.log}")
