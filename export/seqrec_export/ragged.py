"""Rows of unequal length in one flat tensor, as Triton hands over the lists of a batch."""

from __future__ import annotations

from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from seqrec_export.vocabulary import PAD


class Ragged:
    """Rows one behind the other. All that is computed from them is linear in what they hold:
    one row of a million steps beside 63 short ones costs its own million, not 64.
    """

    def __init__(self, values: Tensor, lengths: Tensor, steps: Tensor) -> None:
        self.values = values  # (N,)
        self.lengths = lengths  # (B,) int64, N in all
        self.steps = steps  # (L,) 0, 1, ...: as many as the longest row has, at least one

    @classmethod
    def of(cls, padded: Tensor) -> Self:
        """(B, L), L may be 0 -> its rows, padding and all."""
        batch, length = padded.shape
        lengths = torch.full((batch,), length, device=padded.device)
        return cls(padded.flatten(), lengths, torch.arange(max(length, 1), device=padded.device))

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
        return row_numbers(self.values, self.ends)

    def count(self, chosen: Tensor) -> Tensor:
        """(N,) bool -> (B,) how many are chosen in each row."""
        before = _running(chosen)
        return before.index_select(0, self.ends) - before.index_select(0, self.starts)


def row_numbers(values: Tensor, ends: Tensor) -> Tensor:
    """(N,), (B,) where the rows end -> (N,) the row of each value."""
    marks = ends.new_zeros(values.shape[0] + 1)
    # A row begins where another ends; empty rows end at the same place.
    marks = marks.scatter_add(0, ends, torch.ones_like(ends))
    return marks.cumsum(dim=0)[:-1]


def _running(chosen: Tensor) -> Tensor:
    """(N,) bool -> (N + 1,) how many are chosen before each place."""
    counts = chosen.to(torch.int64)
    return torch.cat([counts.new_zeros(1), counts]).cumsum(dim=0)


def compact(
    history: Ragged,
    *parallel: tuple[Ragged, float],
    window: int,
    oldest_first_column: bool = False,
    fixed_width: bool = False,
) -> tuple[Tensor, ...]:
    """Item indices with padding anywhere -> (B, W) the last `window` real events, in order.

    W is that of the longest row, at most `window`, at least 1; or `window` if `fixed_width`. The
    events stand at the right edge, padding before them; with `oldest_first_column` at the left
    edge, padding after them. `parallel` lists follow as (B, W) each: what belongs to the same
    place of the history, and the number beside the list where it is shorter, and at padding. This
    is the one place where raw histories are padded.
    """
    width = window if fixed_width else torch.sym_min(history.steps.shape[0], window)  # type: ignore[no-untyped-call]
    real = history.values != PAD
    before = _running(real)
    # Where the n-th real event stands, from 1; beyond the last of them is 0, the place of padding.
    place = torch.where(real, torch.arange(real.shape[0], device=real.device) + 1, 0)
    beyond = before[-1:]
    places = torch.zeros_like(before).scatter(0, torch.where(real, before[:-1], beyond), place)
    first = before.index_select(0, history.starts)[:, None]
    count = before.index_select(0, history.ends)[:, None] - first
    column = torch.arange(width, device=real.device)[None]
    column = column + ((count - width).clamp(min=0) if oldest_first_column else count - width)
    inside = (column >= 0) & (column < count)
    at = places[torch.where(inside, first + column, beyond)]  # (B, W)
    outputs = [_behind(history.values, PAD)[at]]
    for other, missing in parallel:
        offset = at - history.starts[:, None]  # from 1
        there = inside & (offset <= other.lengths[:, None])
        index = torch.where(there, other.starts[:, None] + offset, 0)
        outputs.append(_behind(other.values, missing)[index])
    return tuple(outputs)


def _behind(values: Tensor, first: float) -> Tensor:
    return torch.cat([values.new_full((1,), first), values])
