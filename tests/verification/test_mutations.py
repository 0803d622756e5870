"""The gate is only as good as what it catches: exports broken on purpose, each of them refused.

Each mutation names the checks that have to catch it. Some break the ONNX file, some what is
exported (the reference stays as it was trained), some the files beside it.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from google.protobuf import text_format
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from seqrec_export.contract import Graph
from seqrec_export.errors import SeqrecError
from seqrec_export.export.exported import Exported
from seqrec_export.export.onnx_export import export_graph
from seqrec_export.export.triton_config import parse_config
from seqrec_export.folders import read_json, write_json
from seqrec_export.models import retrieval, sasrec
from seqrec_export.nn import item_search, layers
from seqrec_export.nn.ragged import Ragged
from seqrec_export.repository.publish import publish
from seqrec_export.verification.gate import refused, verify
from support.served import GRAPHS, TOP_K, WINDOW, copied

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


def initializers(model: onnx.ModelProto, dims: int = 1) -> list[TensorProto]:
    """The float tables of a graph, the largest first."""
    found = [t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT]
    return sorted(
        (t for t in found if len(t.dims) >= dims), key=lambda t: -int(np.prod(list(t.dims)))
    )


def change(tensor: TensorProto, function: Callable[[np.ndarray], np.ndarray]) -> None:
    changed = np.ascontiguousarray(function(numpy_helper.to_array(tensor).copy()))
    tensor.CopyFrom(numpy_helper.from_array(changed.astype(np.float32), tensor.name))


def node(model: onnx.ModelProto, op_type: str) -> onnx.NodeProto:
    return next(n for n in model.graph.node if n.op_type == op_type)


def attribute(of: onnx.NodeProto, name: str) -> onnx.AttributeProto:
    return next(a for a in of.attribute if a.name == name)


def tf32(values: np.ndarray) -> np.ndarray:
    """Round to 10 bits behind the point, as TF32 does with the factors of a product."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + np.uint32(1 << 12)) & np.uint32(0xFFFFE000)).view(np.float32)


def positions_shifted(net: Net) -> None:
    net.positions.copy_(net.positions.roll(1, dims=0))


def attention_unmasked(patch: Patch) -> None:
    patch.setattr(sasrec, "_HIDDEN", 0.0)


def pooling_unmasked(patch: Patch) -> None:
    patch.setattr(Tensor, "masked_fill", lambda self, mask, value: self)


def linear_before_reset(model: onnx.ModelProto) -> None:
    attribute(node(model, "GRU"), "linear_before_reset").i = 0


def gru_reads_past_the_end(model: onnx.ModelProto) -> None:
    node(model, "GRU").input[4] = ""  # the lengths of the rows


