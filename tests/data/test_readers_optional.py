"""A column that not every model takes stops only those that take it, and can be left out."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seqrec_export.data.readers import read
from seqrec_export.errors import SeqrecError
from seqrec_export.models.registry import MODELS
from seqrec_export.training.train import require

HEAD = "user,item,time,rating,event_type\n"
BLANK = "u,i,1600000000,5,buy\nu,j,1600000001,,buy\nu,k,1600000002,4,none\nu,l,1600000003,4,\n"
TAKES = {"rating": "mlink", "event_type": "gru4att"}  # who takes a column
COLUMN = {"rating": "ratings", "event_type": "event_types"}


def log(folder: Path, text: str) -> str:
    path = folder / "log.csv"
    path.write_text(text)
    return f"table:{path}"


@pytest.mark.parametrize("role", TAKES)
def test_what_cannot_be_read_stops_only_models_that_take_it(tmp_path, role):
    found = read(log(tmp_path, HEAD + BLANK))
    assert len(found) == 4
    assert getattr(found, COLUMN[role]) is None
    assert any(note.startswith("Left out: ") and role in note for note in found.notes)
    for name in ("sasrec", "caser"):
        require(MODELS[name], found)
    with pytest.raises(SeqrecError, match=f"{TAKES[role]} takes {COLUMN[role]}, but .*line"):
        require(MODELS[TAKES[role]], found)


@pytest.mark.parametrize("role", TAKES)
def test_a_column_can_be_left_out(tmp_path, role):
    found = read(log(tmp_path, HEAD + BLANK), {role: ""})
    assert getattr(found, COLUMN[role]) is None
    assert COLUMN[role] not in found.unreadable
    assert not any(f"{role} '" in note for note in found.notes)
    require(MODELS["sasrec"], found)
    if role == "event_type":
        require(MODELS["gru4att"], found)
    else:
        with pytest.raises(SeqrecError, match=r"needs ratings, which .* does not have"):
            require(MODELS["mlink"], found)


@pytest.mark.parametrize("role", TAKES)
def test_a_column_that_was_asked_for_is_never_left_out(tmp_path, role):
    with pytest.raises(SeqrecError, match=f"line [34]: {role}"):
        read(log(tmp_path, HEAD + BLANK), {role: role})


@pytest.mark.parametrize("role", ["user", "item", "time"])
def test_what_every_log_needs_cannot_be_left_out(tmp_path, role):
    with pytest.raises(SeqrecError, match=f"{role} is mapped to no column"):
        read(log(tmp_path, HEAD + BLANK), {role: ""})


def test_several_columns_of_one_meaning_can_all_be_left_out(tmp_path):
    spec = log(tmp_path, "user,item,time,rating,Rating\nu,i,1600000000,x,y\n")
    with pytest.raises(SeqrecError, match="or none, as rating="):
        read(spec)
    assert read(spec, {"rating": ""}).ratings is None


@pytest.mark.parametrize(
    "values",
    [
        pa.array([[1], [2]]),
        pa.array([True, False]),
        pa.array([None, 3.0]),
        pa.array([1, 2], pa.duration("s")),
        pa.array([{"stars": 1}, {"stars": 2}]),
        pa.array(["", "good"]),
        pa.array([1.0, 1e300]),
        pa.array([0, 2**31 - 1], pa.int32()).cast(pa.date32()),
    ],
    ids=lambda values: str(values.type),
)
def test_ratings_of_any_type_stop_no_model_without_ratings(tmp_path, values):
    table = {"user": ["u", "v"], "item": ["i", "j"], "time": [1_600_000_000] * 2, "rating": values}
    pq.write_table(pa.table(table), tmp_path / "log.parquet")
    found = read(f"table:{tmp_path / 'log.parquet'}")
    require(MODELS["sasrec"], found)
    with pytest.raises(SeqrecError, match=r"mlink takes ratings, but .*rating"):
        require(MODELS["mlink"], found)


def test_movielens_without_some_of_its_ratings_is_read_for_models_without(tmp_path):
    path = tmp_path / "ratings.csv"
    path.write_text("userId,movieId,rating,timestamp\n1,2,,978300760\n1,3,4,978300761\n")
    found = read(f"movielens:{path}")
    assert found.ratings is found.event_types is None
    require(MODELS["caser"], found)
    for name in ("mlink", "gru4att"):
        with pytest.raises(SeqrecError, match="line 2: rating ''"):
            require(MODELS[name], found)
    path.write_text("1::1193::5::978300760\n1::661::three::978302109\n")
    with pytest.raises(SeqrecError, match="line 2: rating 'three'"):
        require(MODELS["mlink"], read(f"movielens:{path}"))


def test_what_is_left_out_leaves_the_rest_as_it_was(tmp_path):
    whole, part = (
        read(log(tmp_path, HEAD + BLANK)),
        read(log(tmp_path, HEAD + BLANK), {"rating": ""}),
    )
    np.testing.assert_array_equal(whole.items, part.items)
    assert whole.fingerprint == part.fingerprint
