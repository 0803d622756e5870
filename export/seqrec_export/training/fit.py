"""The one training loop: Lightning's Trainer, the same for every model."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import Logger
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from seqrec_export.data.histories import Dataset
from seqrec_export.errors import SeqrecError
from seqrec_export.evaluation.metrics import Metrics
from seqrec_export.models.model import Batch, Model
from seqrec_export.training.checkpoints import BEST, CURVE, PlainCheckpoints
from seqrec_export.training.row_adam import HIGHEST_BETA2, RowAdam
from seqrec_export.training.trainer import begin_deterministic, keeping, run_epochs

_LOOK_EVERY = 100  # steps between two looks at the loss: each waits for the device
_MISSING = {
    "leave_one_out": "the event before the last of each user with three events or more",
    "last_rating": "the event before the last of nine in ten users with three events or more",
    "time": "the tenth of the time before the last tenth",
}


class DivergedError(SeqrecError):
    """A training whose numbers are no longer finite."""


def resolved(model: Model, config: Any) -> Any:
    """The config with the precision that `auto` means on this machine."""
    if config.precision != "auto":
        return config
    fast = torch.cuda.is_available() or (model.cpu_bfloat16 and _multiplies_bfloat16())
    return replace(config, precision="bfloat16" if fast else "float32")


def require_targets(model: Model, dataset: Dataset, config: Any, source: str) -> None:
    """Raise SeqrecError if there is nothing to train on, or nothing to choose the epoch by."""
    if not model.num_batches(dataset, config):
        raise SeqrecError(
            f"{source} leaves {model.name} nothing to train on: {len(dataset.train)} training "
            "events make no step with these settings; give a longer log"
        )
    if not model.metric.targets(dataset):
        raise SeqrecError(
            f"{source} leaves {model.name} nothing held out to choose the epoch by, which takes "
            f"{_MISSING[model.split]}, and there is none; give a longer log"
        )


@contextmanager
def enough_memory() -> Iterator[None]:
    """Raises SeqrecError if numpy, PyTorch or CUDA ask for more memory than there is."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        words = ("allocate memory", "out of memory", "Storage size calculation overflowed")
        if isinstance(error, RuntimeError) and not any(word in str(error) for word in words):
            raise
        said = str(error).partition("\n")[0][:200] or "none is left"  # Python's own error is empty
        raise SeqrecError(
            f"there is not enough memory: {said}; lower batch_size, max_length or the sizes of the "
            "network"
        ) from error


class _Epoch(IterableDataset[Batch]):
    """Batches that depend on the seed and the epoch only, so a resumed run sees the same."""

    def __init__(self, model: Model, dataset: Dataset, config: Any, seed: int) -> None:
        self.model, self.dataset, self.config, self.seed = model, dataset, config, seed
        self.epoch = 0
        self.length = model.num_batches(dataset, config)

    def __iter__(self) -> Iterator[Batch]:
        # This is a generator: Lightning makes the first iterator before it says which epoch begins.
        rng = np.random.default_rng([self.seed, self.epoch])
        yield from self.model.batches(self.dataset, self.config, rng)

    def __len__(self) -> int:
        return self.length


class _Clock:
    """What a training has taken, with what it had taken when it was resumed."""

    def __init__(self) -> None:
        self.before = {"seconds": 0.0, "cpu_seconds": 0.0}
        self._began, self._began_cpu = time.perf_counter(), time.process_time()

    def spent(self) -> dict[str, float]:
        return {
            "seconds": self.before["seconds"] + time.perf_counter() - self._began,
            "cpu_seconds": self.before["cpu_seconds"] + time.process_time() - self._began_cpu,
        }


def _require_loss(name: str, loss: Any) -> None:
    """Raise SeqrecError if a network's loss is not a number that training can lower."""
    if not isinstance(loss, Tensor):
        found = f"gives {type(loss).__name__}"
    elif loss.ndim:
        found = f"has the shape {tuple(loss.shape)}; take its mean"
    elif not loss.requires_grad:
        found = "does not depend on any parameter; do not detach it"
    else:
        return
    raise SeqrecError(f"{name}: loss has to give one number as a tensor, and {found}")


