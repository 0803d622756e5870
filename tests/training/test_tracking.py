"""The curves of a training where TensorBoard and MLflow look for them."""

import struct
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from seqrec_export.data.readers.synthetic import generate
from seqrec_export.errors import SeqrecError
from seqrec_export.models.registry import MODELS
from seqrec_export.training.tracking import EXPERIMENT, TENSORBOARD_FOLDER
from seqrec_export.training.train import Run, train
from support.served import small_config

LOG = generate(users=80, items=60, events=1500, sessions=80, seed=3)


def trained(path: Path, mlflow: str | None = None) -> Run:
    config = small_config("caser", epochs=2)
    return train(MODELS["caser"], LOG, config, path, progress=False, mlflow=mlflow)


def events(file: Path) -> Iterator[Event]:
    """TFRecords: the length in 8 bytes, a checksum in 4, the message, a checksum in 4."""
    data = file.read_bytes()
    while data:
        (length,) = struct.unpack_from("<Q", data)
        yield Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]


def test_tensorboard_has_the_curve_and_what_came_of_it(tmp_path: Path) -> None:
    run = trained(tmp_path / "run")
    (file,) = (run.path / TENSORBOARD_FOLDER).glob("events.*")
    curves: dict[str, list[float]] = defaultdict(list)
    for event in events(file):
        for value in event.summary.value:
            curves[value.tag].append(value.simple_value)
    for name in ("loss", "hr@10", "ndcg@10", "auc"):
        tag = name.replace("@", "_")  # which TensorBoard does not take
        assert curves[tag] == pytest.approx([epoch[name] for epoch in run.metrics["curve"]])
    assert curves["test/hr_10"] == pytest.approx([run.metrics["test"]["hr@10"]])
    popular = run.metrics["baselines"]["popularity"]["hr@10"]
    assert curves["popularity/hr_10"] == pytest.approx([popular])


def test_mlflow_has_settings_curve_and_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow 3 wants a database otherwise
    uri = (tmp_path / "mlflow").as_uri()
    run = trained(tmp_path / "run", uri)
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    (logged,) = client.search_runs([experiment.experiment_id])
    assert logged.info.run_name == "caser"
    assert logged.info.status == "FINISHED"
    assert logged.data.params["model"] == "caser"
    assert logged.data.params["epochs"] == "2"
    curve = client.get_metric_history(logged.info.run_id, "ndcg10")  # MLflow takes no @
    expected = [epoch["ndcg@10"] for epoch in run.metrics["curve"]]
    assert [metric.value for metric in curve] == pytest.approx(expected)  # of float32
    assert logged.data.metrics["test/ndcg10"] == run.metrics["test"]["ndcg@10"]


def test_mlflow_that_is_absent_or_not_there_is_said_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SeqrecError, match="MLflow at nosuch://here"):
        trained(tmp_path / "run", "nosuch://here")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setattr("lightning.pytorch.loggers.mlflow._MLFLOW_AVAILABLE", False)
    with pytest.raises(SeqrecError, match=r"pip install 'seqrec-export\[mlflow\]'"):
        trained(tmp_path / "run", "file:mlflow")
    assert not (tmp_path / "run").exists()
