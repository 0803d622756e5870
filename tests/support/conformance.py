"""The clients of other languages against a real server: builds them, runs them, prints a table.

    PYTHONPATH=tests python -m support.conformance [--repository model_repository]
        [--out build/clients] [--language node ...] [--report FILE]

Each is what `seqrec-export clients` writes, built by its own Makefile; clients/README.md says what
its conformance program does. Servers are on loopback: Triton with every model, Triton with TLS, one
that takes connections and never answers, and one that answers from a script.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc.service_pb2 import (
    ModelConfigRequest,
    ModelConfigResponse,
    ModelInferRequest,
    ModelInferResponse,
)
from tritonclient.grpc.service_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)

from bench.harness.wire import read_request
from seqrec_export.clients.generate import LANGUAGES, write_clients
from seqrec_export.clients.openapi import GOLDEN_FILE
from seqrec_export.contract import ALIGNED_WITH
from seqrec_export.folders import read_json
from seqrec_export.repository.published import models, versions
from seqrec_export.serving.endpoints import Endpoints, ServerTLS
from seqrec_export.serving.server import launch, start
from support import layouts
from support.certificates import make_certificates
from support.compilers import complaints, same_pauses

OK = "ok"
CASES = {
    "all rows in one call",
    "unknown model",
    "wrong dtype",
    "unknown input",
    "wrong value",
    "no rows",
    "server gone",
    "deadline",
    "retries",
    "malformed answer",
    "laid out",
    "filters",
    "similar items",
    "empty filter",
    "no filter",
    "tls",
}
# How often a client has to ask: UNAVAILABLE is tried three times in all, INTERNAL once.
TRIES = {"unavailable_twice": 3, "unavailable": 3, "internal": 1, "torn": 1}
TRIES |= {"choice": 2, "choice_filtered": 1}  # the latter only if there is a filter
TRIES |= {layouts.MODEL: layouts.CALLS}
BUILD_SECONDS, RUN_SECONDS = 600, 300


class Scripted(GRPCInferenceServiceServicer):
    """Answers each model's calls from a script, and counts them."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def ModelInfer(  # noqa: N802 - the protocol's name
        self, request: ModelInferRequest, context: grpc.ServicerContext
    ) -> ModelInferResponse:
        self.calls[request.model_name] += 1
        match request.model_name:
            case "unavailable_twice" if self.calls[request.model_name] > 2:
                return _answer(b"\1\0\0\0a\1\0\0\0b")
            case "choice" | "choice_filtered":
                return _answer(b"\1\0\0\0a\1\0\0\0b")
            case layouts.MODEL:
                call = self.calls[layouts.MODEL] - 1
                if wrong := layouts.complaint(call, read_request(request)):
                    context.abort(grpc.StatusCode.INVALID_ARGUMENT, wrong)
                rows = request.inputs[0].shape[0]
                numbers = call * layouts.MAX_BATCH_SIZE + np.arange(rows)
                return _tensors(("known_items", "INT32", [rows, 1], numbers.astype("<i4")))
            case "torn":
                return _answer(b"\1\0\0\0a\7\0\0\0b")
            case "internal":
                context.abort(grpc.StatusCode.INTERNAL, "as the script says")
        context.abort(grpc.StatusCode.UNAVAILABLE, "as the script says")
        raise AssertionError("abort raises")

    def ModelConfig(  # noqa: N802
        self, request: ModelConfigRequest, context: grpc.ServicerContext
    ) -> ModelConfigResponse:
        """What the Python client asks for before it calls a model."""
        answer = ModelConfigResponse()
        answer.config.max_batch_size = 64
        answer.config.input.add(name=layouts.HISTORY, data_type="TYPE_STRING", dims=[-1])
        if request.name == layouts.MODEL:
            answer.config.max_batch_size = layouts.MAX_BATCH_SIZE
            numbers = answer.config.input.add(name=layouts.NUMBERS, data_type="TYPE_FP32")
            numbers.dims.append(layouts.WIDTH)
            follows = answer.config.parameters[f"{ALIGNED_WITH}{layouts.NUMBERS}"]
            follows.string_value = layouts.HISTORY
            answer.config.output.add(name="known_items", data_type="TYPE_INT32", dims=[1])
            return answer
        for name, kind in (("item_ids", "STRING"), ("scores", "FP32"), ("known_items", "INT32")):
            answer.config.output.add(name=name, data_type=f"TYPE_{kind}", dims=[-1])
        return answer


def _answer(item_ids: bytes) -> ModelInferResponse:
    return _tensors(
        ("item_ids", "BYTES", [1, 2], item_ids),
        ("scores", "FP32", [1, 2], np.array([2, 1], "<f4")),
        ("known_items", "INT32", [1, 1], np.array([1], "<i4")),
    )


def _tensors(*tensors: tuple[str, str, list[int], Any]) -> ModelInferResponse:
    answer = ModelInferResponse()
    for name, datatype, shape, data in tensors:
        answer.outputs.add(name=name, datatype=datatype, shape=shape)
        answer.raw_output_contents.append(bytes(data))
    return answer


