"""Which values items have: from a log, a file or a frame, in any form that these hold them in."""

import gzip
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrec_export.data import attributes
from seqrec_export.data.attributes import ItemAttributes, wanted_attributes
from seqrec_export.data.readers import read
from seqrec_export.data.readers.frames import from_frame
from seqrec_export.data.readers.item_tables import asked_attributes, read_attributes
from seqrec_export.data.vocabulary import NUM_RESERVED, PAD, Vocabulary
from seqrec_export.errors import SeqrecError

IDS = ("a", "b", "c")
LISTS = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d", "007"]),
    st.lists(st.sampled_from(["x", "Ü", " y", "z z", '"q"']), max_size=4),
    min_size=1,
)


def of_items(found: ItemAttributes, ids: tuple[str, ...] = IDS) -> dict[str, list[list[str]]]:
    """By attribute, the values of each item, as graphs get them."""
    result = {}
    for attribute in found.of(Vocabulary(ids)):
        assert (attribute.values[:NUM_RESERVED] == PAD).all()
        words = attribute.vocabulary.decode(attribute.values[NUM_RESERVED:].astype(np.int64))
        result[attribute.name] = [[word for word in row if word] for row in words.tolist()]
    return result


def said(frame: object, filter_by: str, ids: tuple[str, ...] = IDS) -> list[list[str]]:
    (values,) = of_items(
        read_attributes(wanted_attributes(filter_by), ids, items=frame), ids
    ).values()
    return values


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (["red", "", None], [["red"], [], []]),
        ([" red ", "a, b", '"q"'], [[" red "], ["a, b"], ['"q"']]),
        ([1999, 7, 7], [["1999"], ["7"], ["7"]]),
        ([1999.0, np.nan, 7.0], [["1999"], [], ["7"]]),
        ([38.0, 38.5, 0.1], [["38"], ["38.5"], ["0.1"]]),
        (np.array([0.1, 2, np.nan], np.float32), [["0.1"], ["2"], []]),
        (["1999.0", "7.0", ""], [["1999"], ["7"], []]),
        (["1999.0", "v2.0", "7"], [["1999.0"], ["v2.0"], ["7"]]),
        ([True, False, None], [["true"], ["false"], []]),
        ([["x", "y"], [], ["y", "x", "y", ""]], [["x", "y"], [], ["x", "y"]]),
        ([[1999, 7], None, [3]], [["1999", "7"], [], ["3"]]),
        (pd.Categorical(["n", "m", "n"]), [["n"], ["m"], ["n"]]),
        ([date(2020, 9, 22), None, None], [["2020-09-22"], [], []]),
    ],
)  # fmt: skip
def test_values_are_text_as_people_write_them(column: object, expected: list[list[str]]) -> None:
    frame = pd.DataFrame({"item_id": IDS, "kind": column})
    assert said(frame, "kind") == expected
    assert said(pa.Table.from_pandas(frame), "kind") == expected


@settings(max_examples=25, deadline=None)
@given(lists=LISTS, zipped=st.booleans())
def test_a_file_says_the_same_in_every_form(lists: dict[str, list[str]], zipped: bool) -> None:
    """CSV with a separator, gzipped or not, Parquet with lists, and a frame."""
    ids = (*lists, "another")
    expected = [sorted(set(values)) for values in (*lists.values(), [])]
    if not any(expected):
        return
    as_lists = pa.table(
        {"item_id": [*lists], "tags": pa.array([*lists.values()], pa.list_(pa.string()))}
    )
    frame = pd.DataFrame({"item_id": [*lists], "tags": ["|".join(v) for v in lists.values()]})
    assert said(frame, "tags:|", ids) == said(as_lists, "tags", ids) == expected
    with TemporaryDirectory() as folder:
        file = Path(folder) / "items"
        pq.write_table(as_lists, file)
        assert said(file, "tags", ids) == expected
        text = frame.to_csv(index=False).encode()
        file.write_bytes(gzip.compress(text) if zipped else text)
        assert said(str(file), "tags:|", ids) == expected


