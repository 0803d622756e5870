"""Starts Triton on a model repository, without Docker and without a GPU."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from seqrec_export.clients.addresses import in_url, reached_at
from seqrec_export.clients.python import Client
from seqrec_export.errors import SeqrecError
from seqrec_export.repository.published import models
from seqrec_export.serving import guard
from seqrec_export.serving.control import Control
from seqrec_export.serving.endpoints import Endpoints, listening, with_free_ports

BACKEND = Path(__file__).parent / "backend" / "onnxruntime"
STOP_SECONDS = 10


@dataclass
class Server:
    """A running Triton. Stops at the end of a `with` block, and when this process dies."""

    pid: int
    endpoints: Endpoints  # with the ports that were found
    log: Path  # removed by `stop`, unless the caller of `start` named it
    control: Control
    _guard: subprocess.Popen[str] = field(repr=False)
    _name: str = field(repr=False)
    _work: Path = field(repr=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def grpc_url(self) -> str:
        """Where a caller on this machine finds it."""
        return f"{in_url(reached_at(self.endpoints.host))}:{self.endpoints.grpc_port}"

    @property
    def http_url(self) -> str | None:
        """Where a caller on this machine finds its HTTP, if it has any for callers."""
        port = self.endpoints.http_port
        return None if port is None else f"http://127.0.0.1:{port}"

    @property
    def metrics_url(self) -> str:
        """Where Prometheus finds its metrics."""
        host = in_url(reached_at(self.endpoints.metrics_host))
        return f"http://{host}:{self.endpoints.metrics_port}/metrics"

    def running(self) -> bool:
        """Whether the server's process lives; `healthy` says whether its models answer."""
        return self._guard.poll() is None

    def processes(self, model: str, version: int) -> set[int]:
        """The backend's processes for one version of a model, one an instance."""
        found = set()
        for task in Path(f"/proc/{self.pid}/task").glob("*"):
            children = []
            with suppress(FileNotFoundError, ProcessLookupError):  # threads come and go
                children = (task / "children").read_text().split()
            for child in children:
                arguments = b""
                with suppress(FileNotFoundError, ProcessLookupError):  # so do processes
                    arguments = Path(f"/proc/{child}/cmdline").read_bytes().partition(b"\0")[2]
                file = Path(os.fsdecode(arguments.partition(b"\0")[0]))
                if file.parts[-3:-1] == (model, str(version)):
                    found.add(int(child))
        return found

    def stop(self) -> None:
        """End the server and all that it left: processes, shared memory, temporary files."""
        self._guard.terminate()
        self._guard.wait()
        if self._guard.returncode < 0:  # it was killed, and could not clean up
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        guard.clear(self._name, self._work)

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """Block until the server ends; returns its exit status, None if it still runs by then."""
        with suppress(subprocess.TimeoutExpired):
            return self._guard.wait(timeout_seconds)
        return None


def start(
    repository: str | Path = "model_repository",
    *,
    grpc_port: int = 8001,
    http_port: int | None = None,
    metrics_port: int = 8002,
    poll_seconds: int | None = None,
    log: Path | None = None,
    timeout_seconds: float = 120,
    backend: Path = BACKEND,
) -> Server:
    """Serve `repository` on loopback and return once every model is ready.

    With `poll_seconds`, Triton itself loads new versions as they are published, and models cannot
    be loaded through `control`. Raises SeqrecError if Triton is not installed, a port is taken, or
    a model does not load, with the reason.
    """
    repository = Path(repository)
    names = models(repository)
    running = launch(
        repository,
        names,
        Endpoints(grpc_port=grpc_port, http_port=http_port, metrics_port=metrics_port),
        poll_seconds=poll_seconds,
        log=log,
        timeout_seconds=timeout_seconds,
        backend=backend,
    )
    try:
        if reasons := why_not_ready(running, names):
            said = [f"{model}: {reason}" for model, reason in reasons.items()]
            raise SeqrecError("\n".join([f"Triton could not load from {repository}:", *said]))
    except BaseException:
        running.stop()
        raise
    return running