@contextmanager
def scripted() -> Iterator[tuple[str, Scripted]]:
    script = Scripted()
    server = grpc.server(ThreadPoolExecutor(4))
    add_GRPCInferenceServiceServicer_to_server(script, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", script
    finally:
        server.stop(grace=None)


@contextmanager
def silent() -> Iterator[str]:
    """The kernel takes connections, nobody reads them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def gone() -> Iterator[str]:
    """Where nothing listens, nor can anybody begin to."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


@contextmanager
def all_served(repository: Path) -> Iterator[dict[str, str]]:
    """What a conformance program is told of the servers that do not change."""
    with tempfile.TemporaryDirectory() as pem:
        make_certificates(Path(pem))
        lists = Path(pem) / "layouts"
        layouts.write_layouts(lists)
        files = {name: Path(pem) / name for name in ("ca.pem", "server.pem", "server.key")}
        tls = ServerTLS(
            cert=files["server.pem"], key=files["server.key"], client_ca=files["ca.pem"]
        )
        closed = Endpoints(grpc_port=0, metrics_port=0, tls=tls)
        with (
            start(repository, grpc_port=0, metrics_port=0) as server,
            launch(repository, ["sasrec"], closed) as with_tls,
            silent() as silence,
            gone() as nowhere,
        ):
            yield {
                "--url": server.grpc_url,
                "--repository": str(repository),
                "--layouts": str(lists),
                "--gone": nowhere,
                "--silent": silence,
                "--tls-url": with_tls.grpc_url,
                "--tls-ca": f"{pem}/ca.pem",
                "--tls-cert": f"{pem}/client.pem",
                "--tls-key": f"{pem}/client.key",
            }


@dataclass
class Result:
    """What became of one client."""

    client: str
    skipped: str = ""
    failures: list[str] = field(default_factory=list)
    requests: int = 0
    passed: int = 0
    p50_ms: float = 0.0
    cases: Mapping[str, str] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        return "SKIPPED" if self.skipped else "FAILED" if self.failures else "ok"


def make(
    *arguments: str, timeout_seconds: float = BUILD_SECONDS
) -> subprocess.CompletedProcess[str]:
    """As from a shell: variables given to a make that started this are not meant for this one."""
    return subprocess.run(
        ["make", *arguments],
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
        check=False,
    )


def missing_tools(folder: Path) -> str:
    """Why a client cannot be built here, or ""."""
    if not shutil.which("make"):
        return "make is missing"
    found = make("-s", "-C", str(folder), "tools")
    return " ".join(found.stderr.split()) if found.returncode else ""


def conform(language: str, folder: Path, servers: Mapping[str, str]) -> Result:
    """Build one client and run its conformance program."""
    if why := missing_tools(folder):
        return Result(language, skipped=why)
    made = make("-C", str(folder))
    if made.returncode:
        return Result(language, failures=[f"make: {(made.stdout + made.stderr)[-3000:]}"])
    with scripted() as (flaky, script):
        told = [part for option in {**servers, "--flaky": flaky}.items() for part in option]
        ran = subprocess.run(
            [folder / "bin" / "conformance", *told],
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )
    try:
        said: dict[str, Any] = json.loads(ran.stdout)
        result = Result(**said)
    except (ValueError, TypeError) as error:
        return Result(language, failures=[f"no report ({error}): {ran.stdout}{ran.stderr}"[-3000:]])
    result.failures = list(result.failures)
    result.failures += [f"{case}: {how}" for case, how in result.cases.items() if how != OK]
    result.failures += [f"{case}: not run" for case in CASES - result.cases.keys()]
    if script.calls != TRIES:
        result.failures.append(f"retries: asked {dict(script.calls)} instead of {TRIES}")
    repository = Path(servers["--repository"])
    golden = sum(len(read_json(newest(repository / m))["requests"]) for m in models(repository))
    if not result.requests == result.passed == golden:
        result.failures.append(f"passed {result.passed} of {result.requests}, there are {golden}")
    result.failures += complaints(language, folder)
    result.failures += same_pauses(folder) if language == "go" else []
    if ran.returncode and not result.failures:
        result.failures.append(f"exit status {ran.returncode}: {ran.stderr[-3000:]}")
    return result


def newest(model: Path) -> Path:
    """The golden requests of a model's newest version."""
    return model / str(versions(model)[-1]) / GOLDEN_FILE


def main() -> None:
    """Print the table; exit status 1 if a client failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--out", type=Path, default=Path("build/clients"))
    parser.add_argument("--language", action="append", choices=LANGUAGES)
    parser.add_argument("--report", type=Path, help="JSON file to write")
    options = parser.parse_args()
    languages = options.language or list(LANGUAGES)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_clients(options.repository, options.out, languages)
    with all_served(options.repository) as servers:
        results = [conform(name, options.out / name, servers) for name in languages]
    print(f"{'client':8}{'requests':>9}{'passed':>8}{'cases':>7}{'p50 ms':>8}")
    for result in results:
        passed = sum(how == OK for how in result.cases.values())
        row = f"{result.client:8}{result.requests:>9}{result.passed:>8}{passed:>7}"
        print(f"{row}{result.p50_ms:>8.2f}  {result.verdict}")
    for result in results:
        for line in [*result.failures, *filter(None, [result.skipped])]:
            print(f"{result.client}: {line}", file=sys.stderr)
    if options.report:
        report = {result.client: asdict(result) for result in results}
        options.report.write_text(json.dumps(report, indent=2), encoding="utf-8")
    sys.exit(any(result.failures for result in results))


if __name__ == "__main__":
    main()
