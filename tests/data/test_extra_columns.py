"""Columns of a log that only some models know: read, indexed, and sent as requests."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seqrec_export.data.histories import prepare
from seqrec_export.data.raw_requests import RawLog
from seqrec_export.data.readers import read
from seqrec_export.errors import SeqrecError
from seqrec_export.models import wire
from seqrec_export.models.registry import MODELS
from seqrec_export.training.train import readers_for, require
from support.toys import cyclic

ROWS = [("a", "x", 3, "phone", 1.5), ("a", "y", 1, "", None), ("b", "x", 2, "tv, old", 2.0)]
MAPPING = {"device": "hardware", "price": "eur"}


CSV = """user,item,time,hardware,eur
a,x,3, phone ,1.5
a,y,1,,
b,x,2,"tv, old",2
"""


def written(path: Path, kind: str) -> Path:
    names = ["user", "item", "time", "hardware", "eur"]
    if kind == "parquet":
        pq.write_table(pa.table([pa.array(c) for c in zip(*ROWS, strict=True)], names), path)
    else:
        path.write_text(CSV)
    return path


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_brings_columns_that_are_none_of_ours(kind: str, tmp_path: Path) -> None:
    path = written(tmp_path / f"log.{kind}", kind)
    log = read(f"table:{path}", MAPPING)
    assert log.columns["device"].tolist() == ["phone", "", "tv, old"]
    columns = prepare(log, "time", columns={"price": "float32"}).histories.columns
    np.testing.assert_array_equal(columns["price"], np.array([np.nan, 1.5, 2.0], np.float32))
    without = read(f"table:{path}", {"device": ""})
    assert not without.columns
    assert without.fingerprint != log.fingerprint


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"device": "nothing"}, "no column nothing"),
        ({"items": "hardware"}, "called 'items'"),
        ({"../x": "hardware"}, "called '../x'"),
    ],
)
def test_a_column_that_cannot_be_had_is_an_error(
    mapping: dict[str, str], message: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "log.csv", "csv")
    with pytest.raises(SeqrecError, match=message):
        read(f"table:{path}", mapping)


def with_columns(**columns: Any) -> Any:
    log = cyclic(items=6, users=4, length=5)
    return replace(log, columns={n: c(len(log)) for n, c in columns.items()})


def test_the_vocabulary_of_a_column_is_what_training_sees() -> None:
    def devices(count: int) -> np.ndarray:
        found = np.array(["tv", "phone", "", "phone", "watch"] * 4, object)
        assert len(found) == count
        return found

    log = with_columns(device=devices)
    dataset = prepare(log, "leave_one_out", columns={"device": "string"})
    assert dataset.vocabularies["device"].ids == ("phone", "tv"), "the watch is in the test only"
    indices = dataset.histories.columns["device"].reshape(4, 5)
    assert (indices == [3, 2, 0, 2, 1]).all()
    assert dataset.num_rows["device"] == 4
    lacking = prepare(log, "leave_one_out", columns={"place": "string", "price": "float32"})
    assert len(lacking.vocabularies["place"]) == 0
    assert (lacking.histories.columns["place"] == 0).all()
    assert np.isnan(lacking.histories.columns["price"]).all()


@pytest.mark.parametrize(
    ("values", "texts", "numbers"),
    [
        (np.array([1, 20, 1]), ["1", "20", "1"], [1, 20, 1]),
        (np.array([1.0, np.nan, 3.0]), ["1", "", "3"], [1, np.nan, 3]),
        (np.array([0.5, np.nan, 3.0]), ["0.5", "", "3.0"], [0.5, np.nan, 3]),
        (np.array(["2", None, ""], object), ["2", "", ""], [2, np.nan, np.nan]),
        (np.array(["007", "nan", "-1e3"], object), ["007", "nan", "-1e3"], [7, np.nan, -1000]),
        (np.array(["inf", "a", "b"], object), ["inf", "a", "b"], None),
    ],
)
def test_a_model_takes_a_column_as_text_or_as_numbers(
    values: np.ndarray, texts: list[str], numbers: list[float] | None
) -> None:
    log = replace(cyclic(items=3, users=1, length=3), columns={"it": values})
    assert RawLog(log).texts("it").tolist() == texts  # type: ignore[union-attr]
    if numbers is None:
        with pytest.raises(SeqrecError, match="it is 'inf' in toy"):
            RawLog(log).numbers("it")
    else:
        np.testing.assert_array_equal(RawLog(log).numbers("it"), np.array(numbers, np.float32))


def test_requests_hold_the_column_of_the_event_they_led_to_and_of_their_history() -> None:
    def spread(count: int) -> np.ndarray:
        return np.array([f"{i}" for i in range(count)], object)

    log = RawLog(with_columns(device=spread))
    inputs = (
        wire.HISTORY,
        wire.text_of_request("device", "where the request comes from"),
        wire.number_of_request("price", "what is paid"),
        wire.texts_of_history("device", "where events came from"),
        wire.numbers_of_history("device", "the same as numbers", 2),
    )
    users, ends = np.array([0, 1, 3]), np.array([3, 5, 20])
    got = log.requests(inputs[:4], users, ends, log.times[np.minimum(ends, 19)], window=9)
    assert got["device"].tolist() == [["3"], ["5"], [""]], "after the last event nobody knows it"
    assert np.isnan(got["price"]).all()
    assert got["history_device"].tolist() == [
        ["", "", "0", "1", "2"],
        ["", "", "", "", ""],
        ["15", "16", "17", "18", "19"],
    ]
    assert (got["history_item_ids"] != "").tolist() == (got["history_device"] != "").tolist()
    numbers = RawLog(with_columns(device=spread))
    last = numbers.requests(inputs[4:], users, ends, numbers.times[:3], window=9)
    expected = [[1, 2], [np.nan, np.nan], [18, 19]]
    np.testing.assert_array_equal(last["history_device"], np.array(expected, np.float32))


def test_a_model_that_needs_a_column_says_how_to_give_it(simple: Callable[[str], Any]) -> None:
    model = simple("device")
    with pytest.raises(SeqrecError, match=r"needs device, .*: table with --columns device=COLUMN"):
        require(model, cyclic())
    assert readers_for(MODELS["mlink"]) == "movielens, table, synthetic"


@pytest.fixture
def simple() -> Callable[[str], Any]:
    return lambda column: replace(MODELS["sasrec"], needs=(column,))
