"""Training: one seed one result, no look at what is held out, killed and resumed, no pickle."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seqrec_export.data.histories import prepare
from seqrec_export.data.interactions import Interactions
from seqrec_export.data.readers.synthetic import generate
from seqrec_export.errors import SeqrecError
from seqrec_export.folders import read_json
from seqrec_export.models.registry import MODELS
from seqrec_export.training.checkpoints import PlainCheckpoints
from seqrec_export.training.fit import _Fit
from seqrec_export.training.train import Run, load, train
from support.served import small_config
from support.toys import toy, with_events
from support.trainings import LOG, assert_equal_runs, begun, weights

PICKLED = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


@pytest.fixture(scope="module")
def log() -> Interactions:
    return generate(**LOG)


def short(name: str, log: Interactions, path: Path, seed: int = 0, **how: bool) -> Run:
    config = small_config(name, epochs=3)
    return train(MODELS[name], log, config, path, seed=seed, progress=False, **how)


@pytest.mark.parametrize("name", MODELS)
def test_one_seed_gives_one_result_and_another_seed_another(
    name: str, log: Interactions, tmp_path: Path
) -> None:
    one, same, other = (
        short(name, log, tmp_path / label, seed)
        for label, seed in (("one", 0), ("same", 0), ("other", 1))
    )
    assert_equal_runs(one, same)
    assert any(not torch.equal(t, weights(other)[n]) for n, t in weights(one).items())


@pytest.mark.parametrize("name", MODELS)
def test_what_is_held_out_as_test_never_reaches_the_weights(
    name: str, log: Interactions, tmp_path: Path
) -> None:
    dataset = prepare(log, MODELS[name].split)
    order = np.lexsort((log.times, log.users))
    held_out = order[dataset.test]
    rng = np.random.default_rng(0)
    items, ratings = log.items.copy(), log.ratings.copy()
    items[held_out] = rng.integers(0, len(log.item_ids), len(held_out))
    ratings[held_out] = rng.choice(ratings, len(held_out))
    other = with_events(log, slice(None), items=items, ratings=ratings)
    before = short(name, log, tmp_path / "before")
    after = short(name, other, tmp_path / "after")
    assert before.metrics["test"] != after.metrics["test"]
    assert before.metrics["curve"] == after.metrics["curve"]
    for tensor_name, tensor in weights(before).items():
        assert torch.equal(tensor, weights(after)[tensor_name]), tensor_name


def factors(warmup_steps: int, lr_decay: float, epochs: int) -> list[float]:
    """Of the learning rate, a step each, with 4 steps an epoch."""
    model = MODELS["caser"]
    config = model.config(
        warmup_steps=warmup_steps, lr_decay=lr_decay, epochs=epochs, batch_size=25
    )
    dataset = prepare(toy([[f"item {i % 9}" for i in range(102)]]), "leave_one_out")
    fit = _Fit(model, torch.nn.Linear(1, 1), dataset, config, 0)
    assert len(fit.epoch_data) == 4
    return [fit.learning_rate_factor(step) for step in range(4 * epochs)]


def test_the_learning_rate_falls_by_its_factor_an_epoch() -> None:
    assert factors(0, 0.5, 3) == pytest.approx([1.0] * 4 + [0.5] * 4 + [0.25] * 4)


def test_the_learning_rate_rises_first_and_falls_by_a_cosine_to_nothing() -> None:
    got = factors(4, 0.0, 50)
    cosine = [(1 + np.cos(np.pi * step / 200)) / 2 for step in range(200)]
    assert got[4:] == pytest.approx(cosine[4:])
    assert got[:4] == pytest.approx([cosine[i] * (i + 1) / 4 for i in range(4)])
    assert got[-1] < 1e-4


@pytest.mark.parametrize("name", MODELS)
def test_every_preset_is_one_of_the_model(name: str) -> None:
    assert "source" in MODELS[name].presets
    for settings in MODELS[name].presets.values():
        config = MODELS[name].config(**settings)
        MODELS[name].net(config, prepare(generate(**LOG), MODELS[name].split).num_rows)
        kinds = {setting: type(value) for setting, value in vars(MODELS[name].config()).items()}
        assert {s: type(v) for s, v in settings.items()} == {s: kinds[s] for s in settings}


def kill_after_an_epoch(name: str, path: Path, epochs: int) -> None:
    with begun(name, path, epochs):
        pass


@pytest.mark.parametrize("name", ["sasrec", "two_tower"])  # without and with buffers of their own
def test_a_killed_training_resumes_and_ends_as_if_never_stopped(
    name: str, log: Interactions, tmp_path: Path
) -> None:
    epochs = 30
    config = small_config(name, epochs=epochs, patience=epochs)
    whole = train(MODELS[name], log, config, tmp_path / "whole", progress=False)
    path = tmp_path / "killed"
    kill_after_an_epoch(name, path, epochs)
    with pytest.raises(SeqrecError, match="no finished run"):
        load(path)
    work = tmp_path / ".killed.training"
    done = len(PlainCheckpoints().load_checkpoint(work / "checkpoints" / "last")["curve"])
    assert 1 < done < len(whole.metrics["curve"])
    resumed = train(MODELS[name], log, config, path, resume=True, progress=False)
    assert_equal_runs(whole, resumed)
    assert not work.exists()


@pytest.mark.parametrize(("epochs", "patience"), [(4, 50), (60, 2)], ids=["all", "no gain"])
def test_a_training_that_dies_after_its_last_epoch_resumes_with_the_same_end(
    epochs: int, patience: int, log: Interactions, tmp_path: Path
) -> None:
    config = small_config("sasrec", epochs=epochs, patience=patience)
    whole = train(MODELS["sasrec"], log, config, tmp_path / "whole", progress=False)
    assert (len(whole.metrics["curve"]) == epochs) == (patience == 50)

    def evaluate(net: Any, dataset: Any, config: Any, part: Any) -> Any:
        if part == "test":
            raise MemoryError
        return MODELS["sasrec"].evaluate(net, dataset, config, part)

    dying = replace(MODELS["sasrec"], evaluate=evaluate)
    path = tmp_path / "died"
    with pytest.raises(SeqrecError, match="not enough memory"):
        train(dying, log, config, path, progress=False)
    last = tmp_path / ".died.training" / "checkpoints" / "last"
    checkpoint = PlainCheckpoints().load_checkpoint(last)
    checkpoint["spent"] = {"seconds": 9_000.0, "cpu_seconds": 8_000.0}
    PlainCheckpoints().save_checkpoint(checkpoint, last)
    resumed = train(MODELS["sasrec"], log, config, path, resume=True, progress=False)
    assert_equal_runs(whole, resumed)
    assert 9_000 < resumed.metrics["seconds"] < 9_000 + 600
    assert 8_000 < resumed.metrics["cpu_seconds"] < 8_000 + 600


@pytest.mark.parametrize("change", ["config", "seed", "data"])
def test_resuming_with_other_settings_is_refused(
    change: str, log: Interactions, tmp_path: Path
) -> None:
    config = small_config("sasrec", epochs=3)
    path = tmp_path / "run"
    short("sasrec", log, path)
    finished = path.rename(tmp_path / ".run.training")
    (finished / "metrics.json").unlink()
    other = {"config": config, "seed": 0, "interactions": log} | {
        "config": {"config": small_config("sasrec", epochs=3, dropout=0.5)},
        "seed": {"seed": 1},
        "data": {"interactions": with_events(log, slice(None, -1))},
    }[change]
    with pytest.raises(SeqrecError, match="begun with other settings, data or versions"):
        train(MODELS["sasrec"], path=path, resume=True, progress=False, **other)
    assert read_json(finished / "config.json")["seed"] == 0  # untouched, to go on from


def test_a_checkpoint_reads_back_as_it_was_without_pickle(tmp_path: Path) -> None:
    checkpoint = {
        "state_dict": {"net.w": torch.arange(6.0).reshape(2, 3), "empty": torch.zeros(0, 2)},
        "lr_schedulers": [{"base_lrs": (0.1, 2), 7: None, "nested": {"t": torch.tensor(3)}}],
        "text": "寿司",
        "infinity": float("inf"),
    }
    io = PlainCheckpoints()
    io.save_checkpoint({"old": 1}, tmp_path / "last")
    io.save_checkpoint(checkpoint, tmp_path / "last")
    back = io.load_checkpoint(tmp_path / "last")
    assert torch.equal(back["state_dict"]["net.w"], checkpoint["state_dict"]["net.w"])
    assert back["state_dict"]["empty"].shape == (0, 2)
    assert back["lr_schedulers"][0]["nested"].pop("t") == checkpoint["lr_schedulers"][0][
        "nested"
    ].pop("t")
    for name in ("lr_schedulers", "text", "infinity"):
        assert back[name] == checkpoint[name]
    assert [f.name for f in tmp_path.iterdir()] == ["last"]
    with pytest.raises(TypeError, match="object"):
        io.save_checkpoint({"odd": object()}, tmp_path / "other")


def test_the_checkpoints_of_a_training_hold_no_pickle(tmp_path: Path) -> None:
    kill_after_an_epoch("sasrec", tmp_path / "run", 60)
    files = [f for f in tmp_path.rglob("*") if f.is_file()]
    assert {"state.json", "tensors.safetensors", "config.json"} <= {f.name for f in files}
    for file in files:
        assert not file.read_bytes().startswith(PICKLED), file.name


def test_a_model_that_lacks_a_column_says_which_and_who_has_it(
    log: Interactions, tmp_path: Path
) -> None:
    for name, column in (("mlink", "ratings"), ("two_tower", "item_features")):
        lacking = with_events(log, slice(None), **{column: None})
        with pytest.raises(SeqrecError, match=f"{name} needs {column}"):
            short(name, lacking, tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_a_new_training_replaces_the_old_run_only_when_it_is_done(
    log: Interactions, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    old = short("sasrec", log, path)
    kill_after_an_epoch("sasrec", path, 60)
    assert_equal_runs(load(path), old)
    new = short("sasrec", log, path, seed=1, retrain=True)
    assert load(path).seed == new.seed == 1
    assert [f.name for f in tmp_path.iterdir() if ".lock" not in f.name] == ["run"]