class _Fit(lightning.LightningModule):
    def __init__(self, model: Model, net: Any, dataset: Dataset, config: Any, seed: int) -> None:
        super().__init__()
        self.model, self.net, self.dataset, self.config = model, net, dataset, config
        self.epoch_data = _Epoch(model, dataset, config, seed)
        self.seed = seed
        self.curve: list[Metrics] = []
        self.clock = _Clock()
        self._rows: RowAdam | None = None
        # One tensor for all steps: small ones that stay between the large ones that come and go
        # would fragment the heap by gigabytes.
        self._loss_sum: Tensor | None = None
        self._steps = 0

    def train_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(self.epoch_data, batch_size=None)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader([0], batch_size=None)  # type: ignore[arg-type]  # one step: the whole part is evaluated at once

    def on_train_epoch_start(self) -> None:
        self.epoch_data.epoch = self.current_epoch

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # A resumed run has to draw the same dropout masks as one that was never stopped. The start
        # of the epoch is too early: making an iterator draws, and a resumed run makes it earlier.
        if batch_idx == 0:
            torch.manual_seed(self.seed * 1_000_003 + self.current_epoch)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        loss: Tensor = self.net.loss(batch)
        if self._loss_sum is None:
            _require_loss(self.model.name, loss)
            self._loss_sum = torch.zeros_like(loss.detach())
        self._loss_sum += loss.detach()
        self._steps += 1
        if self._steps % _LOOK_EVERY == 0:
            self._check("the loss", float(self._loss_sum))
        return loss

    def _check(self, name: str, value: float) -> None:
        if math.isfinite(value):
            return
        word = "NaN" if math.isnan(value) else "infinite"
        raise DivergedError(
            f"{self.model.name}: {name} is {word} in epoch {self.current_epoch + 1}, so "
            f"the training diverges; lower learning_rate, which is {self.config.learning_rate:g}"
        )

    def require_finite(self) -> None:
        """Raise DivergedError if the loss or a weight is no number."""
        if self._loss_sum is not None:
            self._check("the loss", float(self._loss_sum))
        weights = [t for t in self.net.state_dict().values() if t.is_floating_point()]
        if not all(bool(torch.isfinite(tensor).all()) for tensor in weights):
            self._check("a weight", math.nan)

    def end_of_loss(self) -> float | None:
        """The mean loss since this was asked last; None without a step."""
        if self._loss_sum is None:
            return None
        mean = float(self._loss_sum) / self._steps
        self._loss_sum, self._steps = None, 0
        self.log("loss", mean, prog_bar=True, batch_size=1)
        return mean

    def validation_step(self, batch: Any, index: int) -> None:
        self.require_finite()
        with torch.autocast(self.device.type, enabled=False):  # in full precision, as it is served
            metrics = self.model.evaluate(self.net, self.dataset, self.config, "validation")
        self._check(self.model.metric.name, metrics[self.model.metric.name])
        if (loss := self.end_of_loss()) is not None:
            metrics["loss"] = loss
        self.curve.append({"epoch": float(self.current_epoch), **metrics})
        self.log(
            self.model.metric.name, metrics[self.model.metric.name], prog_bar=True, batch_size=1
        )
        others = metrics.keys() - {"loss", self.model.metric.name}
        self.log_dict({name: metrics[name] for name in others}, batch_size=1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[CURVE] = self.curve
        checkpoint["spent"] = self.clock.spent()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.curve = checkpoint[CURVE]
        self.clock.before = checkpoint["spent"]

    def on_validation_start(self) -> None:
        self.catch_up()

    def catch_up(self) -> None:
        """Bring rows that had no gradient lately to the last step."""
        if self._rows is not None:
            self._rows.catch_up()

    def on_fit_end(self) -> None:
        if self._rows is not None:
            self._rows.close()

    def _optimizer(self) -> torch.optim.Optimizer:
        """Adam, by row if that gives the same and pays.

        Decay and clipping need the whole gradient; a rate that changes at each step needs all rows.
        """
        config = self.config
        rate, betas = config.learning_rate, (0.9, config.adam_beta2)
        embeddings = [m for m in self.net.modules() if isinstance(m, torch.nn.Embedding)]
        sparse = [embedding for embedding in embeddings if embedding.sparse]
        whole = config.weight_decay or config.gradient_clip or torch.cuda.is_available()
        whole = whole or config.adam_beta2 > HIGHEST_BETA2
        if sparse and not (whole or config.warmup_steps or not config.lr_decay):
            self._rows = RowAdam(self.net.parameters(), sparse, lr=rate, betas=betas)
            return self._rows
        for embedding in sparse:
            embedding.sparse = False
        return torch.optim.Adam(
            self.net.parameters(), lr=rate, betas=betas, weight_decay=config.weight_decay
        )

    def configure_optimizers(self) -> Any:
        optimizer = self._optimizer()
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.learning_rate_factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def learning_rate_factor(self, step: int) -> float:
        """The share of `learning_rate` at a step, counted from 0 over the whole training."""
        warm_up, decay = self.config.warmup_steps, self.config.lr_decay
        rising = min(1.0, (step + 1) / warm_up) if warm_up else 1.0
        steps = max(len(self.epoch_data), 1)
        if decay:
            return rising * float(decay ** (step // steps))
        done = min(1.0, step / (steps * self.config.epochs))
        return rising * (1 + math.cos(math.pi * done)) / 2


class _FitAll(_Fit):
    """Without validation: nothing is held back."""

    def on_train_epoch_end(self) -> None:
        self.catch_up()
        self.require_finite()
        self.curve.append({"epoch": float(self.current_epoch), "loss": self.end_of_loss() or 0.0})


class _Stopping(EarlyStopping):
    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """A training that had stopped when it died is over: it does not train one epoch more."""
        trainer.should_stop = checkpoint["callbacks"][self.state_key]["stopped_epoch"] > 0


def fit(
    model: Model,
    net: torch.nn.Module,
    dataset: Dataset,
    config: Any,
    checkpoints: Path,
    *,
    seed: int = 0,
    resume: bool = False,
    progress: bool = True,
    loggers: Sequence[Logger] = (),
) -> dict[str, Any]:
    """Train `net` in place; it ends with the weights of the best validation epoch.

    Returns the curve (metrics per epoch), why training ended, and the wall and CPU seconds that it
    took. With `resume`, goes on from the last finished epoch under `checkpoints` and ends as if it
    had never stopped; the time until that epoch counts as well. Raises DivergedError in the epoch
    in which the loss or the weights stop being finite.
    """
    config = resolved(model, config)
    begin_deterministic(seed)
    module = _Fit(model, net, dataset, config, seed)
    stopping = _Stopping(
        patience=config.patience, monitor=model.metric.name, mode=model.metric.direction
    )
    best = keeping(
        checkpoints, BEST, save_top_k=1, monitor=model.metric.name, mode=model.metric.direction
    )
    run_epochs(
        module,
        config,
        checkpoints,
        callbacks=[stopping, best],
        resume=resume,
        progress=progress,
        loggers=loggers,
    )
    state = PlainCheckpoints().load_checkpoint(checkpoints / BEST)["state_dict"]
    net.load_state_dict({name.removeprefix("net."): tensor for name, tensor in state.items()})
    net.to("cpu").eval()
    stopped = stopping.stopped_epoch > 0
    return {
        "curve": module.curve,
        "ended": f"no gain in {model.metric.name} for {config.patience} epochs"
        if stopped
        else f"all {config.epochs} epochs done",
        **{name: round(value, 2) for name, value in module.clock.spent().items()},
        "config": asdict(config),
    }


def fit_all(
    model: Model,
    net: torch.nn.Module,
    dataset: Dataset,
    config: Any,
    checkpoints: Path,
    *,
    epochs: int,
    seed: int = 0,
    resume: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Train `net` in place for `epochs` of a dataset that holds nothing back.

    Returns the last loss, and the wall and CPU seconds that it took. The learning rate goes by the
    epochs of the config. `resume` and errors are as those of `fit`.
    """
    config = resolved(model, config)
    begin_deterministic(seed)
    module = _FitAll(model, net, dataset, config, seed)
    how: dict[str, Any] = {"epochs": epochs, "resume": resume, "progress": progress}
    run_epochs(module, config, checkpoints, validate=False, **how)
    net.to("cpu").eval()
    spent = {name: round(value, 2) for name, value in module.clock.spent().items()}
    return {"epochs": epochs, "loss": module.curve[-1]["loss"], **spent}


def _multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16; others would emulate it, slowly."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def lightning_module(
    model: Model, net: Any, dataset: Dataset, config: Any, seed: int
) -> lightning.LightningModule:
    """What `fit` trains, for a Trainer of one's own: the network with its batches and steps."""
    return _Fit(model, net, dataset, config, seed)
