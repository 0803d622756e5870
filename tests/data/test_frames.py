"""from_frame: pandas, Arrow and Arrow's stream, with the checks and the words of a file."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seqrec_export.data.readers import read
from seqrec_export.data.readers.frames import from_frame
from seqrec_export.errors import SeqrecError

EVENTS: dict[str, Any] = {
    "uid": ["anna", "ben", "anna", "carl"],
    "sku": [7, 8, 7, 9],
    "at": [1_700_000_000, 1_700_000_001, 1_700_000_002, 1_700_000_003],
    "stars": [1.0, 2.5, 3.0, 5.0],
    "what": ["view", "buy", "view", "view"],
    "device": ["phone", None, "desk", "phone"],
}
NAMES = {"user": "uid", "item": "sku", "time": "at", "rating": "stars", "event_type": "what"}
EXTRA = {"hardware": "device"}


class Streaming:
    """What polars and others offer."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.data.__arrow_c_stream__(requested_schema)


def viewed(table: pa.Table) -> pa.Table:
    """Text as polars has it."""
    texts = {"uid": pa.string_view(), "what": pa.string_view(), "device": pa.string_view()}
    return table.cast(pa.schema([(f.name, texts.get(f.name, f.type)) for f in table.schema]))


FRAMES: dict[str, Callable[[], Any]] = {
    "pandas": lambda: pd.DataFrame(EVENTS),
    "pandas, of Arrow's types": lambda: pd.DataFrame(EVENTS).convert_dtypes(
        dtype_backend="pyarrow"
    ),
    "pandas, categories": lambda: pd.DataFrame(EVENTS).astype({"uid": "category"}),
    "pandas, dates": lambda: pd.DataFrame(EVENTS | {"at": pd.to_datetime(EVENTS["at"], unit="s")}),
    "pandas, dates of a zone": lambda: pd.DataFrame(
        EVENTS
        | {"at": pd.to_datetime(EVENTS["at"], unit="s", utc=True).tz_convert("Asia/Kathmandu")}
    ),
    "pandas, Python's dates": lambda: pd.DataFrame(
        EVENTS | {"at": objects(*(datetime.fromtimestamp(t, UTC) for t in EVENTS["at"]))}
    ),
    "pandas, another index": lambda: pd.DataFrame(EVENTS, index=[5, 5, 5, 5]),
    "Arrow": lambda: pa.table(EVENTS),
    "Arrow, a batch": lambda: pa.RecordBatch.from_pydict(EVENTS),
    "a stream": lambda: Streaming(pa.table(EVENTS)),
    "a stream of views": lambda: Streaming(viewed(pa.table(EVENTS))),
}


@pytest.fixture
def of_file(tmp_path: Path) -> Any:
    pq.write_table(pa.table(EVENTS), tmp_path / "log.parquet")
    return read(f"table:{tmp_path / 'log.parquet'}", NAMES | EXTRA)


@pytest.mark.parametrize("kind", FRAMES)
def test_a_frame_is_the_log_of_the_file_with_its_columns(kind: str, of_file: Any) -> None:
    log = from_frame(FRAMES[kind](), **NAMES, **EXTRA)
    assert log.fingerprint == of_file.fingerprint
    assert log.notes == of_file.notes
    assert log.columns["hardware"].tolist() == ["phone", "", "desk", "phone"]
    assert log.source == "a frame"


def test_polars_is_read_too() -> None:
    polars = pytest.importorskip("polars", reason="polars is not installed here")
    assert from_frame(polars.DataFrame(EVENTS), **NAMES).user_ids.tolist() == [
        "anna",
        "ben",
        "carl",
    ]


def test_columns_are_recognised_by_name_and_left_out_if_asked() -> None:
    frame = pd.DataFrame(EVENTS).rename(columns={"uid": "User_ID", "sku": "item", "at": "ts"})
    frame = frame.rename(columns={"stars": "rating"})
    assert from_frame(frame).ratings is not None
    assert from_frame(frame, rating="").ratings is None


