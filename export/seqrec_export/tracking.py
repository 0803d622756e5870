"""Where a training's curves go besides metrics.json: TensorBoard, and MLflow where one is named."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger

from seqrec_export.errors import SeqrecError

EXPERIMENT = "seqrec-export"
TENSORBOARD_FOLDER = "tensorboard"


class _TensorBoard(TensorBoardLogger):
    """Stays open at the end of the fit: what the test part gives belongs into the same file."""

    def finalize(self, status: str) -> None:
        self.experiment.flush()

    def save(self) -> None:
        """Nothing: settings are in the run's config.json, not in a hparams.yaml."""


def loggers(model: str, config: Any, folder: Path, mlflow: str | None = None) -> list[Logger]:
    """TensorBoard's, which writes into `folder`, and with the URI of an MLflow one for that.

    Raises SeqrecError where MLflow is not installed, or not to be reached.
    """
    found: list[Logger] = [_TensorBoard(folder, name=TENSORBOARD_FOLDER, version="")]
    if mlflow:
        try:
            found.append(MLFlowLogger(EXPERIMENT, run_name=model, tracking_uri=mlflow))
            found[-1].log_hyperparams({"model": model, **asdict(config)})
        except ModuleNotFoundError as error:
            raise SeqrecError(
                "--mlflow needs MLflow; `pip install 'seqrec-export[mlflow]'`"
            ) from error
        # MLflow's client raises what its store raises: of requests, of SQLAlchemy, its own.
        except Exception as error:
            raise SeqrecError(f"MLflow at {mlflow}: {error}") from error
    return found


def log_results(found: list[Logger], metrics: Mapping[str, Any]) -> None:
    """What the test part and the baselines gave, at the last step."""
    steps = len(metrics["curve"])
    results = {f"test/{name}": value for name, value in metrics["test"].items()}
    for baseline, values in metrics["baselines"].items():
        results |= {f"{baseline}/{name}": value for name, value in values.items()}
    for logger in found:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logger.log_metrics(results, step=steps)
        if isinstance(logger, _TensorBoard):
            logger.experiment.close()
