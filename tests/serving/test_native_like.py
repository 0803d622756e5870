"""native_like.py has the faults for which it is there, and the embedded backend has not."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from onnx import TensorProto, helper
from tritonclient.grpc import model_config_pb2

from bench.harness.wire import connect, message, read_answer, stub
from support.served import EMBEDDED, NATIVE_LIKE, backend, running

ROUND = 12  # requests at once; the delay of the queue puts them into one batch


def add_sums(root: Path) -> None:
    """`sums` adds up a flat list of numbers of each row."""
    lengths = helper.make_node("Squeeze", ["numbers_shape", "last"], ["lengths"])
    nodes = [
        helper.make_node("CumSum", ["numbers", "first"], ["until"]),
        helper.make_node("Concat", ["nothing", "until"], ["sums"], axis=0),
        lengths,
        helper.make_node("CumSum", ["lengths", "first"], ["ends"]),
        helper.make_node("Sub", ["ends", "lengths"], ["starts"]),
        helper.make_node("Gather", ["sums", "ends"], ["till_end"]),
        helper.make_node("Gather", ["sums", "starts"], ["till_start"]),
        helper.make_node("Sub", ["till_end", "till_start"], ["flat"]),
        helper.make_node("Unsqueeze", ["flat", "last"], ["sum"]),
    ]
    constants = [
        helper.make_tensor("first", TensorProto.INT32, [], [0]),
        helper.make_tensor("last", TensorProto.INT64, [1], [1]),
        helper.make_tensor("nothing", TensorProto.FLOAT, [1], [0]),
    ]
    takes = [
        helper.make_tensor_value_info("numbers", TensorProto.FLOAT, ["n"]),
        helper.make_tensor_value_info("numbers_shape", TensorProto.INT32, ["batch", 1]),
    ]
    gives = [helper.make_tensor_value_info("sum", TensorProto.FLOAT, ["batch", 1])]
    graph = helper.make_graph(nodes, "sums", takes, gives, constants)
    config = model_config_pb2.ModelConfig(name="sums", backend="onnxruntime", max_batch_size=64)
    config.input.add(name="numbers", data_type="TYPE_FP32", dims=[-1], allow_ragged_batch=True)
    config.batch_input.add(
        kind="BATCH_ITEM_SHAPE",
        target_name=["numbers_shape"],
        data_type="TYPE_INT32",
        source_input=["numbers"],
    )
    config.output.add(name="sum", data_type="TYPE_FP32", dims=[1])
    write(root, config, graph)


def add_pick(root: Path) -> None:
    """`pick` fails for an index past its table."""
    table = helper.make_tensor("table", TensorProto.FLOAT, [3], [10, 11, 12])
    takes = [helper.make_tensor_value_info("index", TensorProto.INT32, ["batch", 1])]
    gives = [helper.make_tensor_value_info("value", TensorProto.FLOAT, ["batch", 1])]
    nodes = [helper.make_node("Gather", ["table", "index"], ["value"])]
    config = model_config_pb2.ModelConfig(name="pick", backend="onnxruntime", max_batch_size=64)
    config.input.add(name="index", data_type="TYPE_INT32", dims=[1])
    config.output.add(name="value", data_type="TYPE_FP32", dims=[1])
    write(root, config, helper.make_graph(nodes, "pick", takes, gives, [table]))


def write(root: Path, config: Any, graph: onnx.GraphProto) -> None:
    config.dynamic_batching.max_queue_delay_microseconds = 100_000
    config.dynamic_batching.preferred_batch_size.append(ROUND)
    config.instance_group.add(count=1, kind="KIND_CPU")
    opsets = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.checker.check_model(model)
    (root / config.name / "1").mkdir(parents=True)
    onnx.save(model, root / config.name / "1" / "model.onnx")
    (root / config.name / "config.pbtxt").write_text(text_format.MessageToString(config))


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """(backend, model, arrays) -> the answers or errors of requests that are sent at once."""
    root = tmp_path_factory.mktemp("faulty") / "repository"
    add_sums(root)
    add_pick(root)
    with ExitStack() as stack:
        stubs = {}
        for name in (EMBEDDED, NATIVE_LIKE):
            folder = tmp_path_factory.mktemp(name)
            started = stack.enter_context(running(root, backend(name, folder)))
            stubs[name] = stub(stack.enter_context(connect(started.grpc_url)))
        pool = stack.enter_context(ThreadPoolExecutor(ROUND))

        def ask(name: str, model: str, arrays: list[dict[str, np.ndarray]]) -> list[Any]:
            def one(tensors: dict[str, np.ndarray]) -> Any:
                try:
                    answer = stubs[name].ModelInfer(message(model, tensors), timeout=30)
                except grpc.RpcError as error:
                    return error.code()
                return next(iter(read_answer(answer).values())).ravel().tolist()

            return list(pool.map(one, arrays))

        yield ask


def test_a_request_without_numbers_hides_those_of_its_neighbours(ask: Any) -> None:
    rows = [{"numbers": np.full((1, i % 3), 1, np.float32)} for i in range(10 * ROUND)]
    expected = [[float(i % 3)] for i in range(10 * ROUND)]
    assert ask(EMBEDDED, "sums", rows) == expected
    got = ask(NATIVE_LIKE, "sums", rows)
    wrong = [a for a, right in zip(got, expected, strict=True) if a != right]
    assert len(wrong) > ROUND
    assert grpc.StatusCode.INTERNAL not in wrong  # in silence
    some = [row for row in rows if row["numbers"].size]
    assert ask(NATIVE_LIKE, "sums", some) == [e for e in expected if e != [0.0]]


def test_a_request_that_fails_takes_its_neighbours_with_it(ask: Any) -> None:
    bad = {i for i in range(10 * ROUND) if i % 5 == 0}
    rows = [{"index": np.array([[99 if i in bad else 1]], np.int32)} for i in range(10 * ROUND)]
    own = ask(EMBEDDED, "pick", rows)
    assert {i for i, answer in enumerate(own) if answer != [11.0]} == bad
    shared = ask(NATIVE_LIKE, "pick", rows)
    failed = {i for i, answer in enumerate(shared) if answer == grpc.StatusCode.INTERNAL}
    assert failed > bad
