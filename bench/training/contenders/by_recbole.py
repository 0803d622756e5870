"""RecBole's SASRec with its data preparation, augmentation and training loop."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_trainer, init_seed
from recbole.utils.utils import get_model
from turns import Task, Turns


def write_atomic(task: Task, folder: Path) -> None:
    """All events: RecBole's own split holds each user's last two back, as ours does."""
    folder.mkdir()
    with np.load(task.events) as arrays:
        users, items = arrays["users"], arrays["items"]
    columns = {"user_id:token": users, "item_id:token": items, "timestamp:float": range(len(users))}
    pd.DataFrame(columns).to_csv(folder / "events.inter", sep="\t", index=False)


def main() -> None:
    task = Task.given()
    turns = Turns(task)
    write_atomic(task, Path("events").absolute())
    config = Config(
        model="SASRec",
        dataset="events",
        config_dict={
            "data_path": os.fspath(Path.cwd()),
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "hidden_size": task.dim,
            "inner_size": task.dim,
            "n_layers": task.layers,
            "n_heads": task.heads,
            "hidden_dropout_prob": task.dropout,
            "attn_dropout_prob": task.dropout,
            "MAX_ITEM_LIST_LENGTH": task.window,
            "train_batch_size": task.batch,
            "loss_type": "CE",
            "train_neg_sample_args": None,
            "eval_args": {
                "split": {"LS": "valid_and_test"},
                "order": "TO",
                "group_by": "user",
                "mode": "full",
            },
            "use_gpu": False,
            "show_progress": False,
            "state": "ERROR",
        },
    )
    init_seed(0, reproducibility=False)
    torch.set_num_threads(1)
    train, _, _ = data_preparation(config, create_dataset(config))
    net = get_model("SASRec")(config, train.dataset)
    trainer = get_trainer(config["MODEL_TYPE"], "SASRec")(config, net)
    sizes: list[tuple[int, int]] = []

    def loss(batch: Any) -> torch.Tensor:
        if sizes:  # of the step before, which is over
            turns.step(*sizes.pop())
        sizes.append((len(batch), batch["item_id_list"].numel()))
        return net.calculate_loss(batch)

    turns.start()
    epoch = 0
    while True:
        trainer._train_epoch(train, epoch, loss_func=loss)
        epoch += 1


if __name__ == "__main__":
    main()
