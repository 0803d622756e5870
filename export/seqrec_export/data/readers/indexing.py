"""Id columns to distinct ids and their rows, and what is worth noting about events."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from seqrec_export.data.readers.columns import Columns, dictionary
from seqrec_export.errors import SeqrecError

# What other programs write for a missing id; compared in lower case.
MISSING = ("", "nan", "null", "none", "<na>", "nat")
_SPACES = " \t\xa0"
_BLOCK = 1 << 16  # events
_TIES_NOTED = 0.1  # of the events; if a log has days and no times, most events are ties


def factorise(columns: Columns, name: str) -> tuple[pa.Array, NDArray[np.int32]]:
    """(distinct ids as text, (N,) rows of them), in order of first appearance.

    Ids are what the file shows, with two exceptions, which `columns.notes` tells: spaces next to a
    separator are not part of an id, as in the header; and if all ids of a column are whole numbers,
    some of them with a point, they are integers that passed through floats or decimals, and lose
    it. Raises SeqrecError at the first missing id.
    """
    try:
        distinct, codes = encode(columns.complete(name))
        ids = _as_text(distinct)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        kind = columns.table.column(name).type
        raise SeqrecError(
            f"{columns.path}: column {name} holds {kind}; ids must be text or integers"
        ) from error
    missing = pc.is_in(pc.utf8_lower(pc.utf8_trim_whitespace(ids)), pa.array(MISSING, ids.type))
    columns.refuse_ids(name, ids, codes, missing, "which is not an id")
    broken = pc.match_substring_regex(ids, r"[\r\n]")
    columns.refuse_ids(name, ids, codes, broken, "which has a line end, as after an open quote")
    ended = pc.match_substring(ids, "\0")
    columns.refuse_ids(name, ids, codes, ended, "with a NUL, which ends a text for many programs")
    ids = _without_point(columns, name, _without_spaces(columns, name, ids))
    if pc.all(pc.match_substring_regex(ids, "^'.*'$")).as_py():
        columns.notes.append(f"All ids of column {name} have single quotes, which stay.")
    return merge(ids, codes)


def _without_spaces(columns: Columns, name: str, ids: pa.Array) -> pa.Array:
    bare = pc.utf8_trim(ids, _SPACES)
    if not (changed := int(pc.sum(pc.not_equal(bare, ids)).as_py() or 0)):
        return ids
    # Nobody writes a space after a tab, and a file with types has no separators.
    if columns.layout is None or columns.layout.delimiter == "\t":
        columns.notes.append(
            f"{changed:,} of {len(ids):,} ids of column {name} begin or end with a space, which is "
            "part of them."
        )
        return ids
    columns.notes.append(f"Spaces around {changed:,} ids of column {name} were removed.")
    return bare


def _without_point(columns: Columns, name: str, ids: pa.Array) -> pa.Array:
    pointed = pc.match_substring(ids, ".")
    if not pc.any(pointed).as_py():
        return ids
    if not pc.all(pc.match_substring_regex(ids, r"^-?\d+(\.0+)?$")).as_py():
        return ids
    bare = pc.replace_substring_regex(ids, r"\.0+$", "")
    first = pc.index(pointed, True).as_py()
    columns.notes.append(
        f"All ids of column {name} are whole numbers: {ids[first].as_py()} was read as "
        f"{bare[first].as_py()}."
    )
    return bare


def encode(column: pa.ChunkedArray) -> tuple[pa.Array, NDArray[np.int32]]:
    """(distinct values, (N,) rows of them), in order of first appearance; no nulls."""
    distinct, codes = dictionary(column)
    if not pa.types.is_dictionary(column.type):
        return distinct, codes
    # A stored dictionary may be in any order, and may hold values that no row has.
    if _by_appearance(codes, len(distinct)):
        return distinct, codes
    appearance = pa.array(codes).dictionary_encode()
    return distinct.take(appearance.dictionary), appearance.indices.to_numpy()


def _by_appearance(codes: NDArray[np.int32], count: int) -> bool:
    """Whether the codes appear in the order 0, 1, .. `count` - 1, none of them skipped."""
    highest = np.maximum.accumulate(codes)
    return (
        len(highest) > 0
        and int(highest[0]) == 0
        and int(highest[-1]) == count - 1
        and bool((np.diff(highest) <= 1).all())
    )


def merge(ids: pa.Array, codes: NDArray[np.int32]) -> tuple[pa.Array, NDArray[np.int32]]:
    """Ids that have become equal get one row."""
    merged = ids.dictionary_encode()
    if len(merged.dictionary) == len(ids):
        return ids, codes
    return merged.dictionary, merged.indices.to_numpy()[codes]


def as_ids(ids: pa.Array) -> NDArray[np.object_]:
    """(V,) str objects."""
    result: NDArray[np.object_] = ids.to_numpy(zero_copy_only=False)
    return result.astype(object, copy=False)


def event_notes(
    users: NDArray[np.int32],
    items: NDArray[np.int32],
    times: NDArray[np.int64],
    nanoseconds: NDArray[np.int32] | None = None,
    *,
    ordered: bool = False,
) -> tuple[str, ...]:
    """Duplicate events, events that only the file puts in order, and users with one event.

    `ordered`: whether the format promises that a user's events of one time are in order.
    """
    notes = []
    repeated, tied = count_repeats(users, items, times, nanoseconds)
    if repeated:
        notes.append(
            f"{repeated:,} of {len(users):,} events repeat an earlier one (same user, item and "
            "time) and were kept."
        )
    if not ordered and tied > _TIES_NOTED * len(users):
        backwards = _newest_first(users, times)
        notes.append(
            f"{tied:,} of {len(users):,} events have the same time as another event before them of "
            "the same user: the order of the file decides, first line first."
            + " The file is newest first; sort it, or these run backwards."
            * backwards
        )
    counts = np.bincount(users)
    if single := int((counts == 1).sum()):
        notes.append(f"{single:,} of {int((counts > 0).sum()):,} users have a single event.")
    return tuple(notes)


def _newest_first(users: NDArray[np.int32], times: NDArray[np.int64]) -> bool:
    """Whether times fall from line to line: those of one user, if these come together."""
    falls, rises = times[1:] < times[:-1], times[1:] > times[:-1]
    same = users[1:] == users[:-1]
    if ((falls | rises) & same).any():
        falls, rises = falls & same, rises & same
    return int(falls.sum()) > 2 * int(rises.sum())


def count_repeats(
    users: NDArray[np.int32],
    items: NDArray[np.int32],
    times: NDArray[np.int64],
    nanoseconds: NDArray[np.int32] | None = None,
) -> tuple[int, int]:
    """How many events repeat an earlier one's user, item and time; how many user and time only."""
    cuts = [0, len(times)]
    if (times[1:] >= times[:-1]).all():
        # Events of one time are neighbours, so blocks that fit into a cache can be sorted alone.
        begins = np.flatnonzero(times[1:] > times[:-1]) + 1
        after = np.searchsorted(begins, np.arange(_BLOCK, len(times), _BLOCK))
        cuts = [0, *np.unique(begins[after[after < len(begins)]]).tolist(), len(times)]
    parts = [slice(start, end) for start, end in itertools.pairwise(cuts)]
    counts = [
        _count_repeats(
            users[part],
            items[part],
            _moments(times[part], None if nanoseconds is None else nanoseconds[part]),
        )
        for part in parts
    ]
    return sum(repeated for repeated, _ in counts), sum(tied for _, tied in counts)


