"""attributes.parquet: the values by which the items of an export are filtered, a row an item.

It holds the values themselves, in the order of the run's items, so that it can be read anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seqrec_export.data.attributes import Attribute
from seqrec_export.data.vocabulary import NUM_RESERVED, PAD, Vocabulary
from seqrec_export.errors import SeqrecError

ATTRIBUTES_FILE = "attributes.parquet"
_ID = "item_id"


def write_attributes(folder: Path, attributes: Sequence[Attribute], items: Vocabulary) -> None:
    """Write the file, if there are any attributes."""
    if not attributes:
        return
    columns = {_ID: pa.array(list(items.ids), pa.string())}
    for attribute in attributes:
        rows = attribute.values[NUM_RESERVED:]
        real = rows != PAD
        ends = np.concatenate([[0], np.cumsum(real.sum(axis=1))]).astype(np.int32)
        values = pa.array(attribute.vocabulary.strings[rows[real]].tolist(), pa.string())
        columns[attribute.name] = pa.ListArray.from_arrays(pa.array(ends), values)
    pq.write_table(pa.table(columns), folder / ATTRIBUTES_FILE)


def read_attributes(folder: Path, items: Vocabulary) -> tuple[Attribute, ...]:
    """What the file holds; nothing if there is none. Raises SeqrecError if it is damaged."""
    file = folder / ATTRIBUTES_FILE
    if not file.exists():
        return ()
    try:
        table = pq.read_table(file)
        if table.column(_ID).to_pylist() != list(items.ids):
            raise ValueError("its items are not those of the run")
        return tuple(
            attribute_of(name, table.column(name).to_pylist())
            for name in table.column_names
            if name != _ID
        )
    except (pa.ArrowException, ValueError, KeyError, TypeError) as error:
        raise SeqrecError(
            f"{file} is damaged ({error}); export again, and name the attributes"
        ) from error


def attribute_of(name: str, values: Sequence[Sequence[str]]) -> Attribute:
    """An attribute from the values of each item, in the order of the vocabulary of items."""
    vocabulary = Vocabulary(sorted({value for of_item in values for value in of_item}))
    width = max([1, *map(len, values)])
    table = np.full((NUM_RESERVED + len(values), width), PAD, np.int32)
    for row, of_item in enumerate(values, NUM_RESERVED):
        table[row, : len(of_item)] = sorted(vocabulary.indices[value] for value in of_item)
    return Attribute(name, vocabulary, table)
