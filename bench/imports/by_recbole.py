"""Runs in RecBole's own environment: trains one of its models, writes that model's own answers.

python by_recbole.py MODEL DATASET FOLDER USERS TOP, in the folder that holds dataset/DATASET.
`run_recbole` leaves FOLDER/MODEL-DATE.pth, `answers.json` holds a row a user of the test part: the
history as the library cuts and orders it, and the best items of `full_sort_topk` with their scores.
"""

import json
import os
import sys
from pathlib import Path

os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"  # RecBole reads its own checkpoints so

import numpy as np
import torch
from recbole.quick_start import load_data_and_model, run_recbole
from recbole.utils.case_study import full_sort_topk


def main() -> None:
    name, dataset_name, folder, users, top = sys.argv[1:]
    sys.argv = sys.argv[:1]  # RecBole reads the command line too
    settings = {
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "train_neg_sample_args": None,
        "epochs": 1,
        "train_batch_size": 512,
        "checkpoint_dir": folder,
        "use_gpu": False,
        "show_progress": False,
        "state": "WARNING",
    }
    run_recbole(model=name, dataset=dataset_name, config_dict=settings)
    (checkpoint,) = Path(folder).glob(f"{name}-*.pth")

    _, model, dataset, _, _, test = load_data_and_model(str(checkpoint))
    tested = test.dataset.inter_feat["user_id"].numpy()
    asked = np.unique(tested)[: int(users)]
    found = full_sort_topk(asked, model, test, k=int(top), device=torch.device("cpu"))
    place = {int(user): row for row, user in enumerate(tested)}
    rows = []
    for user, scores, items in zip(asked, *found, strict=True):
        row = test.dataset.inter_feat[place[int(user)]]
        history = row["item_id_list"][: int(row["item_length"])]
        ids = [[str(t) for t in dataset.id2token("item_id", of)] for of in (history, items)]
        rows.append({"history": ids[0], "kept": {"ids": ids[1], "scores": scores.tolist()}})
    (Path(folder) / "answers.json").write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
