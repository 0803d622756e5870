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
    host: Annotated[
        str, typer.Option(help="Host that gRPC listens on; 0.0.0.0 is everywhere.")
    ] = "127.0.0.1",
    grpc_port: Annotated[int, typer.Option(help="gRPC port; 0 takes a free one.")] = 8001,
    tls_cert: Annotated[
        Path | None, typer.Option(help="PEM certificate of the server: gRPC speaks TLS only.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM key of the certificate.")] = None,
    tls_client_ca: Annotated[
        Path | None, typer.Option(help="PEM certificate whose clients are let in: mutual TLS.")
    ] = None,
    http_port: Annotated[
        int | None, typer.Option(help="HTTP port on loopback; 0 takes a free one. Default: none.")
    ] = None,
    metrics_host: Annotated[str, typer.Option(help="Host that metrics listen on.")] = "127.0.0.1",
    metrics_port: Annotated[int, typer.Option(help="Metrics port; 0 takes a free one.")] = 8002,
    model_control: Annotated[
        bool, typer.Option("--model-control", help="Let every caller load models, that is code.")
    ] = False,
    poll: Annotated[
        float, typer.Option(min=0.05, help="Seconds between looks at processes and versions.")
    ] = 1.0,
    log: Annotated[Path | None, typer.Option(help="File for the server's log.")] = None,
) -> None:
    """Serve a repository with the embedded Triton until Ctrl-C, whatever dies.

    A published version is served as soon as it is seen, and one that is rolled back no longer. A
    version that is damaged or does not load is left out. A model or a server that dies is
    started again. Each of these prints a line on stderr.

    Example: `seqrec-export serve --repository model_repository`
    """
    from seqrec_export.clients.addresses import listening_host
    from seqrec_export.serving.endpoints import LOOPBACK, Endpoints, ServerTLS
    from seqrec_export.serving.supervision import Supervisor

    host = listening_host(host, "--host")
    metrics_host = listening_host(metrics_host, "--metrics-host")
    # What stops a service, and Ctrl-C also if a shell started this in the background.
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, signal.default_int_handler)
    if (tls_cert is None) != (tls_key is None) or (tls_client_ca and not tls_cert):
        raise SeqrecError("TLS needs --tls-cert and --tls-key; --tls-client-ca only adds to them")
    tls = (
        ServerTLS(cert=tls_cert, key=tls_key, client_ca=tls_client_ca)
        if tls_cert and tls_key
        else None
    )
    endpoints = Endpoints(
        host=host,
        grpc_port=grpc_port,
        tls=tls,
        http_port=http_port,
        metrics_host=metrics_host,
        metrics_port=metrics_port,
        model_control=model_control,
    )
    folder = repository or options.DEFAULT_REPOSITORY
    if host not in {LOOPBACK, "localhost", "::1"} and not tls:
        note(f"without --tls-cert, all who reach {host} can ask and listen; see docs/security.md")
    note(f"starting Triton on {folder}")
    try:
        with Supervisor(folder, endpoints, say=note, look_seconds=poll, log=log) as supervisor:
            server = supervisor.server
            urls = [f"gRPC {server.grpc_url}", server.http_url, server.metrics_url]
            typer.echo("  ".join(filter(None, urls)))
            served = [f"{name} {version}" for name, version in supervisor.serving().items()]
            typer.echo(f"ready: {', '.join(served)}; Ctrl-C stops it")
            supervisor.run()
    except KeyboardInterrupt:
        note("stopped")
