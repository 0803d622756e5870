"""The real Triton gives what ONNX Runtime gives in process, for every graph of every model."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from served import GRAPHS, WINDOW, Served

from seqrec_export import parity, server
from seqrec_export.client import Client
from seqrec_export.errors import SeqrecError

_CASES = [
    {"batch": 1, "length": 0, "content": "known"},
    {"batch": 1, "length": 1, "content": "known"},
    {"batch": 2, "length": WINDOW, "content": "mixed", "unequal": True},
    {"batch": 7, "length": 3 * WINDOW, "content": "holes"},
    {"batch": 64, "length": 5, "content": "odd numbers", "candidates": 1},
    {"batch": 3, "length": 4, "content": "unknown", "candidates": 0},
    {"batch": 2, "length": 6, "content": "padding"},
]


@pytest.fixture(scope="session")
def client(repository: Path) -> Iterator[Client]:
    try:
        server.find_triton()
    except SeqrecError as error:
        pytest.skip(str(error))
    unbuilt = repository / "never_built"
    unbuilt.mkdir(exist_ok=True)
    (unbuilt / "config.pbtxt").write_text('name: "never_built" backend: "onnxruntime"')
    ports = {"grpc_port": 0, "http_port": 0, "metrics_port": 0}
    with server.start(repository, **ports) as running, Client(running.grpc_url) as connected:
        yield connected


def test_a_config_without_a_version_keeps_nothing_from_being_served(client: Client) -> None:
    assert {name for name, reason in client.models().items() if not reason} == set(GRAPHS)


@pytest.mark.parametrize("case", _CASES, ids=lambda case: f"{case['batch']}x{case['length']}")
def test_triton_answers_what_onnx_runtime_answers_in_process(
    client: Client, served: Served, case: dict[str, Any]
) -> None:
    graph, vocabularies = served.graph, served.exported.run.vocabularies
    request = parity.random_request(graph, vocabularies, np.random.default_rng(3), **case)
    rows = [
        {name: values[i].tolist() for name, values in request.items()} for i in range(case["batch"])
    ]
    answers = client.call(graph.name, rows)
    runtime = parity.session(served.exported.model_file(graph.name))
    expected = parity.answer(runtime, graph, request)
    assert len(answers) == case["batch"]
    for i, answer in enumerate(answers):
        for name, want in expected.items():
            got = np.asarray(answer[name], dtype=want.dtype)
            assert got.shape == want[i].shape
            if want.dtype == object:
                assert got.tolist() == want[i].tolist()
            else:
                np.testing.assert_allclose(got, want[i], atol=1e-6)
