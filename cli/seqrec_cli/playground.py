"""`seqrec-export playground`."""

from __future__ import annotations

import signal
import socket
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from seqrec_cli import options
from seqrec_cli.console import note
from seqrec_export.errors import SeqrecError

_MOST_REQUESTS = 64  # at once


def playground(
    url: Annotated[
        list[str] | None,
        typer.Option(
            help="gRPC address of the server; repeat it to compare servers. Default: "
            f"{options.DEFAULT_URL}."
        ),
    ] = None,
    titles: Annotated[
        Path | None,
        typer.Option(
            help="movies.dat, u.item, movies.csv, articles, or a table with item_id and title."
        ),
    ] = None,
    runs: options.Runs = None,
    host: Annotated[str, typer.Option(help="Host that the page is on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the page; 0 takes a free one.")
    ] = 8010,
    browser: Annotated[
        bool, typer.Option("--open", help="Open the page in the browser of this machine.")
    ] = False,
    tls_ca: options.TlsCa = None,
    tls_cert: options.TlsCert = None,
    tls_key: options.TlsKey = None,
) -> None:
    """Open a page on which to try the models of a running server, until Ctrl-C.

    Ids and attributes to choose from come from the run folders, as far as they are there.

    Example: `seqrec-export playground --titles ml-1m/movies.dat`
    """
    try:
        import starlette  # noqa: F401
        import uvicorn
    except ModuleNotFoundError as error:
        raise SeqrecError(
            f"the page needs {error.name}; `pip install 'seqrec-export[playground]'`"
        ) from error
    from seqrec_export.clients.addresses import family, in_url, listening_host, reached_at
    from seqrec_export.data.readers.titles import titles as read_titles
    from seqrec_export.playground.app import application
    from seqrec_export.playground.asking import Playground

    host = listening_host(host, "--host")
    # What stops a service, and Ctrl-C also if a shell started this in the background.
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, signal.default_int_handler)
    asked = Playground(
        url or [options.DEFAULT_URL],
        runs=runs or options.DEFAULT_RUNS,
        titles=read_titles(titles) if titles else None,
        tls=options.client_tls(tls_ca, tls_cert, tls_key),
    )
    config = uvicorn.Config(
        application(asked, host),
        http="h11",
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=_MOST_REQUESTS,
        timeout_graceful_shutdown=1,
    )
    try:
        listener = socket.create_server((host, port), family=family(host))
    except OSError as error:
        why = (error.strerror or str(error)).partition(" (")[0]
        raise SeqrecError(
            f"--host {host}, --port {port}: {why}; give another port, or 0 for any"
        ) from error
    address = f"http://{in_url(reached_at(host))}:{listener.getsockname()[1]}/"
    if not listening_to_itself(listener):
        note(f"all who reach {host} can ask the models through this page")
    typer.echo(f"{address}  Ctrl-C stops it")
    if browser:
        webbrowser.open(address)
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        note("stopped")


def listening_to_itself(listener: socket.socket) -> bool:
    """Whether only this machine reaches it."""
    import ipaddress

    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback
