"""Strings at both ends of an exported graph, so that a caller needs no vocabulary file.

In: `LabelEncoder` of ai.onnx.ml, whose default is UNKNOWN. Out: Gather on a string initializer,
which takes a third of the memory of a second LabelEncoder.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from seqrec_export.contract import Graph, Spec
from seqrec_export.data.vocabulary import NUM_RESERVED, PAD, UNKNOWN, Vocabulary

ML_DOMAIN = "ai.onnx.ml"
ML_OPSET = 3


def add_lookups(model: ir.Model, graph: Graph, vocabularies: Mapping[str, Vocabulary]) -> None:
    """Turn the int64 inputs and outputs that `graph` declares as strings into strings, in place."""
    for spec in graph.inputs:
        if spec.dtype == "string":
            _encode_input(model.graph, spec, vocabularies[_vocabulary(spec)])
    tables: dict[str, ir.Value] = {}
    for i, spec in enumerate(graph.outputs):
        if spec.dtype == "string":
            name = _vocabulary(spec)
            if name not in tables:
                tables[name] = _string_table(model.graph, name, vocabularies[name])
            _decode_output(model.graph, i, spec, tables[name])
    model.opset_imports[ML_DOMAIN] = ML_OPSET


def _vocabulary(spec: Spec) -> str:
    assert spec.vocabulary is not None, f"{spec.name} is a string without a vocabulary"
    return spec.vocabulary


def _encode_input(graph: ir.Graph, spec: Spec, vocabulary: Vocabulary) -> None:
    position = next(i for i, value in enumerate(graph.inputs) if value.name == spec.name)
    indices = graph.inputs[position]
    strings = ir.Value(name=spec.name, shape=indices.shape, type=ir.TensorType(ir.DataType.STRING))
    node = ir.Node(
        ML_DOMAIN,
        "LabelEncoder",
        [strings],
        [
            ir.AttrStrings("keys_strings", ["", *vocabulary.ids]),
            ir.AttrInt64s("values_int64s", [PAD, *range(NUM_RESERVED, vocabulary.num_rows)]),
            ir.AttrInt64("default_int64", UNKNOWN),
        ],
        name=f"encode_{spec.name}",
    )
    node.outputs[0].name = f"{spec.name}_indices"
    node.outputs[0].shape = indices.shape
    node.outputs[0].type = ir.TensorType(ir.DataType.INT64)
    for user, operand in tuple(indices.uses()):
        user.replace_input_with(operand, node.outputs[0])
    graph.inputs[position] = strings
    graph.insert_before(graph[0], node)


def _string_table(graph: ir.Graph, name: str, vocabulary: Vocabulary) -> ir.Value:
    strings = [identifier.encode() for identifier in vocabulary.strings]
    tensor = ir.StringTensor(strings, shape=ir.Shape([len(strings)]), name=f"{name}_strings")
    table = ir.Value(
        name=tensor.name,
        shape=tensor.shape,
        type=ir.TensorType(ir.DataType.STRING),
        const_value=tensor,
    )
    graph.register_initializer(table)
    return table


def _decode_output(graph: ir.Graph, position: int, spec: Spec, table: ir.Value) -> None:
    indices = graph.outputs[position]
    indices.name = f"{spec.name}_indices"
    node = ir.Node(
        "", "Gather", [table, indices], [ir.AttrInt64("axis", 0)], name=f"decode_{spec.name}"
    )
    node.outputs[0].name = spec.name
    node.outputs[0].shape = indices.shape
    node.outputs[0].type = ir.TensorType(ir.DataType.STRING)
    graph.append(node)
    graph.outputs[position] = node.outputs[0]
