"""A training is never lost: full disks, servers that go away, a second process, a second try."""

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from seqrec_export.contract import Spec
from seqrec_export.errors import SeqrecError
from seqrec_export.folders import read_json
from seqrec_export.models.model import Model
from seqrec_export.models.registry import MODELS
from seqrec_export.training.reachable import require_reachable
from seqrec_export.training.run import finished_key
from seqrec_export.training.train import Run, load, train
from support.disks import fill, small_disk
from support.served import small_config
from support.toys import cyclic
from support.trainings import assert_equal_runs, begun

LOG = cyclic(users=40)
SASREC = MODELS["sasrec"]


def trained(path: Path, model: Model = SASREC, epochs: int = 2, **how: Any) -> Run:
    how = {"config": small_config("sasrec", epochs=epochs, patience=epochs)} | how
    return train(model, LOG, path=path, progress=False, **how)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run that was never disturbed."""
    return trained(tmp_path_factory.mktemp("whole") / "sasrec")


def work_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.training")


def last(path: Path) -> Path:
    return work_of(path) / "checkpoints" / "last"


def error_of(path: Path, model: Model = SASREC) -> str:
    """What a training ends with; "" if it ends well."""
    try:
        trained(path, model)
    except (SeqrecError, OSError) as error:
        return str(error)
    return ""


# A full disk


def test_a_disk_that_is_full_after_the_training_costs_nothing(whole: Run, tmp_path: Path) -> None:
    """At each write of the run in turn: one more file fits every few times."""
    size = sum(file.stat().st_size for file in whole.path.rglob("*") if file.is_file())
    outcomes = set()
    with small_disk(tmp_path / "disk", 4000) as disk:
        for i, free in enumerate(range(0, 2 * size, size // 7)):
            path = disk / str(i) / "sasrec"

            def evaluate(*of: Any, free: int = free) -> Any:
                if of[3] == "test":
                    fill(disk, free)
                return SASREC.evaluate(*of)

            if said := error_of(path, replace(SASREC, evaluate=evaluate)):
                assert said.endswith("keeps the training, go on with --resume")
                assert said.startswith(f"{disk}/")
                assert "No space left on device" in said
                assert last(path).is_dir()
            outcomes.add(said.partition(": ")[0].removeprefix(str(path.parent)))
            (disk / "filler").unlink()
            assert_equal_runs(trained(path, resume=True), whole)
            hidden = [f.name for f in path.parent.iterdir() if "lock" not in f.name]
            assert hidden == ["sasrec"]
    assert "" in outcomes, "it fits"
    assert len(outcomes) >= 4, outcomes


def test_a_disk_that_fills_up_in_training_costs_an_epoch_at_most(
    whole: Run, tmp_path: Path
) -> None:
    kept = set()
    with small_disk(tmp_path / "disk", 4000) as disk:
        for i, free in enumerate(range(0, 400_000, 50_000)):
            path = disk / str(i) / "sasrec"
            filler = fill(disk, free)
            if said := error_of(path):
                assert str(path.parent) in said
                kept.add(last(path).is_dir())
                assert ("--resume" in said) == last(path).is_dir()
            filler.unlink()
            assert not list(disk.rglob("*.part"))
            assert_equal_runs(trained(path, resume=True), whole)
    assert kept == {False, True}, "before the first checkpoint, and after"


# A tracking server


class _Tracking(BaseHTTPRequestHandler):
    """As much of MLflow's REST interface as a training asks for."""

    def do_GET(self) -> None:
        self._answer({"experiment": {"experiment_id": "1", "lifecycle_stage": "active"}})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer({"run": {"info": {"run_id": "r", "run_uuid": "r"}, "data": {}}})

    def _answer(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def tracking() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Tracking) as server:
        threading.Thread(target=server.serve_forever).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_tracking_server_that_goes_away_does_not_take_the_run_along(
    part: str,
    whole: Run,
    tracking: ThreadingHTTPServer,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("mlflow", reason="MLflow is not installed")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri = f"http://127.0.0.1:{tracking.server_port}"

    def evaluate(*of: Any) -> Any:
        if of[3] == part:
            tracking.shutdown()
            tracking.server_close()
        return SASREC.evaluate(*of)

    run = trained(tmp_path / "run", replace(SASREC, evaluate=evaluate), mlflow=uri)
    assert_equal_runs(run, whole)
    said = [line for line in capfd.readouterr().err.splitlines() if uri in line]
    assert len(said) == 1
    assert "training goes on" in said[0]


def test_a_tracking_server_that_is_not_there_is_said_before_training(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(SeqrecError, match=f"^MLflow at {uri}: Connection refused; start it"):
        trained(tmp_path / "run", mlflow=uri)
    assert not last(tmp_path / "run").exists()
    with pytest.raises(SeqrecError, match=r"write http://tracking:5000$"):
        require_reachable("tracking:5000")


# What nobody knows how to ask


def test_an_input_that_no_log_can_give_is_found_before_training(whole: Run, tmp_path: Path) -> None:
    colour = Spec(name="history_colours", dtype="string", shape=("batch", 1), meaning="none")

    def graphs(config: Any, top_k: int) -> Any:
        found = SASREC.graphs(config, top_k)
        graph = found["sasrec"]
        return found | {"sasrec": replace(graph, inputs=(*graph.inputs, colour))}

    path = tmp_path / "run"
    with pytest.raises((SeqrecError, AssertionError), match="history_colours"):
        trained(path, replace(SASREC, graphs=graphs))
    assert not last(path).exists()


def test_an_error_of_any_kind_after_the_last_epoch_costs_nothing(
    whole: Run, tmp_path: Path
) -> None:
    def baselines(*_: Any) -> Any:
        raise ZeroDivisionError

    path = tmp_path / "run"
    with pytest.raises(ZeroDivisionError):
        trained(path, replace(SASREC, baselines=baselines))
    assert_equal_runs(trained(path, resume=True), whole)


# Two of them


def test_a_second_training_is_refused_and_told_who_trains(tmp_path: Path) -> None:
    path = tmp_path / "sasrec"
    with begun("sasrec", path, 200) as pid:
        before = read_json(work_of(path) / "config.json")
        for how in ({}, {"resume": True}, {"retrain": True}):
            with pytest.raises(SeqrecError, match=f"is being trained by process {pid};"):
                trained(path, **how)
        assert read_json(work_of(path) / "config.json") == before
    with pytest.raises(SeqrecError, match="an unfinished training"):
        trained(path)


def unfinished(path: Path) -> None:
    """Two epochs, and then an end before the run."""

    def evaluate(*of: Any) -> Any:
        if of[3] == "test":
            raise ZeroDivisionError
        return SASREC.evaluate(*of)

    with pytest.raises(ZeroDivisionError):
        trained(path, replace(SASREC, evaluate=evaluate))


def test_an_unfinished_training_is_not_dropped_without_retrain(whole: Run, tmp_path: Path) -> None:
    path = tmp_path / "sasrec"
    unfinished(path)
    state = (last(path) / "state.json").read_bytes()
    with pytest.raises(
        SeqrecError, match=r"this very training, unfinished \(2 epochs done\)"
    ) as no:
        trained(path)
    assert "go on with --resume" in str(no.value)
    assert "over with --retrain" in str(no.value)
    with pytest.raises(SeqrecError, match=r"other settings.*\(seed 0, not 7\).*--retrain"):
        trained(path, seed=7)
    with pytest.raises(SeqrecError, match=r"other settings.*\(seed 0, not 7\).*--retrain"):
        trained(path, seed=7, resume=True)
    assert (last(path) / "state.json").read_bytes() == state
    assert trained(path, seed=7, retrain=True).seed == 7
    assert not work_of(path).exists()
    unfinished(path)
    assert load(path).seed == 7, "the run that was there stays"
    assert_equal_runs(trained(path, resume=True), whole)


def test_an_unfinished_retraining_is_not_taken_for_what_is_left_of_the_run(
    whole: Run, tmp_path: Path
) -> None:
    path = tmp_path / "sasrec"
    first = trained(path)
    unfinished(path)
    assert finished_key(path) == read_json(work_of(path) / "config.json")["key"]
    with pytest.raises(SeqrecError, match="go on with --resume"):
        trained(path)
    assert_equal_runs(trained(path, resume=True, retrain=True), first)


@pytest.mark.parametrize("file", ["config.json", "checkpoints/last/state.json"])
def test_a_damaged_unfinished_training_is_named(file: str, tmp_path: Path) -> None:
    path = tmp_path / "sasrec"
    unfinished(path)
    (work_of(path) / file).write_text('{"dict": [')
    with pytest.raises(SeqrecError, match=r"is damaged.*start over with --retrain") as said:
        trained(path, resume=True)
    assert str(Path(file).parent) in str(said.value)
    trained(path, retrain=True)
