"""The best items among those that a request allows: what is left out is left out before the top-k.

A batch takes the cheapest way. If each row lists a few items that it allows, only those are scored.
If no row narrows the catalogue down, some scores are overwritten, as they are for what was seen.
Else a limit is laid over all scores.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from seqrec_export.data.vocabulary import NUM_RESERVED, PAD, UNKNOWN
from seqrec_export.nn.item_search import (
    MASKED,
    Catalogue,
    Int8Search,
    Search,
    best_of_coarse,
    filled_up,
    masked,
    products,
    without_reserved,
)
from seqrec_export.nn.layers import LOWEST
from seqrec_export.nn.own_operators import either, size
from seqrec_export.nn.ragged import Ragged

_POPULARITY_LEVELS = 2**30
_TINY = torch.finfo(torch.float32).tiny
_Best = tuple[Tensor, ...]  # (B, K) scores, best first, (B, K) item indices


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """An attribute of items, and the values of it that rows ask for, if they ask for any."""

    columns: Sequence[Tensor]  # (V,) each: an item's first value, its second, ..., or PAD
    num_rows: int  # of the attribute's vocabulary
    wanted: Ragged


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What may come back in each row, in item and value indices; all of it holds together.

    Padding says nothing. What is unknown excludes and allows nothing.
    """

    excluded: Sequence[Ragged]  # these may not; at least one list
    allowed: Ragged  # if there are any, only these may
    attributes: Sequence[Wanted] = ()


def best_allowed_items(
    search: Search,
    catalogue: Catalogue,
    user: Tensor,
    top_k: int,
    filters: Filters,
    known: Tensor,
) -> tuple[Tensor, Tensor]:
    """(B, D), filters, (B, 1) known items -> (B, K) item indices, (B, K) scores, best first.

    If nothing is known and the catalogue has a popularity, these are the most popular of the items
    that are allowed. If there are no more, the index is PAD and the score LOWEST.
    """
    int8 = search if isinstance(search, Int8Search) else None
    warm = torch.ones_like(known, dtype=torch.bool) if catalogue.popularity is None else known > 0
    asked = _Asked(catalogue, int8, user, min(top_k, len(catalogue.vectors)), filters, warm)
    scores, items = either(asked.lists_a_few(), asked.among_the_listed, asked.in_the_catalogue)
    return filled_up(scores, items, top_k)


@dataclass(frozen=True)
class _Asked:
    """One batch, and the ways to answer it."""

    catalogue: Catalogue
    int8: Int8Search | None
    user: Tensor
    top_k: int  # at most V
    filters: Filters
    warm: Tensor  # (B, 1) bool: a row that is not gets the most popular items

    def lists_a_few(self) -> Tensor:
        """() bool: whether to score what each row allows takes less memory than to score all."""
        longest = size(self.filters.allowed.steps)
        for excluded in self.filters.excluded:
            longest = longest + size(excluded.steps)
        most = len(self.catalogue.vectors) // self.user.shape[1]
        return _given(self.filters.allowed).all() & (longest < most)

    def among_the_listed(self) -> _Best:
        """Score what the rows allow. One sort finds what is there twice, and what is excluded."""
        # The same item as excluded comes before the one as allowed.
        lists = [_padded(self.filters.allowed) * 2 + 1]
        lists += [_padded(excluded) * 2 for excluded in self.filters.excluded]
        lists.append(lists[0].new_zeros(self.user.shape[0], self.top_k))
        keys = torch.cat(lists, dim=1).sort(dim=1).values
        items = keys // 2
        before = torch.cat([torch.zeros_like(items[:, :1]), items[:, :-1]], dim=1)
        real = (items >= NUM_RESERVED) & (keys > items * 2) & (items != before)
        scores = torch.where(real, self._exact(items), LOWEST)
        for attribute in self.filters.attributes:
            limits = _limits(attribute.wanted, attribute.num_rows, scores)
            of_items = [
                limits.gather(1, _taken(column, items).long()) for column in attribute.columns
            ]
            scores = torch.minimum(scores, _largest(of_items))
        scores, places = scores.topk(self.top_k, dim=1)
        return scores, items.gather(1, places)

    def in_the_catalogue(self) -> _Best:
        """Score everything."""
        narrowing = [self.filters.allowed, *(of.wanted for of in self.filters.attributes)]
        limited = torch.cat([_given(of) for of in narrowing] + [~self.warm[:, 0]]).any()
        scores = self._coarse()
        return either(
            limited, lambda: self._best(self._limited(scores)), lambda: self._best(scores)
        )

    def _coarse(self) -> Tensor:
        """(B, V) scores, in int32 if that is faster."""
        if self.int8 is not None:
            return self.int8.coarse_scores(self.user)
        return products(self.catalogue, self.user)

    def _limited(self, scores: Tensor) -> Tensor:
        """(B, V) -> the same: popularity for rows that know nothing, what is not allowed lowest."""
        if self.catalogue.popularity is not None:
            popularity = without_reserved(self.catalogue.popularity)
            if self.int8 is not None:
                popularity = _levels(self.catalogue.popularity)
            scores = torch.where(self.warm, scores, popularity)
        allowed = self.filters.allowed
        scores = torch.minimum(scores, _limits(allowed, scores.shape[1], scores))
        for attribute in self.filters.attributes:
            limits = _limits(attribute.wanted, attribute.num_rows, scores)
            of_items = [_of_items(limits, column) for column in attribute.columns]
            scores = torch.minimum(scores, _largest(of_items))
        return scores

    def _best(self, scores: Tensor) -> _Best:
        """(B, V) -> the best that are not excluded."""
        excluded = self.filters.excluded
        rows = torch.cat([one.rows for one in excluded])
        items = torch.cat([one.values for one in excluded])
        scores = masked(scores, rows, items, _lowest(scores))
        if self.int8 is None:
            scores, items = scores.topk(self.top_k, dim=1)
            return scores, items
        return best_of_coarse(scores, self._exact, self.top_k)

    def _exact(self, items: Tensor) -> Tensor:
        """(B, W) item indices -> (B, W) scores."""
        scores = self.catalogue.of_candidates(self.user, items)
        if self.catalogue.popularity is None:
            return scores
        popularity = without_reserved(self.catalogue.popularity)
        return torch.where(self.warm, scores, F.embedding(items, popularity[:, None]).squeeze(2))


