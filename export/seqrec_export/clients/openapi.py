"""Triton's JSON endpoint for the models of a repository, as OpenAPI 3.1 describes it.

Triton takes the tensors of KServe's Open Inference Protocol as JSON arrays, flat, and answers the
same way: https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from seqrec_export.clients.filters import EXCLUDE, is_filter
from seqrec_export.folders import damaged, read_json, write_json
from seqrec_export.repository.published import models, read_contract, versions

OPENAPI_FILE = "openapi.json"
OPENAPI = "3.1.0"
# The modules that write these files import PyTorch, so their names are repeated here.
CONTRACT_FILE = "contract.json"
GOLDEN_FILE = "golden.json"
_VALUES: Mapping[str, dict[str, Any]] = {
    "BYTES": {"type": "string"},
    "FP32": {"type": "number", "format": "float"},
    "INT32": {"type": "integer", "format": "int32", "minimum": -(2**31), "maximum": 2**31 - 1},
}
_ERROR = {"$ref": "#/components/schemas/Error"}
_MODELS_ARE_READY = "every model is ready"


def write_openapi(repository: Path, path: Path) -> None:
    """Write the description of a repository's models, with examples from their `golden.json`."""
    paths: dict[str, Any] = {
        "/v2/health/live": {"get": _health("serverLive", "the server answers")},
        "/v2/health/ready": {"get": _health("serverReady", _MODELS_ARE_READY)},
    }
    schemas: dict[str, Any] = {
        "Error": {
            "type": "object",
            "required": ["error"],
            "properties": {"error": {"type": "string"}},
        }
    }
    for name in models(repository):
        contract = read_contract(repository, name)
        schemas[f"{name}_request"] = _request(contract)
        schemas[f"{name}_answer"] = _answer(contract)
        golden = _golden(repository / name)
        paths[f"/v2/models/{name}/infer"] = {"post": _infer(contract, golden)}
        paths[f"/v2/models/{name}/ready"] = {"get": _health(f"{name}_ready", f"{name} is ready")}
    write_json(
        path,
        {
            "openapi": OPENAPI,
            "info": {
                "title": "Recommendations",
                "version": version("seqrec-export"),
                "description": (
                    "Requests hold raw item ids, answers item ids and scores. Every input must be"
                    " sent. Tensors are flat, row after row; rows of unequal length are filled up"
                    " with the empty string. An answer's outputs are found by name, not by place."
                    " Scores are finite. Numbers that go with a history (x-aligned-with) have one"
                    " width W: the value at place W - j belongs to the history's j-th last event,"
                    " not counting empty ids; if there is no event, any number will do. For an"
                    " unknown number Triton reads the bare word NaN, which standard JSON lacks."
                    " A list of what is allowed that is empty, or holds nothing but empty strings,"
                    " is no filter: if nothing is allowed, send no request."
                ),
            },
            "servers": [{"url": "http://127.0.0.1:8000", "description": "serve --http-port 8000"}],
            "paths": paths,
            "components": {"schemas": schemas},
        },
    )


def _health(operation: str, meaning: str) -> dict[str, Any]:
    no_content = {"200": {"description": meaning}, "400": {"description": f"not: {meaning}"}}
    return {"operationId": operation, "summary": f"Whether {meaning}", "responses": no_content}


def _infer(contract: Mapping[str, Any], golden: Mapping[str, Any] | None) -> dict[str, Any]:
    name = contract["model"]

    def body(kind: str, example: Mapping[str, Any] | None) -> dict[str, Any]:
        content: dict[str, Any] = {"schema": {"$ref": f"#/components/schemas/{name}_{kind}"}}
        if example is not None:
            content["example"] = example
        return {"application/json": content}

    request = answer = None
    if golden is not None:
        request = {"inputs": _tensors(contract["inputs"], _without_strays(contract, golden))}
        outputs = _tensors(contract["outputs"], golden["outputs"])
        answer = {"model_name": name, "model_version": "1", "outputs": outputs}
    errors = {
        "400": "The request is not what the model takes: a missing, unknown or repeated input,"
        " another type or shape, too many rows, an output that there is not.",
        "404": "There is no such model, or it has no version that is served.",
        "500": "The body is not what Triton reads: no JSON, no inputs, a value of another kind in"
        " data, a negative number in a shape; or the model failed.",
    }
    return {
        "operationId": name,
        "summary": contract["meaning"],
        "requestBody": {"required": True, "content": body("request", request)},
        "responses": {
            "200": {"description": contract["meaning"], "content": body("answer", answer)},
            **{
                status: {"description": text, "content": {"application/json": {"schema": _ERROR}}}
                for status, text in errors.items()
            },
        },
    }


