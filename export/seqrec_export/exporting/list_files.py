"""The Parquet file of lists: from what has grown, or from the files of all shards.

Rows decide where a row group ends, and nothing else does: shards that are put together give the
very file that one run writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from seqrec_export.errors import SeqrecError
from seqrec_export.exporting.growing import alone_with, hidden, whole
from seqrec_export.folders import move, naming, sync

SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("rank", pa.int32()),
        ("item_id", pa.string()),
        ("score", pa.float32()),
    ]
)
_MADE_FROM = b"seqrec_export"  # in the file's own metadata
_SHARD = "shard"  # in what a shard's file says it was made from
_GROUP_ROWS = 1 << 18
Shard = tuple[int, int]  # which, from 1, and of how many


def list_file(out: str | Path, shard: Shard | None = None) -> Path:
    """The file that `out` names, or that of one shard: `lists.2-of-4.parquet`.

    Raises SeqrecError if it is a folder, or not called .parquet, or if there is no such shard.
    """
    path = Path(out)
    if path.suffix != ".parquet":
        raise SeqrecError(f"--out is {str(out)!r}; name a Parquet file, such as lists.parquet")
    if shard is not None:
        number, count = shard
        if not 1 <= number <= count:
            raise SeqrecError(f"--shard is {number}/{count}; give 1/{count} to {count}/{count}")
        path = path.with_name(f"{path.stem}.{number}-of-{count}.parquet")
    if path.is_dir():
        raise SeqrecError(f"{path} is a folder; give another --out")
    return path


def write_lists(grown: Path, path: Path, made_from: Mapping[str, Any]) -> None:
    """Write the rows of an Arrow stream, whole or not at all."""
    with naming(grown), pa.OSFile(str(grown)) as file, pa.ipc.open_stream(file) as stream:
        _write(stream, path, made_from)


def join_lists(out: str | Path, count: int) -> Path:
    """Put together the files of all `count` shards of `out`, which stay; returns the file.

    Raises SeqrecError if one is missing, or of another model, log, filter or number of items.
    """
    if count < 1:
        raise SeqrecError(f"--join is {count}; give the number of shards")
    path = list_file(out)
    parts = [list_file(out, (number, count)) for number in range(1, count + 1)]
    said = [_made_from(part) for part in parts]
    for number, (part, made) in enumerate(zip(parts, said, strict=True), start=1):
        if made.pop(_SHARD, None) != [number, count]:
            raise SeqrecError(f"{part} is not shard {number} of {count}; make it again")
        if different := [name for name in {**made, **said[0]} if made.get(name) != said[0][name]]:
            raise SeqrecError(
                f"{part} is of another {', '.join(different)} than {parts[0]}; make one of them "
                "again"
            )
    with alone_with(path):
        _write(_rows(parts), path, said[0])
    return path


def _rows(parts: Iterable[Path]) -> Iterator[pa.RecordBatch]:
    for part in parts:
        with pq.ParquetFile(part) as file:
            yield from file.iter_batches()


def _made_from(part: Path) -> dict[str, Any]:
    if not part.exists():
        raise SeqrecError(f"{part} is missing; make it with --shard")
    try:
        metadata = pq.read_schema(part).metadata or {}
        found: dict[str, Any] = json.loads(metadata[_MADE_FROM])
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise SeqrecError(f"{part} holds no lists ({error}); make it again") from error
    return found


def _write(batches: Iterable[pa.RecordBatch], path: Path, made_from: Mapping[str, Any]) -> None:
    part = hidden(path, "parquet")
    schema = SCHEMA.with_metadata({_MADE_FROM: json.dumps(made_from, sort_keys=True).encode()})
    with whole(part), pq.ParquetWriter(part, schema) as writer:
        for table in _groups(batches):
            writer.write_table(table.cast(schema))
    sync(part)
    move(part, path)


def _groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The same rows, one chunk a row group: where pages end depends on chunks as well."""
    waiting: list[pa.Table] = []
    rows = 0
    for batch in batches:
        waiting.append(pa.table(batch).cast(SCHEMA))
        rows += batch.num_rows
        while rows >= _GROUP_ROWS:
            table = pa.concat_tables(waiting)
            yield table.slice(0, _GROUP_ROWS).combine_chunks()
            waiting, rows = [table.slice(_GROUP_ROWS)], rows - _GROUP_ROWS
    if rows:
        yield pa.concat_tables(waiting).combine_chunks()
