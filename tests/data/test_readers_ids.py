"""Ids are what the source shows: none altered, split or swallowed without a word."""

import os
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seqrec_export.data.interactions import Interactions
from seqrec_export.data.readers import quoting, read
from seqrec_export.errors import SeqrecError

TIME = 1_600_214_400


def items(log: Interactions) -> list[str]:
    return log.item_ids[log.items].tolist()


def text(folder: Path, content: str | bytes, name: str = "log.csv") -> Interactions:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read(f"table:{path}")


def table(ids: list[str], delimiter: str = ",", quote: str = "") -> str:
    """A row per id, with an unused column behind; the id as it stands."""
    rows = [["user", "item", "time", "title"]]
    rows += [[f"u{row}", item, str(TIME + row), "x"] for row, item in enumerate(ids)]
    wrapped = [[quote + field + quote for field in row] for row in rows]
    return "".join(delimiter.join(row) + "\n" for row in wrapped)


def stored(folder: Path, ids: pa.Array) -> Interactions:
    rows = len(ids)
    columns = {"user": ["u"] * rows, "item": ids, "time": [TIME + row for row in range(rows)]}
    pq.write_table(pa.table(columns), folder / "log.parquet")
    return read(f"table:{folder / 'log.parquet'}")


@pytest.mark.parametrize("delimiter", [", ", "; ", " | ", " ,", ",\t"])
def test_spaces_next_to_a_separator_are_no_part_of_ids_which_is_noted(tmp_path, delimiter):
    log = text(tmp_path, table(["i7", "i 8", "007"], delimiter))
    assert items(log) == ["i7", "i 8", "007"]
    assert any("Spaces around 3 ids of column item" in note for note in log.notes)
    assert log.user_ids.tolist() == ["u0", "u1", "u2"]


def test_ids_that_only_spaces_tell_apart_are_one(tmp_path):
    log = text(tmp_path, table(["i7", " i7", "i7 "]))
    assert log.item_ids.tolist() == ["i7"]


def test_spaces_in_tab_separated_text_and_in_parquet_are_kept_and_noted(tmp_path):
    ids = ["i7", " i7", "i7  "]
    for log in (text(tmp_path, table(ids, "\t")), stored(tmp_path, pa.array(ids))):
        assert items(log) == ids
        assert any("2 of 3 ids of column item begin or end with a space" in n for n in log.notes)


ODD = [
    '"Blue" Harbour',
    '"Lanterns"',
    "MN/OP",
    'say "hi"',
    '5" disk',
    '"',
    '""',
    "a'b",
    "#1",
    "\\n",
]


@pytest.mark.parametrize("ids", [ODD, ODD[:1], ODD[1:3], ['"open'], ['"a', 'b"']], ids=str)
def test_quotes_in_tab_separated_text_are_kept_byte_for_byte_and_noted(tmp_path, ids):
    log = text(tmp_path, table([*ids, "plain", "other"], "\t"))
    assert items(log) == [*ids, "plain", "other"]
    assert any("Quotes in log.csv are part of its text" in note for note in log.notes)


@pytest.mark.parametrize("ids", [['"open'], ['shut"'], ['5" disk', '"a" b'], ['"Blue" Harbour']])
def test_quotes_that_enclose_no_field_are_kept_in_csv(tmp_path, ids):
    log = text(tmp_path, table([*ids, "plain", "other"]))
    assert items(log) == [*ids, "plain", "other"]


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_fields_in_quotes_are_what_the_quotes_enclose(tmp_path, delimiter):
    ids = ["a", f"b{delimiter}c", 'q"q', "  d", "e'", "007"]
    quoted = table([item.replace('"', '""') for item in ids], delimiter, '"')
    log = text(tmp_path, quoted)
    assert items(log) == [item if delimiter == "\t" else item.strip() for item in ids]
    only_where_needed = table(["a", f'"b{delimiter}c"', '"q""q"', "5' x"], delimiter)
    assert items(text(tmp_path, only_where_needed)) == ["a", f"b{delimiter}c", 'q"q', "5' x"]


