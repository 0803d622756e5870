"""attributes.parquet: an export's attributes are read as they were written, or refused."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seqrec_export.data.attributes import Attribute
from seqrec_export.data.readers.item_tables import asked_attributes
from seqrec_export.data.vocabulary import Vocabulary
from seqrec_export.errors import SeqrecError
from seqrec_export.exporting.kept_attributes import (
    ATTRIBUTES_FILE,
    read_attributes,
    write_attributes,
)

ITEMS = Vocabulary(["b", "a", "Ü"])


@pytest.fixture
def written(tmp_path: Path) -> tuple[Attribute, ...]:
    frame = pd.DataFrame({"id": ["Ü", "b"], "tags": ["y|x|z", ""], "size": [" L", "ß"]})
    found = asked_attributes("tags:|,size", ITEMS.ids, items=frame)
    assert found is not None
    attributes = found.of(ITEMS)
    write_attributes(tmp_path, attributes, ITEMS)
    return attributes


def test_they_are_read_as_they_were_written(written: tuple[Attribute, ...], tmp_path: Path) -> None:
    read = read_attributes(tmp_path, ITEMS)
    assert [of.name for of in read] == [of.name for of in written] == ["size", "tags"]
    for one, other in zip(read, written, strict=True):
        assert one.vocabulary.ids == other.vocabulary.ids
        assert one.values.tolist() == other.values.tolist()
        assert one.values.dtype == other.values.dtype
    table = pq.read_table(tmp_path / ATTRIBUTES_FILE).to_pydict()  # for anybody else
    assert table == {
        "item_id": ["b", "a", "Ü"],
        "size": [["ß"], [], [" L"]],
        "tags": [[], [], ["x", "y", "z"]],
    }


def test_without_attributes_there_is_no_file(tmp_path: Path) -> None:
    write_attributes(tmp_path, (), ITEMS)
    assert not [*tmp_path.iterdir()]
    assert read_attributes(tmp_path, ITEMS) == ()


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(file.read_bytes()[:-20]),
        lambda file: file.write_bytes(b"PAR1" + b"\0" * 40 + b"PAR1"),
        lambda file: file.write_bytes(b""),
        lambda file: pq.write_table(pa.table({"item_id": ["a", "b"], "size": [["L"], []]}), file),
        lambda file: pq.write_table(pa.table({"size": [["L"], [], []]}), file),
        lambda file: pq.write_table(pa.table({"item_id": ITEMS.ids, "size": [1, 2, 3]}), file),
        lambda file: pq.write_table(
            pa.table({"item_id": ITEMS.ids, "size": [[1], [2], None]}), file
        ),
    ],
)
def test_a_damaged_file_is_named_with_what_to_do(
    written: tuple[Attribute, ...], tmp_path: Path, damage: object
) -> None:
    damage(tmp_path / ATTRIBUTES_FILE)  # type: ignore[operator]
    with pytest.raises(SeqrecError, match=r"attributes.parquet is damaged .* --filter-by"):
        read_attributes(tmp_path, ITEMS)
