"""Callers who do not know of each other and share batches: each asks alone, then all at once."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse

from bench.harness.wire import DEADLINE, message, read_answer
from support.served import Served, Tensors, assert_same

CALLERS = 32
MOST_USERS = 5
LONGEST = 60
MOST_CANDIDATES = 40


def requests(served: Served, number: int, seed: int) -> Iterator[ModelInferRequest]:
    """For 1 to 5 users each; every fifth has empty lists: all of them, or one."""
    rng = np.random.default_rng(seed)
    lists = [name for name, spec in served.inputs.items() if isinstance(spec.shape[1], str)]
    for i in range(number):
        tensors = served.request(
            rng,
            batch=int(rng.integers(1, MOST_USERS + 1)),
            length=int(rng.integers(1, LONGEST)),
            candidates=int(rng.integers(1, MOST_CANDIDATES)),
            unequal=bool(rng.random() < 0.3),
        )
        if i % 5 == 4:
            kind = i // 5 % (len(lists) + 1)
            for name in lists if kind == len(lists) else lists[kind : kind + 1]:
                tensors[name] = tensors[name][:, :0]
        yield message(served.graph.name, tensors)


def ask_alone(stub: Any, asked: Sequence[ModelInferRequest]) -> list[Tensors]:
    """The answers, one after the other."""
    return [read_answer(stub.ModelInfer(request, timeout=DEADLINE)) for request in asked]


def ask_together(
    stub: Any, asked: Sequence[ModelInferRequest]
) -> list[ModelInferResponse | grpc.RpcError]:
    """The answers or errors to requests that 32 callers send at once."""

    def ask(request: ModelInferRequest) -> ModelInferResponse | grpc.RpcError:
        try:
            return stub.ModelInfer(request, timeout=DEADLINE)
        except grpc.RpcError as error:
            return error

    with ThreadPoolExecutor(CALLERS) as pool:
        return list(pool.map(ask, asked))


def wrong(
    got: Sequence[ModelInferResponse | grpc.RpcError], expected: Sequence[Tensors]
) -> list[str]:
    """What is wrong with each answer that is not the expected one."""
    faults = []
    for i, (answer, right) in enumerate(zip(got, expected, strict=True)):
        if isinstance(answer, grpc.RpcError):
            faults.append(f"{i}: {answer.code().name} {answer.details()}")
            continue
        try:
            assert_same(read_answer(answer), right)
        except AssertionError as error:
            faults.append(f"{i}: {error}")
    return faults