def test_a_column_in_quotes_in_every_row_of_tab_separated_text_is_quoted(tmp_path):
    rows = "".join(f'u\t"i{row}"\t{TIME + row}\n' for row in range(5))
    assert items(text(tmp_path, "user\titem\ttime\n" + rows)) == [f"i{row}" for row in range(5)]
    header = '"user"\t"item"\t"time"\n'
    assert items(text(tmp_path, header + rows.replace('"', ""))) == [f"i{r}" for r in range(5)]


TITLES = (
    "user,item,time,title\nu,i,1600000001,{}\nu,j,1600000002,b\nu,k,1600000003,{}\n"
    "u,l,1600000004,d\n"
)


@pytest.mark.parametrize(
    ("one", "other"), [('"Foo', '"Baz'), ('"Foo', "Baz"), ("Foo", '"Baz'), ('F"oo', 'B"az')]
)
@pytest.mark.parametrize("block", [1 << 24, 40])
def test_a_stray_quote_in_a_column_that_is_not_used_swallows_no_row(
    tmp_path, monkeypatch, one, other, block
):
    monkeypatch.setattr(quoting, "_BLOCK_BYTES", block)
    assert items(text(tmp_path, TITLES.format(one, other))) == ["i", "j", "k", "l"]


@pytest.mark.parametrize("block", [1 << 24, 40])
@pytest.mark.parametrize("shut", ['Baz"', '"'])
def test_stray_quotes_that_seem_to_enclose_rows_are_refused_at_their_line(
    tmp_path, monkeypatch, block, shut
):
    monkeypatch.setattr(quoting, "_BLOCK_BYTES", block)
    with pytest.raises(SeqrecError, match=r"log.csv, line 2: a quote .* look like rows"):
        text(tmp_path, TITLES.format('"Foo', shut))
    header = '"user",item,time,title\n'
    with pytest.raises(SeqrecError, match="line 4: a quote is left open"):
        text(tmp_path, header + TITLES.partition("\n")[2].format("x", '"Baz'))


@pytest.mark.parametrize("block", [1 << 24, 40])
def test_texts_of_several_lines_are_read_as_such(tmp_path, monkeypatch, block):
    monkeypatch.setattr(quoting, "_BLOCK_BYTES", block)
    monkeypatch.setattr("seqrec_export.data.readers.delimited.BLOCK_BYTES", max(block, 64))
    reviews = ['"good,\nbad, fine,\n\nugly"', '"he said ""no"",\r\nthen"', "plain", '"a\nb,c,d,e"']
    rows = [f"u,i{row},{TIME + row},{review}\n" for row, review in enumerate(reviews * 5)]
    log = text(tmp_path, "user,item,time,review\n" + "".join(rows))
    assert items(log) == [f"i{row}" for row in range(20)]


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        (["3.000", "4.000"], ["3", "4"]),
        (["3.0", "4"], ["3", "4"]),
        (["3", "3.0"], ["3", "3"]),
        (["007", "7", "08.0"], ["007", "7", "08"]),
        (["3.5", "4.0"], ["3.5", "4.0"]),
        (["1.0", "a"], ["1.0", "a"]),
        (["1e3", "2"], ["1e3", "2"]),
        (["+5", "5"], ["+5", "5"]),
        (["0x1F", "True", "2020-01-01", "1,5"], ["0x1F", "True", "2020-01-01", "1,5"]),
    ],
)
def test_only_whole_columns_of_whole_numbers_lose_a_point(tmp_path, written, read_as):
    log = text(tmp_path, table(written, ";"))
    assert items(log) == read_as
    assert any("whole numbers" in note for note in log.notes) == (written != read_as)
    assert items(stored(tmp_path, pa.array(written))) == read_as


UUIDS = ["0c2f5a4e-1a2b-4c3d-8e4f-5a6b7c8d9e0f", "ffffffff-0000-4000-8000-000000000001"]
BYTES = [UUID(text).bytes for text in UUIDS]
WHOLE = [Decimal("3.000"), Decimal("12.000")]


