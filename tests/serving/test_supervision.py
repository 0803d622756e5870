"""`serve` under whatever dies, is published, or is damaged: the real Triton, killed for real."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from bench.harness.processes import alive, eventually
from seqrec_export import locks
from seqrec_export.clients.python import Client
from seqrec_export.errors import SeqrecError
from seqrec_export.folders import sha256_file
from seqrec_export.repository import published
from seqrec_export.repository.published import models, problems, versions, write_manifest, writing
from seqrec_export.serving import server, supervision
from seqrec_export.serving.control import Control, NoAnswerError
from seqrec_export.serving.server import start
from seqrec_export.serving.supervision import Backoff, Keeper
from support.supervised import serve
from support.toy_models import Declared, add_echo, add_model

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("pytriton") is None, reason="the nvidia-pytriton wheel is absent"
)
STUB, TRITON = "triton_python_backend_stub", "bin/tritonserver"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    add_echo(tmp_path / "repository")
    return tmp_path / "repository"


def publish(repository: Path, version: int) -> None:
    """A version as `publish` leaves it, as far as `serve` looks."""
    folder = repository / "echo" / str(version)
    if not folder.exists():
        staged = repository.parent / "staged"
        shutil.copytree(repository / "echo" / "1", staged)
        staged.rename(folder)
    for number in versions(repository / "echo"):
        (repository / "echo" / str(number) / "metrics.json").write_text('{"test": {}}')
    write_manifest(repository, {"echo": set(versions(repository / "echo"))})


@contextmanager
def asking(url: str, callers: int = 8) -> Iterator[list[str]]:
    """Calls without a pause from several callers; yields what failed so far."""
    failed: list[str] = []
    done = threading.Event()

    def ask(caller: int) -> None:
        text = [str(caller)]
        with Client(url, timeout_seconds=5) as client:
            while not done.is_set():
                try:
                    assert client.call("echo", [{"text": text}]) == [{"same": text}]
                except SeqrecError as error:
                    failed.append(str(error))

    with ThreadPoolExecutor(callers) as pool:
        asked = [pool.submit(ask, caller) for caller in range(callers)]
        try:
            yield failed
        finally:
            done.set()
        for future in asked:
            future.result()


def test_a_killed_backend_serves_again_under_load(repository: Path) -> None:
    with serve(repository) as served:
        stub = served.the(STUB)
        with asking(served.url):  # calls may fail now, but none hangs
            os.kill(stub, signal.SIGKILL)
            assert eventually(lambda: "is back after" in served.said())
        assert f"echo: its process {stub} has died; loading it again" in served.said()
        with asking(served.url) as failed:
            assert eventually(lambda: served.version() == 1)
        assert not failed
        assert served.the(STUB) != stub


def test_a_killed_server_is_started_again_at_the_same_address(repository: Path) -> None:
    with serve(repository) as served:
        triton = served.the(TRITON)
        os.kill(triton, signal.SIGKILL)
        assert eventually(lambda: "Triton serves again" in served.said())
        assert eventually(lambda: served.version() == 1)
        assert served.the(TRITON) != triton
        said = served.said()
        assert "Triton ended with status 137; the end of its log:" in said
        assert "starting Triton again in 0.5 s" in said


def test_a_killed_guard_does_not_leave_two_servers(repository: Path) -> None:
    with serve(repository) as served:
        triton = served.the(TRITON)
        guard = int(Path(f"/proc/{triton}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(guard, signal.SIGKILL)
        assert eventually(lambda: "Triton serves again" in served.said())
        assert not alive(triton)
        assert eventually(lambda: served.version() == 1)


def test_versions_come_and_go_while_every_call_is_answered(repository: Path) -> None:
    publish(repository, 1)
    with serve(repository) as served, asking(served.url) as failed:
        publish(repository, 2)
        assert eventually(lambda: served.version() == 2)
        write_manifest(repository, {"echo": {1}})  # as a rollback does, the manifest first
        (repository / "echo" / "2").rename(repository.parent / "aside")
        assert eventually(lambda: served.version() == 1)
        (repository.parent / "aside").rename(repository / "echo" / "2")
        publish(repository, 2)
        assert eventually(lambda: served.version() == 2)
    assert not failed


def test_a_model_that_comes_later_is_served_and_one_that_leaves_is_not(repository: Path) -> None:
    with serve(repository) as served, Client(served.url) as client:
        add_echo(repository.parent / "new", "second")
        (repository.parent / "new" / "second").rename(repository / "second")
        assert eventually(lambda: "second" in client.serving())
        assert client.call("second", [{"text": "é"}]) == [{"same": ["é"]}]
        (repository / "second").rename(repository.parent / "second")
        assert eventually(lambda: "no longer served" in served.said())
        assert eventually(lambda: "second" not in client.serving())
        assert eventually(lambda: served.version() == 1)


@pytest.mark.parametrize("damage", ["truncated", "never loads"])
def test_a_bad_version_is_said_and_the_old_one_serves_on(repository: Path, damage: str) -> None:
    publish(repository, 1)
    with serve(repository) as served:
        staged = repository.parent / "staged"
        shutil.copytree(repository / "echo" / "1", staged)
        model = staged / "model.onnx"
        if damage == "never loads":  # published as it is, so its sha256 is right
            model.write_bytes(b"not ONNX")
        staged.rename(repository / "echo" / "2")
        publish(repository, 2)
        if damage == "truncated":
            model = repository / "echo" / "2" / "model.onnx"
            model.write_bytes(model.read_bytes()[:-7])
        reason = {"truncated": "not what was published", "never loads": "InvalidProtobuf"}[damage]
        assert eventually(lambda: "echo: version 2 is left out" in served.said())
        assert eventually(lambda: reason in served.said())
        assert eventually(lambda: served.version() is not None)
        os.kill(served.the(TRITON), signal.SIGKILL)
        assert eventually(lambda: "Triton serves again" in served.said())
        assert eventually(lambda: served.version() == 1)


def test_nothing_is_looked_at_while_somebody_publishes(repository: Path) -> None:
    publish(repository, 1)
    lines: list[str] = []
    with start(repository, grpc_port=0, metrics_port=0) as running:
        keeper = Keeper(running, repository, "echo", lines.append, threading.Event(), 0.1)
        assert keeper.settle() == 1
        with writing(repository):
            shutil.copytree(repository / "echo" / "1", repository / "echo" / "2")
            assert keeper.settle() == 1
        assert not lines
        assert keeper.settle() == 1
        assert "not in manifest.json" in lines[0]


def test_a_late_answer_is_no_death_and_a_long_silence_is(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "STOP_SECONDS", 1)  # Triton waits that long for what is stopped
    monkeypatch.setattr(supervision, "PROBE_SECONDS", 0.2)
    lines: list[str] = []
    with start(repository, grpc_port=0, metrics_port=0) as running:
        keeper = Keeper(running, repository, "echo", lines.append, threading.Event(), 0.1)
        keeper.settle()
        running.control.probe("echo")  # the first answer takes longer
        assert eventually(lambda: running.control.successes("echo") == 1)
        assert keeper.lost() == ""
        (stub,) = running.processes("echo", 1)
        os.kill(stub, signal.SIGSTOP)
        assert keeper.lost() == ""
        monkeypatch.setattr(supervision, "SILENT_SECONDS", 0)
        why = keeper.lost()
        assert "no answer for" in why
        keeper.reload(why)
        assert "version 1 is back" in lines[-1]
        assert running.processes("echo", 1) - {stub}
        running.control.probe("echo")
        os.kill(stub, signal.SIGKILL)


def test_a_model_that_hangs_before_its_first_answer_is_loaded_again(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "STOP_SECONDS", 1)
    monkeypatch.setattr(supervision, "PROBE_SECONDS", 0.2)
    monkeypatch.setattr(supervision, "SILENT_SECONDS", 0)  # that is for who has answered before
    lines: list[str] = []
    with start(repository, grpc_port=0, metrics_port=0) as running:
        keeper = Keeper(running, repository, "echo", lines.append, threading.Event(), 0.1)
        keeper.settle()
        (stub,) = running.processes("echo", 1)
        os.kill(stub, signal.SIGSTOP)
        assert keeper.lost() == ""
        monkeypatch.setattr(supervision, "FIRST_SECONDS", 0)
        keeper.settle()  # as after every publish: what hangs does not begin anew
        why = keeper.lost()
        assert "no answer for" in why
        keeper.reload(why)
        assert "version 1 is back" in lines[-1]
        running.control.probe("echo")
        os.kill(stub, signal.SIGKILL)


def test_only_what_is_new_is_read_and_nobody_who_publishes_waits_for_that(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(repository, 1)
    publish(repository, 2)
    read: list[str] = []

    def note(path: Path) -> str:
        read.append(str(path.relative_to(repository / "echo")))
        with locks.exclusive(repository / ".seqrec.lock", "it is written to", wait=False):
            return sha256_file(path)

    monkeypatch.setattr(published, "sha256_file", note)
    with start(repository, grpc_port=0, metrics_port=0) as running:
        keeper = Keeper(running, repository, "echo", print, threading.Event(), 0.1)
        assert keeper.settle() == 2
        assert {Path(file).parts[0] for file in read} == {"2"}  # older ones only if need be
        read.clear()
        write_manifest(repository, {})  # as whoever publishes another model does
        assert keeper.settle() == 2
        assert not read
        monkeypatch.setattr(published, "sha256_file", sha256_file)
        publish(repository, 3)
        monkeypatch.setattr(published, "sha256_file", note)
        assert keeper.settle() == 3
        assert {Path(file).parts[0] for file in read} == {"3"}


def test_a_file_that_cannot_be_read_is_a_problem_of_its_version_alone() -> None:
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        repository = Path(place, "repository")
        add_echo(repository)
        publish(repository, 1)
        add_echo(repository, "closed")
        (repository / "echo" / "1" / "model.onnx").chmod(0)
        (repository / "closed").chmod(0)
        pid = os.fork()
        if pid == 0:  # never returns into pytest
            if os.geteuid() == 0:
                os.seteuid(65534)  # root may read everything
            try:
                assert models(repository) == ["closed", "echo"]
                why = problems(repository, "echo")
                assert why == {1: "model.onnx cannot be read (Permission denied)"}, why
                with pytest.raises(SeqrecError, match="closed cannot be read: Permission denied"):
                    problems(repository, "closed")
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0


def test_a_reload_that_fails_half_way_is_begun_again(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unload, refusals = Control.unload, [NoAnswerError("the server is busy")]

    def busy_at_first(control: Control, model: str) -> None:
        if refusals:
            raise refusals.pop()
        unload(control, model)

    monkeypatch.setattr(Control, "unload", busy_at_first)
    lines: list[str] = []
    stopping = threading.Event()
    with start(repository, grpc_port=0, metrics_port=0) as running:
        keeper = Keeper(running, repository, "echo", lines.append, stopping, 0.1)
        keeper.settle()
        keeper.start()
        (stub,) = running.processes("echo", 1)
        os.kill(stub, signal.SIGKILL)
        assert eventually(lambda: "version 1 is back" in "".join(lines))
        running.control.probe("echo")
        stopping.set()
        keeper.join()
    assert not refusals
    assert "the server is busy; trying again" in "".join(lines)


def test_a_model_that_never_answered_a_probe_is_not_loaded_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "SILENT_SECONDS", -1)
    second = helper.make_tensor("second", TensorProto.INT64, [1], [1])
    nodes = [helper.make_node("Gather", ["text", "second"], ["same"], axis=1)]
    strings: Declared = {"text": ("BYTES", -1)}
    repository = tmp_path / "repository"
    add_model(repository, "choosy", strings, {"same": ("BYTES", 1)}, nodes, [second])
    with start(repository, grpc_port=0, metrics_port=0) as running:
        keeper = Keeper(running, repository, "choosy", print, threading.Event(), 0.1)
        assert keeper.settle() == 1
        with pytest.raises(SeqrecError, match="out of data bounds"):
            running.control.probe("choosy")
        # Triton counts an answer after it has sent it, a refusal among them.
        assert eventually(lambda: running.control.successes("choosy") == 1)
        assert keeper.lost() == ""
        with Client(running.grpc_url) as client:
            assert client.call("choosy", [{"text": ["a", "b"]}]) == [{"same": ["b"]}]
        assert eventually(lambda: running.control.successes("choosy") == 2)
        assert keeper.lost() == ""
        assert "no answer" in keeper.lost()


def test_waits_double_and_begin_again_after_a_healthy_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    backoff = Backoff()
    waits = []
    for _ in range(8):
        waits.append(backoff.next())
        now += waits[-1]
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30]
    now += 91
    assert backoff.next() == 0.5


def test_a_repository_of_which_nothing_loads_is_refused(repository: Path) -> None:
    (repository / "echo" / "1" / "model.onnx").write_bytes(b"not ONNX")
    command = [sys.executable, "-m", "seqrec_cli.main", "serve", "--repository", str(repository)]
    command += ["--grpc-port", "0", "--metrics-port", "0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "no version can be served: version 1 is left out" in ended.stderr
    assert "InvalidProtobuf" in ended.stderr