def _moments(times: NDArray[np.int64], nanoseconds: NDArray[np.int32] | None) -> NDArray[np.int64]:
    """(N,) a number for each distinct time, from 0."""
    later, same = times[1:] > times[:-1], times[1:] == times[:-1]
    if nanoseconds is not None:
        later |= same & (nanoseconds[1:] > nanoseconds[:-1])
        same &= nanoseconds[1:] == nanoseconds[:-1]
    if (later | same).all():  # in order, which most logs are
        return np.concatenate([[0], np.cumsum(later)])[: len(times)].astype(np.int64)
    codes: NDArray[np.int64] = pa.array(times).dictionary_encode().indices.to_numpy()
    codes = codes.astype(np.int64)
    if nanoseconds is None:
        return codes
    # There are fewer than 2^31 distinct seconds: times a billion they fit into an int64.
    both = pa.array(codes * 1_000_000_000 + nanoseconds)
    moments: NDArray[np.int64] = both.dictionary_encode().indices.to_numpy()
    return moments.astype(np.int64)


def _count_repeats(
    users: NDArray[np.int32], items: NDArray[np.int32], moments: NDArray[np.int64]
) -> tuple[int, int]:
    if not len(users):
        return 0, 0
    # N events have at most N users, times and items: two of these codes fit into one int64.
    keys = users * (moments.max() + 1) + moments
    catalogue = int(items.max()) + 1
    if (int(keys.max()) + 1) * catalogue >= 1 << 63:
        keys = pa.array(keys).dictionary_encode().indices.to_numpy().astype(np.int64)
    keys *= catalogue
    keys += items
    keys.sort()
    distinct = keys[np.concatenate([[True], keys[1:] != keys[:-1]])]
    distinct //= catalogue
    apart = 1 + int((distinct[1:] != distinct[:-1]).sum())
    return len(keys) - len(distinct), len(distinct) - apart


def _as_text(values: pa.Array) -> pa.Array:
    """Distinct ids as text; NaN becomes "nan", which is then found missing."""
    kind = values.type
    if pa.types.is_boolean(kind) or pa.types.is_temporal(kind):
        raise pa.ArrowInvalid(f"{kind} holds no ids")
    if pa.types.is_floating(kind):
        known = values.filter(pc.is_finite(values))
        if len(known) == len(values) and pc.all(pc.equal(pc.floor(known), known)).as_py():
            return values.cast(pa.int64()).cast(pa.string())
        return values.cast(pa.string())
    if pa.types.is_decimal(kind):  # Arrow writes some as 1.2E+3
        return pa.array([f"{value:f}" for value in values.to_pylist()], pa.string())
    return pc.fill_null(values.cast(pa.string()), "")
