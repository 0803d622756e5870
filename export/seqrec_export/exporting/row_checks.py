"""Nodes that fail the run of a batch if a request in it does not hold the rows that Triton counts.

Triton lets in requests that are not what they say. Its native backend then silently gives rows the
values and lengths of others. The embedded backend refuses such a request before the run; these
nodes make the answer of any other server right, or an error.

- `[0, k]` with k values: Triton drops the first size. The native backend counts k rows for it, in
  `row_shape` too, but puts no lengths there: those of the rows after it move up, and the last ones
  are what memory held. `row_lengths` has no place for such rows, so the two differ. Numbers of
  fixed width are copied, however many rows are counted; `row_shape` tells how they came.
- Sizes whose product overflows to the number of strings that came: the lengths, cut to 32 bits, do
  not add up to them.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from seqrec_export.contract import Graph, row_lengths, row_shape


def add_row_checks(onnx_graph: ir.Graph, graph: Graph) -> None:
    """Take every input through a Reshape that fails if the rows are not as many, in place.

    Also adds the inputs that `row_lengths` and `row_shape` declare, if they are missing.
    """
    if not graph.lists:
        return
    _add_inputs(onnx_graph, graph)
    inputs = {value.name: value for value in onnx_graph.inputs}
    checks = _Checks(onnx_graph)
    first = graph.lists[0]
    count = checks.node("Shape", inputs[row_lengths(first).name])
    for spec in graph.inputs:
        values, shape = inputs[spec.name], inputs[row_shape(spec).name]
        rows = checks.reshaped(shape, checks.joined(count, 1))
        if spec.ragged:
            lengths = checks.node("Cast", rows, to=ir.DataType.INT64.value)
            # Lengths were cut to 32 bits: a negative one must not make up for another.
            positive = checks.node("Abs", lengths)
            total = checks.node("ReduceSum", positive, checks.constant(0), keepdims=0)
            checks.reshaped(values, total)
        else:
            assert isinstance(spec.shape[1], int)
            kept = checks.node("Shape", rows, start=0, end=1)
            checks.reshaped(values, checks.joined(kept, spec.shape[1]))


def _add_inputs(onnx_graph: ir.Graph, graph: Graph) -> None:
    """Add the inputs that were not traced, in the order of `graph.onnx_inputs`."""
    for place, spec in enumerate(graph.onnx_inputs):
        if place == len(onnx_graph.inputs) or onnx_graph.inputs[place].name != spec.name:
            value = ir.Value(
                name=spec.name,
                type=ir.TensorType(ir.DataType.INT32),
                shape=ir.Shape(list(spec.shape)),
            )
            onnx_graph.inputs.insert(place, value)


class _Checks:
    """Puts nodes before all others of a graph, in order."""

    def __init__(self, onnx_graph: ir.Graph) -> None:
        self._graph, self._before, self._made = onnx_graph, onnx_graph[0], 0

    def node(self, op: str, *operands: ir.Value, **attributes: int) -> ir.Value:
        self._made += 1
        made = ir.node(op, list(operands), attributes, name=f"rows_{self._made}_{op.lower()}")
        made.outputs[0].name = made.name
        self._graph.insert_before(self._before, made)
        return made.outputs[0]

    def constant(self, number: int) -> ir.Value:
        name = f"rows_is_{number}"
        if name not in self._graph.initializers:
            tensor = ir.tensor(np.array([number], np.int64), name=name)
            self._graph.register_initializer(ir.Value(name=name, const_value=tensor))
        return self._graph.initializers[name]

    def joined(self, count: ir.Value, width: int) -> ir.Value:
        return self.node("Concat", count, self.constant(width), axis=0)

    def reshaped(self, value: ir.Value, shape: ir.Value) -> ir.Value:
        """Replaces `value` in all its uses so far."""
        uses = tuple(value.uses())
        # 0 rows are 0; without `allowzero`, 0 would mean the size that `value` has.
        made = self.node("Reshape", value, shape, allowzero=1)
        made.type, made.shape = value.type, value.shape
        for user, operand in uses:
            user.replace_input_with(operand, made)
        return made
