"""What every reader promises of a broken file: what was found, where, and what to do."""

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from seqrec_export.data.readers import READERS, read
from seqrec_export.data.readers.titles import titles
from seqrec_export.errors import SeqrecError
from seqrec_export.models.registry import MODELS
from seqrec_export.training.train import require

HEAD = "user,item,time,rating\n"
ROW = "u,i,1,5\n"
DAT = "1::1193::5::978300760\n"
HM = "t_dat,customer_id,article_id\n"
HM_ROW = "2020-09-16,c,0108775015\n"
JD_NAMES = (
    "query",
    "candidate_wid_list",
    "candidate_label_list",
    "history_qry_list",
    "history_wid_list",
    "history_type_list",
    "history_time_list",
)
JD_HEAD = "\t".join(JD_NAMES) + "\n"
JD_ROW = "7\t4_5\t1.0_0.0\t-1_-1\t8_9\tORD_CART\t0_9_1\n"
# Where the features of the other table would be.
OTHER = {"customers": "item_features", "articles": "user_features"}
READ_BY_PATH = [name for name, reader in READERS.items() if reader.needs_path]


WANTED = {"rating": "rating"}  # a column that is mapped is not left out if it is wrong


def refused(spec: str, *words: str, columns: dict[str, str] | None = None) -> str:
    """The message of the error, which names each of `words` and advises."""
    with pytest.raises(SeqrecError) as caught:
        read(spec, columns)
    message = str(caught.value)
    for word in words:
        assert word in message
    return message


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("user,thing,time\nu,i,1\n", ["item", "user, thing, time", "map it"]),
        ("user:item:time\nu:i:1\n", ["user:item:time", "separator"]),
        ("user,user,item,time\nu,u,i,1\n", ["user"]),
        ("user,item,time,ts\nu,i,1,1\n", ["several columns", "time, ts"]),
        (HEAD + ROW + "u,i,1\n", ["line 3", "3 columns, expected 4"]),
        (HEAD + ROW + "u;i;1;5\n", ["line 3", "1 column, expected 4", "separator"]),
        (HEAD + ROW + "\n" + "u,i,soon,5\n", ["line 4", "time", "'soon'"]),
        (HEAD + ROW + "u,i,,5\n", ["line 3", "time", "''"]),
        (HEAD + ROW + "u,i,nan,5\n", ["line 3", "time", "'nan'"]),
        (HEAD + "u,i,2020-01-01,5\nu,i,2020-02-30,5\n", ["line 3", "2020-02-30"]),
        (HEAD + ROW + "u,i,1,good\n", ["line 3", "rating", "'good'"]),
        (HEAD + ROW + "u,i,1,nan\n", ["line 3", "rating"]),
        (HEAD + ROW + "u,i,1,\n", ["line 3", "rating"]),
        (HEAD + ROW + ",i,1,5\n", ["line 3", "user", "''"]),
        (HEAD + ROW + "u,NaN,1,5\n", ["line 3", "item", "'NaN'"]),
        (HEAD + ROW + "u,None,1,5\n", ["line 3", "item", "'None'"]),
        (HEAD + ROW + 'u,"i,1,5\nu,j,2,5\nu,k",3,5\n', ["line 3", "quote", "look like rows"]),
        (HEAD, ["only a header", "user, item, time, rating"]),
        (HEAD + "\n\n", ["only a header"]),
        ("", ["empty"]),
    ],
)
def test_a_table_names_the_line_and_what_is_wrong(tmp_path, text, words):
    path = write(tmp_path / "log.csv", text)
    wanted = WANTED if "rating" in words else None
    refused(f"table:{path}", str(path), *words, columns=wanted)


def test_lines_are_counted_across_quoted_newlines_and_blank_lines(tmp_path):
    text = 'user,item,time,text\nu,i,1,"two\nlines"\n\nu,i,soon,x\n'
    refused(f"table:{write(tmp_path / 'log.csv', text)}", "line 5", "'soon'")


def test_text_in_another_encoding_names_its_line(tmp_path):
    (tmp_path / "log.csv").write_bytes(HEAD.encode() + "ü,i,1,5\n".encode("latin-1"))
    refused(f"table:{tmp_path / 'log.csv'}", "line 2", "utf-8")


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("user", None, ["row 2", "user is missing"]),
        ("item", np.nan, ["row 2", "item is missing"]),
        ("item", "", ["row 2", "item"]),
        ("time", np.nan, ["row 2", "time is missing"]),
        ("time", np.inf, ["row 2", "time", "inf"]),
        ("rating", np.nan, ["row 2", "rating is missing"]),
        ("rating", np.inf, ["row 2", "rating", "inf"]),
        ("time", True, ["time", "bool"]),
        ("user", [1], ["user", "list"]),
    ],
)
def test_parquet_names_the_row_and_what_is_wrong(tmp_path, column, value, words):
    frame = pd.DataFrame({"user": ["u", "v"], "item": ["i", "j"], "time": [1, 2], "rating": [1, 2]})
    keeps_type = not isinstance(value, bool | list)
    values = [frame[column][0] if keeps_type else value, value]
    frame[column] = pd.Series(values, dtype=None if isinstance(value, float) else object)
    frame.to_parquet(tmp_path / "log.parquet")
    wanted = WANTED if column == "rating" else None
    refused(f"table:{tmp_path / 'log.parquet'}", "log.parquet", *words, columns=wanted)