def test_times_are_of_the_unit_that_is_said() -> None:
    frame = pd.DataFrame(EVENTS | {"at": [1, 2, 3, 4]})
    log = from_frame(frame, user="uid", item="sku", time="at", time_unit="d")
    assert log.times.tolist() == [86_400, 172_800, 259_200, 345_600]


def test_a_frame_stays_as_it_is() -> None:
    frame = pd.DataFrame(EVENTS)
    before = frame.copy(deep=True)
    from_frame(frame, **NAMES)
    pd.testing.assert_frame_equal(frame, before)


def objects(*values: object) -> pd.Series:
    return pd.Series(list(values), dtype=object)


DATE, ZONED = datetime(2026, 1, 1), datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=5)))
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "NaN for a user": ({"uid": ["a", np.nan, "b", "c"]}, "frame, row 2: uid is missing (1 such"),
    "NaN for an item": ({"sku": [1, 2, np.nan, np.nan]}, "frame, row 3: sku is missing (2 such"),
    "NaT": ({"at": pd.to_datetime(["2026-01-01", None, None, None])}, "row 2: at is missing"),
    "an empty id": ({"uid": ["a", "b", " ", "c"]}, "row 3: uid is ' ', which is not an id"),
    "numbers and text": ({"sku": objects(1, "b", 3, 4)}, "column sku cannot be read: Could not"),
    "text and numbers": ({"sku": objects("b", 1, 3, 4)}, "give it values of one type"),
    "too large a number": ({"sku": objects(2**70, 1, 2, 3)}, "column sku cannot be read: Python"),
    "bools": ({"uid": [True, False, True, True]}, "uid holds bool; ids must be text or integers"),
    "lists": ({"sku": [[1], [2], [3], [4]]}, "holds list<item: int64>; write a row per event"),
    "dates with a zone among others": (
        {"at": objects(DATE, ZONED, DATE, DATE)},
        "holds times with a zone and without one; convert them to one zone",
    ),
    "periods": ({"at": pd.period_range("2026-01", periods=4, freq="M")}, "give it .dt.to_timest"),
    "durations": ({"at": pd.to_timedelta([1, 2, 3, 4], unit="h")}, "at holds duration"),
    "no date": (
        {"at": ["2026-01-01", "soon", "2026-01-02", "x"]},
        "row 2: at 'soon' is not a",
    ),
    "no number": ({"stars": ["1", "2", "three", "4"]}, "row 3: stars 'three' is not a number"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_value_is_named_with_its_row(what: str) -> None:
    changed, said = WRONG[what]
    with pytest.raises(SeqrecError) as refused:
        from_frame(pd.DataFrame(EVENTS | changed), **NAMES)
    assert str(refused.value).startswith("the frame")
    assert said in str(refused.value)


NO_FRAMES: dict[str, tuple[Any, str]] = {
    "a list": ([1], "made of a DataFrame of pandas or polars, or an Arrow table, found list"),
    "a path": ("log.csv", "found str"),
    "a column": (Streaming(pa.chunked_array([[1]])), "a Streaming is no table that Arrow can read"),
    "no rows": (pd.DataFrame(EVENTS).iloc[:0], "has columns (uid, sku, at, stars, what, device)"),
    "no such column": (
        pd.DataFrame(EVENTS).drop(columns="sku"),
        "the frame has no column sku",
    ),
    "a column twice": (
        pd.concat([pd.DataFrame(EVENTS)] * 2, axis=1),
        "the frame has 2 columns named uid",
    ),
}


@pytest.mark.parametrize("what", NO_FRAMES)
def test_what_is_no_log_is_refused(what: str) -> None:
    frame, said = NO_FRAMES[what]
    with pytest.raises(SeqrecError) as refused:
        from_frame(frame, **NAMES)
    assert said in str(refused.value)


def test_a_column_is_named_by_text() -> None:
    with pytest.raises(SeqrecError, match="user is int; give the name of a column of the frame"):
        from_frame(pd.DataFrame(EVENTS), user=0)  # type: ignore[arg-type]
