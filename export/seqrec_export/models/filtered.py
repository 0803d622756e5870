"""The graphs that search a model's items among those that a request allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from seqrec_export.contract import SCORE_TOLERANCE, Graph, Spec
from seqrec_export.data.attributes import Attribute
from seqrec_export.data.vocabulary import NUM_RESERVED, PAD
from seqrec_export.models import wire
from seqrec_export.nn import layers
from seqrec_export.nn.filtered_search import Filters, Wanted, best_allowed_items
from seqrec_export.nn.item_search import Catalogue, Search, exact
from seqrec_export.nn.ragged import Ragged

VALUES_OF = "values_of_"  # before an attribute's name: the vocabulary of its values


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """How a graph finds its items, as what is derived from it needs to know."""

    graph: Graph
    top_k: int
    encode: Callable[..., Tensor]  # network, inputs -> (B, D)
    known: Callable[..., Tensor]  # inputs -> (B, 1)
    removes_seen: bool  # whether what the first input holds is left out
    # Whose popularity similar items have, if no id is known.
    shop: Callable[[Any], Catalogue] = lambda net: net.catalogue

    def graphs(self, attributes: Sequence[Attribute]) -> dict[str, Graph]:
        """`<name>_filtered` and `<name>_similar_items`."""
        conditions = _Conditions(attributes)
        both = self._filtered(conditions), self._similar(conditions)
        return {graph.name: graph for graph in both}

    def _filtered(self, conditions: _Conditions) -> Graph:
        inputs, keeps = self.graph.inputs, self.removes_seen

        def parted(tensors: Sequence[Any]) -> tuple[Sequence[Any], Filters]:
            of_user, rest = tensors[: len(inputs)], tensors[len(inputs) :]
            filters = conditions.filters(rest)
            if keeps:
                seen = _unless(rest[-1], of_user[0])
                filters = replace(filters, excluded=(seen, *filters.excluded))
            return of_user, filters

        def recommend(net: Any, *tensors: Any, search: Search = exact) -> tuple[Tensor, ...]:
            of_user, filters = parted(tensors)
            user, known = self.encode(net, *of_user), self.known(*of_user)
            best = best_allowed_items(search, net.catalogue, user, self.top_k, filters, known)
            return (*best, known)

        def reference_scores(net: Any, *tensors: Any) -> Tensor:
            of_user, filters = parted(tensors)
            user, known = self.encode(net, *of_user), self.known(*of_user)
            scores = net.catalogue.scores_or_popularity(user, known)
            return torch.where(allowed_items(filters, scores), scores, layers.LOWEST)

        return replace(
            self.graph,
            name=f"{self.graph.name}_filtered",
            meaning=f"{self.graph.meaning}, among those that the request allows",
            function=recommend,
            inputs=(*inputs, *conditions.inputs, *(wire.KEEP_SEEN,) * keeps),
            reference_scores=reference_scores,
            filtered=None,
            tables=conditions.tables,
        )

    def _similar(self, conditions: _Conditions) -> Graph:
        def parted(tensors: Sequence[Any]) -> tuple[Ragged, Filters]:
            filters = conditions.filters(tensors[1:])
            return tensors[0], replace(filters, excluded=(tensors[0], *filters.excluded))

        def similar(net: Any, *tensors: Any) -> tuple[Tensor, ...]:
            query, filters = parted(tensors)
            catalogue, known = self.shop(net).by_cosine(), layers.known_items(query)
            user = mean_direction(catalogue, query)
            best = best_allowed_items(exact, catalogue, user, self.top_k, filters, known)
            return (*best, known)

        def reference_scores(net: Any, *tensors: Any) -> Tensor:
            query, filters = parted(tensors)
            shop = self.shop(net)
            items = F.normalize(shop.vectors, dim=1)
            known = (query.values >= NUM_RESERVED)[:, None]
            rows = torch.nn.functional.one_hot(query.rows, len(query.lengths)).to(items.dtype)
            mean = rows.T @ torch.where(known, items[query.values], 0.0)
            scores = F.normalize(mean, dim=1) @ items.T
            assert shop.popularity is not None
            scores = layers.cold_start(scores, layers.known_items(query), shop.popularity)
            return torch.where(allowed_items(filters, scores), scores, layers.LOWEST)

        return Graph(
            name=f"{self.graph.name}_similar_items",
            meaning="the items nearest to given ones, which are left out, by the cosine of their "
            "vectors",
            function=similar,
            inputs=(wire.QUERY, *conditions.inputs),
            outputs=(*wire.ranked_items(self.top_k), wire.KNOWN_QUERY),
            tolerance=SCORE_TOLERANCE,
            reference_scores=reference_scores,
            tables=conditions.tables,
        )


class _Conditions:
    """The inputs that say what may come back, in order, and the attributes behind them."""

    def __init__(self, attributes: Sequence[Attribute]) -> None:
        self.attributes = attributes
        self.tables = {
            f"{VALUES_OF}{attribute.name}_{i}": torch.from_numpy(column.copy())
            for attribute in attributes
            for i, column in enumerate(attribute.values.T)
        }

    @property
    def inputs(self) -> tuple[Spec, ...]:
        values = (wire.allowed_values(a.name, f"{VALUES_OF}{a.name}") for a in self.attributes)
        return (wire.EXCLUDED, wire.ALLOWED, *values)

    def filters(self, tensors: Sequence[Any]) -> Filters:
        """What the tensors of `inputs` say; there may be more of them."""
        excluded, allowed, *values = tensors
        return Filters(
            excluded=(excluded,),
            allowed=allowed,
            attributes=[
                Wanted(
                    columns=[
                        self.tables[f"{VALUES_OF}{attribute.name}_{i}"]
                        for i in range(attribute.values.shape[1])
                    ],
                    num_rows=attribute.vocabulary.num_rows,
                    wanted=wanted,
                )
                for attribute, wanted in zip(self.attributes, values, strict=False)
            ],
        )


def vocabularies_of(attributes: Sequence[Attribute]) -> dict[str, Any]:
    """The vocabularies of attributes, by the names that the inputs give them."""
    return {f"{VALUES_OF}{attribute.name}": attribute.vocabulary for attribute in attributes}


def mean_direction(catalogue: Catalogue, query: Ragged) -> Tensor:
    """Item indices -> (B, D) the mean of the items' directions, of unit length; 0 if none is known.

    `catalogue` is one `by_cosine`.
    """
    assert catalogue.scale is not None
    items = F.embedding(query.values, catalogue.vectors)
    lengths = catalogue.scale.index_select(0, query.values) * (query.values >= NUM_RESERVED)
    rows = query.rows[:, None].expand(-1, items.shape[1])
    total = items.new_zeros(query.lengths.shape[0], items.shape[1])
    return F.normalize(total.scatter_add(0, rows, items * lengths[:, None]), dim=1)


def _unless(keep: Tensor, history: Ragged) -> Ragged:
    """The history, or nothing but padding in rows that keep what it holds."""
    kept = (keep[:, 0] != 0).index_select(0, history.rows)
    return history.with_values(torch.where(kept, PAD, history.values))


def allowed_items(filters: Filters, scores: Tensor) -> Tensor:
    """(B, V) bool: what may come back. It is written for reading, and is what graphs must equal."""

    def marked(values: Ragged, count: int) -> Tensor:
        cells = scores.new_zeros(len(scores), count, dtype=torch.bool)
        cells[values.rows, values.values] = True
        cells[:, :NUM_RESERVED] = False
        return cells

    def anything(values: Ragged) -> Tensor:
        said = scores.new_zeros(len(scores), dtype=torch.bool)
        said[values.rows[values.values != PAD]] = True
        return said[:, None]

    allowed = ~anything(filters.allowed) | marked(filters.allowed, scores.shape[1])
    for excluded in filters.excluded:
        allowed &= ~marked(excluded, scores.shape[1])
    for of in filters.attributes:
        values = marked(of.wanted, of.num_rows)
        has = torch.stack([values[:, column.long()] for column in of.columns]).any(dim=0)
        allowed &= ~anything(of.wanted) | has
    return allowed
