"""A steady stream of good requests from a process of its own, each answer checked."""

import multiprocessing
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Any, Self

import grpc
import numpy as np
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse

from bench.harness.wire import DEADLINE, Tensors, connect, read_answer, stub

WORKER = multiprocessing.get_context("spawn")  # gRPC does not survive a fork
MOST_WAITING = 500  # requests, then the next one waits


@dataclass(frozen=True)
class Ask:
    """A request, and its right answers: version v of the model gives the v-th, in turn."""

    model: str
    message: bytes
    answers: tuple[Tensors, ...]


@dataclass
class Tally:
    """What came of it. Latency runs from the moment at which a request was due to be sent."""

    sent: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    versions: Counter[tuple[str, int]] = field(default_factory=Counter)  # (model, version)
    # Which request was answered with which message, and how often: to be checked at the end.
    answers: Counter[tuple[int, bytes]] = field(default_factory=Counter)

    def __str__(self) -> str:
        p50, p99, worst = np.quantile(self.latencies, [0.5, 0.99, 1.0]) * 1e3
        lines = [
            f"{self.sent} requests, {self.sent / self.seconds:.0f}/s, {len(self.failures)} failed;"
            f" p50 {p50:.1f}, p99 {p99:.1f}, worst {worst:.1f} ms",
            *self.failures[:10],
        ]
        return "\n".join(lines)


class Load:
    """Asks in turn, `per_second`, from the start of a `with` block to `stop` or its end.

    Requests go out on time whether or not the earlier ones are answered.
    """

    def __init__(self, url: str, asks: Sequence[Ask], per_second: float) -> None:
        self._asks = asks
        self._mine, theirs = WORKER.Pipe()
        self._answered = WORKER.Value("q", 0)
        messages = [ask.message for ask in asks]
        arguments = (url, messages, per_second, theirs, self._answered)
        self._process = WORKER.Process(target=_send, args=arguments, daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.join()

    @property
    def answered(self) -> int:
        """Requests so far, failures counted."""
        return int(self._answered.value)

    def wait(self, more: int) -> None:
        """Block until so many more are answered. Raises TimeoutError after five minutes."""
        goal, deadline = self.answered + more, time.monotonic() + 300
        while self.answered < goal:
            if time.monotonic() > deadline or not self._process.is_alive():
                raise TimeoutError(f"{self.answered} of {goal} requests were answered")
            time.sleep(0.02)

    def stop(self) -> Tally:
        """Stop sending, wait for the last answers, and check all."""
        self._mine.send(None)
        tally = self._mine.recv()
        assert isinstance(tally, Tally)
        for (i, data), times in tally.answers.items():
            ask, response = self._asks[i], ModelInferResponse.FromString(data)
            version = int(response.model_version)
            tally.versions[ask.model, version] += times
            if wrong := _difference(response, ask.answers[(version - 1) % len(ask.answers)]):
                tally.failures += [f"{ask.model} version {version}: {wrong}"] * times
        return tally


def _difference(response: ModelInferResponse, expected: Tensors) -> str:
    from bench.harness.served import (
        assert_same,  # it imports PyTorch, which the sending process does without
    )

    try:
        assert_same(read_answer(response), expected)
    except (AssertionError, ValueError) as error:
        return str(error)
    return ""


def _send(url: str, messages: list[bytes], per_second: float, pipe: Any, answered: Any) -> None:
    tally, lock = Tally(), Lock()

    def done(i: int, due: float, call: Any) -> None:
        seconds = time.monotonic() - due
        with lock:
            answered.value += 1
            tally.latencies.append(seconds)
            try:
                tally.answers[i, call.result().SerializeToString()] += 1
            except grpc.RpcError as error:
                tally.failures.append(f"{error.code().name}: {error.details()}")

    requests = [ModelInferRequest.FromString(message) for message in messages]
    with connect(url) as channel:
        infer = stub(channel).ModelInfer
        started = due = time.monotonic()
        while not pipe.poll(max(0.0, due - time.monotonic())):
            if tally.sent - answered.value >= MOST_WAITING:
                time.sleep(0.001)
                continue
            i = tally.sent % len(requests)
            call = infer.future(requests[i], timeout=DEADLINE)
            call.add_done_callback(partial(done, i, due))
            tally.sent += 1
            due = started + tally.sent / per_second
        tally.seconds = time.monotonic() - started
        while answered.value < tally.sent:
            time.sleep(0.01)
    pipe.send(tally)
