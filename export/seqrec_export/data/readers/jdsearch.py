"""JDsearch: search sessions with the searcher's history (Liu et al. 2023, SIGIR, 3591900)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from seqrec_export.data.interactions import Interactions, Sessions
from seqrec_export.data.readers.columns import require_columns
from seqrec_export.data.readers.delimited import TEXT, Layout, line_of_row, no_rows, read_batches
from seqrec_export.data.readers.files import first_line, require_file
from seqrec_export.data.readers.indexing import as_ids, encode, event_notes
from seqrec_export.errors import SeqrecError

CANDIDATES, LABELS = "candidate_wid_list", "candidate_label_list"
QUERIES, ITEMS, TYPES = "history_qry_list", "history_wid_list", "history_type_list"
INTERVALS = "history_time_list"
NAMES = ("query", CANDIDATES, LABELS, QUERIES, ITEMS, TYPES, INTERVALS)
WANTED = (CANDIDATES, LABELS, QUERIES, ITEMS, TYPES, INTERVALS)

# The log says how long before its request an event happened, never when. Requests are therefore
# all put at 2023-01-01 UTC, the year of publication; only differences within a user mean anything.
REQUEST_TIME = 1_672_531_200
LARGEST = 10_000_000_000  # seconds, three centuries: more is not an interval, and may overflow


def read(path: Path) -> Interactions:
    """One user and one session per row; events are timed backwards from the request.

    `history_time_list` holds seconds since the previous event and one entry more than the other
    lists: the last is the time from the last event to the request. Query text is not used, and
    the header may be absent. Raises SeqrecError.
    """
    layout = _layout(require_file(path))
    parts = list(_parts(path, layout))
    if not parts:
        raise no_rows(path, layout)
    events = np.concatenate([part.events for part in parts])
    shown = np.concatenate([part.shown for part in parts])
    users = np.repeat(np.arange(len(events), dtype=np.int32), events)
    times = np.concatenate([part.times for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    types, type_rows = encode(pa.chunked_array([part.types for part in parts], pa.string()))
    # History first, so that an item index below the number of items with events has events.
    both = [part.items for part in parts] + [part.candidates for part in parts]
    del parts
    items, rows = encode(pa.chunked_array(both, pa.string()))
    del both
    names, rank = np.unique(as_ids(types).astype(str), return_inverse=True)
    return Interactions(
        user_ids=np.array([f"row-{row}" for row in range(1, len(events) + 1)], dtype=object),
        item_ids=as_ids(items),
        users=users,
        items=rows[: len(users)],
        times=times,
        event_types=rank.astype(np.int32)[type_rows],
        event_type_ids=tuple(str(name) for name in names),
        sessions=Sessions(
            users=np.arange(len(events), dtype=np.int32),
            times=np.full(len(events), REQUEST_TIME, np.int64),
            offsets=np.concatenate([[0], np.cumsum(shown)]).astype(np.int64),
            candidates=rows[len(users) :],
            labels=labels,
        ),
        source=f"jdsearch:{path}",
        notes=(
            "Requests are put at 2023-01-01 UTC: the log holds intervals and no dates.",
            *event_notes(users, rows[: len(users)], times, ordered=True),
        ),
    )


@dataclass(frozen=True, kw_only=True)
class _Part:
    """R consecutive rows, their lists laid end to end."""

    events: NDArray[np.int64]  # (R,) history length
    shown: NDArray[np.int64]  # (R,) candidates
    items: pa.Array
    types: pa.Array
    times: NDArray[np.int64]
    candidates: pa.Array
    labels: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """R consecutive rows as read."""

    path: Path
    layout: Layout
    start: int  # the first row's number in the file, from 0
    batch: pa.RecordBatch

    def lists(self, name: str) -> tuple[pa.Array, NDArray[np.int64]]:
        """(values end to end, (R,) their counts); empty text is an empty list."""
        text = self.batch.column(name)
        lists = pc.split_pattern(pc.if_else(pc.equal(text, ""), None, text), "_")
        return lists.flatten(), pc.list_value_length(lists).fill_null(0).to_numpy().astype(np.int64)

    def numbers(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Like `lists`, with numbers from 0 to LARGEST."""
        values, counts = self.lists(name)
        try:
            numbers: NDArray[np.float64] = pc.cast(values, pa.float64()).to_numpy()
        except pa.ArrowInvalid:
            numbers = np.array([_number(value) for value in values.to_pylist()], np.float64)
        # In this form NaN, which compares false, is bad.
        bad = ~((numbers >= 0) & (numbers <= LARGEST))
        self.check(bad, counts, values, name, f"a number from 0 to {LARGEST:,}")
        return numbers, counts

    def ids(self, name: str) -> tuple[pa.Array, NDArray[np.int64]]:
        """Like `lists`, with no value empty."""
        values, counts = self.lists(name)
        bad = pc.equal(values, "").to_numpy(zero_copy_only=False)
        self.check(bad, counts, values, name, "an id")
        return values, counts

    def check(
        self,
        bad: NDArray[np.bool_],
        counts: NDArray[np.int64],
        values: pa.Array,
        name: str,
        wanted: str,
    ) -> None:
        """Raises SeqrecError at the first bad value."""
        if bad.any():
            at = int(bad.argmax())
            row = int(np.searchsorted(np.cumsum(counts), at, side="right"))
            entry = at - int(counts[:row].sum()) + 1
            raise SeqrecError(
                f"{self.place(row)}: entry {entry} of {name}, {values[at].as_py()!r}, is not "
                f"{wanted}; correct or drop the row"
            )

    def same_length(
        self, name: str, found: NDArray[np.int64], expected: NDArray[np.int64], why: str
    ) -> None:
        """Raises SeqrecError at the first row whose list has another length."""
        if (bad := found != expected).any():
            row = int(bad.argmax())
            raise SeqrecError(
                f"{self.place(row)}: {name} has {found[row]} entries, but {why} wants "
                f"{expected[row]}; correct or drop the row"
            )

    def place(self, row: int) -> str:
        """The file and the 1-based line of a row of this batch."""
        return f"{self.path}, line {line_of_row(self.path, self.layout, self.start + row)}"


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan


