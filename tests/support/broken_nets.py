"""What is exported, broken on purpose: a network's weights, a graph's function, or our own code."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from seqrec_export.models import retrieval, sasrec
from seqrec_export.nn import item_search, layers
from seqrec_export.nn.ragged import Ragged
from support.served import WINDOW

Patch = pytest.MonkeyPatch
Net = Any  # the networks' own methods are called


def positions_shifted(net: Net) -> None:
    net.positions.copy_(net.positions.roll(1, dims=0))


def attention_unmasked(patch: Patch) -> None:
    patch.setattr(sasrec, "_HIDDEN", 0.0)


def pooling_unmasked(patch: Patch) -> None:
    patch.setattr(Tensor, "masked_fill", lambda self, mask, value: self)


def length_frozen(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda net, h: function(net, Ragged(h.values, h.lengths, torch.arange(7)))


def top_k_unsorted(function: Callable[..., Any]) -> Callable[..., Any]:
    def ascending(*inputs: Any) -> Any:
        items, scores, known = function(*inputs)
        return items.flip(1), scores.flip(1), known

    return ascending


def ids_out_of_step(function: Callable[..., Any]) -> Callable[..., Any]:
    def rolled(*inputs: Any) -> Any:
        items, scores, known = function(*inputs)
        return items.roll(1, 1), scores, known

    return rolled


def candidates_reversed(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda net, user, c: function(net, user, Ragged(c.values.flip(0), c.lengths, c.steps))


def seen_items_kept(patch: Patch) -> None:
    patch.setattr(item_search, "masked", lambda scores, rows, items, lowest: scores)


def unknown_candidates_scored(patch: Patch) -> None:
    patch.setattr(layers, "mask_unknown", lambda scores, candidates: scores)


def no_cold_start(patch: Patch) -> None:
    def as_if_known(*arguments: Any) -> tuple[Tensor, Tensor]:
        return item_search.best_items(*arguments[:-1])

    patch.setattr(retrieval, "best_items", as_if_known)


def unknown_counted_as_known(patch: Patch) -> None:
    def count(history: Ragged) -> Tensor:
        return history.counts[0][:, None].to(torch.int32)

    patch.setattr(layers, "known_items", count)


def batch_norm_in_training(net: Net) -> None:
    def normalise(hidden: Tensor) -> Tensor:
        mean = hidden.mean(dim=0)
        variance = ((hidden - mean) ** 2).mean(dim=0)
        return (hidden - mean) / torch.sqrt(variance + net.norm.eps) * net.norm.weight

    net._normalise = normalise


def nan_on_empty_rows(function: Callable[..., Any]) -> Callable[..., Any]:
    def divided(*inputs: Any) -> Any:
        vector, known = function(*inputs)
        return vector * (known / known), known

    return divided


def oldest_events_kept(function: Callable[..., Any]) -> Callable[..., Any]:
    def backwards(net: Net, history: Ragged) -> Any:
        turned = Ragged(history.values.flip(0), history.lengths.flip(0), history.steps)
        return tuple(output.flip(0) for output in function(net, turned))

    return backwards


def rows_begin_one_late(patch: Patch) -> None:
    patch.setattr(Ragged, "starts", property(lambda self: self.ends - self.lengths + 1))


def lists_share_their_lengths(function: Callable[..., Any]) -> Callable[..., Any]:
    """The second list is read as if its rows were as long as those of the first."""
    return lambda net, history, types, gaps: function(
        net, history, Ragged(types.values, history.lengths, types.steps), gaps
    )


def numbers_one_event_late(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda net, history, ratings: function(net, history, ratings.roll(1, 1))


def numbers_newest_first(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda net, history, ratings: function(net, history, ratings.flip(1))


def window_one_short(net: Net) -> None:
    net.config = replace(net.config, max_length=WINDOW - 1)


def looks_at_its_neighbours(function: Callable[..., Any]) -> Callable[..., Any]:
    def centred(*inputs: Any) -> Any:
        vector, known = function(*inputs)
        return vector - 1e-3 * vector.mean(dim=0), known

    return centred


def missing_gap_is_zero(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda net, items, types, gaps: function(net, items, types, torch.nan_to_num(gaps))


def gap_edge_on_the_other_side(net: Net) -> None:
    net.gap_edges.copy_(torch.nextafter(net.gap_edges, torch.tensor(torch.inf)))
