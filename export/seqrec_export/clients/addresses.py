"""Addresses as people write them, and as gRPC and sockets take them."""

from __future__ import annotations

import ipaddress
import re
import socket

from seqrec_export.errors import SeqrecError

GRPC_PORT = 8001
# gRPC itself reads these prefixes, which say how to find the server.
_GRPC_NAMES = ("dns:", "ipv4:", "ipv6:", "unix:", "unix-abstract:")
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://(.*)", re.DOTALL)
_PLACE = re.compile(r"(?P<host>\[[^\][/@\s]+\]|[^\][/:@?#\s]+)(?::(?P<port>\d{1,5}))?")
_LOCAL = re.compile(
    r"127[.\d]*(:|$)|localhost(:|$)|\[::1\]|0\.0\.0\.0(:|$)|\[::\]|unix(-abstract)?:"
)


def grpc_address(text: str, *, tls: bool = False) -> str:
    """HOST:PORT, or a name with gRPC's own prefix, of an address in any form.

    The default port is 8001. Raises SeqrecError for an address that gRPC cannot or should not use.
    """
    asked = text.strip()
    scheme = ""
    if found := _SCHEME.fullmatch(asked):
        scheme, asked = found[1].lower(), found[2]
    named = f"{scheme}:" in _GRPC_NAMES or asked.lower().startswith(_GRPC_NAMES)
    if named and not re.fullmatch(r"\w+:\d+", asked):  # that is a host with such a name
        return _grpc_name(text.strip())
    place = _place(asked.removesuffix("/"))
    if place is None:
        raise SeqrecError(
            f"{text!r} is not the address of a gRPC server; write HOST:PORT, such as"
            f" recommender:{GRPC_PORT} or [::1]:{GRPC_PORT}"
        )
    host, port = place
    if scheme in {"http", "https"}:
        other = "" if port in {None, 8000, 8002} else f":{port}"
        advice = f", with --tls-ca or TLS() for {scheme}" if scheme == "https" else ""
        raise SeqrecError(
            f"{text!r} is an address for HTTP, and models are asked over gRPC; write the gRPC"
            f" address without {scheme}://, such as {host}{other or f':{GRPC_PORT}'}{advice}"
        )
    if scheme == "grpcs" and not tls:
        raise SeqrecError(
            f"{text!r} asks for TLS; write {host}:{port or GRPC_PORT} and say whom to trust, with"
            " --tls-ca or TLS()"
        )
    if scheme not in {"", "grpc", "grpcs"}:
        raise SeqrecError(
            f"{text!r}: {scheme}:// is not gRPC; write HOST:PORT: {host}:{port or GRPC_PORT}"
        )
    # gRPC would take a host with the name of a prefix for that prefix.
    prefix = "dns:///" if f"{host.lower()}:" in _GRPC_NAMES else ""
    return f"{prefix}{host}:{port or GRPC_PORT}"


def is_local(address: str) -> bool:
    """Whether an address, as `grpc_address` gives it, is one of this machine."""
    bare = re.sub(r"^(dns:(///?)?|ipv[46]:)", "", address, flags=re.IGNORECASE)
    return bool(_LOCAL.match(bare.lower()))


def listening_host(text: str, option: str) -> str:
    """The host that a server is to listen on, without brackets.

    Raises SeqrecError for anything else: an address with a port, or with http:// before it.
    """
    host = text.strip()
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not _is_ip(host) and not re.fullmatch(r"[^\][/:@?#\s]+", host):
        raise SeqrecError(
            f"{option} is {text!r}; give only a host: 127.0.0.1, 0.0.0.0 (everywhere), ::1 or a"
            " name of this machine; the port has its own option"
        )
    return host


def family(host: str) -> socket.AddressFamily:
    """Whether a host to listen on is reached by IPv4 or by IPv6."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def in_url(host: str) -> str:
    """The host as it is written before a port: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def reached_at(host: str) -> str:
    """Where a caller on this machine finds a server that listens on this host."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _place(text: str) -> tuple[str, int | None] | None:
    """Host, in brackets if it is IPv6, and port; None if the text is not that."""
    if not (found := _PLACE.fullmatch(text)):
        return None
    host, port = found["host"], int(found["port"]) if found["port"] else None
    if host.startswith("[") and not _is_ip(host[1:-1]):
        return None
    if port is not None and not 0 < port < 2**16:
        return None
    return host, port


def _grpc_name(text: str) -> str:
    """An address with gRPC's own prefix. Without a port gRPC would take 443."""
    prefix, _, rest = text.partition(":")
    prefix = prefix.lower()
    if prefix.startswith("unix"):
        if rest.strip("/"):
            return f"{prefix}:{rest}"
        raise SeqrecError(f"{text!r} names no socket; write unix:/path/of/the/socket")
    server, slash, last = rest.rpartition("/")
    place = _place(last)
    if place is None or (slash and not rest.startswith("//")):
        raise SeqrecError(
            f"{text!r} is not the address of a gRPC server; write {prefix}:"
            f"{'///recommender' if prefix == 'dns' else '127.0.0.1'}:{GRPC_PORT}"
        )
    host, port = place
    return f"{prefix}:{server}{slash}{host}:{port or GRPC_PORT}"


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