def axis_frozen(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 7


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


def config_dtype(path: Path) -> None:
    edit_config(path, lambda config: setattr(config.input[0], "data_type", 8))  # TYPE_INT32


def config_dims(path: Path) -> None:
    edit_config(path, lambda config: config.output[0].dims.__setitem__(0, TOP_K + 1))


def edit_config(path: Path, edit: Callable[[Any], None]) -> None:
    config = parse_config((path / "config.pbtxt").read_text())
    edit(config)
    (path / "config.pbtxt").write_text(text_format.MessageToString(config))


def contract_type(path: Path) -> None:
    contract = read_json(path / "contract.json")
    contract["outputs"][0]["datatype"] = "FP64"
    write_json(path / "contract.json", contract)


def padding_is_unknown(model: onnx.ModelProto) -> None:
    encoder = node(model, "LabelEncoder")
    attribute(encoder, "values_int64s").ints[0] = 1
    attribute(encoder, "default_int64").i = 0


def two_ids_swapped(model: onnx.ModelProto) -> None:
    values = attribute(node(model, "LabelEncoder"), "values_int64s").ints
    values[-1], values[-2] = values[-2], values[-1]


def ids_shifted(model: onnx.ModelProto) -> None:
    table = next(t for t in model.graph.initializer if t.data_type == TensorProto.STRING)
    strings = list(table.string_data)
    table.string_data[:] = [*strings[:2], *strings[3:], strings[2]]


def candidates_reversed(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda net, user, c: function(net, user, Ragged(c.values.flip(0), c.lengths, c.steps))


def one_item_weight(model: onnx.ModelProto) -> None:
    def nudge(table: np.ndarray) -> np.ndarray:
        table[-1, 0] += 1e-3  # of the least popular item
        return table

    change(initializers(model, dims=2)[0], nudge)


def one_dense_weight(model: onnx.ModelProto) -> None:
    def nudge(table: np.ndarray) -> np.ndarray:
        table[1, 2] += 1e-3
        return table

    square = [t for t in initializers(model, dims=2) if set(t.dims) == {16}]
    change(square[0], nudge)


def seen_items_kept(patch: Patch) -> None:
    patch.setattr(item_search, "_masked", lambda scores, user, seen, lowest: scores)


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


def tf32_noise(model: onnx.ModelProto) -> None:
    for tensor in initializers(model):
        change(tensor, tf32)


def half_precision(model: onnx.ModelProto) -> None:
    for tensor in initializers(model, dims=2):
        change(tensor, halved)


def halved(values: np.ndarray) -> np.ndarray:
    largest = np.finfo(np.float16).max
    return values.clip(-largest, largest).astype(np.float16).astype(np.float32)


def table_without_use(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(3, np.float32), "nobody's"))


def newer_opset(model: onnx.ModelProto) -> None:
    model.ir_version = 13
    model.opset_import[0].version = 26


def operator_without_kernel(model: onnx.ModelProto) -> None:
    add_after(model, "scores", lambda x, y: [helper.make_node("Atan", [x], [y])])


def add_after(
    model: onnx.ModelProto, output: str, nodes: Callable[[str, str], list[onnx.NodeProto]]
) -> None:
    for found in model.graph.node:
        for i, name in enumerate(found.output):
            if name == output:
                found.output[i] = f"{output}_before"
    model.graph.node.extend(nodes(f"{output}_before", output))


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


def ragged_flag_dropped(path: Path) -> None:
    edit_config(path, lambda config: setattr(config.input[0], "allow_ragged_batch", False))


def row_shapes_of_another_list(path: Path) -> None:
    edit_config(
        path, lambda config: config.batch_input[2].source_input.__setitem__(0, "history_item_ids")
    )


def numbers_ragged(path: Path) -> None:
    edit_config(path, lambda config: setattr(config.input[2], "allow_ragged_batch", True))


def numbers_one_event_late(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda net, history, ratings: function(net, history, ratings.roll(1, 1))


def numbers_newest_first(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda net, history, ratings: function(net, history, ratings.flip(1))


def numbers_aligned_with_another_list(path: Path) -> None:
    def aligned(config: Any) -> None:
        parameter = config.parameters["aligned_with.history_gap_days"]
        parameter.string_value = "history_event_types"

    edit_config(path, aligned)


def numbers_of_another_list_in_the_contract(path: Path) -> None:
    contract = read_json(path / "contract.json")
    contract["inputs"][1]["aligned_with"] = "candidate_ids"
    write_json(path / "contract.json", contract)


def scores_not_scattered(path: Path) -> None:
    edit_config(path, lambda config: config.ClearField("batch_output"))


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


def output_renamed(model: onnx.ModelProto) -> None:
    add_after(model, "scores", lambda x, y: [helper.make_node("Identity", [x], ["logits"])])
    model.graph.output[0].name = "logits"


def truncated(path: Path) -> None:
    content = (path / "model.onnx").read_bytes()
    (path / "model.onnx").write_bytes(content[: len(content) // 2])


MUTATIONS = {
    "positions shifted by one": Mutation("sasrec_encoder", {"values"}, net=positions_shifted),
    "attention mask dropped": Mutation("sasrec_encoder", {"values"}, patch=attention_unmasked),
    "pooling mask dropped": Mutation("gru4att_encoder", {"values"}, patch=pooling_unmasked),
    "linear_before_reset flipped": Mutation("mlink_encoder", {"values"}, model=linear_before_reset),
    "GRU runs over the padding": Mutation(
        "mlink_encoder", {"values"}, model=gru_reads_past_the_end
    ),
    "axis frozen": Mutation("sasrec_encoder", {"axes", "answers"}, model=axis_frozen),
    "length frozen inside": Mutation("sasrec_encoder", {"values"}, function=length_frozen),
    "top-k unsorted": Mutation("sasrec", {"order", "values"}, function=top_k_unsorted),
    "ids out of step with scores": Mutation("sasrec", {"ranking"}, function=ids_out_of_step),
    "type changed in config.pbtxt": Mutation("caser", {"config"}, file=config_dtype),
    "dims changed in config.pbtxt": Mutation("caser", {"config"}, file=config_dims),
    "ragged flag dropped in config.pbtxt": Mutation("caser", {"config"}, file=ragged_flag_dropped),
    "row shapes of another list in config.pbtxt": Mutation(
        "gru4att_encoder", {"config"}, file=row_shapes_of_another_list
    ),
    "ragged list of numbers in config.pbtxt": Mutation(
        "gru4att_encoder", {"lists", "config"}, file=numbers_ragged
    ),
    "numbers of another list in config.pbtxt": Mutation(
        "gru4att_encoder", {"config"}, file=numbers_aligned_with_another_list
    ),
    "numbers of another list in contract.json": Mutation(
        "mlink_encoder", {"contract"}, file=numbers_of_another_list_in_the_contract
    ),
    "numbers one event late": Mutation(
        "mlink_encoder", {"values"}, function=numbers_one_event_late
    ),
    "numbers newest first": Mutation("mlink_encoder", {"values"}, function=numbers_newest_first),
    "scores not scattered in config.pbtxt": Mutation(
        "caser_scorer", {"config"}, file=scores_not_scattered
    ),
    "rows begin one late": Mutation("sasrec_encoder", {"values"}, patch=rows_begin_one_late),
    "parallel lists share their lengths": Mutation(
        "gru4att_encoder", {"values"}, function=lists_share_their_lengths
    ),
    "type changed in contract.json": Mutation("caser", {"contract"}, file=contract_type),
    "padding swapped with unknown": Mutation(
        "sasrec_encoder", {"vocabulary", "values"}, model=padding_is_unknown
    ),
    "two ids swapped": Mutation("caser_scorer", {"vocabulary", "values"}, model=two_ids_swapped),
    "returned ids shifted": Mutation("sasrec", {"vocabulary", "ranking"}, model=ids_shifted),
    "candidates reversed": Mutation("caser_scorer", {"values"}, function=candidates_reversed),
    "an item's weight off by 1e-3": Mutation(
        "sasrec_scorer", {"weights", "values"}, model=one_item_weight
    ),
    "a dense weight off by 1e-3": Mutation("sasrec_encoder", {"values"}, model=one_dense_weight),
    "seen items kept": Mutation("caser", {"excluded"}, patch=seen_items_kept),
    "unknown candidates scored": Mutation(
        "mlink_scorer", {"excluded"}, patch=unknown_candidates_scored
    ),
    "no cold start": Mutation("caser", {"ranking", "values"}, patch=no_cold_start),
    "unknown ids counted as known": Mutation(
        "sasrec_encoder", {"exact"}, patch=unknown_counted_as_known
    ),
    "batch norm in training mode": Mutation(
        "mlink_scorer", {"values", "neighbours"}, net=batch_norm_in_training
    ),
    "noise of TF32's size": Mutation("sasrec_encoder", {"values"}, model=tf32_noise),
    "weights in half precision": Mutation("two_tower", {"values"}, model=half_precision),
    "a table that no node reads": Mutation("caser_scorer", {"format"}, model=table_without_use),
    "newer opset and IR": Mutation("caser_scorer", {"format"}, model=newer_opset),
    "an operator without CUDA kernel": Mutation(
        "mlink_scorer", {"cuda"}, model=operator_without_kernel
    ),
    "NaN for an empty history": Mutation("caser_encoder", {"finite"}, function=nan_on_empty_rows),
    "oldest events kept": Mutation("sasrec_encoder", {"values"}, function=oldest_events_kept),
    "window one short": Mutation("mlink_encoder", {"values"}, net=window_one_short),
    "neighbours looked at": Mutation(
        "sasrec_encoder", {"neighbours"}, function=looks_at_its_neighbours
    ),
    "missing gap is zero": Mutation("gru4att_encoder", {"values"}, function=missing_gap_is_zero),
    "edge of a bucket on the other side": Mutation(
        "gru4att_encoder", {"values"}, net=gap_edge_on_the_other_side
    ),
    "output renamed": Mutation("caser_scorer", {"axes", "answers"}, model=output_renamed),
    "file cut off": Mutation("caser_scorer", {"format", "answers"}, file=truncated),
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
