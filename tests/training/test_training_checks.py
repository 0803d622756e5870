"""What a training refuses and what it says: no targets, no figures of nothing, NaN, precision."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from seqrec_cli.main import app
from seqrec_cli.results import metric_row
from seqrec_export.data.histories import Dataset, prepare
from seqrec_export.data.interactions import Interactions, Sessions
from seqrec_export.data.readers.synthetic import generate
from seqrec_export.errors import SeqrecError
from seqrec_export.evaluation.ranking import basket_metrics, retrieval_metrics
from seqrec_export.evaluation.ratings import rating_metrics
from seqrec_export.folders import read_json
from seqrec_export.models.caser import Caser
from seqrec_export.models.registry import MODELS
from seqrec_export.models.settings import settings_of
from seqrec_export.training import fit as training
from seqrec_export.training.fit import DivergedError, enough_memory, resolved
from seqrec_export.training.train import Run, run_key, train
from support.served import small_config
from support.toys import toy, with_events

few = settings(max_examples=25, derandomize=True, deadline=None, database=None)


@pytest.fixture(scope="module")
def log() -> Interactions:
    return generate(users=60, items=60, events=900, sessions=40, seed=3)


@pytest.fixture(scope="module")
def datasets(log: Interactions) -> dict[str, Dataset]:
    return {name: prepare(log, MODELS[name].split) for name in MODELS}


def run(name: str, log: Interactions, path: Path, **other: Any) -> Run:
    config = small_config(name, **({"epochs": 1} | other))
    return train(MODELS[name], log, config, path, progress=False)


def left(folder: Path) -> list[str]:
    """What lies in a folder besides locks."""
    return [file.name for file in folder.iterdir() if file.suffix != ".lock"]


def everyone_with(log: Interactions, events: int) -> Interactions:
    """The first events of each user of the log, without sessions."""
    order = np.lexsort((log.times, log.users))
    starts = np.searchsorted(log.users[order], np.arange(len(log.user_ids)))
    place = np.arange(len(order)) - starts[log.users[order]]
    return replace(with_events(log, order[place < events]), sessions=None, source="few.csv")


@few
@given(data=st.data(), batch_size=st.integers(1, 1200), seed=st.integers(0, 99))
def test_as_many_steps_are_made_as_are_promised(
    datasets: dict[str, Dataset], data: st.DataObject, batch_size: int, seed: int
) -> None:
    name = data.draw(st.sampled_from(list(MODELS)))
    model, rest = MODELS[name], {}
    span = settings_of(model.config)["batch_size"].range
    assert span is not None
    if "max_length" in settings_of(model.config):
        rest["max_length"] = data.draw(st.integers(1, 12))
    if "chunks_per_step" in settings_of(model.config):
        rest |= {"chunks_per_step": batch_size, "targets_per_epoch": data.draw(st.integers(0, 900))}
    config = model.config(batch_size=max(batch_size, int(span.low)), **rest)
    dataset = datasets[name]
    made = list(model.batches(dataset, config, np.random.default_rng(seed)))
    assert len(made) == model.num_batches(dataset, config)
    assert all(min(t.shape, default=1) > 0 for batch in made for t in batch.values())


@pytest.mark.parametrize("name", MODELS)
def test_the_least_of_every_setting_trains(name: str, log: Interactions, tmp_path: Path) -> None:
    least = {
        found.name: found.kind(found.range.low)
        for found in settings_of(MODELS[name].config).values()
        if found.range is not None and not found.range.above
    }
    small = everyone_with(with_events(log, log.users < 20), 4)  # a step is one event or two
    trained = run(name, small, tmp_path / name, **least | {"learning_rate": 1e-3})
    assert all(np.isfinite(value) for value in trained.metrics["test"].values())


@pytest.mark.parametrize("name", MODELS)
def test_a_log_that_holds_nothing_out_is_refused_before_training(
    name: str, log: Interactions, tmp_path: Path
) -> None:
    two = everyone_with(log, 2)
    if MODELS[name].split == "time":  # four fifths at one time, the rest at another
        late = np.arange(len(two.times)) >= 0.79 * len(two.times)
        two = replace(two, times=np.where(late, 2_000_000_000, 1_000_000_000))
    with pytest.raises(SeqrecError) as caught:
        run(name, two, tmp_path / name)
    said = str(caught.value)
    assert f"few.csv leaves {name} nothing held out to choose the epoch by" in said
    assert left(tmp_path) == []


def test_a_log_that_makes_no_step_is_refused_before_training(
    log: Interactions, tmp_path: Path
) -> None:
    one = everyone_with(with_events(log, log.users == log.users[0]), 3)
    with pytest.raises(SeqrecError, match=r"few\.csv leaves mlink nothing to train on: 1 training"):
        run("mlink", one, tmp_path / "mlink")
    without = {"targets_per_epoch": 0, "every_event": False}
    with pytest.raises(SeqrecError, match="nothing to train on"):
        run("gru4att", replace(log, sessions=None), tmp_path / "gru4att", **without)
    assert left(tmp_path) == []


def test_sessions_choose_the_epoch_where_no_event_can(log: Interactions, tmp_path: Path) -> None:
    assert log.sessions is not None
    two = replace(everyone_with(log, 2), sessions=log.sessions)
    test = run("gru4att", two, tmp_path / "gru4att").metrics["test"]
    assert test["targets"] == 0
    assert "hr@10" not in test
    assert test["selection"] == test["candidates_ndcg@10"]
    # Sessions with nothing to rank choose nothing; the events do.
    shown = len(log.sessions.labels)
    empty: Sessions = replace(log.sessions, labels=np.zeros(shown, np.float32))
    test = run("gru4att", replace(log, sessions=empty), tmp_path / "other").metrics["test"]
    assert test["sessions"] == 0
    assert "candidates_ndcg@10" not in test
    assert test["selection"] == test["ndcg@10"]


def test_figures_of_nothing_are_left_out() -> None:
    dataset = prepare(toy([list("abcde"), list("fed")], ratings=np.ones(8, np.float32)), "time")
    none = np.zeros(0, np.int64)

    def score(positions: Any) -> torch.Tensor:
        raise AssertionError("there is nothing to score")

    assert retrieval_metrics(score, dataset, none) == {"targets": 0.0}
    assert basket_metrics(score, dataset, none) == {"targets": 0.0, "new_users": 0.0}
    assert rating_metrics(dataset, none, np.zeros(0, np.float32)) == {"targets": 0.0}
    for name in ("sasrec", "caser", "mlink"):
        empty = replace(dataset, test=none)
        for baseline in MODELS[name].baselines(empty, MODELS[name].config(), "test").values():
            assert baseline == {"targets": 0.0}


def test_users_that_are_all_new_have_no_figure_of_known_ones() -> None:
    log = toy([list("abcde"), list("fedcb")], ratings=np.ones(10, np.float32))
    dataset = prepare(log, "last_rating", 0)
    strangers = replace(dataset, user_index=np.ones_like(dataset.user_index))
    figures = rating_metrics(strangers, dataset.test, np.zeros(len(dataset.test), np.float32))
    assert set(figures) == {"targets", "unseen_users", "unseen_rmse", "unseen_mae"}


def test_the_table_says_of_how_many_targets_its_figures_are(
    log: Interactions, tmp_path: Path
) -> None:
    done = run("gru4att", log, tmp_path / "gru4att")
    test = done.metrics["test"]
    _, figures, targets, *_ = metric_row(done)
    assert figures.startswith(f"hr@10 {test['hr@10']:.4f}")
    assert targets == f"{test['targets']:.0f}, {test['sessions']:.0f} sessions"
    nothing = replace(done, metrics={**done.metrics, "test": {"targets": 0.0}})
    assert metric_row(nothing)[1:3] == ("nothing is held out", "0")


@pytest.mark.parametrize("name", ["sasrec", "mlink"])
def test_a_training_that_diverges_is_one_line_in_its_epoch_and_leaves_nothing(
    name: str, log: Interactions, tmp_path: Path
) -> None:
    path, settings = tmp_path / name, {"learning_rate": 1e9, "epochs": 50, "patience": 50}
    config = small_config(name, **settings)
    with pytest.raises(DivergedError) as caught:
        train(MODELS[name], log, config, path, progress=False)
    said = str(caught.value)
    assert "is NaN in epoch 1," in said
    assert said.endswith("lower learning_rate, which is 1e+09")
    assert left(tmp_path) == []


def test_a_training_that_diverges_ends_in_the_middle_of_a_long_epoch(
    log: Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_LOOK_EVERY", 2)
    batches, made = MODELS["sasrec"].batches, []

    def counted(*arguments: Any) -> Any:
        for batch in batches(*arguments):
            made.append(batch)
            yield batch

    model = replace(MODELS["sasrec"], batches=counted)
    config = small_config("sasrec", learning_rate=1e9, batch_size=1)
    with pytest.raises(DivergedError, match="the loss is NaN in epoch 1,"):
        train(model, log, config, tmp_path / "sasrec", progress=False)
    assert len(made) < model.num_batches(prepare(log, "leave_one_out"), config)


@pytest.mark.parametrize("name", MODELS)
def test_the_precision_that_was_taken_stands_in_the_run_and_its_key(
    name: str, log: Interactions, tmp_path: Path
) -> None:
    model, auto = MODELS[name], small_config(name, epochs=1)
    taken = resolved(model, auto).precision
    assert taken in ("float32", "bfloat16")
    if not torch.cuda.is_available() and not model.cpu_bfloat16:
        assert taken == "float32"
    keys = {
        precision: run_key(model, replace(auto, precision=precision), 0, "a log")
        for precision in ("auto", "float32", "bfloat16")
    }
    assert keys["auto"] == keys[taken]
    assert keys["float32"] != keys["bfloat16"]
    weights = {}
    for precision in keys:
        done = run(name, log, tmp_path / precision, precision=precision)
        expected = taken if precision == "auto" else precision
        assert done.config.precision == expected
        assert read_json(done.path / "config.json")["config"]["precision"] == expected
        assert read_json(done.path / "metrics.json")["config"]["precision"] == expected
        weights[precision] = torch.cat([p.detach().flatten() for p in done.net.parameters()])
    assert torch.equal(weights["auto"], weights[taken])
    assert not torch.equal(weights["float32"], weights["bfloat16"])


def test_a_seed_out_of_range_is_refused_in_python_too(log: Interactions, tmp_path: Path) -> None:
    for seed in (-1, 2**32, 1.5, True):
        with pytest.raises(SeqrecError, match=r"seed is .*; give a whole number from 0 to 4,294"):
            train(MODELS["caser"], log, small_config("caser"), tmp_path / "x", seed=seed)  # type: ignore[arg-type]


def test_too_little_memory_is_one_line(log: Interactions, tmp_path: Path) -> None:
    model = replace(MODELS["sasrec"], net=lambda config, rows: torch.empty(2**55))  # type: ignore[arg-type,return-value]
    with pytest.raises(SeqrecError, match=r"there is not enough memory: .*; lower batch_size"):
        train(model, log, small_config("sasrec"), tmp_path / "sasrec", progress=False)
    with pytest.raises(SeqrecError, match="not enough memory"), enough_memory():
        np.zeros(2**55)
    with pytest.raises(RuntimeError, match="of another kind"), enough_memory():
        raise RuntimeError("of another kind")


def test_notes_of_a_training_are_said(tmp_path: Path) -> None:
    rows = [f"u{u},i{(u + e) % 9},{1_600_000_000 + 3600 * e}" for u in range(20) for e in range(5)]
    file = tmp_path / "log.csv"
    file.write_text("\n".join(["user_id,item_id,timestamp", *rows, "alone,i1,1600000000", ""]))
    arguments = ["train", "-m", "sasrec", "--data", f"table:{file}", "--runs", str(tmp_path / "r")]
    ended = CliRunner().invoke(app, [*arguments, "--set", "epochs=1", "--set", "dim=4", "--json"])
    assert ended.exit_code == 0
    assert "note: 1 users have a single event" in ended.stderr
    assert json.loads(ended.stdout)["sasrec"]["test"]["targets"] == 20


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lambda value: value.repeat(3), r"has the shape \(3,\); take its mean"),
        (lambda value: value.detach(), "do not detach it"),
        (float, "gives float"),
        (lambda value: None, "gives NoneType"),
    ],
)
def test_a_loss_that_is_not_a_number_to_lower_is_named(
    loss: Any, said: str, log: Interactions, tmp_path: Path
) -> None:
    class Wrong(Caser):
        def loss(self, batch: Any) -> Any:
            return loss(super().loss(batch))

    model = replace(MODELS["caser"], net=Wrong)
    with pytest.raises(SeqrecError, match=f"caser: loss has to give one number.*{said}"):
        train(model, log, small_config("caser"), tmp_path / "wrong", progress=False)
