"""`import`: from a checkpoint of another library to a repository, in one go."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from seqrec_export.clients.python import Client
from seqrec_export.errors import SeqrecError
from seqrec_export.training.run import load
from support.commands import outcome, run
from support.foreign import (
    ITEMS,
    RecBoleGRU4Rec,
    RecTools,
    random_weights,
    recbole_checkpoint,
    rectools_checkpoint,
    saved_by_rectools,
    write,
)
from support.served import serving

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def where(folder: Path) -> list[str]:
    return ["--runs", str(folder / "runs"), "--repository", str(folder / "repository")]


@pytest.mark.parametrize("name", ["rectools", "recbole"])
def test_it_has_help_with_an_example_and_stands_in_the_readme(name: str) -> None:
    result = run("import", name, "--help")
    assert result.exit_code == 0
    assert f"seqrec-export import {name}" in " ".join(result.output.split())
    assert f"`import {name}`" in README


def test_a_checkpoint_of_rectools_is_published_and_served(tmp_path: Path) -> None:
    net = random_weights(RecTools())
    file = write(tmp_path, "model.pkl", saved_by_rectools(rectools_checkpoint(net)))
    log = tmp_path / "log.csv"
    lines = [f"u{user},{ITEMS[user + n]},{n}" for user in range(9) for n in range(5)]
    log.write_text("\n".join(["uid,item,time", *lines, ""]))
    from_log = ["--data", f"table:{log}", "--columns", "user=uid"]

    said = outcome("import", "rectools", str(file), *from_log, *where(tmp_path), "--top-k", "7")

    made = said["rectools_sasrec"]
    assert made["run"] == str(tmp_path / "runs" / "rectools_sasrec")
    assert {name: graph["version"] for name, graph in made["graphs"].items()} == {
        "rectools_sasrec": 1,
        "rectools_sasrec_encoder": 1,
        "rectools_sasrec_scorer": 1,
        "rectools_sasrec_filtered": 1,
        "rectools_sasrec_similar_items": 1,
    }
    imported = load(tmp_path / "runs" / "rectools_sasrec")
    assert len(imported.held_out) == 9
    assert not imported.config.keep_seen
    assert imported.net.get_buffer("popularity")[2:].any()

    histories = [ITEMS[:1], ITEMS[3:20], ["nobody knows it", *ITEMS[5:9], ""]]
    with serving(tmp_path / "repository") as url, Client(url) as client:
        rows = [{"history_item_ids": history} for history in histories]
        answers = client.recommend("rectools_sasrec", rows)
    for answer, history in zip(answers, histories, strict=True):
        assert len(answer) == 7
        known = [ITEMS.index(item) + 1 for item in history if item in ITEMS]
        with torch.inference_mode():
            wanted = net.double()(known).numpy()
        wanted[np.array(known) - 1] = -np.inf  # seen
        best = np.argsort(-wanted)[:7]
        assert [item for item, _ in answer] == [ITEMS[i] for i in best]
        np.testing.assert_allclose([score for _, score in answer], wanted[best], atol=1e-4)


def test_a_checkpoint_of_recbole_is_published_and_said_in_a_table(tmp_path: Path) -> None:
    net = random_weights(RecBoleGRU4Rec())
    file = write(tmp_path, "GRU4Rec.pth", recbole_checkpoint(net))
    items = write(tmp_path, "ids.json", json.dumps(ITEMS).encode())
    arguments = ["--items", str(items), "--keep-seen", *where(tmp_path), "--top-k", "5"]

    result = run("import", "recbole", str(file), *arguments)

    assert result.exit_code == 0, result.exception
    assert "recbole_gru4rec_encoder" in result.stdout
    assert "Test metrics" not in result.stdout
    assert "no log was given" in result.stderr
    assert load(tmp_path / "runs" / "recbole_gru4rec").config.keep_seen


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["recbole", "GRU4Rec.pth"], "holds no item ids; give either"),
        (["recbole", "GRU4Rec.pth", "--inter", "GRU4Rec.pth"], "cannot be read as RecBole reads"),
        (["rectools", "GRU4Rec.pth"], "or of another library"),
        (["recbole", "GRU4Rec.pth", "--top-k", "0"], "--top-k is 0"),
    ],
)
def test_a_mistake_leaves_nothing(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "GRU4Rec.pth", recbole_checkpoint(random_weights(RecBoleGRU4Rec())))
    result = run("import", *arguments)
    assert isinstance(result.exception, SeqrecError), result.output
    assert said in str(result.exception)
    assert [file.name for file in tmp_path.iterdir()] == ["GRU4Rec.pth"]
