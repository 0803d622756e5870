"""Column types that Parquet files have and few programs know, as types that every reader takes."""

from __future__ import annotations

import uuid

import pyarrow as pa
import pyarrow.compute as pc

_UUID_BYTES = 16


def plain(column: pa.ChunkedArray, *, is_uuid: bool = False) -> pa.ChunkedArray:
    """Text, numbers, dates and dictionaries as they are; UUIDs, views and the like as these.

    `is_uuid` tells whether the file marks 16 bytes as a UUID. What cannot be converted stays as it
    is, and the reader refuses it.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        if is_text(kind.value_type) or pa.types.is_integer(kind.value_type):
            return column
        return plain(column.cast(kind.value_type), is_uuid=is_uuid)
    if pa.types.is_run_end_encoded(kind):
        return plain(pa.chunked_array([pc.run_end_decode(chunk) for chunk in column.chunks]))
    if isinstance(kind, pa.BaseExtensionType):
        chunks = [chunk.storage for chunk in column.chunks]
        return plain(
            pa.chunked_array(chunks, kind.storage_type),
            is_uuid=kind.extension_name == "arrow.uuid",
        )
    if is_uuid and pa.types.is_fixed_size_binary(kind) and kind.byte_width == _UUID_BYTES:
        return _uuids(column)
    if pa.types.is_string_view(kind):
        return column.cast(pa.large_string())
    if pa.types.is_decimal(kind) and kind.bit_width < pa.decimal128(1).bit_width:
        return column.cast(pa.decimal128(kind.precision, kind.scale))
    if pa.types.is_float16(kind):
        return column.cast(pa.float32())
    if _is_bytes(kind):
        try:
            return column.cast(pa.large_string())  # text of writers that do not mark it as such
        except pa.ArrowInvalid:
            return column
    return column


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds plain text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def _uuids(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The usual text, 8-4-4-4-12, as DuckDB, Spark and PostgreSQL write it."""
    encoded = column.dictionary_encode()  # all chunks of it share one dictionary
    kind = pa.dictionary(pa.int32(), pa.string())
    if not encoded.num_chunks:
        return pa.chunked_array([], kind)
    values = encoded.chunk(0).dictionary.to_pylist()
    texts = pa.array([str(uuid.UUID(bytes=value)) for value in values], pa.string())
    chunks = [pa.DictionaryArray.from_arrays(chunk.indices, texts) for chunk in encoded.chunks]
    return pa.chunked_array(chunks, kind)