def test_indices_are_those_of_the_model_whatever_the_order_of_the_table() -> None:
    table = pd.DataFrame({"item_id": ["c", "x", "a"], "kind": ["k", "of x", "j|k"]})
    found = read_attributes({"kind": "|"}, IDS, items=table)
    (kind,) = found.of(Vocabulary(["b", "c", "a", "not of the log"]))
    assert kind.vocabulary.ids == ("j", "k")  # sorted, without those of items that nobody knows
    assert kind.values.dtype == np.int32
    assert kind.values.tolist() == [[0, 0], [0, 0], [0, 0], [3, 0], [2, 3], [0, 0]]
    assert found.notes == (
        "1 of 3 items of the table of items are not among those that can be recommended.",
        "1 of 3 items are not in the table of items: no value of theirs is known, so that they "
        "never come back if one is asked for.",
    )


def test_attributes_have_one_order_however_they_are_named() -> None:
    frame = pd.DataFrame({"item_id": IDS, "b": IDS, "a": IDS})
    for names in ("b,a", ["a", "b"], [" a , b", "a"]):
        found = read_attributes(wanted_attributes(names), IDS, items=frame)
        assert [attribute.name for attribute in found.of(Vocabulary(IDS))] == ["a", "b"]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ("", {}),
        ([""], {}),
        ([], {}),
        ("genres:|", {"genres": "|"}),
        ("genres:|,year", {"genres": "|", "year": None}),
        ("tags:,", {"tags": ","}),
        ("tags:,,year", {"tags": ",", "year": None}),
        (["tags: / ", "year"], {"tags": " / ", "year": None}),
    ],
)
def test_names_come_with_a_separator_or_without(texts: list[str], expected: dict[str, str]) -> None:
    assert wanted_attributes(texts) == expected


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("garment group", "cannot be the name of an attribute"),
        ("2nd", "cannot be the name"),
        ("größe", "cannot be the name"),
        ("a,,b", "cannot be the name"),
        (":|", "cannot be the name"),
        ("item_ids", "can ask for single items by allow_item_ids anyway"),
        ("ItemId", "which allow_ItemId would be confused with; leave ItemId out"),
        ("genres:", "the separator of genres is ''"),
        ("genres:,year", "the separator of genres is ',year'"),
        ("genres:|,genres:/", "genres with two separators"),
        ("item_type,itemType", "item_type and itemType, which are one name"),
        ([1], "filter_by holds int"),
    ],
)
def test_names_that_cannot_be_are_refused(texts: object, message: str) -> None:
    with pytest.raises(SeqrecError, match=message.replace("(", r"\(")):
        wanted_attributes(texts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"sku": ["a"], "colour": ["r"]}, "the table of items has colour; name one of these"),
        ({"key": ["a"], "kind": ["r"]}, "its columns are key, kind; .* --items-id COLUMN"),
        ({"item_id": ["a"], "ItemId": ["a"], "kind": ["r"]}, "several columns that may be"),
        ({"id": ["x", "y"], "kind": ["r", "s"]}, "none of the 3 items: its first id is 'x'"),
        ({"id": ["a", "a"], "kind": ["r", "s"]}, "has 'a' twice, with another kind: r, then s"),
        ({"id": ["a", "a"], "kind": ["r", None]}, "has 'a' twice, .*: r, then nothing"),
        ({"id": ["a", None], "kind": ["r", "s"]}, "row 2: id is missing"),
        ({"id": ["a"], "kind": [""]}, "no item has a value of kind"),
        ({"id": ["a"], "kind": [{"x": 1}]}, "column kind holds struct"),
        ({"id": ["a"], "kind": ["x\0"]}, "a value of kind holds a NUL"),
        ({"id": ["a"], "kind": [[str(i) for i in range(65)]]}, "item 'a' has 65 values of kind"),
        ({"id": [], "kind": []}, "and no rows"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_used_is_refused(columns: dict[str, object], message: str) -> None:
    with pytest.raises(SeqrecError, match=message):
        said(pd.DataFrame(columns), "kind")


def test_an_attribute_with_a_value_for_each_item_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attributes, "MOST_VALUES", 2)
    frame = pd.DataFrame({"id": [*IDS, "unknown"], "kind": ["r", "s", "r", "t"]})
    assert said(frame, "kind") == [["r"], ["s"], ["r"]]  # what nobody has does not count
    frame.loc[2, "kind"] = "u"
    with pytest.raises(SeqrecError, match="kind has 3 values, and at most 2 can be filtered by"):
        said(frame, "kind")


