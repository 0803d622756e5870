"""Graphs with filters, and those of similar items, broken on purpose."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor

from seqrec_export.data.vocabulary import NUM_RESERVED, PAD, UNKNOWN
from seqrec_export.models import filtered
from seqrec_export.nn import filtered_search
from seqrec_export.nn.filtered_search import Filters, Wanted
from seqrec_export.nn.item_search import Catalogue
from seqrec_export.nn.layers import LOWEST
from seqrec_export.nn.ragged import Ragged

Patch = pytest.MonkeyPatch
Function = Callable[..., Any]


def emptied(values: Ragged) -> Ragged:
    """The same rows with nothing but padding."""
    return Ragged(values.values * PAD, values.lengths, values.steps)


def without(filters: Filters) -> Filters:
    """No filter at all, but what was seen is left out."""
    return replace(
        filters,
        excluded=(filters.excluded[0], *map(emptied, filters.excluded[1:])),
        allowed=emptied(filters.allowed),
        attributes=[replace(of, wanted=emptied(of.wanted)) for of in filters.attributes],
    )


def given(position: int, change: Callable[[Any], Any]) -> Callable[[Function], Function]:
    """One input is taken for something else."""

    def broken(function: Function) -> Function:
        def changed(net: Any, *tensors: Any, **search: Any) -> Any:
            taken = list(tensors)
            taken[position] = change(taken[position])
            return function(net, *taken, **search)

        return changed

    return broken


def searching(search: Callable[..., Any]) -> Callable[[Patch], None]:
    """Another search, which is given ours and its arguments."""

    def broken(patch: Patch) -> None:
        ours = filtered.best_allowed_items
        patch.setattr(filtered, "best_allowed_items", lambda *given: search(ours, *given))

    return broken


def filters_ignored_in_cold_start(ours: Function, *given: Any) -> tuple[Tensor, Tensor]:
    *rest, filters, known = given
    right, wrong = ours(*rest, filters, known), ours(*rest, without(filters), known)
    items, scores = (torch.where(known > 0, a, b) for a, b in zip(right, wrong, strict=True))
    return items, scores


def filtered_after_the_top_k(ours: Function, *given: Any) -> tuple[Tensor, Tensor]:
    *rest, filters, known = given
    items, scores = ours(*rest, without(filters), known)
    (_, listed) = filters.excluded
    cells = scores.new_zeros(scores.shape[0], given[1].vectors.shape[0])
    cells = cells.index_put((listed.rows, listed.values), scores.new_ones(1))
    scores = torch.where(cells.gather(1, items) > 0, LOWEST, scores)
    scores, places = scores.topk(scores.shape[1], dim=1)
    return torch.where(scores > LOWEST, items.gather(1, places), PAD), scores


def query_comes_back(ours: Function, *given: Any) -> tuple[Tensor, Tensor]:
    *rest, filters, known = given
    return ours(*rest, replace(filters, excluded=filters.excluded[1:]), known)


def allow_list_inverted(patch: Patch) -> None:
    """In a catalogue that is limited; a few allowed items are scored as they should be."""

    def limits(wanted: Ragged, count: int, scores: Tensor) -> Tensor:
        highest = scores.new_full((1,), -LOWEST)
        values = torch.where(wanted.values >= NUM_RESERVED, wanted.values, UNKNOWN)
        rows = highest.expand(scores.shape[0], count)
        return rows.index_put((wanted.rows, values), scores.new_full((1,), LOWEST))

    patch.setattr(filtered_search, "_limits", limits)


def unknown_only_is_no_filter(patch: Patch) -> None:
    def given(values: Ragged) -> Tensor:
        said = (values.values >= NUM_RESERVED).to(torch.int64)
        return values.lengths.new_zeros(values.lengths.shape).scatter_add(0, values.rows, said) > 0

    patch.setattr(filtered_search, "_given", given)


def one_list_is_taken_for_all_rows(patch: Patch) -> None:
    """Listed items alone are scored as soon as one row lists some."""

    def lists_a_few(self: Any) -> Tensor:
        return filtered_search._given(self.filters.allowed).any()

    patch.setattr(filtered_search._Asked, "lists_a_few", lists_a_few)


def excluded_among_the_listed(patch: Patch) -> None:
    """An item that is both allowed and excluded comes back."""
    ours = filtered_search._Asked.among_the_listed

    def among(self: Any) -> Any:
        excluded = [*map(emptied, self.filters.excluded)]
        return ours(replace(self, filters=replace(self.filters, excluded=excluded)))

    patch.setattr(filtered_search._Asked, "among_the_listed", among)


def listed_twice_comes_back_twice(patch: Patch) -> None:
    def among(self: Any) -> Any:
        items = filtered_search._padded(self.filters.allowed)
        items = torch.cat([items, items.new_zeros(self.user.shape[0], self.top_k)], dim=1)
        cells = self.user.new_zeros(self.user.shape[0], self.catalogue.vectors.shape[0])
        for out in self.filters.excluded:
            cells = cells.index_put((out.rows, out.values), cells.new_ones(1))
        real = (items >= NUM_RESERVED) & (cells.gather(1, items) == 0)
        scores = torch.where(real, self._exact(items), LOWEST)
        for of in self.filters.attributes:
            limits = filtered_search._limits(of.wanted, of.num_rows, scores)
            values = [column.index_select(0, items.flatten()) for column in of.columns]
            has = [limits.gather(1, value.view(items.shape).long()) for value in values]
            scores = torch.minimum(scores, filtered_search._largest(has))
        scores, places = scores.topk(self.top_k, dim=1)
        return scores, items.gather(1, places)

    patch.setattr(filtered_search._Asked, "among_the_listed", among)


def first_value_only(patch: Patch) -> None:
    def one(columns: Any, **rest: Any) -> Wanted:
        return Wanted(columns=columns[:1], **rest)

    patch.setattr(filtered, "Wanted", one)


def dot_product_for_cosine(patch: Patch) -> None:
    def as_they_are(self: Catalogue) -> Catalogue:
        ones = torch.ones_like(self.vectors[:, 0])
        return Catalogue(self.vectors, popularity=self.popularity, scale=ones)

    patch.setattr(Catalogue, "by_cosine", as_they_are)


def _columns(model: onnx.ModelProto) -> list[TensorProto]:
    """The attributes' columns: a number for each item."""
    (rows,) = {t.dims[0] for t in model.graph.initializer if t.data_type == TensorProto.STRING}
    whole = (TensorProto.INT32, TensorProto.INT64)
    found = [t for t in model.graph.initializer if t.data_type in whole and [*t.dims] == [rows]]
    assert found
    return found


def attributes_shifted(model: onnx.ModelProto) -> None:
    for table in _columns(model):
        values = numpy_helper.to_array(table)
        shifted = np.concatenate([values[:NUM_RESERVED], np.roll(values[NUM_RESERVED:], 1)])
        table.CopyFrom(numpy_helper.from_array(shifted, table.name))


def one_items_attribute(model: onnx.ModelProto) -> None:
    table = _columns(model)[-1]
    values = numpy_helper.to_array(table).copy()
    values[-1] = NUM_RESERVED + (values[-1] == NUM_RESERVED)  # of the least popular item
    table.CopyFrom(numpy_helper.from_array(values, table.name))
