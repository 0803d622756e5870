"""The best items of a catalogue for a user's vector: exactly, or with int8 vectors in front.

Both are plain ONNX operators once exported; bench/LOG.md says what else was tried.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from seqrec_export.data.vocabulary import NUM_RESERVED, PAD
from seqrec_export.nn.layers import LOWEST, cold_start, dot
from seqrec_export.nn.own_operators import unpacked
from seqrec_export.nn.ragged import Ragged

_CANDIDATES = 2  # times top_k: how many of the best by int8 are scored exactly
_USER_LEVELS = 63  # two products then fit into the 16 bits in which some processors add them up
_ITEM_LEVELS = 126  # one less than int8 has: `_whole` may add one
_BIAS_SHARE = 0.5  # how large the bias's column is, compared with all the others together
MASKED = torch.iinfo(torch.int32).min
_ROWS_AT_ONCE = 65_536


@dataclass(frozen=True)
class Catalogue:
    """The items: what a user's vector is multiplied with, and what answers if nothing is known."""

    vectors: Tensor  # (V, D)
    bias: Tensor | None = None  # (V,)
    popularity: Tensor | None = None  # (V,)
    scale: Tensor | None = None  # (V,) what products are multiplied with

    def scores(self, user: Tensor) -> Tensor:
        """(B, D) -> (B, V): of all items."""
        if self.scale is None:
            return F.linear(user, self.vectors, self.bias)
        scores = F.linear(user, self.vectors) * self.scale
        return scores if self.bias is None else scores + self.bias

    def scores_or_popularity(self, user: Tensor, known: Tensor) -> Tensor:
        """(B, D), (B, 1) known items -> (B, V): popularity for a row that knows none, if any."""
        scores = self.scores(user)
        if self.popularity is None:
            return scores
        return cold_start(scores, known, self.popularity)

    def score(self, user: Tensor, candidates: Ragged) -> Tensor:
        """(B, D), item indices -> (N,): of each candidate, for the user of its row."""
        scores = dot(self.vectors, user, candidates)
        if self.scale is not None:
            scores = scores * self.scale.index_select(0, candidates.values)
        if self.bias is None:
            return scores
        return scores + self.bias.index_select(0, candidates.values)

    def of_candidates(self, user: Tensor, items: Tensor) -> Tensor:
        """(B, D), (B, W) item indices -> (B, W) scores, reserved indices at LOWEST."""
        scores = torch.matmul(F.embedding(items, self.vectors), user[:, :, None])
        if self.scale is not None:
            scores = scores * F.embedding(items, self.scale[:, None])
        return (scores + F.embedding(items, self.masked_bias()[:, None])).squeeze(2)

    def by_cosine(self) -> Catalogue:
        """The same items; with a vector of unit length, the scores are cosines."""
        norms = self.vectors.square().sum(dim=1).sqrt()
        tiny = torch.finfo(torch.float32).tiny
        return Catalogue(self.vectors, popularity=self.popularity, scale=1 / norms.clamp(min=tiny))

    def masked_bias(self) -> Tensor:
        """(V,) with reserved indices at LOWEST. ONNX Runtime computes it once, at load."""
        bias = self.vectors.new_zeros(len(self.vectors)) if self.bias is None else self.bias
        return without_reserved(bias)


class Search(Protocol):
    """Finds the best items by their vectors and biases alone."""

    def __call__(
        self, catalogue: Catalogue, user: Tensor, top_k: int, seen: Ragged | None
    ) -> tuple[Tensor, Tensor]:
        """(B, D), item indices -> (B, K) scores, best first, (B, K) item indices.

        Reserved indices and what a user has seen score LOWEST. K is at most V.
        """


