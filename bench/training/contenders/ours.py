"""`seqrec-export train`: its network, loss, batches and Lightning's Trainer; no validation."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import lightning
import torch
from turns import Task, Turns

from seqrec_export.data.histories import prepare
from seqrec_export.data.readers import read
from seqrec_export.data.vocabulary import PAD
from seqrec_export.evaluation.metrics import Metrics
from seqrec_export.models.model import fill_buffers
from seqrec_export.models.sasrec import MODEL, SASRecConfig
from seqrec_export.training.fit import lightning_module
from seqrec_export.training.trainer import begin_deterministic


class Count(lightning.Callback):
    def __init__(self, turns: Turns, evaluate: Callable[[], Metrics]) -> None:
        self.turns, self.evaluate = turns, evaluate

    def on_train_start(self, *_: Any) -> None:
        self.turns.start()

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, _: int
    ) -> None:
        targets = batch["targets"]
        self.turns.step(int((targets != PAD).sum()), targets.numel())

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        with self.turns.uncounted():
            module.net.eval()
            metrics = self.evaluate()
            module.net.train()
        self.turns.epoch(trainer.current_epoch + 1, metrics)


def main() -> None:
    task = Task.given()
    turns = Turns(task)
    torch.set_num_threads(1)
    begin_deterministic(seed=0)
    dataset = prepare(read(task.data), MODEL.split)
    config = SASRecConfig(
        dim=task.dim,
        num_layers=task.layers,
        num_heads=task.heads,
        max_length=task.window,
        batch_size=task.batch,
        dropout=task.dropout,
    )
    net = MODEL.net(config, dataset.num_rows)
    fill_buffers(net, dataset)

    def evaluate() -> Metrics:
        return MODEL.evaluate(net, dataset, config, "test")

    with tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(
            accelerator="cpu",
            precision=task.precision,
            max_epochs=task.epochs or -1,
            gradient_clip_val=config.gradient_clip or None,
            callbacks=[Count(turns, evaluate)],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            deterministic="warn",
            default_root_dir=folder,
        )
        trainer.fit(lightning_module(MODEL, net, dataset, config, seed=0))


if __name__ == "__main__":
    main()
