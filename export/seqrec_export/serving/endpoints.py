"""Where a server listens, to whom, and what it lets them do."""

from __future__ import annotations

import os
import secrets
import socket
import ssl
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from seqrec_export.clients.addresses import family, in_url
from seqrec_export.errors import SeqrecError
from seqrec_export.serving.control import Control

LOOPBACK = "127.0.0.1"
LONGEST_SOCKET = 107  # bytes in the path of a socket, see unix(7)
# What can make Triton load a model (with code in it, if the caller sends some), read and write
# shared memory, or write files.
OWNERS_ONLY = "model-repository,shared-memory,trace,logging"


@dataclass(frozen=True, kw_only=True)
class ServerTLS:
    """PEM files: the server's certificate and key; with `client_ca`, clients need one of it."""

    cert: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Endpoints:
    """Where a server listens and to whom. Port 0 is any free port.

    gRPC is for callers. HTTP, which in Triton has no TLS, is on loopback and only if it has a port.
    `model_control` lets every caller load and unload models, which means that they can run code.
    """

    host: str = LOOPBACK
    grpc_port: int = 8001
    tls: ServerTLS | None = None
    http_port: int | None = None
    metrics_host: str = LOOPBACK
    metrics_port: int = 8002
    model_control: bool = False


def with_free_ports(endpoints: Endpoints) -> Endpoints:
    """The same with a free port in place of every 0. Raises SeqrecError if one is taken."""
    wanted = {
        "grpc": (endpoints.host, endpoints.grpc_port),
        "metrics": (endpoints.metrics_host, endpoints.metrics_port),
    }
    if endpoints.http_port is not None:
        wanted["http"] = (LOOPBACK, endpoints.http_port)
    found = free_ports(wanted)
    return replace(
        endpoints,
        grpc_port=found["grpc"],
        metrics_port=found["metrics"],
        http_port=found.get("http"),
    )


def listening(endpoints: Endpoints, work: Path) -> tuple[Control, list[str]]:
    """How the owner reaches the server, and Triton's options for that and for everybody else."""
    options = [
        f"--grpc-address={in_url(endpoints.host)}",
        f"--grpc-port={endpoints.grpc_port}",
        f"--metrics-address={_of_http(endpoints.metrics_host)}",
        f"--metrics-port={endpoints.metrics_port}",
    ]
    if tls := endpoints.tls:
        _require_usable(tls)
        mutual = "-mutual" if tls.client_ca else ""
        options += [
            f"--grpc-use-ssl{mutual}=true",
            f"--grpc-server-cert={tls.cert.resolve()}",
            f"--grpc-server-key={tls.key.resolve()}",
            *([f"--grpc-root-cert={tls.client_ca.resolve()}"] if tls.client_ca else []),
        ]
    if not endpoints.model_control:
        # Triton asks for a header, but HTTP/2 allows no capitals in a header's name: so nobody can
        # send it, and the list of processes shows no secret.
        options.append(f"--grpc-restricted-protocol={OWNERS_ONLY}:Nobody={secrets.token_hex()}")
    if endpoints.http_port is None:
        path = work / "http.sock"
        if len(os.fsencode(path)) > LONGEST_SOCKET:
            raise SeqrecError(f"{path} is too long for a socket; set TMPDIR to a shorter folder")
        return Control(path), [*options, f"--http-address=unix:{path}"]
    options += [f"--http-address={LOOPBACK}", f"--http-port={endpoints.http_port}"]
    headers = {}
    if not endpoints.model_control:
        headers = {"seqrec-owner": secrets.token_hex()}
        options += [f"--http-restricted-api={OWNERS_ONLY}:{k}={v}" for k, v in headers.items()]
    return Control((LOOPBACK, endpoints.http_port), headers), options


def _of_http(host: str) -> str:
    """A host as Triton's HTTP library takes it: a number, and IPv6 with a prefix."""
    return f"ipv6:{host}" if family(host) is socket.AF_INET6 else socket.gethostbyname(host)


def _require_usable(tls: ServerTLS) -> None:
    """Checks the files here, as Triton would not say what is wrong with them."""
    for file in (tls.cert, tls.key, tls.client_ca):
        if file and not os.access(file, os.R_OK):
            raise SeqrecError(f"{file} cannot be read; TLS needs PEM files")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(tls.cert, tls.key, password="")  # or OpenSSL asks at the terminal
    except ssl.SSLError as error:
        raise SeqrecError(
            f"{tls.cert} and {tls.key} are not a PEM certificate and its key, without a password:"
            f" {error}"
        ) from error
    try:
        context.load_verify_locations(tls.client_ca or tls.cert)
    except ssl.SSLError as error:
        raise SeqrecError(f"{tls.client_ca} is not a PEM certificate: {error}") from error


def free_ports(wanted: Mapping[str, tuple[str, int]]) -> dict[str, int]:
    """Name -> port, each of them free a moment ago; raises SeqrecError naming one that is not."""
    found = {}
    with ExitStack() as held:  # all at once, so that no two are the same
        for name, (host, port) in wanted.items():
            listener = held.enter_context(socket.socket(family(host)))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((host, port))
                listener.listen()
            except (OSError, OverflowError, UnicodeError) as error:
                raise SeqrecError(f"cannot serve {name} on {host}:{port}: {error}") from error
            found[name] = listener.getsockname()[1]
    return found
