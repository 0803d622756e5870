"""Where a training's curves go besides metrics.json: TensorBoard, and MLflow if one is named.

Neither is worth losing a training: a missing one is reported before training begins, and one that
goes away meanwhile is reported once and left alone.
"""

from __future__ import annotations

import os
import socket
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, MLFlowLogger
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import RecordWriter
from tensorboardX.summary import scalar

from seqrec_export.errors import SeqrecError
from seqrec_export.training.reachable import require_reachable

EXPERIMENT = "seqrec-export"
TENSORBOARD_FOLDER = "tensorboard"
# MLflow's client would ask a server that is gone for minutes, at every epoch again.
_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


class _TensorBoard(Logger):
    """Writes each epoch itself: tensorboardX's own writer waits forever when the disk is full."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._writer: Any = None
        self._lost = False

    @property
    def name(self) -> str:
        return TENSORBOARD_FOLDER

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Does nothing: settings are in the run's config.json."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append one event with all of them, at once on disk."""
        if self._lost:
            return
        event = Event(wall_time=time.time(), step=step or 0)
        for name, value in metrics.items():
            event.summary.value.extend(scalar(name, float(value)).value)
        try:
            if self._writer is None:
                self._writer = self._open()
            self._writer.write(event.SerializeToString())
            self._writer.flush()
        except OSError as error:
            self._lost = True
            _say(f"{self._folder}: {error.strerror}; its curves end here, training goes on")

    def _open(self) -> Any:
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        writer = RecordWriter(str(self._folder / name))
        writer.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
        return writer

    def close(self) -> None:
        if self._writer is not None and not self._lost:
            self._writer.close()
            self._lost = True


class _MLflow(MLFlowLogger):
    """Logs as long as the server answers; one that goes away does not take the training along."""

    lost = False

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._try(lambda: super(_MLflow, self).log_metrics(metrics, step))

    def finalize(self, status: str = "success") -> None:
        self._try(lambda: super(_MLflow, self).finalize(status))

    def _try(self, work: Callable[[], None]) -> None:
        if self.lost:
            return
        try:
            work()
        except Exception as error:  # as in `loggers`
            self.lost = True
            _say(
                f"MLflow at {self._tracking_uri} answers no longer ({_in_a_line(error)}); training "
                "goes on and is no longer logged there"
            )


def loggers(model: str, config: Any, folder: Path, mlflow: str | None = None) -> list[Logger]:
    """A logger for TensorBoard, which writes into `folder`, and one for MLflow if its URI is given.

    Raises SeqrecError if MLflow is not installed or cannot be reached.
    """
    found: list[Logger] = [_TensorBoard(folder / TENSORBOARD_FOLDER)]
    if mlflow:
        require_reachable(mlflow)
        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)
        try:
            found.append(_MLflow(EXPERIMENT, run_name=model, tracking_uri=mlflow))
            found[-1].log_hyperparams({"model": model, **asdict(config)})
        except ModuleNotFoundError as error:
            raise SeqrecError(
                "--mlflow needs MLflow; `pip install 'seqrec-export[mlflow]'`"
            ) from error
        # MLflow's client raises what its store raises: errors of requests, of SQLAlchemy, its own.
        except Exception as error:
            raise SeqrecError(f"MLflow at {mlflow}: {_in_a_line(error)}") from error
    return found


def log_results(found: list[Logger], metrics: Mapping[str, Any]) -> None:
    """Log what the test part and the baselines gave, at the last step."""
    steps = len(metrics["curve"])
    results = {f"test/{name}": value for name, value in metrics["test"].items()}
    for baseline, values in metrics["baselines"].items():
        results |= {f"{baseline}/{name}": value for name, value in values.items()}
    for logger in found:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logger.log_metrics(results, step=steps)
        if isinstance(logger, _TensorBoard):
            logger.close()


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _say(text: str) -> None:
    print(text, file=sys.stderr)
