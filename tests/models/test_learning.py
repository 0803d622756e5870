"""Every model learns a rule that is there to be learnt, and what its own graphs promise besides."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from seqrec_export.data.interactions import Interactions
from seqrec_export.models.registry import MODELS
from seqrec_export.testing.trials import Trial
from seqrec_export.training.train import Run, train
from seqrec_export.verification.reference import PyTorch
from support.served import TOLERANCE
from support.toys import DAY, toy, with_events

ITEMS = 40
TO_LEARN: dict[str, dict[str, Any]] = {
    "sasrec": {"dim": 32, "max_length": 10, "batch_size": 32, "epochs": 15, "dropout": 0.0},
    "gru4att": {"dim": 32, "max_length": 10, "batch_size": 64, "epochs": 10, "dropout": 0.0},
    "caser": {"batch_size": 128, "epochs": 30},
    "caser by negatives": {"batch_size": 128, "epochs": 30, "num_negatives": 4, "lr_decay": 0.95},
    "gru4att without every event": {
        **{"dim": 32, "max_length": 10, "batch_size": 64, "epochs": 20, "dropout": 0.0},
        **{"every_event": False, "targets_per_epoch": 15_000},
    },
}


def answers(run: Run, graph: str, top_k: int = 1, **inputs: Any) -> dict[str, np.ndarray]:
    chosen = run.model.graphs(run.config, top_k)[graph]
    dtypes = {"string": object, "float32": np.float32, "int32": np.int32}
    request = {s.name: np.array(inputs[s.name], dtypes[s.dtype]) for s in chosen.inputs}
    return PyTorch(run.net, run.vocabularies).answer(chosen, request)


def batched(length: int, **rows: Any) -> dict[str, Any]:
    return {name: [value] * length for name, value in rows.items()}


@pytest.mark.parametrize("name", TO_LEARN)
def test_on_a_cyclic_catalogue_the_next_item_is_always_the_first_answer(name: str) -> None:
    settings, name = TO_LEARN[name], name.partition(" ")[0]
    settings = {"learning_rate": 1e-2, "patience": 99, **settings}
    Trial(MODELS[name], {}, settings).learns()  # HR@1 = 1


@pytest.fixture(scope="module")
def tastes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Interactions, Run]:
    """Half of the users give red items 5 stars and blue ones 1, the others the reverse."""
    rng = np.random.default_rng(0)
    items = [f"{colour} {i}" for colour in ("red", "blue") for i in range(15)]
    histories = [list(rng.permutation(items)[:12]) for _ in range(240)]
    ratings = [
        5.0 if item.startswith("red") == (user % 2 == 0) else 1.0
        for user, history in enumerate(histories)
        for item in history
    ]
    log = toy(histories, ratings=np.array(ratings, np.float32))
    config = MODELS["mlink"].config(
        dim=8,
        hidden=32,
        batch_size=64,
        epochs=15,
        patience=15,
        learning_rate=1e-2,
        lr_decay=0.9,
        dropout=0.0,
    )
    path = tmp_path_factory.mktemp("tastes") / "run"
    return log, train(MODELS["mlink"], log, config, path, progress=False)


def test_mlink_learns_whose_taste_it_is(tastes: tuple[Interactions, Run]) -> None:
    _, run = tastes
    assert run.metrics["test"]["rmse"] < 0.3  # stars; the item mean is off by 2
    assert run.metrics["baselines"]["item mean"]["rmse"] > 1.5


def test_mlink_rates_for_a_user_never_seen_from_the_history_alone(
    tastes: tuple[Interactions, Run],
) -> None:
    _, run = tastes
    test = run.metrics["test"]
    assert test["unseen_users"] > 0
    assert test["unseen_rmse"] < 0.3
    # No input of the graph names a user; the same items with other stars are another taste.
    candidates = [["red 9", "blue 9", "no such item"]] * 2
    got = answers(
        run,
        "mlink",
        history_item_ids=[["red 1", "blue 2", "red 3"]] * 2,
        history_ratings=[[5, 1, 5], [1, 5, 1]],
        candidate_ids=candidates,
    )
    likes_red, likes_blue = got["scores"]
    assert likes_red[0] > 4.5 > 1.5 > likes_red[1]
    assert likes_blue[1] > 4.5 > 1.5 > likes_blue[0]
    assert (got["scores"][:, 2] == np.finfo(np.float32).min).all()


def test_mlink_ratings_lie_on_the_scale_and_a_missing_one_is_the_mean(
    tastes: tuple[Interactions, Run],
) -> None:
    log, run = tastes
    mean = float(run.net.mean_rating)
    inputs = {
        "history_item_ids": [["red 1", "blue 2"]] * 4,
        "candidate_ids": [list(log.item_ids)] * 4,
    }
    stars = [[np.nan, 5], [mean, 5], [99, 5], [float(log.ratings.max()), 5]]
    scores = answers(run, "mlink", history_ratings=stars, **inputs)["scores"]
    assert ((scores >= 0) & (scores <= log.ratings.max())).all()
    np.testing.assert_allclose(scores[0], scores[1], atol=TOLERANCE)
    np.testing.assert_allclose(scores[2], scores[3], atol=TOLERANCE)


GROUPS = [(age, season) for age in ("young", "old") for season in ("summer", "winter")]


@pytest.fixture(scope="module")
def seasons(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The young and the old each buy one group of articles in summer and one in winter."""
    rng = np.random.default_rng(0)
    users, per_user = 300, 20
    articles = [f"{age} {season} {i:02}" for age, season in GROUPS for i in range(10)]
    ages = np.where(np.arange(users) % 2, 25.0, 60.0) + rng.integers(-5, 6, users)
    days = np.sort(rng.integers(0, 730, (users, per_user)), axis=1)
    months = (np.datetime64("2022-01-01") + days).astype("datetime64[M]").astype(int) % 12 + 1
    histories = [
        [
            f"{'young' if ages[u] < 40 else 'old'} {'summer' if 4 <= m <= 9 else 'winter'} "
            f"{rng.integers(10):02}"
            for m in months[u]
        ]
        for u in range(users)
    ]
    log = toy(histories)
    assert list(log.item_ids) == sorted(articles)
    start = np.datetime64("2022-01-01").astype("datetime64[s]").astype(np.int64)
    log = with_events(
        log,
        slice(None),
        times=start + days.ravel() * DAY,
        user_features=pd.DataFrame({"age": ages.astype(np.float32)}),
        item_features=pd.DataFrame(
            {
                "garment_group_name": [str(a).rsplit(" ", 1)[0] for a in log.item_ids],
                "index_group_name": [str(a).split()[0] for a in log.item_ids],
            }
        ),
    )
    config = MODELS["two_tower"].config(
        batch_size=128, epochs=8, id_dropout=0.5, learning_rate=3e-3
    )
    path = tmp_path_factory.mktemp("seasons") / "run"
    return train(MODELS["two_tower"], log, config, path, progress=False)


