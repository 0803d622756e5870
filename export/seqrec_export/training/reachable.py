"""Whether a tracking server is there: asked before anything slow is imported, read or trained."""

from __future__ import annotations

import re
import socket
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from seqrec_export.errors import SeqrecError

_CONNECT_SECONDS = 5.0


def require_reachable(uri: str) -> None:
    """Raise SeqrecError if nobody listens at the http or https address of a tracking server."""
    if re.fullmatch(r"[\w.-]+:\d+(/.*)?", uri):
        raise SeqrecError(f"--mlflow {uri} has no scheme; write http://{uri}")
    address = urlsplit(uri)
    if address.scheme not in {"http", "https"}:
        return  # a file, a database, or what a plug-in of MLflow knows
    try:
        port = address.port or {"http": 80, "https": 443}[address.scheme]
        if not address.hostname:
            raise ValueError("no host is named")
        if _by_proxy(address.hostname):
            return
        socket.create_connection((address.hostname, port), _CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise SeqrecError(
            f"MLflow at {uri}: {getattr(error, 'strerror', None) or error}; start it, or train "
            "without --mlflow"
        ) from error


def _by_proxy(host: str) -> bool:
    return bool({"http", "https", "all"} & getproxies().keys()) and not proxy_bypass(host)
