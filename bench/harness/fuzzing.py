"""Sends the requests of fuzz_cases.py to a server, and says which did not end as they should.

An answer is right if it is what ONNX Runtime gives in process for the tensors that the request
holds, as `wire.read_request` reads them.
"""

import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import grpc
import numpy as np
from google.protobuf.message import DecodeError
from grpc import StatusCode
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse

from bench.harness.fuzz_cases import OK, Case
from bench.harness.fuzz_requests import Rng
from bench.harness.load import Ask
from bench.harness.served import Served, assert_same
from bench.harness.wire import (
    DEADLINE,
    Tensors,
    connect,
    message,
    read_answer,
    read_request,
    start_of_last_string,
    stub,
)

METHOD = "/inference.GRPCInferenceService/ModelInfer"
AT_ONCE = 8


@dataclass(frozen=True)
class Result:
    """One request, how it ended (None: nobody was there to hear), and what is wrong with that."""

    case: str
    graph: str
    number: int  # with the seed, this makes the same request again
    end: StatusCode | None
    seconds: float
    fault: str = ""


@dataclass(frozen=True)
class End:
    """What came back."""

    status: StatusCode | None
    details: str = ""
    response: ModelInferResponse | None = None


class Fuzzer:
    """Connected to one server that serves `graphs`."""

    def __init__(self, url: str, graphs: Mapping[str, Served], seed: int = 0) -> None:
        self.graphs = graphs
        self.seed = seed
        self._url = url
        self._channel = connect(url)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._channel.close()

    def run(self, plan: Sequence[tuple[Case, str]], first: int = 0) -> list[Result]:
        """Send all of it, AT_ONCE at a time. `first` is the number of the first request."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            numbered = [(i, *entry) for i, entry in enumerate(plan, first)]
            return list(pool.map(lambda entry: self.attempt(*entry), numbered))

    def attempt(self, number: int, case: Case, graph: str) -> Result:
        """Send one request and judge what comes of it."""
        rng = np.random.default_rng([self.seed, number])
        served = self.graphs[graph]
        request = case.build(served, rng)
        began = time.monotonic()
        try:
            request, end = SENDERS[case.send](self, request, rng)
        except OSError as error:  # a bare connection, refused or lost
            end = End(StatusCode.UNAVAILABLE, str(error))
        seconds = time.monotonic() - began
        fault = judge(case, served, request, end)
        return Result(case.name, graph, number, end.status, seconds, fault)

    # How a request is sent: each returns what was sent, as far as it can be read, and the end.

    def whole(self, request: ModelInferRequest, rng: Rng) -> tuple[ModelInferRequest, End]:
        return request, end_of(self._infer(request))

    def compressed(self, request: ModelInferRequest, rng: Rng) -> tuple[ModelInferRequest, End]:
        return request, end_of(self._infer(request, compression=grpc.Compression.Gzip))

    def hurried(self, request: ModelInferRequest, rng: Rng) -> tuple[ModelInferRequest, End]:
        return request, end_of(self._infer(request, timeout=0.001))

    def cancelled(self, request: ModelInferRequest, rng: Rng) -> tuple[ModelInferRequest, End]:
        call = self._infer(request)
        time.sleep(rng.random() * 0.003)
        call.cancel()
        return request, end_of(call)

    def closed(self, request: ModelInferRequest, rng: Rng) -> tuple[ModelInferRequest, End]:
        with connect(self._url) as channel:
            call = stub(channel).ModelInfer.future(request, timeout=DEADLINE)
            time.sleep(rng.random() * 0.01)
        return request, end_of(call)

    def stream(self, request: ModelInferRequest, rng: Rng) -> tuple[ModelInferRequest, End]:
        """The answer to the last of three, when the one between is refused as it should be."""
        request.id = "good"
        bad = ModelInferRequest(model_name=request.model_name, id="bad")
        with connect(self._url) as channel:
            answers = stub(channel).ModelStreamInfer(
                iter([request, bad, request]), timeout=DEADLINE
            )
            try:
                received = list(answers)
            except grpc.RpcError as error:
                return request, End(error.code(), error.details())
        good = [a.infer_response for a in received if not a.error_message]
        if len(received) != 3 or len(good) != 2:
            return request, End(StatusCode.UNKNOWN, f"{len(received)} answers, {len(good)} good")
        return request, End(OK, response=good[-1])

    def flipped(self, request: ModelInferRequest, rng: Rng) -> tuple[ModelInferRequest, End]:
        """A message with bytes changed, cut off, or put in."""
        sent = flip(request.SerializeToString(), rng)
        try:
            request = ModelInferRequest.FromString(sent)
        except DecodeError:
            request = ModelInferRequest()
        if left_out(request):
            return request, End(None)
        infer = self._channel.unary_unary(METHOD, None, ModelInferResponse.FromString)
        return request, end_of(infer.future(sent, timeout=DEADLINE))

    def half(self, request: ModelInferRequest, rng: Rng) -> tuple[ModelInferRequest, End]:
        """HTTP/2 that ends in the middle of a message."""
        data = http2_call(request.SerializeToString())
        self._throw(data[: rng.integers(24, len(data))], rng)
        return request, End(None)

    def noise(self, request: ModelInferRequest, rng: Rng) -> tuple[ModelInferRequest, End]:
        """HTTP/2 with bytes changed, another protocol, or nothing that anyone speaks."""
        kinds = (
            flip(http2_call(request.SerializeToString()), rng),
            b"GET /v2/health/ready HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00" + rng.bytes(200),  # as TLS begins
            rng.bytes(int(rng.integers(1, 5000))),
        )
        self._throw(kinds[int(rng.integers(len(kinds)))], rng)
        return request, End(None)

    def _infer(self, request: ModelInferRequest, timeout: float = DEADLINE, **options: Any) -> Any:
        return stub(self._channel).ModelInfer.future(request, timeout=timeout, **options)

    def _throw(self, data: bytes, rng: Rng) -> None:
        host, _, port = self._url.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=DEADLINE) as connection:
            connection.sendall(data)
            if rng.random() < 0.5:  # close by a reset, not in good order
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


Sender = Callable[[Fuzzer, ModelInferRequest, Rng], tuple[ModelInferRequest, End]]
SENDERS: Mapping[str, Sender] = {
    "whole": Fuzzer.whole,
    "compressed": Fuzzer.compressed,
    "hurried": Fuzzer.hurried,
    "cancelled": Fuzzer.cancelled,
    "closed": Fuzzer.closed,
    "stream": Fuzzer.stream,
    "flipped": Fuzzer.flipped,
    "half": Fuzzer.half,
    "noise": Fuzzer.noise,
}


def end_of(call: Any) -> End:
    try:
        return End(OK, response=call.result())
    except grpc.FutureCancelledError:
        return End(StatusCode.CANCELLED, "by the caller")
    except grpc.RpcError as error:
        return End(error.code(), error.details())


def judge(case: Case, served: Served, request: ModelInferRequest, end: End) -> str:
    """What is wrong with the end of a request; empty if nothing is."""
    if end.status is None:
        return ""
    if end.status not in case.ends:
        return f"{end.status.name}: {end.details}"
    if end.response is None:
        return "" if end.details else f"{end.status.name} without a message"
    expected = right_answer(served, request)
    if expected is None:
        return "answered, though it is malformed"
    try:
        got = read_answer(end.response)
        assert got.keys() == ({output.name for output in request.outputs} or expected.keys())
        assert_same(expected | got, expected)  # which ids may tie shows in the scores
        assert all(np.isfinite(a).all() for a in got.values() if a.dtype != object)
    except (AssertionError, ValueError) as error:
        return f"a wrong answer: {error}"
    return ""


def left_out(request: ModelInferRequest) -> bool:
    """Whether it is one of those that fuzz_cases.py leaves out."""
    for entry, data in zip(request.inputs, request.raw_input_contents, strict=False):
        last = start_of_last_string(data)
        length = int.from_bytes(data[last : last + 4], "little")
        if entry.datatype == "BYTES" and len(data) < last + 4 + length:
            return True
    return any(0 in entry.shape[:1] for entry in request.inputs)


def right_answer(served: Served, request: ModelInferRequest) -> Tensors | None:
    """What the graph gives in process; None if the request is not one for this graph."""
    tensors = read_request(request)
    if tensors is None or tensors.keys() != served.inputs.keys():
        return None
    return served.onnx(tensors)


def flip(data: bytes, rng: Rng) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(len(changed)))
        kind = rng.random()
        if kind < 0.6:
            changed[at] ^= 1 << int(rng.integers(8))
        elif kind < 0.8:
            changed[at:at] = rng.bytes(int(rng.integers(1, 9)))
        else:
            del changed[at : at + int(rng.integers(1, 9))]
    return bytes(changed) or b"\0"


def http2_call(body: bytes) -> bytes:
    """One gRPC call as HTTP/2 has it on the wire (RFC 9113, RFC 7541)."""

    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return (
            struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload
        )

    def header(name: str, value: str) -> bytes:
        return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()

    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": METHOD,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    data = b"\0" + struct.pack(">I", len(body)) + body
    return b"".join(
        [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            frame(4, 0, 0, b""),  # SETTINGS
            frame(1, 4, 1, b"".join(header(*pair) for pair in headers.items())),  # HEADERS
            *(frame(0, 0, 1, data[i : i + 16384]) for i in range(0, len(data), 16384)),  # DATA
            frame(0, 1, 1, b""),  # END_STREAM
        ]
    )


def plan(
    cases: Sequence[Case], graphs: Mapping[str, Served], requests: int, seed: int
) -> list[tuple[Case, str]]:
    """Each light case on each graph, each heavy one once, the rest drawn: at least `requests`."""
    rng = random.Random(seed)
    fitting = {case: [name for name in graphs if case.fits(graphs[name])] for case in cases}
    fitting = {case: names for case, names in fitting.items() if names}
    chosen = [
        (case, name)
        for case, names in fitting.items()
        for name in ([rng.choice(names)] if case.heavy else names)
    ]
    light = [case for case in fitting if not case.heavy]
    for case in rng.choices(light, [case.share for case in light], k=requests - len(chosen)):
        chosen.append((case, rng.choice(fitting[case])))
    rng.shuffle(chosen)
    return chosen


def good_asks(graphs: Mapping[str, Served], each: int, seed: int) -> list[Ask]:
    """Good requests with their right answers, `each` of every graph, one graph after the other."""
    asks = []
    for number in range(each):
        for i, (name, served) in enumerate(graphs.items()):
            rng = np.random.default_rng([seed, i, number])
            tensors = served.request(rng, batch=1 + number % 3, length=int(rng.integers(0, 60)))
            bytes_ = message(name, tensors).SerializeToString()
            asks.append(Ask(name, bytes_, (served.onnx(tensors),)))
    return asks


def summary(results: Iterable[Result]) -> str:
    """How many ended how, and the slowest."""
    results = list(results)
    ends = Counter(result.end.name if result.end else "unseen" for result in results)
    slowest = max(results, key=lambda result: result.seconds)
    lines = [
        f"{len(results)} requests: " + ", ".join(f"{n} {name}" for name, n in ends.most_common()),
        f"slowest {slowest.seconds:.2f} s: {slowest.case}, {slowest.graph}",
    ]
    lines += [f"{r.number} {r.case}, {r.graph}: {r.fault}" for r in results if r.fault]
    return "\n".join(lines)
