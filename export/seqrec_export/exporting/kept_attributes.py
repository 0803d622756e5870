"""attributes.parquet: the values by which the items of an export are filtered, a row an item.

It holds the values themselves, in the order of the run's items, so that it can be read anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from seqrec_export.data.attributes import Attribute, ItemAttributes, Values
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
        if not table.column(_ID).equals(pa.chunked_array([list(items.ids)], pa.string())):
            raise ValueError("its items are not those of the run")
        names = [name for name in table.column_names if name != _ID]
        columns = {name: _values(table.column(name).combine_chunks()) for name in names}
        ids = pa.array(items.ids, pa.large_string())
        return ItemAttributes(ids=ids, columns=columns).of(items)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, SeqrecError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # pyarrow's own have no number
            raise
        raise SeqrecError(
            f"{file} is damaged ({' '.join(str(error).split())}); run `seqrec-export export` with "
            "--filter-by, which writes a new one"
        ) from error


def _values(lists: pa.ListArray) -> Values:
    if lists.null_count:
        raise ValueError("an item has no list of values")
    counts = pc.list_value_length(lists).to_numpy(zero_copy_only=False).astype(np.int64)
    texts = pc.list_flatten(lists).cast(pa.large_string())
    return Values.of_pairs(len(lists), np.repeat(np.arange(len(lists)), counts), texts)
