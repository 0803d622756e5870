"""Nothing that a caller sends breaks the server or reaches another caller.

The cases stand in bench/harness/fuzz_cases.py. The server is started as `seqrec-export serve` does
it, and not told of anything. bench/survival/fuzz.py does the same for longer.
"""

import importlib.util
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
from tritonclient.grpc.service_pb2 import ModelInferRequest

from bench.harness.fuzz_cases import CASES, LEAVING_CASES, STAYING_CASES, Case
from bench.harness.fuzz_requests import sized
from bench.harness.fuzzing import Fuzzer, Result, good_asks, plan, right_answer, summary
from bench.harness.load import Load, Tally
from bench.harness.processes import descendants, eventually, resident
from bench.harness.wire import connect, read_answer, stub
from seqrec_export.exporting.exported import Exported
from seqrec_export.repository.publish import publish
from seqrec_export.serving.server import Server, start
from support.served import EMBEDDED, GRAPHS, NATIVE_LIKE, TRIED, Served, assert_same, backend
from support.supervised import serve

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("pytriton") is None, reason="the nvidia-pytriton wheel is absent"
)
REQUESTS = 2500
PER_SECOND = 200


@dataclass(frozen=True)
class Fuzzed:
    """What was seen while the requests ran next to a steady stream of good ones."""

    cases: list[Case]
    results: list[Result]
    steady: Tally
    processes: tuple[list[int], list[int]]  # before and after
    memory: tuple[int, int]  # bytes, before (good requests only so far) and after


@pytest.fixture(scope="module")
def graphs(exports: Callable[[str], Exported]) -> dict[str, Served]:
    return {
        name: Served(exports(model), exports(model).graphs[name])
        for name, (model, _) in TRIED.items()
    }


@pytest.fixture(scope="module", params=[EMBEDDED, NATIVE_LIKE])
def fuzzed(
    request: pytest.FixtureRequest,
    repository: Path,
    graphs: dict[str, Served],
    tmp_path_factory: pytest.TempPathFactory,
) -> Fuzzed:
    embedded = request.param == EMBEDDED
    folder = tmp_path_factory.mktemp(request.param)
    asks = good_asks(graphs, each=5, seed=1)
    cases = [case for case in STAYING_CASES if embedded or case.alone]
    requests = plan(cases, graphs, REQUESTS if embedded else REQUESTS // 2, seed=0)
    with (
        start(
            repository, grpc_port=0, metrics_port=0, backend=backend(request.param, folder)
        ) as running,
        Load(running.grpc_url, asks, PER_SECOND) as steady,
        Fuzzer(running.grpc_url, graphs) as fuzzer,
    ):
        steady.wait(2 * PER_SECOND)
        processes, memory = descendants(running.pid), resident(running.pid)
        results = fuzzer.run(requests)
        steady.wait(PER_SECOND)  # a backend gives memory back with the request after a large one
        eventually(lambda: resident(running.pid) <= 1.2 * memory, seconds=20)
        after = resident(running.pid)
        return Fuzzed(
            cases, results, steady.stop(), (processes, descendants(running.pid)), (memory, after)
        )


def test_every_request_gets_a_right_answer_or_a_clear_status(fuzzed: Fuzzed) -> None:
    assert len(fuzzed.results) >= REQUESTS // 2
    assert {result.case for result in fuzzed.results} == {case.name for case in fuzzed.cases}
    assert not [result for result in fuzzed.results if result.fault], summary(fuzzed.results)


def test_other_callers_see_no_failure_and_right_answers(fuzzed: Fuzzed) -> None:
    assert fuzzed.steady.sent >= 3 * PER_SECOND
    assert not fuzzed.steady.failures, str(fuzzed.steady)


def test_the_same_processes_serve_afterwards(fuzzed: Fuzzed) -> None:
    before, after = fuzzed.processes
    assert len(before) == len(GRAPHS)
    assert after == before


def test_memory_comes_back(fuzzed: Fuzzed) -> None:
    before, after = fuzzed.memory
    assert after <= 1.2 * before


# What Triton 2.51 itself cannot stand. Should one of these pass, the case belongs into CASES.


@pytest.fixture(scope="module")
def small_repository(
    exports: Callable[[str], Exported], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("fuzzed") / "model_repository"
    publish(exports("sasrec"), path)
    return path


@pytest.fixture
def running(small_repository: Path) -> Iterator[Server]:
    with start(small_repository, grpc_port=0, metrics_port=0) as started:
        yield started
        with suppress(ProcessLookupError):
            os.kill(started.pid, signal.SIGKILL)  # a request without an end would hold it for long


def good(graphs: dict[str, Served], name: str = "sasrec") -> ModelInferRequest:
    return sized(padding=0)(graphs[name], np.random.default_rng(0))


@pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="Triton 2.51 divides by the size of strings"
)
def test_the_classes_of_strings_are_refused(running: Server, graphs: dict[str, Served]) -> None:
    request = good(graphs)
    request.outputs.add(name="item_ids").parameters["classification"].int64_param = 3
    with connect(running.grpc_url) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            stub(channel).ModelInfer(request, timeout=5)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="Triton's backends return from it unanswered"
)
def test_a_batch_of_nothing_is_refused(running: Server, graphs: dict[str, Served]) -> None:
    request = sized(batch=0, length=0)(graphs["sasrec"], np.random.default_rng(0))
    with connect(running.grpc_url) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            stub(channel).ModelInfer(request, timeout=2)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.xfail(
    strict=True, raises=grpc.RpcError, reason="Triton's Python backend fails the whole batch"
)
def test_a_string_that_ends_too_early_fails_nobody_else(
    running: Server, graphs: dict[str, Served]
) -> None:
    request, broken = good(graphs), good(graphs)
    broken.raw_input_contents[0] = broken.raw_input_contents[0][:-1]
    expected = right_answer(graphs["sasrec"], request)
    assert expected is not None
    with connect(running.grpc_url) as channel:
        infer = stub(channel).ModelInfer
        calls = [infer.future(r, timeout=30) for r in (request, broken) * 200]
        for call in calls[::2]:
            assert_same(read_answer(call.result()), expected)


# A race of its own lets 2.51 die when a call is cancelled, once in 900 to 3,500.


def test_callers_that_leave_do_not_end_the_service(
    small_repository: Path, graphs: dict[str, Served]
) -> None:
    mine = {name: served for name, served in graphs.items() if name.startswith("sasrec")}
    asks = good_asks(mine, each=20, seed=2)
    with serve(small_repository) as served:
        with Load(served.url, asks, 50) as steady, Fuzzer(served.url, mine) as fuzzer:
            steady.wait(50)
            results = fuzzer.run(plan(LEAVING_CASES, mine, 100, seed=0))
            steady.wait(100)
            tally = steady.stop()

        def answers() -> bool:
            with Fuzzer(served.url, mine) as fuzzer:
                return not any(r.fault for r in fuzzer.run([(CASES[0], name) for name in mine]))

        assert eventually(answers)
        died = "starting Triton again" in served.said()
    assert {result.case for result in results} == {case.name for case in LEAVING_CASES}
    assert died or not [result for result in results if result.fault], summary(results)
    assert died or not tally.failures, str(tally)


def test_every_case_has_a_name_of_its_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
