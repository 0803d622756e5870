"""Requests of every length share batches in the real Triton, and none sees what the others hold."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelStatisticsRequest

from bench.harness.wire import DEADLINE, message, read_answer
from seqrec_export.verification.cases import Case, classes_of, draw
from support.served import TRIED, Served, assert_same
from support.strangers import ask_alone, ask_together, requests, wrong

RAGGED = [
    name
    for name, (_, graph) in TRIED.items()
    if any(isinstance(spec.shape[1], str) for spec in graph.inputs)
]
REQUESTS = 1000
ROUNDS = 20
ASKED = 160  # requests of each graph by callers who do not know of each other


def mixed_requests(served: Served, number: int, seed: int) -> list[ModelInferRequest]:
    """Of 1 to 5 users and histories of 0 to 200 steps, of every class that the graph has."""
    rng = np.random.default_rng(seed)
    graph, vocabularies = served.graph, served.exported.run.vocabularies
    requests = []
    for i in range(number):
        names = classes_of(graph)
        case = Case(
            name=names[i % len(names)],
            batch=int(rng.integers(1, 6)),
            length=int(rng.integers(0, 201)),
            candidates=int(rng.integers(0, 101)),
        )
        requests.append(message(graph.name, draw(graph, vocabularies, rng, case)))
    return requests


def requests_and_runs(server: Any, model: str, *, requests: int = 0) -> np.ndarray:
    """Once as many requests are counted: Triton counts a run after it has sent the answers."""
    end = time.monotonic() + DEADLINE
    while True:
        answer = server.ModelStatistics(ModelStatisticsRequest(name=model), timeout=DEADLINE)
        (found,) = answer.model_stats
        counts = np.array([found.inference_stats.success.count, found.execution_count])
        if counts[0] >= requests or time.monotonic() > end:
            return counts
        time.sleep(0.01)


def test_requests_of_every_length_share_batches_and_keep_their_answers(
    infer: Any, graph: Callable[[str], Served]
) -> None:
    each = -(-REQUESTS // len(RAGGED))
    asked = {name: mixed_requests(graph(name), each, seed) for seed, name in enumerate(RAGGED)}
    alone = {name: ask_alone(infer, all_of_it) for name, all_of_it in asked.items()}
    shared = 0  # requests that rode along with another

    # A server that answers faster than this process sends has nothing to gather: then once more.
    for _ in range(ROUNDS):
        for name, all_of_it in asked.items():
            before = requests_and_runs(infer, name)
            sent = [infer.ModelInfer.future(request, timeout=DEADLINE) for request in all_of_it]
            together = [future.result() for future in sent]
            after = requests_and_runs(infer, name, requests=before[0] + each)
            answered, runs = after - before
            shared += answered - runs
            for got, expected in zip(together, alone[name], strict=True):
                assert_same(read_answer(got), expected, tolerance=1e-6)
        if shared >= REQUESTS:
            break
    assert shared >= REQUESTS, f"{shared} shared a batch in {ROUNDS} rounds"


def test_no_caller_reaches_the_answer_of_another(infer: Any, served: Served) -> None:
    asked = list(requests(served, ASKED, seed=0))
    expected = ask_alone(infer, asked)
    faults = wrong(ask_together(infer, asked), expected)
    assert not faults, f"{len(faults)} of {ASKED} are wrong"
