"""What the page's program lets in, and what it says to the rest."""

import asyncio
import json
from typing import Any

import pytest

pytest.importorskip("starlette", reason="starlette is missing; it is in the extra playground")

from seqrec_export.playground.app import LARGEST_BODY, application
from seqrec_export.playground.asking import Playground
from seqrec_export.playground.items import Known, Suggestions

NOWHERE = "127.0.0.1:1"
JSON = {"content-type": "application/json"}
PLACE = {"server": 0, "model": "sasrec", "version": ""}


def call(
    method: str, path: str, body: bytes = b"", host: str = "127.0.0.1:8010", **headers: str
) -> tuple[int, dict[str, str], str]:
    """One request, as an ASGI server passes it on."""
    given = {"host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }
    sent: list[Any] = []

    received = iter([{"type": "http.request", "body": body}])

    async def receive() -> Any:
        return next(received, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        sent.append(message)

    app = application(Playground([NOWHERE]), "shop.example")
    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
    start, *rest = sent
    found = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], found, b"".join(part.get("body", b"") for part in rest).decode()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8010", 200),
        ("localhost:8010", 200),
        ("[::1]:8010", 200),
        ("192.168.1.9", 200),  # an address is nobody's name, which could point elsewhere
        ("SHOP.example:8010", 200),
        ("evil.example:8010", 403),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("[::1", 403),
        ("", 403),
    ],
)
def test_a_name_that_is_not_its_own_is_refused(host: str, status: int) -> None:
    assert call("GET", "/", host=host)[0] == status


def test_another_page_cannot_ask() -> None:
    body = json.dumps({"place": PLACE}).encode()
    for path in ("/api/recommend", "/api/similar"):
        for headers in (
            {"origin": "http://evil.example", "content_type": "application/json"},
            {"origin": "null", "content_type": "application/json"},
            {"origin": "http://127.0.0.1:9999", "content_type": "application/json"},
            {"content_type": "text/plain"},  # what a form can send
            {},
        ):
            assert call("POST", path, body, **headers)[0] == 403
        status, found, said = call(
            "POST", path, body, content_type="application/json", origin="http://127.0.0.1:8010"
        )
        assert status == 400
        assert "access-control-allow-origin" not in found
        assert "takes a list" in said or "no server answers there" in said
    assert call("OPTIONS", "/api/recommend", origin="http://evil.example")[0] == 403


@pytest.mark.parametrize("path", ["/", "/static/page.js", "/static/none.js", "/api/models"])
def test_every_answer_allows_the_page_nothing_from_elsewhere(path: str) -> None:
    _, headers, _ = call("GET", path)
    assert "default-src 'none'; script-src 'self';" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[]", "not a JSON object"),
        (b" " * (LARGEST_BODY + 1), "at most 256 KiB"),
        (b"{}", "place takes"),
        (json.dumps({"place": {**PLACE, "server": True}}).encode(), "place takes"),
        (json.dumps({"place": {**PLACE, "server": 7}}).encode(), "no server 7"),
        (json.dumps({"place": PLACE, "row": []}).encode(), "row takes an object"),
        (json.dumps({"place": PLACE, "top_k": 10**9}).encode(), "from 1 to 1000"),
        (json.dumps({"place": PLACE}).encode(), f"sasrec at {NOWHERE}: no server answers there"),
    ],
)
def test_a_request_that_is_none_is_answered_in_one_sentence(body: bytes, said: str) -> None:
    status, _, text = call("POST", "/api/recommend", body, content_type="application/json")
    assert status == 400
    assert said in json.loads(text)["error"]


@pytest.mark.parametrize("path", ["/static/../app.py", "/static/%2e%2e/app.py", "/app.py"])
def test_nothing_but_the_page_is_read(path: str) -> None:
    assert call("GET", path)[0] == 404
    assert call("GET", "/api/suggest?m=../../etc&f=history_item_ids&q=a")[2] == "[]"


def test_the_best_match_is_suggested_first() -> None:
    titles = {"12": "Red shoe", "1": "Shoe, red", "30": "A shoe", "4": "Horseshoe 1", "5": "İ\nhat"}
    found = Suggestions([*titles, "n\nl"], titles)
    assert found.find("1") == ["1", "12", "4"]  # that very id, what begins so, a word
    assert found.find("SHOE") == ["1", "12", "30", "4"]
    assert found.find("shoe", most=2) == ["1", "12"]
    assert found.find("") == ["12", "1", "30", "4", "5", "n\nl"]
    assert found.find("hat") == ["5"]
    assert found.find("n l") == ["n\nl"]
    assert found.find("nothing of it") == []


def test_a_field_is_suggested_what_its_vocabulary_holds() -> None:
    known = Known(
        ids={"users": ["u"], "event_types": ["buy"], "device": ["phone"]},
        attributes={"1": {"tags": ["b", "a"]}, "2": {"tags": ["c", "a"]}},
    )
    assert list(known.texts("user_id")) == ["u"]
    assert list(known.texts("history_event_types")) == ["buy"]
    assert list(known.texts("device")) == ["phone"]
    assert list(known.texts("allow_tags")) == ["a", "b", "c"]
    assert list(known.texts("allow_colour")) == []
