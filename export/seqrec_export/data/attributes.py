"""Attributes of items: what answers can be narrowed down by, such as a garment's group."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from seqrec_export.data.vocabulary import NUM_RESERVED, PAD, Vocabulary
from seqrec_export.errors import SeqrecError

# A graph looks at all items once for each value of the one that has most. Of 38,000 items, a filter
# by an attribute with 1, 8 and 64 of them took 1.4, 2.6 and 14 ms, the plain search 1.0 ms; whether
# there were 100 distinct values or 38,000 made no difference.
MOST_VALUES = 100_000
MANY_VALUES_OF_AN_ITEM = 8
MOST_VALUES_OF_AN_ITEM = 64
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_SEPARATOR_LENGTH = 3


@dataclass(frozen=True, eq=False)
class Attribute:
    """The values that each item has of one attribute; an item may have none, or several."""

    name: str  # an identifier; callers send `allow_<name>`
    vocabulary: Vocabulary  # its values
    values: NDArray[np.int32]  # (rows of items, M) their indices, PAD after the last one


@dataclass(frozen=True, kw_only=True, eq=False)
class Values:
    """The values of N items: those of item n are `values[codes[offsets[n]:offsets[n + 1]]]`."""

    values: pa.Array  # (V,) text, sorted and distinct
    offsets: NDArray[np.int64]  # (N + 1,)
    codes: NDArray[np.int32]  # rows of `values`, ascending and distinct within an item

    @classmethod
    def of_pairs(cls, count: int, items: NDArray[np.int64], texts: pa.Array) -> Values:
        """From (P,) rows of `count` items and (P,) texts, which may repeat."""
        encoded = texts.dictionary_encode()
        found = encoded.dictionary
        order = pc.array_sort_indices(found).to_numpy()  # by bytes, which is by code points
        rank = np.empty(len(found), np.int64)
        rank[order] = np.arange(len(found))
        width = max(len(found), 1)
        pairs = np.unique(items * width + rank[encoded.indices.to_numpy()])
        return cls(
            values=found.take(pa.array(order)),
            offsets=_offsets(np.bincount(pairs // width, minlength=count)),
            codes=(pairs % width).astype(np.int32),
        )

    @property
    def counts(self) -> NDArray[np.int64]:
        """(N,) how many values each item has."""
        return np.diff(self.offsets)

    def taken(self, rows: NDArray[np.int64]) -> Values:
        """The values of these items, in this order; nothing for the row -1."""
        counts = np.where(rows < 0, 0, self.counts[rows] if len(self.counts) else 0)
        offsets = _offsets(counts)
        places = np.repeat(self.offsets[:-1][rows] - offsets[:-1], counts) if len(rows) else rows
        return Values(
            values=self.values,
            offsets=offsets,
            codes=self.codes[places + np.arange(offsets[-1])],
        )

    def of(self, row: int) -> list[str]:
        """The values of one item."""
        codes = self.codes[self.offsets[row] : self.offsets[row + 1]]
        found: list[str] = self.values.take(pa.array(codes)).to_pylist()
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class ItemAttributes:
    """What is known of items, by the name of the attribute."""

    ids: pa.Array  # (N,) the items
    columns: Mapping[str, Values]  # of N items each
    notes: tuple[str, ...] = ()  # what was noticed when they were read, a sentence each

    @classmethod
    def none(cls, ids: Sequence[str] | NDArray[np.object_]) -> ItemAttributes:
        """No attribute at all."""
        return cls(ids=_texts(ids), columns={})

    def of(self, items: Vocabulary) -> tuple[Attribute, ...]:
        """The attributes of a model's items, by name; values that none of them has are left out.

        Raises SeqrecError if no item has a value, or if there are too many.
        """
        rows = places_of(_texts(items.ids), self.ids)
        return tuple(
            _attribute(name, self.columns[name].taken(rows), items) for name in sorted(self.columns)
        )


def places_of(ids: pa.Array, among: pa.Array) -> NDArray[np.int64]:
    """(N,) where each id stands among others; -1 if it does not."""
    found: NDArray[np.int64] = pc.fill_null(pc.index_in(ids, among), -1).to_numpy()
    return found.astype(np.int64)


def wanted_attributes(texts: str | Iterable[str]) -> dict[str, str | None]:
    """`genres:|` and `colour,size` -> the separator of each attribute, None if it has none.

    An empty text names nothing. Raises SeqrecError for a name that a graph cannot have.
    """
    wanted: dict[str, str | None] = {}
    for text in [texts] if isinstance(texts, str) else texts:
        if not isinstance(text, str):
            raise SeqrecError(
                f"filter_by holds {type(text).__name__}; give names of attributes, as "
                '["garment_group_name", "genres:|"]'
            )
        rest = text
        while rest.strip():
            # A comma after the colon is a separator itself: `tags:,`.
            found = re.match(r"\s*([^:,]*?)\s*(?::(.?[^,]*))?(?:,|$)", rest, re.DOTALL)
            assert found is not None, "each part of the pattern may be empty"
            name, separator = found.groups()
            rest = rest[found.end() :]
            _require_name(text, name)
            _require_separator(text, name, separator)
            if wanted.setdefault(name, separator) != separator:
                raise SeqrecError(f"--filter-by names {name} with two separators; give one")
    _require_apart(wanted)
    return wanted


def _require_name(text: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise SeqrecError(
            f"--filter-by {text!r}: {name!r} cannot be the name of an attribute, as callers send "
            "allow_<name>; rename the column with letters (a to z), digits and _, and a letter "
            "first"
        )
    if _bare(name) in ("itemids", "itemid"):
        raise SeqrecError(
            f"--filter-by {text!r}: requests can ask for single items by allow_item_ids anyway, "
            f"which allow_{name} would be confused with; leave {name} out, or rename the column"
        )


def _require_separator(text: str, name: str, separator: str | None) -> None:
    if separator is None:
        return
    if not separator or len(separator) > _SEPARATOR_LENGTH or re.search(r"\w", separator):
        raise SeqrecError(
            f"--filter-by {text!r}: the separator of {name} is {separator!r}; write what stands "
            "between two values after the colon, as in genres:|"
        )


def _require_apart(names: Sequence[str] | Mapping[str, object]) -> None:
    """Clients call `garment_group` GarmentGroup or garmentGroup, so case and _ do not count."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(_bare(name), name)
        if other != name:
            raise SeqrecError(
                f"--filter-by names {other} and {name}, which are one name in some languages; "
                "rename one of the columns"
            )


