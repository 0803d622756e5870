"""The real Triton gives what ONNX Runtime gives in process, for every graph of every model."""

import json
from collections.abc import Iterator

import numpy as np
import pytest

from seqrec_export.clients.python import Client
from seqrec_export.serving.server import Server
from seqrec_export.verification.cases import Case, draw
from support.served import GRAPHS, WINDOW, Served, golden_tensors

_CASES = [
    Case(name="known ids", batch=1, length=0, candidates=50),
    Case(name="known ids", batch=1, length=1, candidates=50),
    Case(name="unequal lists", batch=2, length=WINDOW, candidates=50),
    Case(name="padding in the middle", batch=7, length=3 * WINDOW, candidates=50),
    Case(name="extreme numbers", batch=64, length=5, candidates=1),
    Case(name="unknown ids only", batch=3, length=4, candidates=0),
    Case(name="padding only", batch=2, length=6, candidates=50),
]


@pytest.fixture
def client(triton: Server) -> Iterator[Client]:
    with Client(triton.grpc_url) as connected:
        yield connected


def test_a_config_without_a_version_keeps_nothing_from_being_served(client: Client) -> None:
    assert set(client.serving()) == set(GRAPHS)


@pytest.mark.parametrize("case", _CASES, ids=str)
def test_triton_answers_what_onnx_runtime_answers_in_process(
    client: Client, served: Served, case: Case
) -> None:
    graph, vocabularies = served.graph, served.exported.run.vocabularies
    request = draw(graph, vocabularies, np.random.default_rng(3), case)
    answers = client.infer(graph.name, request)
    for name, want in served.onnx(request).items():
        assert answers[name].shape == want.shape
        if want.dtype == object:
            np.testing.assert_array_equal(answers[name], want)
        else:
            np.testing.assert_allclose(answers[name], want, atol=1e-6)


def test_triton_answers_the_golden_requests_as_they_say(client: Client, served: Served) -> None:
    """By golden.json alone, as a client in another language has it: no graph, no contract."""
    path = served.exported.model_file(served.graph.name).with_name("golden.json")
    golden = json.loads(path.read_text())
    for request in golden["requests"]:
        expected = golden_tensors(request["outputs"])
        answer = client.infer(golden["model"], golden_tensors(request["inputs"]))
        assert answer.keys() == expected.keys()
        for name, want in expected.items():
            assert answer[name].shape == want.shape, request["case"]
            if want.dtype == np.float32:
                np.testing.assert_allclose(answer[name], want, request["rtol"], request["atol"])
            else:
                np.testing.assert_array_equal(answer[name], want, request["case"])