def _given(values: Ragged) -> Tensor:
    """(B,) bool: which rows hold anything but padding."""
    said = (values.values != PAD).to(torch.int64)
    return values.lengths.new_zeros(values.lengths.shape).scatter_add(0, values.rows, said) > 0


def _padded(values: Ragged) -> Tensor:
    """(B, L) each row's values, PAD after the last one."""
    places = values.starts[:, None] + values.steps
    inside = values.steps < values.lengths[:, None]
    flat = torch.cat([values.values, values.values.new_full((1,), PAD)])
    return _taken(flat, torch.where(inside, places, values.values.shape[0]))


def _taken(values: Tensor, places: Tensor) -> Tensor:
    """(N,), (B, W) -> (B, W)."""
    return values.index_select(0, places.flatten()).view(places.shape)


def _of_items(limits: Tensor, column: Tensor) -> Tensor:
    """(B, N) a number a value, (V,) int32 values -> (B, V) a number an item."""
    if not torch.compiler.is_exporting():
        return limits.index_select(1, column)
    # ONNX Runtime takes a quarter of the time for this that it takes for single numbers by Gather.
    rows = torch.arange(limits.shape[0], dtype=torch.int32)[:, None]
    places = rows * limits.shape[1] + column
    taken = torch.onnx.ops.symbolic(
        "GatherElements",
        (limits.flatten(), places.flatten()),
        {"axis": 0},
        dtype=limits.dtype,
        shape=(places.numel(),),
        version=13,
    )
    return taken.view(places.shape)


def _limits(wanted: Ragged, count: int, scores: Tensor) -> Tensor:
    """(B, count): above all scores for what is wanted, else the lowest; PAD is never wanted.

    It is above all scores everywhere in a row that wants nothing.
    """
    lowest, highest = (scores.new_full((1,), of(scores)) for of in (_lowest, _highest))
    of_rows = torch.where(_given(wanted)[:, None], lowest, highest)
    values = torch.where(wanted.values >= NUM_RESERVED, wanted.values, UNKNOWN)
    return of_rows.expand(-1, count).index_put((wanted.rows, values), highest)


def _largest(tensors: Sequence[Tensor]) -> Tensor:
    return functools.reduce(torch.maximum, tensors)


def _lowest(scores: Tensor) -> float:
    return LOWEST if scores.is_floating_point() else MASKED


def _highest(scores: Tensor) -> float:
    return -LOWEST if scores.is_floating_point() else torch.iinfo(torch.int32).max


def _levels(popularity: Tensor) -> Tensor:
    """(V,) -> (V,) int32 in the same order."""
    above = popularity - popularity.min()
    return (above / above.max().clamp(min=_TINY) * _POPULARITY_LEVELS).to(torch.int32)
