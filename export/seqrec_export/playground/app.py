"""The page over HTTP: its files, and what they ask for as JSON."""

from __future__ import annotations

import ipaddress
import json
import re
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from seqrec_export.errors import SeqrecError
from seqrec_export.playground.asking import Place, Playground

STATIC = Path(__file__).with_name("static")
LARGEST_BODY = 256 * 1024
LONGEST_TYPED = 200
MOST_ITEMS = 1000
# Nothing from elsewhere, no script or style in the page's text, and no text that becomes markup.
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


def application(playground: Playground, host: str = "127.0.0.1") -> ASGIApp:
    """The page for whoever reaches `host`, the name or address that it listens on."""

    async def page(request: Request) -> Response:
        return FileResponse(STATIC / "index.html")

    async def models(request: Request) -> Response:
        return await _answer(playground.models)

    async def suggest(request: Request) -> Response:
        asked = request.query_params
        model, field, typed = (asked.get(name, "")[:LONGEST_TYPED] for name in ("m", "f", "q"))
        return await _answer(lambda: playground.suggest(model, field, typed))

    async def recommend(request: Request) -> Response:
        body = await _body(request)
        return await _answer(
            lambda: playground.recommend(
                _place(body), _object(body, "row"), _object(body, "filters"), _top_k(body)
            )
        )

    async def similar(request: Request) -> Response:
        body = await _body(request)
        return await _answer(
            lambda: playground.similar(
                _place(body), _list(body, "ids"), _object(body, "filters"), _top_k(body)
            )
        )

    async def refused(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": str(error)}, status_code=400)

    app = Starlette(
        routes=[
            Route("/", page),
            Route("/api/models", models),
            Route("/api/suggest", suggest),
            Route("/api/recommend", recommend, methods=["POST"]),
            Route("/api/similar", similar, methods=["POST"]),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        exception_handlers={SeqrecError: refused},
    )
    return _Doorkeeper(app, {host.lower(), "localhost", socket.gethostname().lower()})


class _Doorkeeper:
    """Lets in what the page itself sends, and puts the headers on every answer.

    A page elsewhere can make a browser send requests to loopback. It cannot set their Host to an
    address if it found this one by a name of its own (DNS rebinding), nor leave out its Origin, nor
    send JSON without asking first, which nothing here allows.
    """

    def __init__(self, app: ASGIApp, names: set[str]) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                for name, value in HEADERS.items():
                    headers[name] = value
                message["headers"] = headers.raw
            await send(message)

        app = self._app
        if reason := self._refuses(scope["method"], Headers(scope=scope)):
            app = JSONResponse({"error": reason}, status_code=403)
        await app(scope, receive, with_headers)

    def _refuses(self, method: str, headers: Headers) -> str:
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._is_ours(host):
            return f"this page is not served as {host[:100]!r}; use its address"
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return "another page may not ask here"
        if method == "POST" and headers.get("content-type", "").partition(";")[0].strip() != (
            "application/json"
        ):
            return "a request is JSON: content-type: application/json"
        return ""

    def _is_ours(self, host: str) -> bool:
        found = re.fullmatch(r"\[([0-9a-fA-F:.]+)\](:\d+)?|([^:\[\]]+)(:\d+)?", host)
        if not found:
            return False
        name = found[1] or found[3]
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name.lower() in self._names
        return True


async def _answer(ask: Callable[[], Any]) -> Response:
    return JSONResponse(await run_in_threadpool(ask))


async def _body(request: Request) -> Mapping[str, Any]:
    size, parts = 0, []
    async for part in request.stream():
        size += len(part)
        if size > LARGEST_BODY:
            raise SeqrecError(f"a request has at most {LARGEST_BODY // 1024} KiB")
        parts.append(part)
    try:
        body = json.loads(b"".join(parts))
    except (ValueError, RecursionError) as error:
        raise SeqrecError(f"the request is no JSON: {error}") from error
    if not isinstance(body, dict):
        raise SeqrecError("the request is not a JSON object")
    return body


def _object(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = body.get(name, {})
    if not isinstance(value, dict):
        raise SeqrecError(f"{name} takes an object of values by input")
    # JSON has no NaN: null is a number that is unknown.
    return {key: _numbers(of) for key, of in value.items() if of is not None}


def _numbers(value: Any) -> Any:
    if isinstance(value, list):
        return [float("nan") if of is None else of for of in value]
    return value


def _list(body: Mapping[str, Any], name: str) -> list[Any]:
    value = body.get(name)
    if not isinstance(value, list):
        raise SeqrecError(f"{name} takes a list")
    return value


def _top_k(body: Mapping[str, Any]) -> int:
    value = body.get("top_k", 10)
    if type(value) is not int or not 1 <= value <= MOST_ITEMS:
        raise SeqrecError(f"top_k goes from 1 to {MOST_ITEMS}")
    return value


def _place(body: Mapping[str, Any]) -> Place:
    place = _object(body, "place")
    server, model, version = (place.get(name) for name in ("server", "model", "version"))
    if type(server) is not int or not isinstance(model, str) or not isinstance(version, str):
        raise SeqrecError("place takes a server's number, a model and a version")
    return Place(server, model, version)
