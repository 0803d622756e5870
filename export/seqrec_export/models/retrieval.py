"""The graphs of a model that recommends from its catalogue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from torch import Tensor

from seqrec_export.contract import EMBEDDING_TOLERANCE, SCORE_TOLERANCE, Graph, Spec, Tolerance
from seqrec_export.models import wire
from seqrec_export.models.filtered import Retrieval
from seqrec_export.nn import layers
from seqrec_export.nn.item_search import Catalogue, Search, best_items, exact, int8_search
from seqrec_export.nn.ragged import Ragged


class Retriever(Protocol):
    """A network that recommends from its catalogue."""

    @property
    def catalogue(self) -> Catalogue:
        """The items."""

    def encode(self, history: Ragged, *rest: Any) -> Tensor:
        """Item indices, oldest first, padding anywhere -> (B, D) user embedding."""


def retrieval_graphs(
    name: str,
    inputs: tuple[Spec, ...],
    dim: int,
    top_k: int,
    *,
    keep_seen: bool = False,
    tolerance: Tolerance = SCORE_TOLERANCE,
) -> dict[str, Graph]:
    """`<name>`, `<name>_encoder` and `<name>_scorer`; the first input is the history.

    An export adds `<name>_filtered` and `<name>_similar_items`.

    Unless `keep_seen`, the fused graph removes what the history holds, all of it and not only the
    model's window. It answers with popularity if it knows no item of the history.
    """
    left_out = "" if keep_seen else ", what it already holds left out"

    def reference_scores(net: Retriever, history: Ragged, *rest: Any) -> Tensor:
        assert net.catalogue.popularity is not None
        user, known = net.encode(history, *rest), layers.known_items(history)
        scores = net.catalogue.scores_or_popularity(user, known)
        return scores if keep_seen else layers.mask_seen(scores, history)

    def recommend(
        net: Retriever, history: Ragged, *rest: Any, search: Search = exact
    ) -> tuple[Tensor, ...]:
        known = layers.known_items(history)
        user = net.encode(history, *rest)
        seen = None if keep_seen else history
        return (*best_items(search, net.catalogue, user, top_k, seen, known), known)

    user = wire.user_embedding(dim)
    fused = Graph(
        name=name,
        meaning=f"the next items for a history{left_out}",
        function=recommend,
        inputs=inputs,
        outputs=(*wire.ranked_items(top_k), wire.KNOWN_ITEMS),
        tolerance=tolerance,
        reference_scores=reference_scores,
        int8_search=lambda net: int8_search(net.catalogue, top_k),
    )
    retrieval = Retrieval(
        graph=fused,
        top_k=top_k,
        encode=lambda net, history, *rest: net.encode(history, *rest),
        known=lambda history, *rest: layers.known_items(history),
        removes_seen=not keep_seen,
    )
    return {
        name: replace(fused, filtered=retrieval.graphs),
        f"{name}_encoder": history_encoder(name, inputs, user),
        f"{name}_scorer": candidate_scorer(name, user, tolerance),
    }


def history_encoder(
    name: str, inputs: tuple[Spec, ...], user: Spec, meaning: str = "a history as a vector"
) -> Graph:
    """`<name>_encoder`: the user embedding; the first input is the history."""

    def encode(net: Any, history: Ragged, *rest: Any) -> tuple[Tensor, ...]:
        return net.encode(history, *rest), layers.known_items(history)

    return Graph(
        name=f"{name}_encoder",
        meaning=meaning,
        function=encode,
        inputs=inputs,
        outputs=(user, wire.KNOWN_ITEMS),
        tolerance=EMBEDDING_TOLERANCE,
    )


def by_catalogue(net: Retriever, user: Tensor, candidates: Ragged) -> Tensor:
    """(B, D), item indices -> (N,) scores of the candidates as retrieval has them."""
    return net.catalogue.score(user, candidates)


def candidate_scorer(
    name: str,
    user: Spec,
    tolerance: Tolerance = SCORE_TOLERANCE,
    score: Callable[[Any, Tensor, Ragged], Tensor] = by_catalogue,
) -> Graph:
    """`<name>_scorer`: scores of given candidates for a vector of `<name>_encoder`."""

    def rate(net: Any, user: Tensor, candidates: Ragged) -> tuple[Tensor, ...]:
        scores = score(net, layers.finite(user), candidates)
        return (layers.mask_unknown(scores, candidates.values),)

    return Graph(
        name=f"{name}_scorer",
        meaning=f"scores of given candidates for a vector of {name}_encoder",
        function=rate,
        inputs=(user, wire.CANDIDATES),
        outputs=(wire.SCORES,),
        tolerance=tolerance,
    )
