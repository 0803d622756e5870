"""Ragged rows against lists of lists."""

import numpy as np
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from seqrec_export.nn import layers
from seqrec_export.nn.ragged import Ragged, compact

few = settings(max_examples=100, derandomize=True, deadline=None, database=None)
# Item indices: 0 is padding, 1 unknown.
ROWS = st.lists(st.lists(st.integers(0, 8), max_size=12), min_size=1, max_size=6)


def ragged(rows: list[list[int]]) -> Ragged:
    lengths = [len(row) for row in rows]
    values = torch.tensor([value for row in rows for value in row], dtype=torch.int64)
    return Ragged(values, torch.tensor(lengths), torch.arange(max(1, *lengths)))


def last_real(row: list[int], width: int) -> list[int]:
    """Where in a row its last events stand."""
    return [i for i, item in enumerate(row) if item != 0][-width:]


@few
@given(rows=ROWS, window=st.integers(1, 6), first=st.booleans(), fixed=st.booleans())
@example(rows=[[]], window=1, first=False, fixed=True)
@example(rows=[[], [0, 0], [0, 3, 0, 4], []], window=3, first=True, fixed=False)
def test_compact_keeps_the_last_real_events_in_order(
    rows: list[list[int]], window: int, first: bool, fixed: bool
) -> None:
    (got,) = compact(ragged(rows), window=window, oldest_first_column=first, fixed_width=fixed)
    width = window if fixed else min(max(1, *map(len, rows)), window)
    assert got.shape == (len(rows), width)
    for row, compacted in zip(rows, got.tolist(), strict=True):
        kept = [row[i] for i in last_real(row, width)]
        empty = [0] * (width - len(kept))
        assert compacted == (kept + empty if first else empty + kept)


@few
@given(rows=ROWS, data=st.data(), window=st.integers(1, 6))
def test_parallel_lists_follow_by_place_and_no_row_reads_its_neighbour(
    rows: list[list[int]], data: st.DataObject, window: int
) -> None:
    lists = st.lists(st.integers(10, 99), max_size=14)
    beside = data.draw(st.lists(lists, min_size=len(rows), max_size=len(rows)))
    items, got = compact(ragged(rows), (ragged(beside), -1), window=window)
    for i, row in enumerate(rows):
        real = last_real(row, items.shape[1])
        kept = [beside[i][place] if place < len(beside[i]) else -1 for place in real]
        assert got[i].tolist() == [-1] * (items.shape[1] - len(kept)) + kept


@few
@given(rows=ROWS, width=st.integers(1, 8), window=st.integers(1, 6), first=st.booleans())
@example(rows=[[], [0, 0], [0, 3, 0, 4, 0]], width=3, window=3, first=True)
@example(rows=[[5, 6, 7, 8]], width=2, window=4, first=False)
def test_aligned_numbers_belong_to_the_last_events_and_padding_is_not_counted(
    rows: list[list[int]], width: int, window: int, first: bool
) -> None:
    numbers = torch.arange(len(rows) * width, dtype=torch.float32).view(len(rows), width)
    items, got = compact(
        ragged(rows), (numbers, -1), window=window, oldest_first_column=first, fixed_width=True
    )
    for i, row in enumerate(rows):
        events = last_real(row, window)
        # The value at place width - j is that of the j-th last event.
        kept = [
            float(numbers[i, width - j]) if j <= width else -1.0 for j in range(len(events), 0, -1)
        ]
        empty = [-1.0] * (items.shape[1] - len(kept))
        assert got[i].tolist() == (kept + empty if first else empty + kept)


@few
@given(rows=ROWS)
@example(rows=[[], [], [5], []])
def test_rows_and_counts(rows: list[list[int]]) -> None:
    history = ragged(rows)
    assert history.rows.tolist() == [i for i, row in enumerate(rows) for _ in row]
    known = [[sum(item >= 2 for item in row)] for row in rows]
    assert layers.known_items(history).tolist() == known


@few
@given(
    lengths=st.lists(st.integers(0, 200), min_size=1, max_size=4),
    seed=st.integers(0, 2**32 - 1),
)
@example(lengths=[63], seed=0)
@example(lengths=[64], seed=0)
@example(lengths=[64, 64, 0], seed=0)
@example(lengths=[127, 1], seed=0)
def test_rows_of_many_blocks(lengths: list[int], seed: int) -> None:
    """Running sums are taken in blocks of 64."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(0, 4, length).tolist() for length in lengths]
    history = ragged(rows)
    assert history.rows.tolist() == [i for i, row in enumerate(rows) for _ in row]
    assert history.counts.tolist() == [
        [sum(item >= least for item in row) for row in rows] for least in (1, 2)
    ]
    (got,) = compact(history, window=30, fixed_width=True)
    for row, compacted in zip(rows, got.tolist(), strict=True):
        kept = [row[i] for i in last_real(row, 30)]
        assert compacted == [0] * (30 - len(kept)) + kept


@few
@given(rows=ROWS)
def test_what_a_row_holds_is_masked_in_that_row_only(rows: list[list[int]]) -> None:
    scores = torch.from_numpy(np.random.default_rng(0).random((len(rows), 9)))
    masked = layers.mask_seen(scores, ragged(rows))
    for i, row in enumerate(rows):
        for item in range(9):
            assert masked[i, item] == (layers.LOWEST if item in row else scores[i, item])


@few
@given(batch=st.integers(1, 4), length=st.integers(0, 5))
def test_padded_rows_are_ragged_rows_of_one_length(batch: int, length: int) -> None:
    padded: Tensor = torch.arange(batch * length).view(batch, length)
    history = Ragged.of(padded)
    assert history.values.tolist() == padded.flatten().tolist()
    assert history.lengths.tolist() == [length] * batch
    assert len(history.steps) == max(1, length)