def _layout(path: Path) -> Layout:
    names = tuple(first_line(path).split("\t"))
    if set(names) & set(NAMES):
        require_columns(path, names, WANTED)
        return Layout(names=names, delimiter="\t", header=True, quoted=False)
    if len(names) != len(NAMES):
        raise SeqrecError(
            f"{path}, line 1: found {len(names)} tab-separated column{'s' * (len(names) != 1)}, "
            f"expected {len(NAMES)} ({', '.join(NAMES)}); check the separator"
        )
    return Layout(names=NAMES, delimiter="\t", header=False, quoted=False)


def _parts(path: Path, layout: Layout) -> Iterator[_Part]:
    start = 0
    for batch in read_batches(path, layout, dict.fromkeys(WANTED, TEXT)):
        if batch.num_rows:
            yield _part(_Rows(path=path, layout=layout, start=start, batch=batch))
        start += batch.num_rows


def _part(rows: _Rows) -> _Part:
    candidates, shown = rows.ids(CANDIDATES)
    labels, labelled = rows.numbers(LABELS)
    rows.same_length(LABELS, labelled, shown, CANDIDATES)
    known = np.isin(labels, (0, 1, 2, 3))
    rows.check(~known, shown, pa.array(labels), LABELS, "a label (0, 1, 2 or 3)")
    items, events = rows.ids(ITEMS)
    types, typed = rows.ids(TYPES)
    rows.same_length(TYPES, typed, events, ITEMS)
    asked = pc.add(pc.count_substring(rows.batch.column(QUERIES), "_"), 1).to_numpy()
    nothing = pc.equal(rows.batch.column(QUERIES), "").to_numpy(zero_copy_only=False)
    rows.same_length(QUERIES, np.where(nothing, 0, asked), events, ITEMS)
    intervals, timed = rows.numbers(INTERVALS)
    rows.same_length(INTERVALS, timed, events + 1, f"{ITEMS}, plus one for the request,")
    return _Part(
        events=events,
        shown=shown,
        items=items,
        types=types,
        times=REQUEST_TIME - _before_request(intervals, timed),
        candidates=candidates,
        labels=labels.astype(np.float32),
    )


def _before_request(intervals: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Seconds from each event to its row's request: the sum of the intervals after its own."""
    elapsed = np.cumsum(np.rint(intervals).astype(np.int64))
    requests = np.cumsum(counts) - 1
    before = np.repeat(elapsed[requests], counts) - elapsed
    return np.delete(before, requests)
