"""What every reader promises of a sound file."""

import gzip
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrec_export.data.interactions import Interactions
from seqrec_export.data.readers import READERS, indexing, read
from seqrec_export.data.readers.indexing import encode
from seqrec_export.data.readers.jdsearch import REQUEST_TIME
from seqrec_export.data.readers.titles import titles
from seqrec_export.errors import SeqrecError

DAY = 86_400
MIDNIGHT = 1_600_214_400  # 2020-09-16 UTC
# The same three ratings in each form.
MOVIELENS = {
    "ratings.dat": "1::1193::5::978300760\n1::661::3.5::978302109\n2::1193::4::978298413\n",
    "u.data": "1\t1193\t5\t978300760\n1\t661\t3.5\t978302109\n2\t1193\t4\t978298413\n",
    "ratings.csv": "userId,movieId,rating,timestamp\n1,1193,5.0,978300760\n"
    "1,661,3.5,978302109\n2,1193,4.0,978298413\n",
}
JD_HEADER = (
    "query\tcandidate_wid_list\tcandidate_label_list\thistory_qry_list\thistory_wid_list\t"
    "history_type_list\thistory_time_list\n"
)
JD_ROWS = (
    "12\x1e32\t456_457_789\t3.0_0.0_0.0\t323\x1e328_-1_12\t889_256_456\tORD_CLICK_CART\t0_12_4_5\n"
    "7\t456\t1.0\t-1\t889\tFLW\t0_9\n"
    "7\t1_2\t0.0_0.0\t\t\t\t0\n"
)
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b,c", "Ü", "007", 'q"q']),
        st.integers(0, 10**12),
        st.integers(0, 2 * 10**9),
        st.sampled_from([0.5, 3.0, 5.0]),
        st.sampled_from(["click", "buy"]),
    ),
    min_size=1,
    max_size=30,
)


def write(path: Path, text: str, zipped: bool = False) -> Path:
    data = text.encode()
    path.write_bytes(gzip.compress(data) if zipped else data)
    return path


def events(log: Interactions) -> list[tuple[str, str, int]]:
    users, items = log.user_ids[log.users].tolist(), log.item_ids[log.items].tolist()
    return list(zip(users, items, log.times.tolist(), strict=True))


