"""The OpenAPI file: valid, and what the real server takes and answers."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from seqrec_export.clients.openapi import OPENAPI_FILE, write_openapi
from seqrec_export.folders import read_json
from seqrec_export.repository.published import models
from seqrec_export.serving.server import Server
from support.conformance import newest
from support.served import EMBEDDED, assert_same, golden_tensors


@pytest.fixture(scope="module")
def openapi(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("openapi") / OPENAPI_FILE
    write_openapi(repository, path)
    return read_json(path)


def operations(openapi: Any) -> Iterator[tuple[str, str, Any]]:
    """(model, path, operation) of every inference."""
    for path, methods in openapi["paths"].items():
        if path.endswith("/infer"):
            yield path.split("/")[3], path, methods["post"]


def validator(openapi: Any, schema: str) -> Draft202012Validator:
    whole = {"$ref": f"#/components/schemas/{schema}", "components": openapi["components"]}
    return Draft202012Validator(whole)


def test_the_openapi_file_is_valid_and_so_are_its_examples(openapi: Any, repository: Path) -> None:
    OpenAPIV31SpecValidator(openapi).validate()
    assert [model for model, _, _ in operations(openapi)] == models(repository)
    for model, _, operation in operations(openapi):
        request = operation["requestBody"]["content"]["application/json"]["example"]
        answer = operation["responses"]["200"]["content"]["application/json"]["example"]
        validator(openapi, f"{model}_request").validate(request)
        validator(openapi, f"{model}_answer").validate(answer)
        if model.endswith(("_filtered", "_similar_items")):  # it shows a filter, and what is left
            inputs = {tensor["name"]: tensor["data"] for tensor in request["inputs"]}
            filters = [name for name in inputs if name.startswith(("exclude_", "allow_"))]
            assert any(any(inputs[name]) for name in filters), model
            assert any(answer["outputs"][0]["data"]), model


def test_the_openapi_file_refuses_what_the_server_refuses(openapi: Any, with_http: Server) -> None:
    found = {model: operation for model, _, operation in operations(openapi)}
    request = found["mlink"]["requestBody"]["content"]["application/json"]["example"]
    valid = validator(openapi, "mlink_request")

    def changed(**other: Any) -> Any:
        first, *others = request["inputs"]
        return {"inputs": [first | other, *others]}

    assert valid.is_valid({"inputs": request["inputs"][::-1]})
    for wrong in (
        {},
        {"inputs": request["inputs"][:-1]},
        {"inputs": [*request["inputs"][:-1], request["inputs"][0]]},
        changed(name="history"),
        changed(datatype="FP32"),
        changed(shape=[65, 1]),
        changed(shape=[3]),
        changed(data=[1.0]),
    ):
        assert not valid.is_valid(wrong), wrong
        with pytest.raises(urllib.error.HTTPError):
            ask(with_http, "/v2/models/mlink/infer", wrong)


@pytest.fixture(scope="module")
def with_http(tritons: Callable[[str], Server]) -> Server:
    return tritons(EMBEDDED)


def ask(server: Server, path: str, body: Any) -> Any:
    data = json.dumps(body, allow_nan=False).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{server.http_url}{path}", data, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read(), parse_constant=pytest.fail)  # NaN and Infinity


def test_the_server_answers_the_examples_as_the_openapi_file_says(
    openapi: Any, with_http: Server
) -> None:
    for model, path, operation in operations(openapi):
        request = operation["requestBody"]["content"]["application/json"]["example"]
        example = operation["responses"]["200"]["content"]["application/json"]["example"]
        answer = ask(with_http, path, request)
        validator(openapi, f"{model}_answer").validate(answer)
        got, expected = (
            golden_tensors({output.pop("name"): output for output in body["outputs"]})
            for body in (answer, example)
        )
        assert_same(got, expected, tolerance=1e-5)


def test_json_answers_are_json_whatever_was_asked(repository: Path, with_http: Server) -> None:
    """Every golden request that JSON can hold: unknown ids, nothing, enormous numbers."""
    asked = 0
    for model in models(repository):
        for golden in read_json(newest(repository / model))["requests"]:
            tensors = [{"name": name, **tensor} for name, tensor in golden["inputs"].items()]
            numbers = [v for t in tensors if t["datatype"] != "BYTES" for v in t["data"]]
            if any(isinstance(value, str) for value in numbers):  # NaN and Infinity
                continue
            answer = ask(with_http, f"/v2/models/{model}/infer", {"inputs": tensors})
            assert {output["name"] for output in answer["outputs"]} == set(golden["outputs"])
            asked += 1
    assert asked > 500


def test_lists_that_follow_a_history_say_so(openapi: Any) -> None:
    aligned = {
        (schema, tensor["properties"]["name"]["const"]): tensor["x-aligned-with"]
        for schema, described in openapi["components"]["schemas"].items()
        if schema.endswith("_request")
        for tensor in described["properties"]["inputs"]["items"]["oneOf"]
        if "x-aligned-with" in tensor
    }
    assert set(aligned.values()) == {"history_item_ids"}
    assert {schema.removesuffix("_request") for schema, _ in aligned} == {
        "gru4att",
        "gru4att_encoder",
        "gru4att_filtered",
        "mlink",
        "mlink_encoder",
    }
    body = openapi["paths"]["/v2/models/mlink/infer"]["post"]["requestBody"]
    inputs = body["content"]["application/json"]["example"]["inputs"]
    example = {tensor["name"]: tensor for tensor in inputs}
    events = sum(map(bool, example["history_item_ids"]["data"]))
    ratings = example["history_ratings"]["data"]
    assert [bool(rating) for rating in ratings[-events:]] == [True] * min(events, len(ratings))
    assert ratings[:-events] == [0] * (len(ratings) - events)