@pytest.mark.parametrize(
    ("ids", "read_as"),
    [
        (pa.array(WHOLE, pa.decimal128(18, 3)), ["3", "12"]),
        (pa.array(WHOLE, pa.decimal256(50, 3)), ["3", "12"]),
        (pa.array([Decimal("3.500"), Decimal("4.000")]), ["3.500", "4.000"]),
        (pa.array([Decimal(2**80), Decimal(1)], pa.decimal128(38, 0)), [str(2**80), "1"]),
        (pa.array([3.0, 12.0], pa.float32()), ["3", "12"]),
        (pa.array([1.1, 2.5], pa.float32()), ["1.1", "2.5"]),
        (pa.array([3.0, float(2**60)]), ["3", str(2**60)]),
        (pa.array([2**63, 1], pa.uint64()), [str(2**63), "1"]),
        (pa.array(["a", "ü"], pa.large_string()), ["a", "ü"]),
        (pa.array([b"a", "ü".encode()]), ["a", "ü"]),
        (pa.array([b"ab", b"cd"], pa.binary(2)), ["ab", "cd"]),
        (pa.array(["b", "a", "b"]).dictionary_encode(), ["b", "a", "b"]),
        (pa.array([7, 5, 7]).dictionary_encode(), ["7", "5", "7"]),
        (pa.array(WHOLE).dictionary_encode(), ["3", "12"]),
        (
            pa.DictionaryArray.from_arrays(pa.array([1, 0], pa.uint8()), pa.array(["a", "b"])),
            ["b", "a"],
        ),
        (pa.array(["a", "b"], pa.large_string()).dictionary_encode(), ["a", "b"]),
        (pa.array(["007", "7"]), ["007", "7"]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_parquet_ids_of_many_types_are_their_usual_text(tmp_path, ids, read_as):
    assert items(stored(tmp_path, ids)) == read_as


@pytest.mark.parametrize("marked", [True, False])
def test_uuids_are_their_usual_text(tmp_path, marked):
    """Marked by Arrow's own schema as well, or by Parquet's type alone."""
    if not hasattr(pa, "uuid"):
        pytest.skip("this pyarrow cannot write UUIDs")
    ids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array(BYTES * 2, pa.binary(16)))
    columns = {"user": ids, "item": ids, "time": [TIME + row for row in range(4)]}
    pq.write_table(pa.table(columns), tmp_path / "log", store_schema=marked, row_group_size=3)
    log = read(f"table:{tmp_path / 'log'}")
    assert log.user_ids.tolist() == log.item_ids.tolist() == UUIDS
    assert items(log) == UUIDS * 2


@pytest.mark.parametrize(
    "ids",
    [
        pa.array(BYTES, pa.binary(16)),
        pa.array([b"\xff\xfe", b"\x80"]),
        pa.array([True, False]),
        pa.array([1, 2], pa.date32()),
        pa.array([1, 2], pa.timestamp("us", "UTC")),
        pa.array([1, 2], pa.time64("us")),
        pa.array([1, 2], pa.duration("s")),
        pa.array([[1], [2]]),
        pa.array([{"a": 1}, {"a": 2}]),
        pa.array([1.0, 1e300]),
        pa.array([1.0, float("nan")]),
        pa.array([None, None]),
    ],
    ids=lambda ids: str(ids.type),
)
def test_what_is_no_id_is_refused_with_its_column(tmp_path, ids):
    with pytest.raises(SeqrecError, match="item"):
        stored(tmp_path, ids)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
@pytest.mark.parametrize("ids", [["i7", "ü", "寿司"], ['q"q', "a", "b"]])
def test_line_ends_and_encodings_of_other_systems_are_read(tmp_path, newline, encoding, ids):
    content = table(ids).replace("\n", newline)
    for end in ("", newline):
        log = text(tmp_path, (content.removesuffix(newline) + end).encode(encoding))
        assert items(log) == ids
        assert log.times.tolist() == [TIME, TIME + 1, TIME + 2]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_lines_are_named_whatever_ends_them(tmp_path, newline):
    content = table(["a", "b"]).replace(str(TIME + 1), "soon").replace("\n", newline)
    with pytest.raises(SeqrecError, match="line 3: time 'soon'"):
        text(tmp_path, content)
    with pytest.raises(SeqrecError, match="line 3: found 1 column, expected 4"):
        text(tmp_path, table(["a"]).replace("\n", newline) + "oops" + newline)


def test_letters_in_another_encoding_stop_only_where_they_are_used(tmp_path):
    with pytest.raises(SeqrecError, match="line 3: byte 0xfc is not utf-8"):
        text(tmp_path, table(["a", "ü"]).encode("latin-1"))
    log = text(tmp_path, table(["a", "b"]).replace("x", "ü").encode("latin-1"))
    assert items(log) == ["a", "b"]
    with pytest.raises(SeqrecError, match="line 1: byte 0xfc is not utf-8"):
        text(tmp_path, table(["a"]).replace("title", "tütle").encode("latin-1"))


@pytest.mark.parametrize("content", ["a\0b", "\0", "a\0"])
def test_an_id_with_a_nul_is_refused_at_its_line(tmp_path, content):
    with pytest.raises(SeqrecError, match=r"line 3: item is .*NUL"):
        text(tmp_path, table(["x", content]))
    with pytest.raises(SeqrecError, match=r"row 2: item is .*NUL"):
        stored(tmp_path, pa.array(["x", content]))


def test_a_file_that_ends_in_nuls_or_is_cut_within_a_letter_is_refused(tmp_path):
    whole = table(["a", "b"]).encode()
    with pytest.raises(SeqrecError, match="line 4"):
        text(tmp_path, whole + b"\0" * 64)
    with pytest.raises(SeqrecError, match="cannot be read"):
        text(tmp_path, table(["a", "寿"]).encode("utf-16")[:-1])


@pytest.mark.parametrize(
    ("begins", "said"),
    [
        (b"\x28\xb5\x2f\xfdxxxx", "zstd"),
        (b"BZh91AY&SY", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
        (b"PK\x03\x04xxxx", "zip"),
        (b"ARROW1\0\0", "Arrow"),
        (b'{"user": "u", "item": "i"}\n', "JSON"),
        (b'[{"user": "u"}]', "JSON"),
    ],
)
def test_other_formats_are_refused_by_name(tmp_path, begins, said):
    with pytest.raises(SeqrecError, match=f"{said}.*CSV"):
        text(tmp_path, begins)


def test_a_pipe_is_refused_as_such(tmp_path):
    os.mkfifo(tmp_path / "log")
    with pytest.raises(SeqrecError, match="pipe"):
        read(f"table:{tmp_path / 'log'}")


@pytest.mark.parametrize("path", ["~nobody-of-this-name/log.csv", "x" * 5000, "a\0b", "x/" * 3000])
def test_paths_that_no_system_takes_are_refused(path):
    with pytest.raises(SeqrecError):
        read(f"table:{path}")


def test_dictionaries_of_text_that_differ_by_part_are_one(tmp_path):
    parts = [pa.array(part).dictionary_encode() for part in (["b", "a"], ["a", "c"])]
    log = stored(tmp_path, pa.chunked_array(parts))
    assert items(log) == ["b", "a", "a", "c"]
    assert len(np.unique(log.items)) == 3


@pytest.mark.parametrize("head", ["user,item,time", '"user", "item", "time"', "user, item, time"])
def test_a_space_before_a_quote_is_refused_at_its_line(tmp_path, head):
    line = 1 if '"' in head else 3
    with pytest.raises(SeqrecError, match=f"line {line}: there is a space between"):
        text(tmp_path, f'{head}\n"u","i",{TIME}\n"u", "j", {TIME}\n')


def test_single_quotes_are_kept_and_noted(tmp_path):
    log = text(tmp_path, table(["'a'", "'b'"]))
    assert items(log) == ["'a'", "'b'"]
    assert any("column item have single quotes" in note for note in log.notes)
    assert not any("quotes" in note for note in text(tmp_path, table(["'a'", "rock 'n"])).notes)


def test_a_byte_order_mark_before_a_quote_is_no_part_of_a_name(tmp_path):
    content = table(["a", "b,c"], ",", '"').encode("utf-8-sig")
    assert items(text(tmp_path, content)) == ["a", "b,c"]