def launch(
    repository: Path,
    names: Sequence[str],
    endpoints: Endpoints,
    *,
    poll_seconds: int | None = None,
    log: Path | None = None,
    timeout_seconds: float = 120,
    backend: Path = BACKEND,
) -> Server:
    """Start Triton with these models and return once it listens on each of its ports.

    It returns whether or not the models load. `backend` is the folder with what runs ONNX files.
    """
    wheel = find_triton()
    endpoints = with_free_ports(endpoints)
    server_id = f"seqrec-{uuid.uuid4().hex[:12]}"
    work = Path(tempfile.mkdtemp(prefix=f"{server_id}-"))  # open to nobody else
    log_path = log or work / "triton.log"
    process = None
    try:
        control, options = listening(endpoints, work)
        command = [
            str(wheel / "bin" / "tritonserver"),
            f"--id={server_id}",
            f"--model-repository={repository.resolve()}",
            f"--backend-directory={assemble_backends(wheel, work, backend)}",
            # This one holds for every Python-based backend, whatever its own name.
            f"--backend-config=python,shm-region-prefix-name={server_id}-",
            "--disable-auto-complete-config",
            "--exit-on-error=false",  # one bad model must not take the others down
            "--strict-readiness=false",  # nor a bad version make the server unready
            f"--exit-timeout-secs={STOP_SECONDS}",
            *options,
            *(
                ("--model-control-mode=poll", f"--repository-poll-secs={poll_seconds}")
                if poll_seconds
                else ("--model-control-mode=explicit", *(f"--load-model={name}" for name in names))
            ),
        ]
        process = guard.spawn(
            command, environment(wheel), log_path, name=server_id, work=work, patience=STOP_SECONDS
        )
        assert process.stdout
        with process.stdout as pipe:
            line = pipe.readline()
        if not line:
            raise SeqrecError(f"Triton could not be run:\n{tail(log_path)}")
        deadline = time.monotonic() + timeout_seconds
        metrics = (reached_at(endpoints.metrics_host), endpoints.metrics_port)
        while not (_answers(control, server_id) and _listens(*metrics)):  # it opens metrics last
            if process.poll() is not None:
                raise SeqrecError(
                    f"Triton ended with status {process.returncode}:\n{tail(log_path)}"
                )
            if time.monotonic() > deadline:
                raise SeqrecError(
                    f"Triton was not ready in {timeout_seconds} seconds:\n{tail(log_path)}"
                )
            time.sleep(0.05)
    except BaseException:  # Ctrl-C while it loads, too
        if process:
            process.terminate()
            process.wait()
        guard.clear(server_id, work)
        raise
    return Server(
        pid=int(line),
        endpoints=endpoints,
        log=log_path,
        control=control,
        _guard=process,
        _name=server_id,
        _work=work,
    )


def why_not_ready(server: Server, names: Sequence[str]) -> dict[str, str]:
    """Those of the models of which no version is ready, with the reason."""
    states = server.control.states()
    reasons = {}
    for model in names:
        versions = states.get(model, {})
        if "" not in versions.values():
            said = [why for _, why in sorted(versions.items())]
            reasons[model] = said[-1] if said else last_error(server.log, model)
    return reasons


def healthy(server: Server | str, *, timeout_seconds: float = 5.0) -> bool:
    """Whether every model of the server answers a real inference.

    For a server that is known by its gRPC address only, it asks every model that is ready there.
    """
    try:
        if isinstance(server, Server):
            states = server.control.states()
            for model, versions in states.items():
                if "" not in versions.values():
                    return False
                server.control.probe(model, timeout_seconds)
            return bool(states)
        with Client(server, timeout_seconds=timeout_seconds) as client:
            served = client.serving()
            for model in served:
                client.probe(model)
            return bool(served)
    except SeqrecError:
        return False


def _answers(control: Control, name: str) -> bool:
    """Whether the server called `name` answers."""
    try:
        return control.server_id() == name
    except SeqrecError:
        return False


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def find_triton() -> Path:
    """The `tritonserver` folder of the installed nvidia-pytriton wheel."""
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        raise SeqrecError(
            "Triton is not installed; `pip install 'seqrec-export[serve]'`, or serve with"
            " `docker run --rm --net=host -v $PWD/model_repository:/models"
            " nvcr.io/nvidia/tritonserver:25.04-py3 tritonserver --model-repository=/models`"
        )
    numpy = importlib.metadata.version("numpy")
    if int(numpy.partition(".")[0]) >= 2:  # its tensors would arrive empty
        raise SeqrecError(f"Triton's Python backend needs numpy below 2, found {numpy}")
    return Path(spec.origin).parent / "tritonserver"


def environment(wheel: Path) -> dict[str, str]:
    """Triton's environment: the wheel's libraries, this Python's, and this Python as `python3`."""
    libraries = [
        str(wheel.parent.parent / "nvidia_pytriton.libs"),
        sysconfig.get_config_var("LIBDIR"),
        os.environ.get("LD_LIBRARY_PATH"),
    ]
    path = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    return os.environ | {
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, libraries)),
        "PATH": os.pathsep.join(path),
    }


def assemble_backends(wheel: Path, work: Path, backend: Path) -> Path:
    """Triton's Python backend with this Python's stub, and `backend`, a folder, for ONNX files.

    They are copies: Triton refuses a backend library that is a link out of its folder.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = wheel / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.exists():
        known = ", ".join(sorted(folder.name for folder in stub.parent.parent.iterdir()))
        raise SeqrecError(f"this Triton runs under Python {known}, not {version}")
    backends = work / "backends"
    shutil.copytree(wheel / "backends" / "python", backends / "python")
    ours = backends / "python" / stub.name
    shutil.copy(stub, ours)
    ours.chmod(0o755)
    trial = subprocess.run([ours], env=environment(wheel), capture_output=True, text=True)
    if trial.returncode == 127:
        raise SeqrecError(
            f"Triton needs Python {version} as a shared library (on Debian and Ubuntu"
            f" `apt-get install libpython{version}`): {trial.stderr.strip()}"
        )
    no_bytecode = shutil.ignore_patterns("__pycache__")
    shutil.copytree(backend, backends / BACKEND.name, ignore=no_bytecode)
    return backends


def tail(log: Path, lines: int = 15) -> str:
    """The end of Triton's log, without its tables."""
    text = log.read_text(errors="replace").splitlines()
    return "\n".join([line for line in text if line and line[0] not in "+|"][-lines:])


def last_error(log: Path, model: str) -> str:
    """What Triton's log says about a model that it did not try to load."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if f"'{model}'" in line]
    return lines[-1].partition("] ")[2].strip('"') if lines else "not loaded"