def test_rows_that_repeat_each_other_are_one() -> None:
    table = pd.DataFrame({"id": ["b", "a", "b"], "kind": ["x|y", "x", "y|x"]})
    assert said(table, "kind:|") == [["x"], ["x", "y"], []]


def test_the_column_of_ids_is_found_or_named() -> None:
    frame = pd.DataFrame({"id": ["1", "2", "3"], "Item_ID": IDS, "kind": ["r", "s", "t"]})
    assert said(frame, "kind") == [["r"], ["s"], ["t"]]
    found = read_attributes({"kind": None}, ("3", "2"), items=frame, id_column="id")
    assert of_items(found, ("3", "2")) == {"kind": [["t"], ["s"]]}
    with pytest.raises(SeqrecError, match="no column key"):
        read_attributes({"kind": None}, IDS, items=frame, id_column="key")
    indexed = frame.drop(columns="id").set_index("Item_ID")
    assert said(indexed, "kind") == [["r"], ["s"], ["t"]]


def test_ids_are_compared_as_readers_of_logs_write_them() -> None:
    frame = pd.DataFrame({"item_id": [3.0, 7.0], "kind": ["r", "s"]})
    assert said(frame, "kind", ("7", "3")) == [["s"], ["r"]]
    frame = pd.DataFrame({"article_id": [108775015, 7], "kind": ["r", "s"]})
    assert said(frame, "kind", ("0108775015", "0000000007")) == [["r"], ["s"]]
    # Zeros that ids lost as numbers count only if nothing fits with them.
    frame = pd.DataFrame({"sku": [12, 7], "kind": ["r", "s"]})
    assert said(frame, "kind", ("0012", "0007")) == [["r"], ["s"]]
    assert said(frame, "kind", ("012", "7")) == [[], ["s"]]


def test_what_looks_like_several_values_is_noted() -> None:
    table = pd.DataFrame({"id": IDS, "kind": ["r|s", "t", "u"]})
    (note,) = read_attributes({"kind": None}, IDS, items=table).notes
    assert note.endswith("if these are several values, name it as kind:|.")
    (note,) = read_attributes({"kind": "/"}, IDS, items=table).notes
    assert note == "No value of kind holds '/': each is one value."


def test_an_item_with_many_values_is_noted() -> None:
    for count in (8, 9):
        frame = pd.DataFrame({"id": ["a"], "kind": [[str(i) for i in range(count)]]})
        found = asked_attributes("kind", ("a",), items=frame)
        assert found is not None
        assert [note[:24] for note in found.notes] == ["An item has 9 values of "] * (count == 9)


def test_a_log_says_what_its_items_are_and_a_table_comes_first() -> None:
    log = read("synthetic:users=5,items=50,events=50,sessions=0")
    assert log.item_features is not None
    ids = tuple(log.item_ids)
    found = of_items(read_attributes({"garment_group_name": None}, ids, log=log), ids)
    groups = log.item_features["garment_group_name"]
    assert found == {"garment_group_name": [[group] for group in groups]}
    table = pd.DataFrame({"id": ids[:1], "garment_group_name": ["mine"], "size": ["L"]})
    names = {"garment_group_name": None, "size": None, "index_group_name": None}
    both = of_items(read_attributes(names, ids, log=log, items=table), ids)
    assert both["garment_group_name"] == [["mine"], *[[]] * 49]
    assert both["size"] == [["L"], *[[]] * 49]
    assert both["index_group_name"] == [[group] for group in log.item_features["index_group_name"]]
    with pytest.raises(SeqrecError, match=r"called colour: the table of items has .*; the log has"):
        read_attributes({"colour": None}, ids, log=log, items=table)


