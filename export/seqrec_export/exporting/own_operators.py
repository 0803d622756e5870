"""The operators of `nn.own_operators`, written with those of ONNX."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from seqrec_export.nn.own_operators import DOMAIN, EITHER, UNPACKED


def replace_own_operators(model: ir.Model) -> None:
    """Leave none in a model, in place."""
    for node in [node for node in model.graph if _is(node, UNPACKED)]:
        _reshape_when_run(model.graph, node)
    _make_branches(model.graph)
    model.opset_imports.pop(DOMAIN, None)


def _is(node: ir.Node, operator: str) -> bool:
    return node.domain == DOMAIN and node.op_type == operator


def _reshape_when_run(graph: ir.Graph, node: ir.Node) -> None:
    """Give the matrix the shape that it has, by a shape that is not known before: [-1, D + B - B].

    ONNX Runtime does not copy what it reshapes, and does not take it for a constant any more.
    """
    matrix, rows = node.inputs
    assert matrix is not None
    assert matrix.shape is not None
    dim = matrix.shape[1]
    assert isinstance(dim, int)
    made: list[ir.Node] = []

    def add(op: str, *operands: ir.Value | None, **attributes: int) -> ir.Value:
        made.append(ir.node(op, list(operands), attributes, name=f"{node.name}_{op.lower()}"))
        made[-1].outputs[0].name = made[-1].name
        return made[-1].outputs[0]

    def constant(name: str, number: int) -> ir.Value:
        tensor = ir.tensor(np.array([number], np.int64), name=f"{node.name}_{name}")
        value = ir.Value(name=tensor.name, const_value=tensor)
        graph.register_initializer(value)
        return value

    batch = add("Shape", rows, start=0, end=1)
    width = add("Add", add("Sub", batch, batch), constant("width", dim))
    shape = add("Concat", constant("rest", -1), width, axis=0)
    reshaped = add("Reshape", matrix, shape)
    reshaped.type, reshaped.shape = matrix.type, matrix.shape
    graph.insert_before(node, made)
    for user, place in tuple(node.outputs[0].uses()):
        user.replace_input_with(place, reshaped)
    graph.remove(node, safe=True)


def _make_branches(graph: ir.Graph) -> None:
    """Turn every choice into an If."""
    while choices := [node for node in graph if _is(node, EITHER)]:
        _make_branch(graph, choices[-1])  # no other choice needs the last one


def _make_branch(graph: ir.Graph, choice: ir.Node) -> None:
    """Move the nodes of either side into a branch; what both need stays before it."""
    condition, *ways = choice.inputs
    half = len(ways) // 2
    sides = ways[:half], ways[half:]
    only = [_needed_only_by(graph, choice, range(1, 1 + half))]
    only.append(_needed_only_by(graph, choice, range(1 + half, 1 + 2 * half)))
    made = ir.Node("", "If", [condition], [], num_outputs=half, name=choice.name)
    graph.insert_before(choice, made)
    for old, new in zip(choice.outputs, made.outputs, strict=True):
        new.name, new.type, new.shape = old.name, old.type, old.shape
        old.name = None
        for user, operand in tuple(old.uses()):
            user.replace_input_with(operand, new)
        for place, output in enumerate(graph.outputs):
            if output is old:
                graph.outputs[place] = new
    graph.remove(choice, safe=True)
    names = ("then_branch", "else_branch")
    for name, nodes, values in zip(names, only, sides, strict=True):
        branch = _branch(graph, nodes, values, f"{choice.name}_{name}")
        _make_branches(branch)
        made.attributes[name] = ir.AttrGraph(name, branch)


def _needed_only_by(graph: ir.Graph, choice: ir.Node, places: range) -> list[ir.Node]:
    """The nodes that nothing but these inputs of a choice needs, in order."""
    kept = {id(output) for output in graph.outputs}
    found: dict[int, ir.Node] = {}
    for node in reversed(graph):
        uses = [use for output in node.outputs for use in output.uses()]
        inside = all(
            place in places if user is choice else id(user) in found for user, place in uses
        )
        if uses and inside and not any(id(output) in kept for output in node.outputs):
            found[id(node)] = node
    return list(reversed(found.values()))


def _branch(
    graph: ir.Graph, nodes: Sequence[ir.Node], values: Sequence[ir.Value | None], name: str
) -> ir.Graph:
    """The nodes as a graph without inputs, which reads what it needs from the one around it."""
    inside = {id(output) for node in nodes for output in node.outputs}
    graph.remove(nodes)
    outputs: list[ir.Value] = []
    copies: list[ir.Node] = []
    for place, value in enumerate(values):
        assert value is not None
        if id(value) in inside and not any(value is other for other in outputs):
            outputs.append(value)
            continue
        copy = ir.node("Identity", [value], name=f"{name}_{place}")  # a branch has to make it
        copy.outputs[0].name, copy.outputs[0].type = copy.name, value.type
        copy.outputs[0].shape = value.shape
        copies.append(copy)
        outputs.append(copy.outputs[0])
    return ir.Graph([], outputs, nodes=[*nodes, *copies], name=name)
