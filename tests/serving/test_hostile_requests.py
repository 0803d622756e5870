"""A request that is not what it says is refused alone; strings mean the same on every backend."""

from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc.service_pb2 import ModelInferRequest

from bench.harness.fuzz_requests import sized
from bench.harness.hostile import ROWS, change_strings, lists, more_rows, no_rows, overflowing
from bench.harness.processes import descendants
from bench.harness.wire import message, read_answer, read_request
from seqrec_export.serving.server import Server
from support.served import EMBEDDED, NATIVE_LIKE, TRIED, Served, assert_same, over
from support.strangers import ask_alone, ask_together, requests, wrong

INVALID = grpc.StatusCode.INVALID_ARGUMENT
WITH_LISTS = [
    name
    for name, (_, graph) in TRIED.items()
    if any(isinstance(spec.shape[1], str) for spec in graph.inputs)
]
embedded = pytest.mark.parametrize("triton", [EMBEDDED], indirect=True)


@embedded
@pytest.mark.parametrize("served", WITH_LISTS, indirect=True)
def test_shapes_that_overflow_are_refused_alone_by_the_same_process(
    triton: Server, infer: Any, served: Served
) -> None:
    rng = np.random.default_rng(0)
    hostile = [overflowing(served, rng, r, name) for name in lists(served) for r in ROWS]
    processes = descendants(triton.pid)

    refused = beside_neighbours(infer, served, hostile)

    for error in refused:
        assert isinstance(error, grpc.RpcError)
        assert error.code() == INVALID
        assert "has the shape (" in error.details()
    assert descendants(triton.pid) == processes


@embedded
@pytest.mark.parametrize("served", ["sasrec", "caser_encoder"], indirect=True)
def test_values_of_no_rows_reach_nobody(triton: Server, infer: Any, served: Served) -> None:
    request = no_rows(served, np.random.default_rng(0), length=1)
    refused = beside_neighbours(infer, served, [request] * 10)
    for error in refused:
        assert isinstance(error, grpc.RpcError)
        assert error.code() == INVALID
        assert "has no rows" in error.details()


@pytest.mark.parametrize("triton", [NATIVE_LIKE], indirect=True)
@pytest.mark.parametrize("served", WITH_LISTS, indirect=True)
def test_where_values_of_no_rows_do_harm_they_do_not_do_it_in_silence(
    triton: Server, infer: Any, served: Served
) -> None:
    """The native backend gives rows the values and lengths of others then; see row_checks.py."""
    good = list(requests(served, 90, seed=0))
    expected = ask_alone(infer, good)
    bad = no_rows(served, np.random.default_rng(0), length=1)
    mixed = [r for i in range(0, 90, 3) for r in (*good[i : i + 3], bad)]
    answers = ask_together(infer, mixed)
    faults = wrong([a for i, a in enumerate(answers) if i % 4 != 3], expected)
    assert all(": INTERNAL " in fault for fault in faults), faults


@embedded
@pytest.mark.parametrize("rows", [2**31, 2**32 - 1, -5, -(2**31), 2**63 - 1])
def test_more_rows_than_32_bits_hold_reach_nobody(
    triton: Server, infer: Any, graph: Callable[[str], Served], rows: int
) -> None:
    served = graph("sasrec_encoder")
    request = more_rows(served, np.random.default_rng(0), rows)
    for error in beside_neighbours(infer, served, [request] * 10):
        assert isinstance(error, grpc.RpcError)
        assert "max allowed is 64" in error.details()  # by Triton, before any backend sees it


def beside_neighbours(infer: Any, served: Served, hostile: list[ModelInferRequest]) -> list[Any]:
    """What each hostile request gets; its neighbours get what they get without it."""
    good = list(requests(served, 3 * len(hostile), seed=0))
    expected = ask_alone(infer, good)
    mixed = [r for i, bad in enumerate(hostile) for r in (*good[3 * i : 3 * i + 3], bad)]
    answers = ask_together(infer, mixed)
    assert not wrong([a for i, a in enumerate(answers) if i % 4 != 3], expected)
    return answers[3::4]


@over(takes="history_item_ids")
def test_a_string_ends_before_its_first_nul(triton: Server, infer: Any, served: Served) -> None:
    request = sized(batch=2, length=5, candidates=5, known=1, padding=0.2)(
        served, np.random.default_rng(0)
    )
    cut = ModelInferRequest.FromString(request.SerializeToString())
    for behind in (b"\0", b"\0more", b"\0\0", b"\0\xff"):
        cut.CopyFrom(request)
        change_strings(cut, lambda item, behind=behind: item + behind)
        assert cut != request
        got, expected = ask_alone(infer, [cut, request])
        assert (expected["known_items"] > 0).all()
        assert_same(got, expected)


@over(takes="history_item_ids")
def test_a_string_that_is_not_utf8_is_an_unknown_id(
    triton: Server, infer: Any, served: Served
) -> None:
    request = sized(batch=2, length=5, candidates=5, known=1, padding=0)(
        served, np.random.default_rng(0)
    )
    unknown = ModelInferRequest.FromString(request.SerializeToString())
    change_strings(unknown, lambda _: b"no such id")
    (expected,) = ask_alone(infer, [unknown])
    assert not expected["known_items"].any()
    for behind in (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xff\0"):
        broken = ModelInferRequest.FromString(request.SerializeToString())
        change_strings(broken, lambda item, behind=behind: item + behind)
        assert_same(read_answer(infer.ModelInfer(broken, timeout=30)), expected)


def test_what_is_not_utf8_is_no_id_that_its_replacement_is(
    triton: Server, infer: Any, graph: Callable[[str], Served]
) -> None:
    """U+FFFD, which decoders put in its place, and which may stand in an id of the log."""
    served = graph("sasrec_encoder")
    known = served.vocabularies["items"].ids[0]
    tensors = {"history_item_ids": np.array([[known, "\ufffd"]], dtype=object)}
    request = message("sasrec_encoder", tensors)
    change_strings(request, lambda item: item if item == known.encode() else b"\xff")
    assert read_answer(infer.ModelInfer(request, timeout=30))["known_items"].tolist() == [[1]]
    found = read_request(request)
    assert found is not None
    assert_same(read_answer(infer.ModelInfer(request, timeout=30)), served.onnx(found))


@embedded
def test_outputs_come_in_the_order_of_the_configuration(
    triton: Server, infer: Any, served: Served
) -> None:
    request = sized()(served, np.random.default_rng(0))
    names = list(served.outputs)
    assert [out.name for out in infer.ModelInfer(request, timeout=30).outputs] == names
    for name in reversed(names):
        request.outputs.add(name=name)
    assert [out.name for out in infer.ModelInfer(request, timeout=30).outputs] == names
