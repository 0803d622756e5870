"""The gate is only as good as what it catches: exports broken on purpose, each of them refused.

Each mutation names the checks that have to catch it. Some break the ONNX file, some what is
exported (the reference stays as it was trained), some the files next to it; how they do it stands
in support/broken_files.py and support/broken_nets.py.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from seqrec_export.contract import Graph
from seqrec_export.errors import SeqrecError
from seqrec_export.exporting.exported import Exported
from seqrec_export.exporting.onnx_export import export_graph
from seqrec_export.repository.publish import publish
from seqrec_export.verification.gate import refused, verify
from support import broken_files as files
from support import broken_filters as filters
from support import broken_nets as nets
from support.served import GRAPHS, copied

Patch = pytest.MonkeyPatch
Net = Any  # the networks' own methods are called


@dataclass(frozen=True)
class Mutation:
    """How to break one graph, and the checks that notice."""

    graph: str
    caught_by: set[str]
    file: Callable[[Path], None] | None = None
    model: Callable[[onnx.ModelProto], None] | None = None
    net: Callable[[Net], None] | None = None  # of a copy, which is exported
    function: Callable[[Callable[..., tuple[Tensor, ...]]], Callable[..., Any]] | None = None
    patch: Callable[[Patch], None] | None = None  # of our code, while it is exported


MUTATIONS = {
    "positions shifted by one": Mutation("sasrec_encoder", {"values"}, net=nets.positions_shifted),
    "attention mask dropped": Mutation("sasrec_encoder", {"values"}, patch=nets.attention_unmasked),
    "pooling mask dropped": Mutation("gru4att_encoder", {"values"}, patch=nets.pooling_unmasked),
    "linear_before_reset flipped": Mutation(
        "mlink_encoder", {"values"}, model=files.linear_before_reset
    ),
    "GRU runs over the padding": Mutation(
        "mlink_encoder", {"values"}, model=files.gru_reads_past_the_end
    ),
    "axis frozen": Mutation("sasrec_encoder", {"axes", "answers"}, model=files.axis_frozen),
    "length frozen inside": Mutation("sasrec_encoder", {"values"}, function=nets.length_frozen),
    "top-k unsorted": Mutation("sasrec", {"order", "values"}, function=nets.top_k_unsorted),
    "ids out of step with scores": Mutation("sasrec", {"ranking"}, function=nets.ids_out_of_step),
    "type changed in config.pbtxt": Mutation("caser", {"config"}, file=files.config_dtype),
    "dims changed in config.pbtxt": Mutation("caser", {"config"}, file=files.config_dims),
    "ragged flag dropped in config.pbtxt": Mutation(
        "caser", {"config"}, file=files.ragged_flag_dropped
    ),
    "row shapes of another list in config.pbtxt": Mutation(
        "gru4att_encoder", {"config"}, file=files.row_shapes_of_another_list
    ),
    "ragged list of numbers in config.pbtxt": Mutation(
        "gru4att_encoder", {"lists", "config"}, file=files.numbers_ragged
    ),
    "numbers of another list in config.pbtxt": Mutation(
        "gru4att_encoder", {"config"}, file=files.numbers_aligned_with_another_list
    ),
    "numbers of another list in contract.json": Mutation(
        "mlink_encoder", {"contract"}, file=files.numbers_of_another_list_in_the_contract
    ),
    "numbers one event late": Mutation(
        "mlink_encoder", {"values"}, function=nets.numbers_one_event_late
    ),
    "numbers newest first": Mutation(
        "mlink_encoder", {"values"}, function=nets.numbers_newest_first
    ),
    "scores not scattered in config.pbtxt": Mutation(
        "caser_scorer", {"config"}, file=files.scores_not_scattered
    ),
    "rows begin one late": Mutation("sasrec_encoder", {"values"}, patch=nets.rows_begin_one_late),
    "parallel lists share their lengths": Mutation(
        "gru4att_encoder", {"values"}, function=nets.lists_share_their_lengths
    ),
    "type changed in contract.json": Mutation("caser", {"contract"}, file=files.contract_type),
    "padding swapped with unknown": Mutation(
        "sasrec_encoder", {"vocabulary", "values"}, model=files.padding_is_unknown
    ),
    "two ids swapped": Mutation(
        "caser_scorer", {"vocabulary", "values"}, model=files.two_ids_swapped
    ),
    "returned ids shifted": Mutation("sasrec", {"vocabulary", "ranking"}, model=files.ids_shifted),
    "candidates reversed": Mutation("caser_scorer", {"values"}, function=nets.candidates_reversed),
    "an item's weight off by 1e-3": Mutation(
        "sasrec_scorer", {"weights", "values"}, model=files.one_item_weight
    ),
    "a dense weight off by 1e-3": Mutation(
        "sasrec_encoder", {"values"}, model=files.one_dense_weight
    ),
    "seen items kept": Mutation("caser", {"excluded"}, patch=nets.seen_items_kept),
    "unknown candidates scored": Mutation(
        "mlink_scorer", {"excluded"}, patch=nets.unknown_candidates_scored
    ),
    "no cold start": Mutation("caser", {"ranking", "values"}, patch=nets.no_cold_start),
    "unknown ids counted as known": Mutation(
        "sasrec_encoder", {"exact"}, patch=nets.unknown_counted_as_known
    ),
    "batch norm in training mode": Mutation(
        "mlink_scorer", {"values", "neighbours"}, net=nets.batch_norm_in_training
    ),
    "noise of TF32's size": Mutation("sasrec_encoder", {"values"}, model=files.tf32_noise),
    "weights in half precision": Mutation("two_tower", {"values"}, model=files.half_precision),
    "a table that no node reads": Mutation(
        "caser_scorer", {"format"}, model=files.table_without_use
    ),
    "newer opset and IR": Mutation("caser_scorer", {"format"}, model=files.newer_opset),
    "an operator without CUDA kernel": Mutation(
        "mlink_scorer", {"cuda"}, model=files.operator_without_kernel
    ),
    "NaN for an empty history": Mutation(
        "caser_encoder", {"finite"}, function=nets.nan_on_empty_rows
    ),
    "oldest events kept": Mutation("sasrec_encoder", {"values"}, function=nets.oldest_events_kept),
    "window one short": Mutation("mlink_encoder", {"values"}, net=nets.window_one_short),
    "neighbours looked at": Mutation(
        "sasrec_encoder", {"neighbours"}, function=nets.looks_at_its_neighbours
    ),
    "missing gap is zero": Mutation(
        "gru4att_encoder", {"values"}, function=nets.missing_gap_is_zero
    ),
    "edge of a bucket on the other side": Mutation(
        "gru4att_encoder", {"values"}, net=nets.gap_edge_on_the_other_side
    ),
    "output renamed": Mutation("caser_scorer", {"axes", "answers"}, model=files.output_renamed),
    "exclusion ignored": Mutation(
        "caser_filtered", {"excluded"}, function=filters.given(2, filters.emptied)
    ),
    "allow-list inverted": Mutation(
        "caser_filtered", {"excluded"}, patch=filters.allow_list_inverted
    ),
    "only unknown ones allowed, so anything": Mutation(
        "caser_filtered", {"excluded"}, patch=filters.unknown_only_is_no_filter
    ),
    "attributes shifted by one item": Mutation(
        "caser_filtered", {"weights", "excluded"}, model=filters.attributes_shifted
    ),
    "one item's attribute wrong": Mutation(
        "caser_similar_items", {"weights"}, model=filters.one_items_attribute
    ),
    "first of several values only": Mutation(
        "caser_filtered", {"weights", "values"}, patch=filters.first_value_only
    ),
    "what was seen never kept": Mutation(
        "caser_filtered", {"values"}, function=filters.given(-1, torch.zeros_like)
    ),
    "what was seen always kept": Mutation(
        "caser_filtered", {"excluded"}, function=filters.given(-1, torch.ones_like)
    ),
    "filters ignored in cold start": Mutation(
        "caser_filtered",
        {"excluded"},
        patch=filters.searching(filters.filters_ignored_in_cold_start),
    ),
    "filter after the top-k": Mutation(
        "caser_similar_items",
        {"excluded"},
        patch=filters.searching(filters.filtered_after_the_top_k),
    ),
    "one row's list for all rows": Mutation(
        "caser_filtered", {"excluded", "neighbours"}, patch=filters.one_list_is_taken_for_all_rows
    ),
    "excluded, but allowed": Mutation(
        "caser_filtered", {"excluded"}, patch=filters.excluded_among_the_listed
    ),
    "allowed twice, back twice": Mutation(
        "caser_similar_items", {"ids"}, patch=filters.listed_twice_comes_back_twice
    ),
    "similar to itself": Mutation(
        "caser_similar_items",
        {"excluded"},
        patch=filters.searching(filters.query_comes_back),
    ),
    "dot product for the cosine": Mutation(
        "caser_similar_items", {"values", "ranking"}, patch=filters.dot_product_for_cosine
    ),
    "file cut off": Mutation("caser_scorer", {"format", "answers"}, file=files.truncated),
}


def copy_for(name: str, exports: Callable[[str], Exported], folder: Path) -> Exported:
    """A copy of a graph's run, of whose graphs only this one is looked at."""
    model, _ = GRAPHS[name]
    again = copied(exports(model), folder)
    return replace(again, graphs={name: again.graphs[name]})


