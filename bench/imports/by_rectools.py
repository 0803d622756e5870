"""Runs in RecTools' own environment: trains its SASRecModel, saves it, writes its own answers.

python by_rectools.py LOG.inter FOLDER USERS TOP: `model.pkl` is what `model.save` leaves,
`answers.json` holds a row a user: the history, and the best items with their scores, what was seen
left out (`filter_viewed`) and kept.
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as lightning
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel


def best(model: Any, dataset: Any, users: Any, top: int, viewed: bool) -> dict[str, Any]:
    found = model.recommend(users=users, dataset=dataset, k=top, filter_viewed=viewed)
    found = found.sort_values([Columns.User, Columns.Rank])
    return {
        user: {"ids": rows[Columns.Item].tolist(), "scores": rows[Columns.Score].tolist()}
        for user, rows in found.groupby(Columns.User)
    }


def main() -> None:
    log_file, folder, users, top = sys.argv[1:]
    warnings.filterwarnings("ignore")
    lightning.seed_everything(0)
    log = pd.read_csv(log_file, sep="\t", dtype={"user_id:token": str, "item_id:token": str})
    log.columns = [Columns.User, Columns.Item, Columns.Datetime]
    log[Columns.Datetime] = pd.to_datetime(log[Columns.Datetime], unit="s")
    log[Columns.Weight] = 1.0
    dataset = Dataset.construct(log)
    model = SASRecModel(
        n_factors=64,
        n_blocks=2,
        n_heads=2,
        session_max_len=50,
        epochs=2,
        recommend_torch_device="cpu",
    )
    model.fit(dataset)
    model.save(Path(folder) / "model.pkl")

    trained = log[log[Columns.Item].isin(model.data_preparator.get_known_item_ids())]
    asked = np.random.default_rng(0).choice(trained[Columns.User].unique(), int(users), False)
    ordered = log.sort_values(Columns.Datetime, kind="stable")
    histories = ordered.groupby(Columns.User)[Columns.Item].agg(list)
    viewed, kept = (best(model, dataset, asked, int(top), viewed) for viewed in (True, False))
    rows = [{"history": histories[u], "viewed": viewed[u], "kept": kept[u]} for u in asked]
    (Path(folder) / "answers.json").write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
