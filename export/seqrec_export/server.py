"""Starts Triton on a model repository, without Docker and without a GPU."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import inspect
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
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from seqrec_export.client import Client
from seqrec_export.errors import SeqrecError

BACKEND = Path(__file__).parent / "backend" / "onnxruntime" / "model.py"
STOP_SECONDS = 10


@dataclass
class Server:
    """A running Triton. Stops at the end of a `with` block, and when this process dies."""

    pid: int
    grpc_url: str
    http_url: str
    metrics_url: str
    log: Path  # removed by `stop`, unless the caller of `start` named it
    _guard: subprocess.Popen[str] = field(repr=False)
    _name: str = field(repr=False)
    _work: Path = field(repr=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def running(self) -> bool:
        """Whether the server's process lives; `healthy` says whether its models answer."""
        return self._guard.poll() is None

    def stop(self) -> None:
        """End the server and all that it left: processes, shared memory, temporary files."""
        self._guard.terminate()
        self._guard.wait()
        if self._guard.returncode < 0:  # it was killed, and could not do its part
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            clear(self._name, self._work)

    def wait(self) -> int:
        """Block until the server ends; its exit status."""
        return self._guard.wait()


def start(
    repository: Path,
    *,
    host: str = "127.0.0.1",
    grpc_port: int = 8001,
    http_port: int = 8000,
    metrics_port: int = 8002,
    poll_seconds: int | None = None,
    log: Path | None = None,
    timeout_seconds: float = 120,
) -> Server:
    """Serve `repository` and return once every model is ready. Port 0 is any free port.

    With `poll_seconds`, new versions are loaded as they are published. Raises SeqrecError if Triton
    is not installed, a port is taken, or a model does not load, with the reason.
    """
    repository = repository.resolve()
    # A config without a version is a model that was never built here: not to be served, no fault.
    expected = sorted(
        path.parent.name
        for path in repository.glob("*/config.pbtxt")
        if any(version.name.isdigit() for version in path.parent.iterdir())
    )
    if not expected:
        raise SeqrecError(f"{repository} holds no model; run `seqrec-export build` first")
    wheel = find_triton()
    ports = free_ports(host, grpc=grpc_port, http=http_port, metrics=metrics_port)
    name = f"seqrec-{uuid.uuid4().hex[:12]}"
    work = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    log_path = log or work / "triton.log"
    guard = None
    try:
        command = [
            str(wheel / "bin" / "tritonserver"),
            f"--id={name}",
            f"--model-repository={repository}",
            f"--backend-directory={assemble_backends(wheel, work)}",
            # This one holds for every Python-based backend, whatever its own name.
            f"--backend-config=python,shm-region-prefix-name={name}-",
            "--disable-auto-complete-config",
            "--exit-on-error=false",  # one bad model must not take the others down
            f"--exit-timeout-secs={STOP_SECONDS}",
            *(f"--{kind}-address={host}" for kind in ports),
            *(f"--{kind}-port={port}" for kind, port in ports.items()),
            *(
                ("--model-control-mode=poll", f"--repository-poll-secs={poll_seconds}")
                if poll_seconds
                else ("--model-control-mode=explicit", *(f"--load-model={m}" for m in expected))
            ),
        ]
        guard = spawn_guard(name, work, log_path, command, environment(wheel))
        assert guard.stdout
        with guard.stdout as pipe:
            line = pipe.readline()
        if not line:
            raise SeqrecError(f"Triton could not be run:\n{tail(log_path)}")
        pid = int(line)
        reach = "127.0.0.1" if host == "0.0.0.0" else host
        url = f"{reach}:{ports['grpc']}"
        deadline = time.monotonic() + timeout_seconds
        while not answers(url, name):
            if guard.poll() is not None:
                raise SeqrecError(f"Triton ended with status {guard.returncode}:\n{tail(log_path)}")
            if time.monotonic() > deadline:
                raise SeqrecError(
                    f"Triton was not ready in {timeout_seconds} seconds:\n{tail(log_path)}"
                )
            time.sleep(0.05)
        with Client(url) as client:
            states = client.models()
        if any(states.get(model) != "" for model in expected):
            reasons = [
                f"{model}: {states.get(model) or last_error(log_path, model)}"
                for model in expected
                if states.get(model) != ""
            ]
            raise SeqrecError("\n".join([f"Triton could not load from {repository}:", *reasons]))
    except BaseException:  # Ctrl-C while it loads, too
        if guard:
            guard.terminate()
            guard.wait()
        shutil.rmtree(work, ignore_errors=True)
        raise
    return Server(
        pid=pid,
        grpc_url=url,
        http_url=f"http://{reach}:{ports['http']}",
        metrics_url=f"http://{reach}:{ports['metrics']}/metrics",
        log=log_path,
        _guard=guard,
        _name=name,
        _work=work,
    )


