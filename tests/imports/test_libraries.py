"""What RecTools and RecBole save is served as those networks answer."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seqrec_export.imports.libraries import import_recbole, import_rectools
from seqrec_export.nn.ragged import Ragged
from seqrec_export.training.run import Run, load
from support.foreign import (
    ACTIVATIONS,
    ITEMS,
    WINDOW,
    RecBoleGRU4Rec,
    RecBoleSASRec,
    RecTools,
    random_weights,
    recbole_checkpoint,
    rectools_checkpoint,
    saved_by_rectools,
    write,
)
from support.toys import toy

RNG = np.random.default_rng(0)
# Of every length up to longer than the window; then unknown ids and padding between known ones.
HISTORIES = [list(RNG.choice(ITEMS, length)) for length in range(1, WINDOW + 5)] + [
    ["nobody knows it", *ITEMS[:3], "", "nobody knows it", *ITEMS[5:12], ""],
    ["", ITEMS[4]],
]


def expected(net: nn.Module, history: Sequence[str]) -> np.ndarray:
    """What the plain network says in float64, asked with what it knows of a history."""
    with torch.inference_mode():
        scores: Tensor = net.double()([ITEMS.index(i) + 1 for i in history if i in ITEMS])
    return scores.numpy()


def scores(run: Run, histories: Sequence[Sequence[str]]) -> np.ndarray:
    """(B, V) of the items in the network's order, in float64, all in one batch."""
    width = max(map(len, histories))
    padded = np.array([[*h, *[""] * (width - len(h))] for h in histories], object)
    history = Ragged.of(torch.from_numpy(run.vocabularies["items"].encode(padded)))
    reference = run.model.graphs(run.config, 5)[run.model.name].reference_scores
    assert reference is not None
    with torch.inference_mode():
        found: Tensor = reference(run.net.double(), history)
    return found[:, 2:].numpy()


def compare(run: Run, net: nn.Module, tolerance: float = 1e-9) -> None:
    found = scores(load(run.path), HISTORIES)
    wanted = [expected(net, history) for history in HISTORIES]
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("saved", [saved_by_rectools, bytes], ids=["saved", "ckpt"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"mask": True},
        {"causal": False},
        {"causal": False, "mask": True},
        {"cosine": True, "positions": False, "blocks": 1},
        {"scaled": True, "categories": True},
    ],
    ids=lambda settings: " ".join(settings) or "defaults",
)
def test_rectools(
    settings: dict[str, Any], saved: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    net = random_weights(RecTools(**settings))
    file = write(tmp_path, "model", saved(rectools_checkpoint(net)))
    summed = 1e-5 if "categories" in settings else 1e-9  # of the item nets, in float32
    compare(import_rectools(file, tmp_path / "run", keep_seen=True), net, summed)


def test_rectools_with_numbers_as_ids(tmp_path: Path) -> None:
    net = random_weights(RecTools())
    numbers = list(range(100, 100 + len(ITEMS)))
    file = write(tmp_path, "model", saved_by_rectools(rectools_checkpoint(net, ids=numbers)))
    run = import_rectools(file, tmp_path / "run")
    assert list(run.vocabularies["items"].ids) == [str(number) for number in numbers]


@pytest.mark.parametrize(
    "net",
    [
        *[lambda name=name: RecBoleSASRec(name) for name in ACTIVATIONS],
        lambda: RecBoleSASRec(layers=1, eps=0.1),
        RecBoleGRU4Rec,
        lambda: RecBoleGRU4Rec(hidden=7, layers=2),
    ],
    ids=[*ACTIVATIONS, "another eps", "GRU4Rec", "two GRUs"],
)
def test_recbole(net: Callable[[], Any], ids: Path, tmp_path: Path) -> None:
    made = random_weights(net())
    file = write(tmp_path, "model.pth", recbole_checkpoint(made))
    compare(import_recbole(file, tmp_path / "run", items=ids, keep_seen=True), made)


@pytest.fixture(scope="session")
def ids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("ids") / "ids.json"
    file.write_text(json.dumps(ITEMS))
    return file


def inter(folder: Path, events: Sequence[tuple[str, str]], header: str = "") -> Path:
    lines = [header or "user_id:token\titem_id:token\ttimestamp:float"]
    lines += [f"{user}\t{item}\t{time}" for time, (user, item) in enumerate(events)]
    return write(folder, "log.inter", "\n".join([*lines, ""]).encode())


def test_items_are_numbered_as_they_first_appear(tmp_path: Path) -> None:
    shuffled = list(np.random.default_rng(5).permutation(ITEMS))
    events = [(f"u{n % 7}", item) for n, item in enumerate([*shuffled, *ITEMS, "", "NA", "nan"])]
    file = write(tmp_path, "model.pth", recbole_checkpoint(random_weights(RecBoleGRU4Rec())))

    run = import_recbole(file, tmp_path / "run", inter=inter(tmp_path, events))

    assert list(run.vocabularies["items"].ids) == shuffled


def test_what_k_core_drops_has_no_number(tmp_path: Path) -> None:
    """`late` is too rare once the user `short`, who is too short himself, is gone."""
    events = [("short", "late"), ("a", "late"), *[("a", item) for item in reversed(ITEMS)]]
    events += [("b", item) for item in ITEMS]
    settings = {"user_inter_num_interval": "[2,inf)", "item_inter_num_interval": "(1,inf)"}
    content = recbole_checkpoint(random_weights(RecBoleGRU4Rec()), settings)

    run = import_recbole(
        write(tmp_path, "model.pth", content), tmp_path / "run", inter=inter(tmp_path, events)
    )

    assert list(run.vocabularies["items"].ids) == ITEMS[::-1]


def test_a_log_tells_popularity_and_rows_to_verify_with(tmp_path: Path) -> None:
    log = toy([["item 7", "item 3", "item 7", "stranger"], ["item 3", "item 7", "item 9"]])
    file = write(tmp_path, "model", rectools_checkpoint(random_weights(RecTools())))

    run = load(import_rectools(file, tmp_path / "run", log=log).path)

    (cold,) = scores(run, [["nobody knows it"]])
    assert [ITEMS[i] for i in np.argsort(-cold, kind="stable")[:3]] == [
        "item 7",
        "item 3",
        "item 9",
    ]
    assert {tuple(row["history_item_ids"][-2:]) for row in run.held_out} == {
        ("item 3", "item 7"),
    }
    assert {row["candidate_ids"][0] for row in run.held_out} == {"stranger", "item 9"}


def test_without_a_log_there_is_an_answer_too(tmp_path: Path) -> None:
    file = write(tmp_path, "model", rectools_checkpoint(random_weights(RecTools())))
    run = import_rectools(file, tmp_path / "run")
    assert np.isfinite(scores(run, [["nobody knows it"], []])).all()
    assert "no log was given" in " ".join(run.metrics["notes"])


def test_seen_items_are_left_out_unless_they_are_kept(tmp_path: Path) -> None:
    net = random_weights(RecTools())
    file = write(tmp_path, "model", rectools_checkpoint(net))
    history = ITEMS[: WINDOW + 4]  # all of it is seen, not the window alone
    kept, left_out = (
        scores(import_rectools(file, tmp_path / f"{keep}", keep_seen=keep), [history])[0]
        for keep in (True, False)
    )
    seen = np.isin(ITEMS, history)
    assert (left_out[seen] < kept.min()).all()
    np.testing.assert_array_equal(left_out[~seen], kept[~seen])