def _bare(name: str) -> str:
    return name.lower().replace("_", "")


def _attribute(name: str, found: Values, items: Vocabulary) -> Attribute:
    if not len(found.codes):
        raise SeqrecError(
            f"no item has a value of {name}; correct its column, or leave it out of --filter-by"
        )
    used = np.unique(found.codes)
    if len(used) > MOST_VALUES:
        raise SeqrecError(
            f"{name} has {len(used):,} values, and at most {MOST_VALUES:,} can be filtered by; use "
            "a coarser attribute, or allow_item_ids if each item has a value of its own"
        )
    counts = found.counts
    width = int(counts.max())
    if width > MOST_VALUES_OF_AN_ITEM:
        raise SeqrecError(
            f"item {items.ids[int(counts.argmax())]!r} has {width:,} values of {name}, and at most "
            f"{MOST_VALUES_OF_AN_ITEM} can be filtered by; keep those that matter"
        )
    index = np.full(len(found.values), PAD, np.int32)
    index[used] = np.arange(len(used), dtype=np.int32) + NUM_RESERVED
    table = np.full((items.num_rows, width), PAD, np.int32)
    table[NUM_RESERVED:][np.arange(width) < counts[:, None]] = index[found.codes]
    return Attribute(name, Vocabulary(found.values.take(pa.array(used)).to_pylist()), table)


def _offsets(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _texts(ids: Sequence[str] | NDArray[np.object_]) -> pa.Array:
    return pa.array(ids, pa.large_string())