def healthy(server: Server | str, *, timeout_seconds: float = 5.0) -> bool:
    """Whether every model of the server (or gRPC address) answers a real inference."""
    url = server.grpc_url if isinstance(server, Server) else server
    try:
        with Client(url, timeout_seconds=timeout_seconds) as client:
            models = client.models()
            if not models or any(models.values()):
                return False
            for model in models:
                client.probe(model)
    except SeqrecError:
        return False
    return True


def find_triton() -> Path:
    """The `tritonserver` folder of the installed nvidia-pytriton wheel."""
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        raise SeqrecError(
            "Triton is not installed; `pip install 'seqrec-export[serve]'`, or serve with"
            " `docker run --rm --net=host -v $PWD/model_repository:/models"
            " nvcr.io/nvidia/tritonserver:24.10-py3 tritonserver --model-repository=/models`"
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


def assemble_backends(wheel: Path, work: Path) -> Path:
    """Triton's Python backend with this Python's stub, and ours beside it.

    Copies: Triton refuses a backend library that is a link out of its folder.
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
    (backends / "onnxruntime").mkdir()
    shutil.copy(BACKEND, backends / "onnxruntime")
    return backends


def free_ports(host: str, **wanted: int) -> dict[str, int]:
    """Name -> port, each of them free a moment ago; raises SeqrecError naming one that is not."""
    found = {}
    with ExitStack() as held:  # all at once, so that no two are the same
        for name, port in wanted.items():
            listener = held.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((host, port))
                listener.listen()
            except (OSError, OverflowError) as error:
                raise SeqrecError(f"cannot serve {name} on {host}:{port}: {error}") from error
            found[name] = listener.getsockname()[1]
    return found


def spawn_guard(
    name: str, work: Path, log: Path, command: list[str], env: dict[str, str]
) -> subprocess.Popen[str]:
    """Run `command` under `guard_main`, whose first line of output is the command's process id."""
    functions = [inspect.getsource(function) for function in (clear, guard_main)]
    imports = ["import shutil", "from pathlib import Path"]
    source = "\n".join([*imports, *functions, "guard_main()"])
    arguments = [str(os.getpid()), str(STOP_SECONDS), name, str(work), *command]
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", source, *arguments],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            start_new_session=True,  # Ctrl-C at a terminal is for us to handle
        )


def answers(url: str, name: str) -> bool:
    """Whether the server called `name` answers at the gRPC address."""
    host, _, port = url.rpartition(":")
    try:  # first, because a gRPC connection that failed waits for seconds until it tries again
        socket.create_connection((host, int(port)), timeout=1).close()
        with Client(url, timeout_seconds=1) as client:
            return client.server_id() == name
    except (OSError, SeqrecError):
        return False


def tail(log: Path, lines: int = 15) -> str:
    """The end of Triton's log, without its tables."""
    text = log.read_text(errors="replace").splitlines()
    return "\n".join([line for line in text if line and line[0] not in "+|"][-lines:])


def last_error(log: Path, model: str) -> str:
    """What Triton's log says of a model that it did not come to load."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if f"'{model}'" in line]
    return lines[-1].partition("] ")[2].strip('"') if lines else "not loaded"


def clear(name: str, work: Path) -> None:
    """Remove a dead server's shared memory and temporary files."""
    for region in Path("/dev/shm").glob(f"{name}-*"):
        region.unlink(missing_ok=True)
    shutil.rmtree(work, ignore_errors=True)


def guard_main() -> None:
    """Run Triton, and end it when asked, or when the process that started it is gone.

    Runs as a process of its own, from its source text, with nothing but the standard library. It
    looks at its parent rather than ask the kernel for a signal at the parent's death, because that
    comes when the starting *thread* ends; and unlike Triton it also clears away what is left.
    """
    import contextlib
    import ctypes
    import os
    import signal
    import subprocess
    import sys

    parent, patience, name, work = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3], sys.argv[4]
    prctl = ctypes.CDLL(None).prctl
    set_death_signal, set_child_subreaper = 1, 36
    signals = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)

    def begin() -> None:
        prctl(set_death_signal, signal.SIGTERM)  # should this guard be killed
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)

    prctl(set_child_subreaper, 1)
    server = subprocess.Popen(sys.argv[5:], stdout=2, process_group=0, preexec_fn=begin)
    print(server.pid, flush=True)
    while server.poll() is None and os.getppid() == parent:
        received = signal.sigtimedwait(signals, 0.5)
        if received and received.si_signo != signal.SIGCHLD:
            break
    if server.poll() is None:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(patience)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    status = server.wait()
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    clear(name, Path(work))
    sys.exit(status if status >= 0 else 128 - status)
