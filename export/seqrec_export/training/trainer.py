"""Lightning's Trainer as every training here has it: plain checkpoints, quiet, deterministic."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import (
    Callback,
    ModelCheckpoint,
    ProgressBar,
    RichProgressBar,
    TQDMProgressBar,
)
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from lightning.pytorch.loggers import Logger

from seqrec_export.folders import recover
from seqrec_export.training.checkpoints import LAST, PlainCheckpoints

_PRECISION: dict[str, Any] = {"float32": 32, "bfloat16": "bf16-mixed"}


def run_epochs(
    module: lightning.LightningModule,
    config: Any,
    checkpoints: Path,
    *,
    epochs: int | None = None,
    callbacks: Sequence[Callback] = (),
    validate: bool = True,
    resume: bool = False,
    progress: bool = True,
    loggers: Sequence[Logger] = (),
) -> None:
    """Train `module` for `epochs`, or else those of its config, with a checkpoint after each.

    With `resume`, goes on from the last one under `checkpoints`.
    """
    last = keeping(
        checkpoints, LAST, save_top_k=1, save_on_train_epoch_end=None if validate else True
    )
    shown = [_progress()] if progress else []
    trainer = lightning.Trainer(
        accelerator="gpu" if torch.cuda.is_available() else "cpu",
        devices=1,
        precision=_PRECISION[config.precision],
        max_epochs=epochs or config.epochs,
        gradient_clip_val=config.gradient_clip or None,
        callbacks=[*callbacks, last, *shown],
        plugins=[PlainCheckpoints()],
        logger=list(loggers),
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in shown),
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=None if validate else 0,
        deterministic="warn",
        default_root_dir=checkpoints,
    )
    path = checkpoints / LAST
    recover(path)
    try:
        trainer.fit(module, ckpt_path=str(path) if resume and path.exists() else None)
    except SystemExit:  # what Lightning makes of Ctrl-C
        raise KeyboardInterrupt from None


def keeping(checkpoints: Path, name: str, **how: Any) -> ModelCheckpoint:
    """A callback that keeps a checkpoint under this name."""
    checkpoint = ModelCheckpoint(checkpoints, name, enable_version_counter=False, **how)
    checkpoint.FILE_EXTENSION = ""
    return checkpoint


def begin_deterministic(seed: int) -> None:
    """Seeded, deterministic and quiet."""
    quieten()
    lightning.seed_everything(seed, verbose=False)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Nobody reads memory that was never written: filling it would cost up to a tenth of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def quieten() -> None:
    """Lightning greets, advises and counts workers; our batches come ready from this process."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message=".*num_workers.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")


class _EpochLines(Callback):
    """Prints a line an epoch, for a log file: a bar would leave nothing there."""

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.limit_val_batches:
            self.on_validation_end(trainer, pl_module)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        shown = {name: float(value) for name, value in trainer.progress_bar_metrics.items()}
        figures = "  ".join(f"{name} {value:.4f}" for name, value in shown.items())
        print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {figures}", file=sys.stderr)


class _NotebookBar(TQDMProgressBar):
    """One bar over an epoch: a second one below it would leave empty lines in a cell's output."""

    def init_validation_tqdm(self) -> Any:
        return Tqdm(disable=True)


def _progress() -> Callback:
    """A bar on a terminal and in a notebook, and a line an epoch anywhere else."""
    if sys.stderr.isatty():
        return RichProgressBar(console_kwargs={"stderr": True})
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    # Without ipywidgets, that of Rich stands still in a notebook.
    return _NotebookBar() if hasattr(shell, "kernel") else _EpochLines()
