"""RecTools' SASRecModel with its full softmax and its own trainer's settings."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as lightning
import torch
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from turns import Task, Turns

TOP = 10
task = Task.given()
turns = Turns(task)


class Count(lightning.Callback):
    """Without a state: `fit` makes a deep copy of the trainer and its callbacks."""

    def on_train_start(self, *_: Any) -> None:
        turns.start()

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, _: int
    ) -> None:
        turns.step(int((batch["y"] != 0).sum()), batch["y"].numel())


def make_trainer() -> lightning.Trainer:
    return lightning.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=task.epochs or -1,
        min_epochs=task.epochs or None,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
        callbacks=[Count()],
    )


def as_dataset(events: pd.DataFrame) -> Dataset:
    return Dataset.construct(events[[Columns.User, Columns.Item, Columns.Weight, Columns.Datetime]])


def main() -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    lightning.seed_everything(0)
    with np.load(task.events) as arrays:
        events = pd.DataFrame(
            {
                Columns.User: arrays["users"],
                Columns.Item: arrays["items"],
                Columns.Weight: 1.0,
                Columns.Datetime: pd.to_datetime(np.arange(len(arrays["users"])), unit="s"),
                "part": arrays["part"],
            }
        )
    model = SASRecModel(
        n_factors=task.dim,
        n_blocks=task.layers,
        n_heads=task.heads,
        session_max_len=task.window,
        batch_size=task.batch,
        dropout_rate=task.dropout,
        loss="softmax",
        get_trainer_func=make_trainer,
    )
    model.fit(as_dataset(events[events["part"] == 0]))
    tested = events[events["part"] == 2]
    with turns.uncounted():
        found = model.recommend(
            users=tested[Columns.User].to_numpy(),
            dataset=as_dataset(events[events["part"] < 2]),
            k=TOP,
            filter_viewed=True,
            on_unsupported_targets="ignore",
        )
    hits = found.merge(tested[[Columns.User, Columns.Item]])[Columns.Rank].to_numpy()
    gain = (1 / np.log2(hits + 1)).sum()
    metrics = {"hr@10": len(hits) / len(tested), "ndcg@10": gain / len(tested)}
    turns.epoch(task.epochs, metrics)


if __name__ == "__main__":
    main()
