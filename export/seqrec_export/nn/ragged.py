"""Rows of unequal length in one flat tensor, as Triton hands over the lists of a batch."""

from __future__ import annotations

from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from seqrec_export.data.vocabulary import NUM_RESERVED, PAD, UNKNOWN

_BLOCK = 64


class Ragged:
    """Rows one after the other. All that is computed from them is linear in what they hold:
    one row of a million steps among 63 short ones costs its own million, not 64.
    """

    def __init__(
        self, values: Tensor, lengths: Tensor, steps: Tensor, *, short: bool = False
    ) -> None:
        self.short = short  # whether rows rarely have more than some hundred values
        self.values = values  # (N,)
        self.lengths = lengths  # (B,) int64, N in all
        self.steps = steps  # (L,) 0, 1, ...: as many as the longest row has, at least one

    @classmethod
    def of(cls, padded: Tensor) -> Self:
        """(B, L), L may be 0 -> its rows, padding and all."""
        batch, length = padded.shape
        lengths = torch.full((batch,), length, device=padded.device)
        return cls(padded.flatten(), lengths, torch.arange(max(length, 1), device=padded.device))

    def with_values(self, values: Tensor) -> Ragged:
        """(N,) other values in the same rows."""
        other = Ragged(values, self.lengths, self.steps, short=self.short)
        other.__dict__["rows"] = self.rows  # in no graph twice
        return other

    @cached_property
    def ends(self) -> Tensor:
        """(B,) where the rows end in `values`."""
        return self.lengths.cumsum(dim=0)

    @cached_property
    def starts(self) -> Tensor:
        """(B,) where the rows begin in `values`."""
        return self.ends - self.lengths

    @cached_property
    def rows(self) -> Tensor:
        """(N,) the row of each value."""
        return row_numbers(self.values, self.ends, short=self.short)

    @cached_property
    def before(self) -> Tensor:
        """(2, M), M > N: how many events, and how many known items, come before each place.

        From place N on, it is all of them. This is for item indices, and so is `counts`.
        """
        least = torch.arange(UNKNOWN, NUM_RESERVED + 1, device=self.values.device)
        return _running(self.values >= least[:, None])

    @cached_property
    def counts(self) -> Tensor:
        """(2, B) how many events, and how many known items, are in each row."""
        return self.before.index_select(1, self.ends) - self.before.index_select(1, self.starts)


def row_numbers(values: Tensor, ends: Tensor, *, short: bool = False) -> Tensor:
    """(N,), (B,) where the rows end -> (N,) the row of each value."""
    marks = ends.new_zeros(values.shape[0] + 1)
    # A row begins where another ends; empty rows end at the same place.
    marks = marks.scatter_add(0, ends, torch.ones_like(ends))
    if short:  # with fewer nodes, which an export takes its time for
        return marks.cumsum(dim=0)[: values.shape[0]]
    return _running(marks[None])[0, 1 : marks.shape[0]]


def _running(numbers: Tensor) -> Tensor:
    """(K, N) integers or bool -> (K, M), M > N: the sum before each place, at the end that of all.

    It sums in blocks, as CumSum of ONNX Runtime 1.19 takes 0.1 microseconds a step along its axis,
    however many lanes there are: 64 rows of 50 would cost more than `caser`'s network.
    """
    numbers = numbers.to(torch.int64)
    lanes, length = numbers.shape
    size = (length // _BLOCK + 2) * _BLOCK  # two blocks at least: torch.export would bake in one
    zero, zeros = (numbers.new_zeros(lanes, count) for count in (1, 2 * _BLOCK - 1))
    padded = torch.cat([zero, numbers, zeros], dim=1)[:, :size]
    within = padded.view(lanes, -1, _BLOCK).cumsum(dim=2)
    totals = within[..., -1]
    return (within + (totals.cumsum(dim=1) - totals)[..., None]).flatten(1)


def compact(
    history: Ragged,
    *parallel: tuple[Ragged | Tensor, float],
    window: int,
    oldest_first_column: bool = False,
    fixed_width: bool = False,
) -> tuple[Tensor, ...]:
    """Item indices with padding anywhere -> (B, W) the last `window` real events, in order.

    W is that of the longest row, at most `window`, at least 1; or `window` if `fixed_width`. The
    events are at the right edge, with padding before them; with `oldest_first_column` they are at
    the left edge, with padding after them. What is `parallel` follows as (B, W) each, with the
    number next to it at padding and for a missing value. A list gives the value at the same place
    as the event; (B, A) values are those of the last A events, the newest one's last. This is the
    one place where raw histories are padded.
    """
    width = window if fixed_width else torch.sym_min(history.steps.shape[0], window)  # type: ignore[no-untyped-call]
    real, before = history.values != PAD, history.before[0]
    first = before.index_select(0, history.starts)[:, None]
    count = history.counts[0][:, None]
    column = torch.arange(width, device=real.device)[None]
    column = column + ((count - width).clamp(min=0) if oldest_first_column else count - width)
    inside = (column >= 0) & (column < count)
    # Event n, from 0, goes to slot n; all padding goes to the slot after them, which holds 0.
    behind = before[-1:]
    slots = torch.where(real, before[: real.shape[0]], behind)
    chosen = torch.where(inside, first + column, behind)  # (B, W)

    def take(values: Tensor) -> Tensor:
        """(N,) 0 at padding -> (B, W)."""
        return torch.zeros_like(before).scatter(0, slots, values)[chosen]

    outputs = [take(history.values)]
    if any(isinstance(other, Ragged) for other, _ in parallel):
        place = torch.where(real, torch.arange(real.shape[0], device=real.device) + 1, 0)
        offset = take(place) - history.starts[:, None]  # from 1
    for other, missing in parallel:
        if isinstance(other, Tensor):
            at = column - count + other.shape[1]  # -1 for the last event is the last place
            values = other.gather(1, at.clamp(min=0, max=other.shape[1] - 1))
            outputs.append(torch.where(inside & (at >= 0), values, missing))
            continue
        there = inside & (offset <= other.lengths[:, None])
        at = torch.where(there, other.starts[:, None] + offset, 0)
        outputs.append(torch.cat([other.values.new_full((1,), missing), other.values])[at])
    return tuple(outputs)