def test_parquet_that_is_damaged_or_without_rows_is_refused(tmp_path):
    path = tmp_path / "log.parquet"
    pd.DataFrame({"user": ["u"], "item": ["i"], "time": [1]}).iloc[:0].to_parquet(path)
    refused(f"table:{path}", "no rows", "user, item, time")
    path.write_bytes(path.read_bytes()[:50])
    refused(f"table:{path}", str(path), "damaged Parquet")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (DAT + "1::661::3\n", ["line 2", "separator"]),
        (DAT + "1::661::3::then\n", ["line 2", "timestamp", "'then'"]),
        (DAT + "1::::3::978302109\n", ["line 2", "movieId"]),
        ("1\t2\t3\t4\n1\t2\t3\n", ["line 2", "3 columns, expected 4"]),
        ("userId,movieId,rating\n1,2,3\n", ["timestamp", "userId, movieId, rating"]),
        ("userId,movieId,rating,timestamp\n", ["only a header"]),
        ("userId;movieId;rating;timestamp\n1;2;3;x\n", ["line 2", "timestamp", "'x'"]),
        ("1 1\n1\n", ["line 2", "1 column, expected 2"]),
        ("hello\n", ["line 1", "'hello'", "user::movie::rating::time"]),
        ("\n\n", ["line 1"]),
    ],
)
def test_movielens_names_the_line_and_what_is_wrong(tmp_path, text, words):
    path = write(tmp_path / "ratings.dat", text)
    refused(f"movielens:{path}", str(path), *words)


@pytest.mark.parametrize(
    ("table", "text", "words"),
    [
        ("transactions_train", "t_dat,customer_id\n2020-09-16,c\n", ["article_id", "t_dat"]),
        ("transactions_train", HM, ["only a header"]),
        ("transactions_train", HM + HM_ROW + "someday,c,1\n", ["line 3", "t_dat", "'someday'"]),
        ("transactions_train", HM + HM_ROW + "2020-09-16,,1\n", ["line 3", "customer_id"]),
        ("transactions_train", HM + "7,c,1\n", ["line 2", "t_dat", "2020-09-22"]),
    ],
)
def test_hm_names_the_table_and_line(tmp_path, table, text, words):
    write(tmp_path / "transactions_train.csv", HM + HM_ROW)
    path = write(tmp_path / f"{table}.csv", text)
    refused(f"hm:{tmp_path}", str(path), *words)


@pytest.mark.parametrize(
    ("table", "text", "words"),
    [
        ("customers", "customer_id,club_member_status,age\nc,ACTIVE,old\n", ["line 2", "'old'"]),
        ("customers", "customer_id,age\nc,3\n", ["club_member_status"]),
        ("articles", "article_id,garment_group_name\n1,x\n", ["index_group_name"]),
        ("articles", "", ["empty"]),
    ],
)
def test_a_table_beside_the_transactions_stops_only_models_that_take_it(
    tmp_path, table, text, words
):
    write(tmp_path / "transactions_train.csv", HM + HM_ROW)
    path = write(tmp_path / f"{table}.csv", text)
    log = read(f"hm:{tmp_path}")
    require(MODELS["sasrec"], log)
    with pytest.raises(SeqrecError) as caught:
        require(MODELS["two_tower"], replace(log, **{OTHER[table]: pd.DataFrame()}))
    for word in (str(path), *words):
        assert word in str(caught.value)
    assert any(str(path) in note for note in log.notes)