def assert_same(one: Interactions, other: Interactions) -> None:
    for name in ("user_ids", "item_ids", "users", "items", "times", "ratings", "event_types"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert one.event_type_ids == other.event_type_ids
    assert one.notes == other.notes


def hm_tables() -> dict[str, pd.DataFrame]:
    return {
        "transactions_train": pd.DataFrame(
            {
                "t_dat": ["2020-09-16", "2020-09-16", "2020-09-17", "2020-09-17"],
                "customer_id": ["c2", "c1", "c2", "c2"],
                "article_id": ["0108775015", "0108775044", "0999999999", "0999999999"],
                "price": [0.1, 0.2, 0.3, 0.3],
            }
        ),
        "customers": pd.DataFrame(
            {
                "customer_id": ["c1", "c3"],
                "club_member_status": ["ACTIVE", None],
                "age": [25.0, np.nan],
            }
        ),
        "articles": pd.DataFrame(
            {
                "article_id": ["0108775015", "0108775044", "0108775051"],
                "garment_group_name": ["Jersey", None, "Knit"],
                "index_group_name": ["Ladies", "Ladies", "Men"],
            }
        ),
    }


def write_hm(folder: Path, suffix: str, tables: dict[str, pd.DataFrame] | None = None) -> Path:
    for name, table in (tables or hm_tables()).items():
        if suffix == ".parquet":
            table.to_parquet(folder / f"{name}{suffix}")
        else:
            table.to_csv(folder / f"{name}{suffix}", index=False)
    return folder


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("form", MOVIELENS)
def test_movielens_forms_are_told_apart_by_content_and_read_alike(tmp_path, form, zipped):
    log = read(f"movielens:{write(tmp_path / 'log', MOVIELENS[form], zipped)}")
    assert events(log) == [
        ("1", "1193", 978300760),
        ("1", "661", 978302109),
        ("2", "1193", 978298413),
    ]
    np.testing.assert_array_equal(log.ratings, np.float32([5, 3.5, 4]))
    assert [log.event_type_ids[row] for row in log.event_types] == ["5", "3.5", "4"]
    assert log.event_type_ids == ("3.5", "4", "5")
    assert log.event_types.dtype == np.int32


def test_pairs_are_timed_by_their_row_and_have_no_ratings(tmp_path):
    path = write(tmp_path / "pairs.txt", "1 1\n1 2\n2 1\n")
    log = read(f"movielens:{path}")
    assert events(log) == [("1", "1", 0), ("1", "2", 1), ("2", "1", 2)]
    assert log.ratings is None
    assert log.event_types is None
    assert "row number" in log.notes[0]


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_hm_tables_are_joined_and_everyone_is_included(tmp_path, suffix):
    log = read(f"hm:{write_hm(tmp_path, suffix)}")
    assert events(log) == [
        ("c2", "0108775015", MIDNIGHT),
        ("c1", "0108775044", MIDNIGHT),
        ("c2", "0999999999", MIDNIGHT + DAY),
        ("c2", "0999999999", MIDNIGHT + DAY),
    ]
    assert log.user_ids.tolist() == ["c2", "c1", "c3"]
    assert log.user_features["age"].dtype == np.float32
    np.testing.assert_array_equal(log.user_features["age"], np.float32([np.nan, 25, np.nan]))
    assert log.user_features["club_member_status"].isna().tolist() == [True, False, True]
    assert log.item_ids.tolist() == ["0108775015", "0108775044", "0999999999", "0108775051"]
    assert log.item_features["garment_group_name"].tolist() == ["Jersey", "", "", "Knit"]
    assert log.item_features["index_group_name"].tolist() == ["Ladies", "Ladies", "", "Men"]
    assert any("1 of 4 events repeat" in note for note in log.notes)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_article_ids_that_came_as_numbers_regain_their_zeros(tmp_path, suffix):
    tables = hm_tables()
    tables["transactions_train"] = tables["transactions_train"].astype({"article_id": "int64"})
    log = read(f"hm:{write_hm(tmp_path, suffix, tables)}")
    assert log.item_ids.tolist() == ["0108775015", "0108775044", "0999999999", "0108775051"]


def test_hm_prefers_parquet_and_says_what_it_picked(tmp_path):
    write_hm(tmp_path, ".csv")
    tables = {name: table.iloc[:2] for name, table in hm_tables().items()}
    log = read(f"hm:{write_hm(tmp_path, '.parquet', tables)}")
    assert len(log) == 2
    assert "transactions_train.parquet, not transactions_train.csv" in log.notes[0]


def test_hm_reads_transactions_alone(tmp_path):
    tables = {"transactions_train": hm_tables()["transactions_train"]}
    log = read(f"hm:{write_hm(tmp_path, '.csv', tables) / 'transactions_train.csv'}")
    assert len(log) == 4
    assert log.user_features is None
    assert log.item_features is None


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("header", [JD_HEADER, ""])
def test_jdsearch_events_are_timed_backwards_from_the_request(tmp_path, header, zipped):
    log = read(f"jdsearch:{write(tmp_path / 'log.txt', header + JD_ROWS, zipped)}")
    assert events(log) == [
        ("row-1", "889", REQUEST_TIME - 21),
        ("row-1", "256", REQUEST_TIME - 9),
        ("row-1", "456", REQUEST_TIME - 5),
        ("row-2", "889", REQUEST_TIME - 9),
    ]
    assert [log.event_type_ids[row] for row in log.event_types] == ["ORD", "CLICK", "CART", "FLW"]


def test_jdsearch_rows_are_sessions_and_may_lack_a_history(tmp_path):
    log = read(f"jdsearch:{write(tmp_path / 'log.txt', JD_HEADER + JD_ROWS)}")
    sessions = log.sessions
    assert log.user_ids.tolist() == ["row-1", "row-2", "row-3"]
    assert sessions.offsets.tolist() == [0, 3, 4, 6]
    shown = log.item_ids[sessions.candidates].tolist()
    assert shown == ["456", "457", "789", "456", "1", "2"]
    assert sessions.labels.tolist() == [3, 0, 0, 1, 0, 0]
    assert (sessions.times == REQUEST_TIME).all()


@given(rows=EVENTS)
@settings(max_examples=60, derandomize=True, deadline=None, database=None)
def test_csv_and_parquet_of_the_same_events_are_read_alike(rows):
    frame = pd.DataFrame(rows, columns=["user", "item_id", "ts", "rating", "event_type"])
    with TemporaryDirectory() as folder:
        path = Path(folder)
        frame.to_parquet(path / "log.parquet")
        frame.to_csv(path / "log.csv.gz", index=False)
        one, other = (read(f"table:{path / name}") for name in ("log.parquet", "log.csv.gz"))
    assert_same(one, other)
    expected = [(user, str(item), time) for user, item, time, *_ in rows]
    assert events(one) == expected
    assert len(set(one.user_ids)) == len(one.user_ids)


@pytest.mark.parametrize("separator", [",", "\t", ";", "|"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_table_finds_the_separator_and_takes_a_mapping(tmp_path, separator, newline):
    text = newline.join(
        separator.join(line) for line in (("uid", "sku", "at"), ("u", "007", "5"), ("v", "8", "6"))
    )
    path = write(tmp_path / "log", "\ufeff" + text)
    log = read(f"table:{path}", {"user": "uid", "item": "sku", "time": "at"})
    assert events(log) == [("u", "007", 5), ("v", "8", 6)]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_whole_ids_that_went_through_floats_lose_their_point(tmp_path, suffix):
    frame = pd.DataFrame({"user": [1.0, 2.0], "item": [7.0, 10.0], "time": [1, 2]})
    path = tmp_path / f"log{suffix}"
    frame.to_parquet(path) if suffix == ".parquet" else frame.to_csv(path, index=False)
    assert events(read(f"table:{path}")) == [("1", "7", 1), ("2", "10", 2)]


def test_categories_without_a_row_are_no_ids(tmp_path):
    frame = pd.DataFrame({"user": pd.Categorical(["b", "a"], ["a", "b", "never"]), "item": [1, 1]})
    frame.assign(time=0).to_parquet(tmp_path / "log")
    assert read(f"table:{tmp_path / 'log'}").user_ids.tolist() == ["b", "a"]


@given(codes=st.lists(st.integers(0, 5), min_size=1, max_size=20))
@settings(max_examples=100, derandomize=True, deadline=None, database=None)
def test_ids_are_numbered_by_appearance_whatever_the_stored_dictionary(codes):
    stored = pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(list("abcdef")))
    distinct, rows = encode(pa.chunked_array([stored]))
    assert distinct.to_pylist() == list(dict.fromkeys("abcdef"[code] for code in codes))
    assert distinct.take(pa.array(rows)).to_pylist() == stored.to_pylist()


@pytest.mark.parametrize("in_time_order", [False, True])
@given(seed=st.integers(0, 2**32 - 1), events=st.integers(0, 60), block=st.integers(1, 20))
@settings(max_examples=100, derandomize=True, deadline=None, database=None)
def test_duplicates_are_counted_in_any_order(in_time_order, seed, events, block):
    rng = np.random.default_rng(seed)
    users, items = rng.integers(0, 3, (2, events)).astype(np.int32)
    times = rng.integers(-3, 3, events)
    if in_time_order:
        times.sort()
    distinct = set(zip(users.tolist(), items.tolist(), times.tolist(), strict=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(indexing, "_BLOCK", block)
        repeated, tied = indexing.count_repeats(users, items, times)
    assert repeated == events - len(distinct)
    assert tied == len(distinct) - len({(user, time) for user, _, time in distinct})


def test_duplicates_and_single_events_are_kept_and_said(tmp_path):
    text = "user,item,time\nu,i,1e9\nu,i,1e9\nu,i,1000000002\nv,i,1e9\n"
    log = read(f"table:{write(tmp_path / 'log.csv', text)}")
    assert len(log) == 4
    assert log.notes == (
        "1 of 4 events repeat an earlier one (same user, item and time) and were kept.",
        "1 of 2 users have a single event.",
    )


def test_the_fingerprint_is_of_what_was_read_however_it_was_stored(tmp_path):
    one, *others = (
        read(f"movielens:{write(tmp_path / form, text, zipped)}")
        for form, text in MOVIELENS.items()
        for zipped in (False, True)
    )
    for other in others:
        assert other.fingerprint == one.fingerprint
        assert_same(one, other)
    changed = write(tmp_path / "other", MOVIELENS["u.data"].replace("3.5", "3"))
    assert read(f"movielens:{changed}").fingerprint != one.fingerprint


LOG = "user,sku,category,time,rating,rating2\nu,1,a,1,5,4\nu,2,a,2,3,4\nv,1,b,3,4,4\n"


@pytest.mark.parametrize(
    "mapping",
    [
        {"item": "category"},
        {"item": "sku", "user": "category"},
        {"item": "sku", "time": "rating"},
        {"item": "sku", "rating": "rating2"},
        {"item": "sku", "event_type": "category"},
    ],
)
def test_other_columns_of_a_file_are_another_log(tmp_path, mapping):
    path = write(tmp_path / "log.csv", LOG)
    one = read(f"table:{path}", {"item": "sku"})
    assert one.fingerprint == read(f"table:{path}", {"item": "sku"}).fingerprint
    assert read(f"table:{path}", mapping).fingerprint != one.fingerprint


def test_every_part_of_a_log_is_in_its_fingerprint():
    log = read("synthetic:users=50,items=60,events=500,seed=1")
    log = replace(log, nanoseconds=np.zeros(500, np.int32))
    prints = {log.fingerprint}
    told = {"source", "notes", "unreadable", "item_table"}  # which no model sees
    for name in {field.name for field in fields(log)} - told:
        if name == "event_type_ids":
            changed = ("other", *log.event_type_ids[1:])
        elif name == "sessions":
            changed = replace(log.sessions, labels=log.sessions.labels + 1)
        elif name.endswith("features"):
            changed = getattr(log, name).iloc[::-1]
        elif name == "columns":
            changed = {"device": np.full(500, "phone", object)}
        else:
            changed = getattr(log, name).copy()
            changed[0] = "other" if changed.dtype == object else changed[0] + 1
        prints.add(replace(log, **{name: changed}).fingerprint)
    assert len(prints) == len(fields(log)) - len(told) + 1
    other = replace(log, source="other", notes=("seen",), item_table=Path("articles.csv"))
    assert other.fingerprint == log.fingerprint


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("movies.dat", "1::Amélie (2001)::Comedy\n2::Up::Drama|War\n"),
        ("u.item", "1|Amélie (2001)|01-Jan-1995||x\n2|Up|01-Jan-1995||x\n"),
        ("movies.csv", 'movieId,title,genres\n1,"Amélie (2001)",Comedy\n2,Up,Drama\n'),
        ("shop.csv", "item_id,title\n1,Amélie (2001)\n2,Up\n"),
    ],
)
def test_titles_of_every_form_are_read(tmp_path, name, text):
    encoding = "utf-8" if name.endswith(".csv") else "latin-1"
    (tmp_path / name).write_bytes(text.encode(encoding))
    assert titles(tmp_path / name) == {"1": "Amélie (2001)", "2": "Up"}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_article_titles_go_by_ids_of_ten_digits(tmp_path, suffix):
    frame = pd.DataFrame({"article_id": [108775015, 108775044], "prod_name": ["Strap top", None]})
    path = tmp_path / f"articles{suffix}"
    frame.to_parquet(path) if suffix == ".parquet" else frame.to_csv(path, index=False)
    assert titles(path) == {"0108775015": "Strap top"}


def test_synthetic_needs_no_path_and_takes_options():
    log = read("synthetic:users=50,items=60,events=500,seed=1")
    assert (len(log.user_ids), len(log.item_ids), len(log)) == (50, 60, 500)


@pytest.mark.parametrize("spec", ["synthetic:people=3", "synthetic:users=many", "synthetic:users"])
def test_unknown_options_of_synthetic_are_refused(spec):
    with pytest.raises(SeqrecError, match="synthetic"):
        read(spec)


def test_readers_are_listed_under_their_names():
    assert list(READERS) == ["movielens", "hm", "jdsearch", "table", "synthetic"]
    assert all(reader.name == name and reader.description for name, reader in READERS.items())
