"""Exported files broken on purpose: the ONNX file, config.pbtxt and contract.json."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf import text_format
from onnx import TensorProto, helper, numpy_helper

from seqrec_export.exporting.triton_config import parse_config
from seqrec_export.folders import read_json, write_json
from support.served import TOP_K


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


def linear_before_reset(model: onnx.ModelProto) -> None:
    attribute(node(model, "GRU"), "linear_before_reset").i = 0


def gru_reads_past_the_end(model: onnx.ModelProto) -> None:
    node(model, "GRU").input[4] = ""  # the lengths of the rows


def axis_frozen(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 7


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


def ragged_flag_dropped(path: Path) -> None:
    edit_config(path, lambda config: setattr(config.input[0], "allow_ragged_batch", False))


def row_shapes_of_another_list(path: Path) -> None:
    edit_config(
        path, lambda config: config.batch_input[2].source_input.__setitem__(0, "history_item_ids")
    )


def numbers_ragged(path: Path) -> None:
    edit_config(path, lambda config: setattr(config.input[2], "allow_ragged_batch", True))


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


def output_renamed(model: onnx.ModelProto) -> None:
    add_after(model, "scores", lambda x, y: [helper.make_node("Identity", [x], ["logits"])])
    model.graph.output[0].name = "logits"


def truncated(path: Path) -> None:
    content = (path / "model.onnx").read_bytes()
    (path / "model.onnx").write_bytes(content[: len(content) // 2])