def _tensors(
    entries: Sequence[Mapping[str, Any]], golden: Mapping[str, Any]
) -> list[dict[str, Any]]:
    return [{"name": entry["name"], **golden[entry["name"]]} for entry in entries]


def _without_strays(contract: Mapping[str, Any], golden: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of a recorded request, with 0 in place of numbers that belong to no event."""
    inputs = dict(golden["inputs"])
    for entry in contract["inputs"]:
        if history := entry.get("aligned_with"):
            rows, length = inputs[history]["shape"]
            width = entry["shape"][1]
            data = list(inputs[entry["name"]]["data"])
            for row in range(rows):
                ids = inputs[history]["data"][row * length : (row + 1) * length]
                free = max(width - sum(map(bool, ids)), 0)
                data[row * width : row * width + free] = [0.0] * free
            inputs[entry["name"]] = inputs[entry["name"]] | {"data": data}
    return inputs


def _request(contract: Mapping[str, Any]) -> dict[str, Any]:
    inputs = [_tensor(entry, contract["max_batch_size"]) for entry in contract["inputs"]]
    asked = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}
    return {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string", "description": "comes back in the answer"},
            "inputs": _each_once(inputs),
            "outputs": {
                "type": "array",
                "items": asked,
                "description": "which outputs to send back; all, if it is left out",
            },
        },
    }


def _answer(contract: Mapping[str, Any]) -> dict[str, Any]:
    outputs = [_tensor(entry, contract["max_batch_size"]) for entry in contract["outputs"]]
    return {
        "type": "object",
        "required": ["model_name", "model_version", "outputs"],
        "properties": {
            "id": {"type": "string"},
            "model_name": {"const": contract["model"]},
            "model_version": {"type": "string"},
            "outputs": {"type": "array", "items": {"oneOf": outputs}},
        },
    }


def _each_once(tensors: list[dict[str, Any]]) -> dict[str, Any]:
    """An array that holds each of these, in any order."""
    return {
        "type": "array",
        "items": {"oneOf": tensors},
        "minItems": len(tensors),
        "maxItems": len(tensors),
        "allOf": [
            {"contains": {"properties": {"name": tensor["properties"]["name"]}}}
            for tensor in tensors
        ],
    }


def _tensor(entry: Mapping[str, Any], max_batch_size: int) -> dict[str, Any]:
    _, size = entry["shape"]
    row = {"const": size} if isinstance(size, int) else {"type": "integer", "minimum": 0}
    rows = {"type": "integer", "minimum": 1, "maximum": max_batch_size}
    return {
        "type": "object",
        "description": entry["meaning"],
        **({"x-aligned-with": entry["aligned_with"]} if "aligned_with" in entry else {}),
        "required": ["name", "datatype", "shape", "data"],
        "properties": {
            "name": {"const": entry["name"]},
            "datatype": {"const": entry["datatype"]},
            "shape": {"type": "array", "prefixItems": [rows, row], "minItems": 2, "maxItems": 2},
            "data": {"type": "array", "items": _VALUES[entry["datatype"]]},
        },
    }


def _golden(model: Path) -> dict[str, Any] | None:
    """The shortest request with its answer that JSON can hold and that says something.

    If there are filters, one of them is given, and it leaves something.
    """
    (*_, newest) = versions(model)
    path = model / str(newest) / GOLDEN_FILE
    if not path.exists():
        return None

    def json_has(entry: Mapping[str, Any]) -> bool:
        return not any(
            isinstance(value, str)  # NaN and Infinity
            for tensor in [*entry["inputs"].values(), *entry["outputs"].values()]
            if tensor["datatype"] != "BYTES"
            for value in tensor["data"]
        )

    def speaks(entry: Mapping[str, Any]) -> bool:
        inputs = entry["inputs"]
        filters = {n for n in inputs if EXCLUDE in inputs and is_filter(n, inputs)}
        given = all(tensor["data"] for name, tensor in inputs.items() if name not in filters)
        answers = all(tensor["data"] for tensor in entry["outputs"].values())
        if not filters:
            return given and answers
        narrowed = any(any(inputs[name]["data"]) for name in filters)
        return given and narrowed and any(entry["outputs"]["item_ids"]["data"])

    def size(entry: Mapping[str, Any]) -> int:
        tensors = [*entry["inputs"].values(), *entry["outputs"].values()]
        return sum(len(tensor["data"]) for tensor in tensors)

    try:
        readable = [entry for entry in read_json(path)["requests"] if json_has(entry)]
        found = [entry for entry in readable if speaks(entry)]
        known = [entry for entry in found if entry["case"].startswith(("known ids", "a few all"))]
        return min(known or found or readable, key=size, default=None)
    except (KeyError, TypeError, AttributeError) as error:
        raise damaged(path, error) from error