def mutate(mutation: Mutation, exported: Exported, graph: Graph, patch: Patch) -> None:
    folder, run = exported.folder / graph.name, exported.run
    if mutation.file is not None:
        mutation.file(folder)
    elif mutation.model is not None:
        model = onnx.load(folder / "model.onnx")
        mutation.model(model)
        onnx.save(model, folder / "model.onnx")
    else:
        net: nn.Module = copy.deepcopy(run.net)
        with torch.no_grad(), patch.context() as patched:
            if mutation.net is not None:
                mutation.net(net)
            if mutation.function is not None:
                assert mutation.net is None
                graph = replace(graph, function=mutation.function(graph.function))
            if mutation.patch is not None:
                mutation.patch(patched)
            export_graph(graph, net, run.vocabularies, folder)


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_broken_export_is_refused_and_the_check_says_why(
    name: str,
    exports: Callable[[str], Exported],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mutation = MUTATIONS[name]
    exported = copy_for(mutation.graph, exports, tmp_path / "run")
    mutate(mutation, exported, exported.graphs[mutation.graph], monkeypatch)
    verdicts = verify(exported)
    (verdict,) = verdicts.values()
    caught_by = {failure.check for failure in verdict.failures}
    assert caught_by >= mutation.caught_by, caught_by
    assert mutation.graph in refused(exported, verdicts)
    with pytest.raises(SeqrecError, match="not published"):
        publish(exported, tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_the_docs_say_how_many_there_are() -> None:
    page = Path(__file__).parents[2] / "docs" / "parity.md"
    assert f"in {len(MUTATIONS)} ways" in " ".join(page.read_text(encoding="utf-8").split())


@pytest.mark.parametrize("name", sorted({m.graph for m in MUTATIONS.values()}))
def test_what_was_not_broken_is_not_refused(
    name: str, exports: Callable[[str], Exported], tmp_path: Path
) -> None:
    """Or the tests above would prove nothing."""
    exported = copy_for(name, exports, tmp_path / "run")
    export_graph(
        exported.graphs[name], exported.run.net, exported.run.vocabularies, exported.folder / name
    )
    assert refused(exported, verify(exported)) == ""
