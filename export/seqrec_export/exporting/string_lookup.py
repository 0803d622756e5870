"""Strings at both ends of an exported graph, so that a caller needs no vocabulary file.

In: `LabelEncoder` of ai.onnx.ml, whose default is UNKNOWN. Out: Gather on a string initializer,
which takes a third of the memory of a second LabelEncoder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx_ir as ir

from seqrec_export.contract import Graph, Spec
from seqrec_export.data.vocabulary import NUM_RESERVED, PAD, UNKNOWN, Vocabulary

ML_DOMAIN = "ai.onnx.ml"
ML_OPSET = 3


def add_lookups(model: ir.Model, graph: Graph, vocabularies: Mapping[str, Vocabulary]) -> None:
    """Turn the int64 inputs and outputs that `graph` declares as strings into strings, in place."""
    for name, specs in _sharing(graph):
        _encode_inputs(model.graph, specs, vocabularies[name])
    tables: dict[str, ir.Value] = {}
    for i, spec in enumerate(graph.outputs):
        if spec.dtype == "string":
            name = _vocabulary(spec)
            if name not in tables:
                tables[name] = _string_table(model.graph, name, vocabularies[name])
            _decode_output(model.graph, i, spec, tables[name])
    model.opset_imports[ML_DOMAIN] = ML_OPSET


def _sharing(graph: Graph) -> Iterator[tuple[str, list[Spec]]]:
    """Each vocabulary with inputs of it. Lists share one lookup: it may hold a million ids."""
    texts = [spec for spec in graph.inputs if spec.dtype == "string"]
    for name in dict.fromkeys(_vocabulary(spec) for spec in texts):
        of_it = [spec for spec in texts if spec.vocabulary == name]
        yield from ((name, [spec]) for spec in of_it if not spec.ragged)
        if lists := [spec for spec in of_it if spec.ragged]:
            yield name, lists


def _vocabulary(spec: Spec) -> str:
    assert spec.vocabulary is not None, f"{spec.name} is a string without a vocabulary"
    return spec.vocabulary


def _encode_inputs(graph: ir.Graph, specs: Sequence[Spec], vocabulary: Vocabulary) -> None:
    """Look up one input, or several lists as one, which is split again."""
    given = {value.name: value for value in graph.inputs}
    indices = [given[spec.name] for spec in specs]
    strings = [
        ir.Value(name=spec.name, shape=old.shape, type=ir.TensorType(ir.DataType.STRING))
        for spec, old in zip(specs, indices, strict=True)
    ]
    nodes, together = [], strings[0]
    if len(specs) > 1:
        nodes.append(ir.node("Concat", strings, {"axis": 0}, name=f"join_{specs[0].name}"))
        together = nodes[-1].outputs[0]
    lookup = ir.Node(
        ML_DOMAIN,
        "LabelEncoder",
        [together],
        [
            ir.AttrStrings("keys_strings", ["", *vocabulary.ids]),
            ir.AttrInt64s("values_int64s", [PAD, *range(NUM_RESERVED, vocabulary.num_rows)]),
            ir.AttrInt64("default_int64", UNKNOWN),
        ],
        name=f"encode_{specs[0].name}",
    )
    nodes.append(lookup)
    outputs: Sequence[ir.Value] = lookup.outputs
    if len(specs) > 1:
        sizes = [ir.node("Shape", [value], name=f"size_of_{value.name}") for value in strings]
        all_sizes = [node.outputs[0] for node in sizes]
        joined = ir.node("Concat", all_sizes, {"axis": 0}, name=f"sizes_{specs[0].name}")
        split = ir.node(
            "Split",
            [lookup.outputs[0], joined.outputs[0]],
            {"axis": 0},
            num_outputs=len(specs),
            name=f"split_{specs[0].name}",
        )
        nodes += [*sizes, joined, split]
        outputs = split.outputs
    for spec, text, old, new in zip(specs, strings, indices, outputs, strict=True):
        new.name, new.shape = f"{spec.name}_indices", old.shape
        new.type = ir.TensorType(ir.DataType.INT64)
        for user, operand in tuple(old.uses()):
            user.replace_input_with(operand, new)
        graph.inputs[list(graph.inputs).index(old)] = text
    graph.insert_before(graph[0], nodes)


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
