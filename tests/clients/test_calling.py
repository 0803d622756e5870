"""docs/calling.md: what it says of the wire, of HTTP and of health, tried on a real server."""

import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from seqrec_export.clients.openapi import write_openapi
from seqrec_export.clients.packing import align
from seqrec_export.clients.python import Client
from seqrec_export.data.interactions import Interactions
from seqrec_export.errors import SeqrecError
from seqrec_export.folders import read_json
from seqrec_export.serving.endpoints import Endpoints
from seqrec_export.serving.server import Server, launch
from support.served import EMBEDDED

PAGE = (Path(__file__).parents[2] / "docs" / "calling.md").read_text(encoding="utf-8")
HISTORY = {"name": "history_item_ids", "datatype": "BYTES", "shape": [1, 2], "data": ["a", "b"]}
NUMBERS = {"user_id": ("BYTES", "a"), "age": ("FP32", 31.5), "month": ("INT32", 5)}


@pytest.fixture(scope="module")
def server(tritons: Callable[[str], Server]) -> Server:
    return tritons(EMBEDDED)


def status(server: Server, path: str, body: Any = None, method: str | None = None) -> int:
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    asked = urllib.request.Request(f"{server.http_url}{path}", data, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        if json.loads(error.read())["error"]:  # the page says that it holds the reason
            return error.code
        raise


def scalars(**changed: Any) -> dict[str, Any]:
    return {
        "inputs": [
            {
                "name": name,
                "datatype": datatype,
                "shape": [1, 1],
                "data": [changed.get(name, value)],
            }
            for name, (datatype, value) in NUMBERS.items()
        ]
    }


SASREC, TWO_TOWER = "/v2/models/sasrec/infer", "/v2/models/two_tower/infer"
ANSWERS: dict[str, tuple[str, Any, int]] = {
    "a request": (SASREC, {"inputs": [HISTORY]}, 200),
    "an empty history": (SASREC, {"inputs": [HISTORY | {"shape": [1, 0], "data": []}]}, 200),
    "some outputs": (SASREC, {"inputs": [HISTORY], "outputs": [{"name": "scores"}]}, 200),
    "NaN": (TWO_TOWER, scalars(age=float("nan")), 200),
    "an INT32 that is wrapped": (TWO_TOWER, scalars(month=3_000_000_000), 200),
    "an FP32 that is infinite": (TWO_TOWER, scalars(age=1e39), 200),
    "no such model": ("/v2/models/nmf/infer", {"inputs": [HISTORY]}, 404),
    "no such version": ("/v2/models/sasrec/versions/99/infer", {"inputs": [HISTORY]}, 404),
    "no such path": ("/v2/nothing", None, 404),
    "another method": (SASREC, None, 405),
    "no inputs among the inputs": (SASREC, {"inputs": []}, 400),
    "a missing input": ("/v2/models/caser/infer", {"inputs": [HISTORY]}, 400),
    "an unknown input": (SASREC, {"inputs": [HISTORY, HISTORY | {"name": "x"}]}, 400),
    "an input twice": (SASREC, {"inputs": [HISTORY, HISTORY]}, 400),
    "another type": (SASREC, {"inputs": [HISTORY | {"datatype": "FP32", "data": [1, 2]}]}, 400),
    "no type": (SASREC, {"inputs": [HISTORY | {"datatype": "STRING"}]}, 400),
    "one dimension": (SASREC, {"inputs": [HISTORY | {"shape": [2]}]}, 400),
    "fewer values than the shape": (SASREC, {"inputs": [HISTORY | {"shape": [1, 3]}]}, 400),
    "65 rows": (SASREC, {"inputs": [HISTORY | {"shape": [65, 1], "data": ["a"] * 65}]}, 400),
    "an unknown output": (SASREC, {"inputs": [HISTORY], "outputs": [{"name": "x"}]}, 400),
    "readiness of no model": ("/v2/models/nmf/ready", None, 400),
    "loading": ("/v2/repository/models/sasrec/load", {}, 403),
    "shared memory": ("/v2/systemsharedmemory/status", None, 403),
    "no JSON": (SASREC, b"{x", 500),
    "a list": (SASREC, b"[]", 500),
    "no `inputs`": (SASREC, {}, 500),
    "null": (TWO_TOWER, scalars(age=None), 500),
    "1.5 for an INT32": (TWO_TOWER, scalars(month=1.5), 500),
    "a number for a string": (TWO_TOWER, scalars(user_id=1), 500),
    "a negative shape": (SASREC, {"inputs": [HISTORY | {"shape": [-1, 2]}]}, 500),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_http_answers_with_the_status_that_the_page_says(server: Server, what: str) -> None:
    path, body, expected = ANSWERS[what]
    assert status(server, path, body) == expected
    assert re.search(rf"^\| {expected} \|", PAGE, re.MULTILINE)


def test_the_openapi_file_has_these_statuses_and_no_others(
    repository: Path, tmp_path: Path
) -> None:
    write_openapi(repository, tmp_path / "openapi.json")
    infer = read_json(tmp_path / "openapi.json")["paths"][SASREC]["post"]
    tried = {str(code) for path, _, code in ANSWERS.values() if path.endswith("/infer")}
    assert set(infer["responses"]) == tried - {"405"}  # which is of no operation


def test_a_model_without_a_version_is_not_found(server: Server, repository: Path) -> None:
    """On a server of its own, as it takes the model away."""
    ports = Endpoints(grpc_port=0, metrics_port=0, http_port=0)
    with launch(repository, ["sasrec"], ports) as own:
        own.control.unload("sasrec")
        assert status(own, SASREC, {"inputs": [HISTORY]}) == 404
        assert status(own, "/v2/models/sasrec/ready") == 400
        with Client(own.grpc_url) as client, pytest.raises(SeqrecError, match="no available"):
            client.recommend("sasrec", [{}])


def test_scalars_are_n_by_1(server: Server) -> None:
    flat = scalars()
    for tensor in flat["inputs"]:
        tensor["shape"] = [1]
    assert status(server, TWO_TOWER, flat) == 400
    assert "is `[n, 1]` and not `[n]`" in PAGE


def test_the_page_has_a_request_in_json_that_is_answered(server: Server, repository: Path) -> None:
    (body,) = re.findall(r"curl localhost:8000(\S+) -d '(.*?)'", PAGE, re.DOTALL)
    path, request = body[0], json.loads(body[1])
    contract = read_json(repository / "mlink" / "contract.json")
    width = next(t["shape"][1] for t in contract["inputs"] if "aligned_with" in t)
    for tensor in request["inputs"]:
        if tensor["name"] == "history_ratings":  # of a window of 5
            tensor["data"] = [0] * (width - 5) + tensor["data"]
            tensor["shape"] = [1, width]
    assert status(server, path, request) == 200


def test_what_has_no_event_may_be_any_number(server: Server) -> None:
    with Client(server.grpc_url) as client:
        width = client.signature("mlink").inputs["history_ratings"].dims[0]
        asked = {
            "history_item_ids": np.array([["0251136780", "", "0239708308"]], object),
            "candidate_ids": np.array([["0298397997", "0417820123"]], object),
        }
        answers = []
        for stray in (np.nan, 0, 4, -3e38, np.inf):
            ratings = np.full((1, width), stray, np.float32)
            ratings[0, -2:] = 5, 1
            answers.append(client.infer("mlink", asked | {"history_ratings": ratings})["scores"])
        for answer in answers[1:]:
            np.testing.assert_array_equal(answer, answers[0])


def test_the_page_lays_a_list_out_as_the_clients_do() -> None:
    nan = float("nan")
    assert "historyRatings: [5, NaN, 4]" in PAGE
    laid_out = align([5, nan, 4], ["1193", "661", "914"], 5, nan)
    shown = ", ".join("NaN" if value != value else str(value) for value in laid_out)
    assert f"history_ratings    [{shown}]" in PAGE


def test_the_calls_in_python_run(server: Server, interactions: Interactions) -> None:
    calls = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(calls) == 5
    features = interactions.item_features
    assert features is not None
    groups = dict(zip(interactions.item_ids, features["garment_group_name"], strict=True))
    found: dict[str, Any] = {"out_of_stock": [i for i, g in groups.items() if g == "Knitwear"][:1]}
    for call in calls:
        code = call.replace("recommender:8001", server.grpc_url).replace("0.2", "10")
        exec(compile(code, "calling.md", "exec"), found)
    assert len(found["best"]) == 10
    assert found["stars"].shape == found["scores"].shape == (2,)
    assert found["some"]
    assert {groups[item] for item, _ in found["some"]} == {"Knitwear"}
    assert len(found["one"]) == len(found["few"]) == 10
    back = {item for answer in ("some", "one", "few") for item, _ in found[answer]}
    assert not back & set(found["out_of_stock"])


def test_health_is_grpcs_own(server: Server) -> None:
    with grpc.insecure_channel(server.grpc_url) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"", timeout=10) == b"\x08\x01"
        assert check(b"\n\x03nmf", timeout=10) == b"\x08\x01"  # whatever `service` is asked for
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")
        with pytest.raises(grpc.RpcError) as refused:
            next(iter(watch(b"", timeout=10)))
        assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