def test_a_directory_without_transactions_is_refused_with_what_it_holds(tmp_path):
    write(tmp_path / "customers.csv", "customer_id\nc\n")
    refused(f"hm:{tmp_path}", str(tmp_path), "no transactions_train", "customers.csv")


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("candidate_label_list", "1.0", ["1 entries", "2"]),
        ("candidate_label_list", "1.0_yes", ["entry 2", "'yes'"]),
        ("candidate_label_list", "1.0_4.0", ["entry 2", "label"]),
        ("candidate_wid_list", "4_", ["entry 2", "an id"]),
        ("history_qry_list", "-1", ["1 entries", "2"]),
        ("history_wid_list", "8", ["1"]),
        ("history_wid_list", "8_", ["entry 2", "an id"]),
        ("history_type_list", "ORD", ["1 entries", "2"]),
        ("history_time_list", "0_9", ["2 entries", "3", "request"]),
        ("history_time_list", "0_-9_1", ["entry 2", "'-9'"]),
        ("history_time_list", "0__1", ["entry 2", "''"]),
        ("history_time_list", "0_nan_1", ["entry 2", "'nan'"]),
        ("history_time_list", "0_1e30_1", ["entry 2"]),
        ("history_time_list", "", ["0 entries", "3"]),
    ],
)
def test_jdsearch_names_the_line_list_and_entry(tmp_path, column, value, words):
    fields = JD_ROW.rstrip("\n").split("\t")
    fields[JD_NAMES.index(column)] = value
    path = write(tmp_path / "log.txt", JD_HEAD + JD_ROW + "\t".join(fields) + "\n" + JD_ROW)
    refused(f"jdsearch:{path}", str(path), "line 3", *words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (JD_HEAD, ["only a header"]),
        (JD_HEAD.replace("history_time_list", "times") + JD_ROW, ["history_time_list", "times"]),
        (JD_HEAD + JD_ROW + "1\t2\n", ["line 3", "2 columns, expected 7"]),
        (JD_ROW.replace("\t", ","), ["line 1", "1 tab-separated column,"]),
    ],
)
def test_jdsearch_refuses_other_columns(tmp_path, text, words):
    path = write(tmp_path / "log.txt", text)
    refused(f"jdsearch:{path}", str(path), *words)


@pytest.mark.parametrize("reader", READ_BY_PATH)
def test_a_missing_path_or_file_is_refused_with_what_exists(tmp_path, reader):
    refused(reader, f"{reader}:PATH")
    write(tmp_path / "other.csv", "x")
    refused(f"{reader}:{tmp_path / 'log.csv'}", "log.csv", "does not exist", "other.csv")
    refused(f"{reader}:{tmp_path / 'no' / 'log.csv'}", "does not exist", "no such directory")


@pytest.mark.parametrize("reader", [name for name in READ_BY_PATH if name != "hm"])
def test_a_directory_where_a_file_is_wanted_is_refused_with_what_it_holds(tmp_path, reader):
    write(tmp_path / "other.csv", "x")
    refused(f"{reader}:{tmp_path}", "directory", "other.csv")


@pytest.mark.parametrize("reader", READ_BY_PATH)
def test_an_empty_file_is_refused_plain_or_gzipped(tmp_path, reader):
    (tmp_path / "log").write_bytes(b"")
    refused(f"{reader}:{tmp_path / 'log'}", "empty")
    (tmp_path / "log").write_bytes(gzip.compress(b""))
    refused(f"{reader}:{tmp_path / 'log'}", "empty")


@pytest.mark.parametrize(
    ("reader", "head", "row"),
    [
        ("table", HEAD, ROW),
        ("movielens", "", DAT),
        ("hm", HM, HM_ROW),
        ("jdsearch", JD_HEAD, JD_ROW),
    ],
)
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.999])
def test_a_truncated_gzip_is_refused(tmp_path, reader, head, row, kept):
    whole = gzip.compress((head + row * 5000).encode())
    (tmp_path / "log.gz").write_bytes(whole[: max(12, int(len(whole) * kept))])
    refused(f"{reader}:{tmp_path / 'log.gz'}", "log.gz", "truncated gzip", "again")


def test_a_gzip_with_a_wrong_checksum_is_refused(tmp_path):
    whole = bytearray(gzip.compress((HEAD + ROW * 5000).encode()))
    whole[-6] ^= 1
    (tmp_path / "log.gz").write_bytes(whole)
    refused(f"table:{tmp_path / 'log.gz'}", "damaged", "again")


def test_an_unknown_reader_is_refused_with_those_that_exist():
    refused("criteo:x.csv", "'criteo'", *READERS)


def test_mappings_are_refused_where_they_mean_nothing(tmp_path):
    path = write(tmp_path / "log.csv", HEAD + ROW)
    with pytest.raises(SeqrecError, match="column mapping is for table"):
        read(f"movielens:{path}", {"user": "user"})
    with pytest.raises(SeqrecError, match="no column prize"):
        read(f"table:{path}", {"price": "prize"})
    with pytest.raises(SeqrecError, match="no column sku"):
        read(f"table:{path}", {"item": "sku"})


def test_titles_refuse_files_without_titles(tmp_path):
    with pytest.raises(SeqrecError, match="movieId and title"):
        titles(write(tmp_path / "a.csv", "id,name\n1,x\n"))
    with pytest.raises(SeqrecError, match="no column title"):
        titles(write(tmp_path / "a.csv", "movieId,name\n1,x\n"))
    with pytest.raises(SeqrecError, match="line 2"):
        titles(write(tmp_path / "b.dat", "1::Up::Drama\n2\n"))
    with pytest.raises(SeqrecError, match="does not exist"):
        titles(tmp_path / "c.dat")
