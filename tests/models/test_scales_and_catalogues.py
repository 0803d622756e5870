"""What a model takes over from its log: the scale of the ratings, the items it can recommend."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrec_export.data.histories import prepare
from seqrec_export.data.interactions import Interactions
from seqrec_export.data.readers.synthetic import generate
from seqrec_export.errors import SeqrecError
from seqrec_export.exporting.exported import _graphs
from seqrec_export.models.mlink import Mlink
from seqrec_export.models.registry import MODELS
from seqrec_export.nn.ragged import Ragged
from seqrec_export.training.train import Run, train
from support.served import small_config

few = settings(max_examples=25, derandomize=True, deadline=None, database=None)


@pytest.fixture(scope="module")
def log() -> Interactions:
    return generate(users=60, items=120, events=700, sessions=0, seed=3)


def scaled(log: Interactions, low: float, high: float) -> Interactions:
    """The same log with its 0.5 to 5 stars moved to another scale."""
    assert log.ratings is not None
    ratings = low + (log.ratings - 0.5) / 4.5 * (high - low)
    return replace(log, ratings=ratings.astype(np.float32))


def trained(log: Interactions, path: Path) -> Run:
    return train(MODELS["mlink"], log, small_config("mlink", epochs=2), path, progress=False)


def observed(log: Interactions) -> Mlink:
    net = Mlink(small_config("mlink"), (dataset := prepare(log, "last_rating")).num_rows)
    net.fill_buffers(dataset)
    return net.eval()


@pytest.mark.parametrize(("low", "high"), [(-10.0, 10.0), (-10.0, -1.0), (0.0, 1.0)])
def test_ratings_of_any_scale_are_learned_as_well_as_stars(
    low: float, high: float, log: Interactions, tmp_path: Path
) -> None:
    stars = trained(log, tmp_path / "stars").metrics["test"]["rmse"] / 4.5
    other = trained(scaled(log, low, high), tmp_path / "other")
    assert other.metrics["test"]["rmse"] / (high - low) == pytest.approx(stars, rel=0.1)
    dataset = prepare(scaled(log, low, high), "last_rating")
    assert dataset.histories.ratings is not None
    ratings = dataset.histories.ratings[dataset.trained]
    assert float(other.net.lowest) == min(float(ratings.min()), 0.0)
    assert float(other.net.stars) == max(float(ratings.max()), 0.0)


@few
@given(low=st.floats(-1e6, 1e6), span=st.floats(0.01, 1e6), seed=st.integers(0, 99))
def test_a_rating_tells_the_network_something_up_to_both_ends(
    low: float, span: float, seed: int
) -> None:
    log = scaled(generate(users=20, items=60, events=200, sessions=0, seed=seed), low, low + span)
    net = observed(log)
    torch.nn.init.normal_(net.gru.weight_ih_l0)
    ends = [float(net.lowest), float(net.stars)]
    assert ends[0] <= 0 <= ends[1]
    item = Ragged.of(torch.full((2, 1), 2))
    ratings = torch.full((2, net.config.max_length), torch.nan)
    ratings[:, -1] = torch.tensor(ends)
    with torch.no_grad():
        vectors = net.encode(item, ratings)
        scores = net.score(vectors, item)
    assert not torch.equal(vectors[0], vectors[1])
    assert ((scores >= ends[0]) & (scores <= ends[1])).all()


def test_stars_are_taken_as_they_always_were(log: Interactions) -> None:
    net = observed(log)
    assert (float(net.lowest), float(net.stars)) == (0.0, 5.0)


def test_a_wide_scale_may_be_as_much_further_off(log: Interactions, tmp_path: Path) -> None:
    graphs = _graphs(trained(scaled(log, -100, 100), tmp_path / "mlink"), 5, "float32", ())
    assert graphs["mlink"].tolerance.atol == pytest.approx(40e-5, rel=0.3)
    plain = MODELS["mlink"].graphs(small_config("mlink"), 5)
    assert graphs["mlink_encoder"].tolerance == plain["mlink_encoder"].tolerance


@pytest.mark.parametrize(
    ("ratings", "said"),
    [(0.0, "all of the training part are 0"), (np.nan, "finite"), (np.inf, "finite")],
)
def test_ratings_that_are_no_scale_are_refused(
    ratings: float, said: str, log: Interactions, tmp_path: Path
) -> None:
    alike = replace(log, ratings=np.full(len(log), ratings, np.float32))
    with pytest.raises(SeqrecError, match=said):
        trained(alike, tmp_path / "mlink")


@pytest.mark.parametrize("rating", [5.0, -3.0, 0.25])
def test_ratings_that_are_all_alike_are_learned(
    rating: float, log: Interactions, tmp_path: Path
) -> None:
    alike = replace(log, ratings=np.full(len(log), rating, np.float32))
    assert trained(alike, tmp_path / "mlink").metrics["test"]["rmse"] < 0.2 * abs(rating)


@pytest.mark.parametrize("name", MODELS)
def test_only_a_model_that_ranks_by_features_knows_items_that_training_never_saw(
    name: str, log: Interactions, tmp_path: Path
) -> None:
    assert log.item_features is not None
    model = MODELS[name]
    done = train(model, log, small_config(name, epochs=1), tmp_path / name, progress=False)
    dataset = prepare(log, model.split)
    seen = set(dataset.items.ids)
    assert len(seen) < len(log.item_ids)
    known = set(done.vocabularies["items"].ids)
    assert known == (set(log.item_ids) if model.ranks_new_items else seen)
    assert model.ranks_new_items == (name == "two_tower")