def best_items(
    search: Search,
    catalogue: Catalogue,
    user: Tensor,
    top_k: int,
    seen: Ragged | None = None,
    known: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """(B, D), item indices, (B, 1) known items -> (B, K) item indices, (B, K) scores, best first.

    If nothing is known, these are the most popular items. Reserved indices and what a user has seen
    never come back; if the catalogue has no more items, the index is PAD and the score LOWEST.
    """
    width = min(top_k, len(catalogue.vectors))
    scores, items = search(catalogue, user, width, seen)
    if known is not None and catalogue.popularity is not None:
        # A row without a known item has seen none, so all such rows get the same answer, which
        # ONNX Runtime computes once, at load.
        popularity, popular = without_reserved(catalogue.popularity).topk(width)
        scores = torch.where(known > 0, scores, popularity)
        items = torch.where(known > 0, items, popular)
    return filled_up(scores, items, top_k)


def best_of(scores: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """(B, V) -> (B, K) item indices, (B, K) scores, best first, as `best_items` gives them."""
    best, items = scores.topk(min(top_k, scores.shape[1]), dim=1)
    return filled_up(best, items, top_k)


def filled_up(scores: Tensor, items: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """(B, W) scores, item indices -> (B, K) item indices, PAD for what scores LOWEST, scores.

    W is less than K only if the whole catalogue is. K stays the same for a catalogue of any size,
    as a contract has to; a large one costs nothing.
    """
    items = torch.where(scores > LOWEST, items, PAD)
    missing = top_k - scores.shape[1]
    if missing <= 0:
        return items, scores

    def filled(values: Tensor, value: float) -> Tensor:
        # One number that is repeated; CUDA has no kernel for a Pad of int64.
        rest = values.new_full((1, 1), value).expand(values.shape[0], missing)
        return torch.cat([values, rest], dim=1)

    return filled(items, PAD), filled(scores, LOWEST)


def exact(
    catalogue: Catalogue, user: Tensor, top_k: int, seen: Ragged | None
) -> tuple[Tensor, Tensor]:
    """The search over all vectors as they are."""
    scores = products(catalogue, user)
    if seen is not None:
        scores = masked(scores, seen.rows, seen.values, LOWEST)
    scores, items = scores.topk(top_k, dim=1)
    return scores, items


def products(catalogue: Catalogue, user: Tensor) -> Tensor:
    """(B, D) -> (B, V) scores of all items, reserved indices at LOWEST."""
    vectors, bias = unpacked(catalogue.vectors, user), catalogue.masked_bias()
    if catalogue.scale is None:
        return F.linear(user, vectors, bias)
    return F.linear(user, vectors) * catalogue.scale + bias


class Int8Search(nn.Module):
    """Finds candidates by int8 vectors, a quarter of the bytes; then scores them exactly.

    ONNX Runtime multiplies int8 fast for a single user only if the user's vector is unsigned, with
    no zero point. So 64 is added to it, which adds 64 times the sum of an item's components.
    Therefore the vectors are turned into a space where every item's components add up to 0. That
    spreads large components over all, the bias among them: one scale serves the whole catalogue.
    """

    items: Tensor  # (W, V) int8; ONNX Runtime packs a copy, which pays for a single row too
    turn: Tensor  # (W, D)
    offset: Tensor  # (W,) what is added to every user's turned vector, for the bias

    def __init__(self, catalogue: Catalogue) -> None:
        super().__init__()
        vectors = catalogue.vectors.detach()
        real = slice(NUM_RESERVED, None)
        # What all items share changes no order, and would take levels from what they do not.
        center = vectors[real].mean(dim=0)
        bias, share = vectors.new_zeros(len(vectors)), 0.0
        if catalogue.bias is not None:
            bias = catalogue.bias.detach() - catalogue.bias.detach()[real].mean()
            norm = float((vectors[real] - center).square().sum(dim=1).mean().sqrt())
            share = float(bias[real].square().mean().sqrt()) / (_BIAS_SHARE * norm or 1.0)
        column = bias / (share or 1.0)
        basis = _zero_sum_basis(vectors.shape[1] + 1)

        def turned() -> Iterator[tuple[slice, Tensor]]:
            for start in range(0, len(vectors), _ROWS_AT_ONCE):
                rows = slice(start, start + _ROWS_AT_ONCE)
                part = torch.cat([vectors[rows] - center, column[rows, None]], dim=1)
                yield rows, part.double() @ basis

        largest = max(float(part.abs().max()) for _, part in turned())
        items = torch.empty(basis.shape[1], len(vectors), dtype=torch.int8)
        for rows, part in turned():
            items[:, rows] = _whole(part * (_ITEM_LEVELS / (largest or 1.0))).T
        self.register_buffer("items", items)
        self.register_buffer("turn", basis[:-1].T.float().contiguous())
        self.register_buffer("offset", (basis[-1] * share).float())

    def coarse_scores(self, user: Tensor) -> Tensor:
        """(B, D) -> (B, V) int32, each row in a scale of its own."""
        turned = F.linear(user, self.turn, self.offset)
        largest = turned.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
        levels = (turned / largest * _USER_LEVELS).round() + (_USER_LEVELS + 1)
        if not torch.compiler.is_exporting():
            return (levels.double() @ self.items.double()).to(torch.int32)
        scores: Tensor = torch.onnx.ops.symbolic(
            "MatMulInteger",
            (levels.to(torch.uint8), self.items),
            dtype=torch.int32,
            shape=(user.shape[0], self.items.shape[1]),
            version=10,
        )
        return scores

    def forward(
        self, catalogue: Catalogue, user: Tensor, top_k: int, seen: Ragged | None
    ) -> tuple[Tensor, Tensor]:
        """A `Search`, which may miss an item whose score is close to the last one's."""
        coarse = self.coarse_scores(user)
        if seen is not None:
            coarse = masked(coarse, seen.rows, seen.values, MASKED)
        return best_of_coarse(coarse, partial(catalogue.of_candidates, user), top_k)


def best_of_coarse(
    coarse: Tensor, exact_scores: Callable[[Tensor], Tensor], top_k: int
) -> tuple[Tensor, Tensor]:
    """(B, V) int32, (B, W) item indices -> (B, W) scores: (B, K) the best scores, their items."""
    coarse, items = coarse.topk(num_candidates(top_k), dim=1, sorted=False)
    scores = torch.where(coarse > MASKED, exact_scores(items), LOWEST)
    scores, places = scores.topk(top_k, dim=1)
    return scores, items.gather(1, places)


def int8_search(catalogue: Catalogue, top_k: int) -> Search:
    """`Int8Search`, or `exact` if the candidates would be the whole catalogue."""
    return Int8Search(catalogue) if num_candidates(top_k) < len(catalogue.vectors) else exact


def num_candidates(top_k: int) -> int:
    """How many of the best by int8 are scored exactly."""
    return _CANDIDATES * top_k + NUM_RESERVED


def without_reserved(scores: Tensor) -> Tensor:
    """(V,) -> (V,) with reserved indices at LOWEST."""
    reserved = torch.arange(NUM_RESERVED, device=scores.device)
    return scores.index_fill(0, reserved, LOWEST)


def masked(scores: Tensor, rows: Tensor, items: Tensor, lowest: float) -> Tensor:
    """(B, V), (N,) rows, (N,) item indices -> (B, V), these cells at the lowest score."""
    return scores.index_put((rows, items), scores.new_full((1,), lowest))


def _zero_sum_basis(dim: int) -> Tensor:
    """(D, W) float64: orthonormal rows that each add up to 0, the waves of a cosine transform."""
    width = -(-(dim + 1) // 4) * 4  # processors take int8 by fours
    waves = torch.arange(1, dim + 1, dtype=torch.float64)[:, None]
    places = torch.arange(width, dtype=torch.float64) + 0.5
    return torch.cos(waves * places * (math.pi / width)) * math.sqrt(2 / width)


def _whole(x: Tensor) -> Tensor:
    """(N, W) with rows that add up to 0 -> the same in int8; no component is off by over 1."""
    whole = x.round()
    over = whole.sum(dim=1, keepdim=True)
    order = (x - whole).argsort(dim=1, stable=True).argsort(dim=1)  # 0 was rounded up the most
    whole = whole - (order < over).double() + (order >= x.shape[1] + over).double()
    return whole.to(torch.int8)