def test_nothing_says_what_items_are() -> None:
    log = from_frame(pd.DataFrame({"user": ["u"], "item": ["a"], "time": [1_600_000_000]}))
    with pytest.raises(SeqrecError, match=r"nothing says what colour an item has; .* --items FILE"):
        read_attributes({"colour": None}, ("a",), log=log)


@pytest.mark.parametrize("movies", ["movies.dat", "movies.csv"])
def test_movielens_has_genres_next_to_its_ratings(movies: str, tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("1::1193::5::978300760\n1::661::3::978302109\n")
    dat = movies.endswith("dat")
    rows = ["1193", "Cuckoo: a \xe9 film", "Drama|War"], ["661", "Other", "(no genres listed)"]
    lines = ["::".join(row) if dat else ",".join(row) for row in rows]
    header = [] if dat else ["movieId,title,genres"]
    text = "\n".join([*header, *lines, ""])
    (tmp_path / movies).write_text(text, encoding="latin-1" if dat else "utf-8")
    log = read(f"movielens:{tmp_path / 'ratings.dat'}")
    ids = ("661", "1193")
    found = of_items(read_attributes({"genres": None, "title": None}, ids, log=log), ids)
    assert found["genres"] == [[], ["Drama", "War"]]
    assert found["title"] == [["Other"], ["Cuckoo: a \xe9 film"]]
    assert found == of_items(
        read_attributes({"genres": None, "title": None}, ids, items=tmp_path / movies), ids
    )


def test_hm_has_the_other_columns_of_articles_and_trains_on_none_of_them(tmp_path: Path) -> None:
    (tmp_path / "transactions_train.csv").write_text(
        "t_dat,customer_id,article_id,price,sales_channel_id\n2020-09-16,u1,0108775015,0.01,2\n"
    )
    articles = tmp_path / "articles.csv"
    articles.write_text(
        "article_id,garment_group_name,index_group_name,product_type_name,code\n"
        "108775015,Jersey,Ladies,Vest top,9\n0108775044,Jersey,Ladies,Bra,10\n"
    )
    log = read(f"hm:{tmp_path}")
    assert log.item_features is not None
    assert [*log.item_features] == ["garment_group_name", "index_group_name"]
    ids = tuple(log.item_ids)
    wanted = {"product_type_name": None, "code": None, "garment_group_name": None}
    assert of_items(read_attributes(wanted, ids, log=log), ids) == {
        "code": [["9"], ["10"]],
        "garment_group_name": [["Jersey"], ["Jersey"]],
        "product_type_name": [["Vest top"], ["Bra"]],
    }
    before = log.fingerprint
    articles.write_text(articles.read_text().replace("Bra", "Sock"))
    assert read(f"hm:{tmp_path}").fingerprint == before


def test_files_that_cannot_be_read_are_refused_by_name(tmp_path: Path) -> None:
    missing = tmp_path / "items.csv"
    with pytest.raises(SeqrecError, match="does not exist"):
        read_attributes({"kind": None}, IDS, items=missing)
    missing.write_text("id,kind\na,r\nb\n")
    with pytest.raises(SeqrecError, match="line 3: found 1 column"):
        read_attributes({"kind": None}, IDS, items=missing)
    pq.write_table(pa.table({"id": ["a"], "kind": ["r"]}), missing)
    missing.write_bytes(missing.read_bytes()[:-9])
    with pytest.raises(SeqrecError, match="damaged Parquet file"):
        read_attributes({"kind": None}, IDS, items=missing)
    with pytest.raises(SeqrecError, match="a table of items is made of a DataFrame"):
        read_attributes({"kind": None}, IDS, items={"id": ["a"]})