@pytest.mark.parametrize("age", [22.0, 63.0])
@pytest.mark.parametrize("month", [1, 6, 7, 12])
def test_two_tower_knows_what_a_new_customer_wants_from_age_and_month(
    seasons: Run, age: float, month: int
) -> None:
    got = answers(seasons, "two_tower", 5, user_id=[["new"]], age=[[age]], month=[[month]])
    group = f"{'young' if age < 40 else 'old'} {'summer' if 4 <= month <= 9 else 'winter'}"
    assert all(str(i).startswith(group) for i in got["item_ids"][0])
    assert got["known_items"].tolist() == [[0]]


def test_two_tower_places_a_new_article_beside_its_group(seasons: Run) -> None:
    new = answers(
        seasons,
        "two_tower_item_encoder",
        item_id=[["new"]] * len(GROUPS),
        garment_group_name=[[f"{age} {season}"] for age, season in GROUPS],
        index_group_name=[[age] for age, _ in GROUPS],
    )["item_embedding"]
    ids = seasons.vocabularies["items"].ids
    cosines = new @ seasons.net.item_index[2:].numpy().T
    for (age, season), row in zip(GROUPS, cosines, strict=True):
        nearest = [ids[i] for i in np.argsort(-row)[:10]]
        assert all(i.startswith(f"{age} {season}") for i in nearest)


def test_two_tower_index_and_item_encoder_give_one_vector_an_article(seasons: Run) -> None:
    ids = seasons.vocabularies["items"].ids
    vectors = answers(
        seasons,
        "two_tower_item_encoder",
        item_id=[[i] for i in ids],
        garment_group_name=[[i.rsplit(" ", 1)[0]] for i in ids],
        index_group_name=[[i.split()[0]] for i in ids],
    )["item_embedding"]
    np.testing.assert_allclose(vectors, seasons.net.item_index[2:].numpy(), atol=TOLERANCE)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=TOLERANCE)


def test_two_tower_takes_the_mean_age_for_a_missing_one_and_says_that_it_is(seasons: Run) -> None:
    """Every implausible age is missing; but for the weights of the flag it is the mean age."""
    net = seasons.net
    mean = float(net.mean_age)
    ages = [np.nan, np.inf, -np.inf, 0, -3, 1e30, mean]
    inputs = batched(len(ages), user_id=["new"], month=[7])

    def vectors() -> np.ndarray:
        got = answers(seasons, "two_tower_encoder", age=[[a] for a in ages], **inputs)
        return got["user_embedding"]

    before = vectors()
    np.testing.assert_allclose(before[:-1], np.tile(before[0], (len(ages) - 1, 1)), atol=1e-6)
    assert np.abs(before[0] - before[-1]).max() > 1e-3  # the flag tells them apart
    flag = net.query_tower[0].weight.data[:, seasons.config.id_dim + 1]
    kept = flag.clone()
    try:
        flag.zero_()
        without = vectors()
    finally:
        flag.copy_(kept)
    np.testing.assert_allclose(without, np.tile(without[0], (len(ages), 1)), atol=TOLERANCE)


def test_two_tower_months_are_a_circle_and_odd_ones_are_unknown(seasons: Run) -> None:
    months = [*range(1, 13), 0, -1, 13, 2**31 - 1, -(2**31)]
    got = answers(
        seasons,
        "two_tower_encoder",
        month=[[m] for m in months],
        **batched(len(months), user_id=["new"], age=[30.0]),
    )["user_embedding"]
    np.testing.assert_allclose(got[12:], np.tile(got[12], (5, 1)), atol=1e-6)
    assert len(np.unique(got[:13].round(4), axis=0)) == 13
    steps = np.linalg.norm(got[:12] - np.roll(got[:12], -1, axis=0), axis=1)
    # December is next to January: no step of the year is a jump.
    assert steps[11] <= 2 * steps[:11].max()
