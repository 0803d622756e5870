"""Graph -> model.onnx: dynamic batch and sequence axes, strings in and out.

Opset 18 and IR 10, which ONNX Runtime 1.19 (Triton 24.10) reads; newer operator versions lack CUDA
kernels there.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch._dynamo.exc import UserError

from seqrec_export.contract import Axis, Graph, Spec, flat, row_shape
from seqrec_export.data.vocabulary import Vocabulary
from seqrec_export.errors import SeqrecError
from seqrec_export.exporting.own_operators import replace_own_operators
from seqrec_export.exporting.row_checks import add_row_checks
from seqrec_export.exporting.string_lookup import add_lookups
from seqrec_export.nn.ragged import Ragged

OPSET = 18
IR_VERSION = 10
MODEL_FILE = "model.onnx"
DATA_FILE = f"{MODEL_FILE}.data"
_SIZE_IN_EXAMPLE = 3  # of the first axis: torch.export would bake in a size of 1
_TORCH_DTYPES = {"string": torch.int64, "float32": torch.float32, "int32": torch.int32}
_IR_DTYPES = {
    "string": ir.DataType.STRING,
    "float32": ir.DataType.FLOAT,
    "int32": ir.DataType.INT32,
}
# Bytes of weights. Within model.onnx a matrix may be at any address, and the scores of one user
# then take up to 1.5 times as long. A protobuf message ends at 2 GB anyway.
DATA_FILE_FROM = 1_000_000
# Such a weight has a file of its own, called as it is: graphs that have it in common share the
# file, and its pages in memory.
OWN_FILE_FROM = 1_000_000
DATA_SUFFIX = ".data"
_PAGE = 4096


class _Exported(nn.Module):
    """torch.export takes a module: this one is `graph.function` bound to its network."""

    def __init__(self, net: nn.Module, graph: Graph) -> None:
        super().__init__()
        self.net, self.graph = net, graph
        self.search = graph.search(net)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        remaining = iter(tensors)
        inputs: list[Tensor | Ragged] = []
        for spec in self.graph.inputs:
            values = next(remaining)
            if spec.ragged:
                lengths = next(remaining)[:, 0].to(torch.int64)
                steps = next(remaining)
                inputs.append(Ragged(values, lengths, steps, short=spec.narrows))
            else:
                inputs.append(values)
        search = {"search": self.search} if self.search else {}
        return self.graph.function(self.net, *inputs, **search)


@dataclass(frozen=True)
class Traced:
    """An input of a module that is exported; axes with a name may have any size."""

    name: str
    dtype: torch.dtype
    shape: tuple[Axis, ...]


def _traced(graph: Graph) -> Iterator[Traced]:
    """The inputs of the ONNX file, and after each list its `Ragged.steps`.

    How wide the padded form of a batch is depends on the lengths in it. torch.export takes no sizes
    from data: it sees them as the axis of one more input, which `_make_steps` replaces.
    """
    for spec in graph.inputs:
        for tensor in (flat(spec), row_shape(spec)) if spec.ragged else (spec,):
            yield Traced(tensor.name, _TORCH_DTYPES[tensor.dtype], tensor.shape)
        if spec.ragged:
            yield Traced(_steps(spec), torch.int64, (f"longest_{spec.shape[1]}",))


def _axes(inputs: Iterable[Traced]) -> list[str]:
    return list(dict.fromkeys(a for tensor in inputs for a in tensor.shape if isinstance(a, str)))


def _steps(spec: Spec) -> str:
    return f"{spec.name}_steps"


def export_graph(
    graph: Graph,
    net: nn.Module,
    vocabularies: Mapping[str, Vocabulary],
    folder: Path,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write `model.onnx` into `folder`, and large weights next to it; returns its path.

    Raises SeqrecError if an axis that the graph declares as dynamic was frozen.
    """
    inputs = list(_traced(graph))
    try:
        model = to_onnx(_Exported(net, graph), inputs, [spec.name for spec in graph.outputs])
    except UserError as error:
        axes, reason = ", ".join(_axes(inputs)), " ".join(str(error).split())
        raise SeqrecError(f"{graph.name} holds for some sizes of {axes} only: {reason}") from error
    for spec in graph.inputs:
        if spec.ragged:
            _make_steps(model.graph, spec)
    add_row_checks(model.graph, graph)
    add_lookups(model, graph, vocabularies)
    _remove_unused(model.graph)
    _declare_axes(model.graph, graph)
    model.producer_name = "seqrec-export"
    model.graph.name = graph.name
    model.doc_string = graph.meaning
    model.metadata_props.update(metadata or {})
    return save(model, folder)


def _remove_unused(onnx_graph: ir.Graph) -> None:
    """Drop the tables that no node reads; ONNX Runtime warns of each at every load."""
    for name, value in list(onnx_graph.initializers.items()):
        if not value.uses():
            del onnx_graph.initializers[name]


def weight_files(folder: Path) -> list[Path]:
    """The files of large weights next to a model.onnx."""
    return sorted(folder.glob(f"*{DATA_SUFFIX}"))


def save(model: ir.Model, folder: Path) -> Path:
    """Write `model.onnx`, and large weights next to it, each of them at the start of a page."""
    model.ir_version = IR_VERSION
    folder.mkdir(parents=True, exist_ok=True)
    weights = [v for v in model.graph.initializers.values() if v.dtype != ir.DataType.STRING]
    if sum(_tensor(value).nbytes for value in weights) >= DATA_FILE_FROM:
        _move_out(weights, folder)
    path = folder / MODEL_FILE
    ir.save(model, path)
    return path


def _tensor(value: ir.Value) -> ir.TensorProtocol:
    assert value.const_value is not None, value.name
    return value.const_value


def _move_out(weights: list[ir.Value], folder: Path) -> None:
    by_file: dict[str, list[ir.Value]] = {}
    for value in weights:
        if (size := _tensor(value).nbytes) >= _PAGE:
            own = re.sub(r"[^A-Za-z0-9._-]", "_", f"{value.name}{DATA_SUFFIX}")
            by_file.setdefault(own if size >= OWN_FILE_FROM else DATA_FILE, []).append(value)
    for name, values in by_file.items():
        with (folder / name).open("wb") as file:
            for value in values:
                tensor = _tensor(value)
                offset = file.seek(-(-file.tell() // _PAGE) * _PAGE)
                file.write(tensor.tobytes())
                value.const_value = ir.ExternalTensor(
                    name,
                    offset,
                    tensor.nbytes,
                    ir.DataType(tensor.dtype),
                    shape=ir.Shape(tensor.shape.numpy()),
                    name=str(value.name),
                    base_dir=folder,
                )


def _make_steps(onnx_graph: ir.Graph, spec: Spec) -> None:
    """Compute `Ragged.steps` from the lengths of the rows instead of taking it as an input."""
    inputs = {value.name: value for value in onnx_graph.inputs}
    given = inputs[_steps(spec)]
    onnx_graph.inputs.remove(given)
    if not given.uses():
        return

    def constant(name: str, *values: int, scalar: bool = False) -> ir.Value:
        array = np.array(values[0] if scalar else values, np.int64)
        tensor = ir.tensor(array, name=f"{given.name}_{name}")
        value = ir.Value(name=tensor.name, const_value=tensor)
        onnx_graph.register_initializer(value)
        return value

    def node(op: str, *operands: ir.Value, **attributes: int) -> ir.Value:
        made = ir.node(op, list(operands), attributes, name=f"{given.name}_{op.lower()}")
        onnx_graph.insert_before(first, made)
        return made.outputs[0]

    first = onnx_graph[0]
    lengths = node("Cast", inputs[row_shape(spec).name], to=ir.DataType.INT64.value)
    zero, one = constant("zero", 0, scalar=True), constant("one", 1, scalar=True)
    # One more row of one step serves a batch without any.
    rows = node(
        "Concat", node("Reshape", lengths, constant("flat", -1)), constant("least", 1), axis=0
    )
    steps = node("Range", zero, node("ReduceMax", rows, keepdims=0), one)
    steps.type, steps.shape = given.type, given.shape
    given.replace_all_uses_with(steps)


def to_onnx(module: nn.Module, inputs: Sequence[Traced], outputs: Sequence[str]) -> ir.Model:
    """A module of `forward(*tensors)` as ONNX, with these names for its inputs and outputs.

    Raises torch's UserError if it holds for some sizes of an axis only.
    """
    axes = _axes(inputs)
    # No two of the same size, so that no two axes are taken for the same.
    sizes = dict(zip(axes, count(_SIZE_IN_EXAMPLE)))
    example = tuple(
        torch.ones(
            [sizes[axis] if isinstance(axis, str) else axis for axis in tensor.shape],
            dtype=tensor.dtype,
        )
        for tensor in inputs
    )
    dimensions = {name: torch.export.Dim(name) for name in axes}
    shapes = tuple(
        {i: dimensions[axis] for i, axis in enumerate(tensor.shape) if isinstance(axis, str)}
        for tensor in inputs
    )
    with quiet():
        # torch.export comes first: it fails loudly if torch.onnx.export would freeze an axis.
        program = torch.export.export(
            module.eval(),
            example,
            dynamic_shapes={"tensors": shapes},
            strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )
        onnx_program = torch.onnx.export(
            program,
            dynamo=True,
            dynamic_shapes={"tensors": shapes},  # again, or the axes lose their names
            opset_version=OPSET,
            input_names=[tensor.name for tensor in inputs],
            output_names=list(outputs),
            verbose=False,
        )
    assert onnx_program is not None
    replace_own_operators(onnx_program.model)
    _drop_notes(onnx_program.model)
    return onnx_program.model


def _drop_notes(model: ir.Model) -> None:
    """Remove what the exporter notes of the sources: they hold paths of the machine it ran on.

    Without them equal weights give equal files, wherever the package is.
    """
    graphs: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for graph in graphs:
        graph.metadata_props.clear()
        for value in [*graph.inputs, *graph.outputs]:
            value.metadata_props.clear()
        for node in ir.traversal.RecursiveGraphIterator(graph):
            node.metadata_props.clear()
            for value in node.outputs:
                value.metadata_props.clear()
    for value in model.graph.initializers.values():
        value.metadata_props.clear()
    model.metadata_props.clear()


def _declare_axes(onnx_graph: ir.Graph, graph: Graph) -> None:
    """Check names, order, dtypes and axes against the Specs, and write the declared axes down."""
    ends = (
        (onnx_graph.inputs, graph.onnx_inputs),
        (onnx_graph.outputs, graph.onnx_outputs),
    )
    for values, specs in ends:
        names = [value.name for value in values]
        assert names == [spec.name for spec in specs], f"{graph.name}: {names}"
        for value, spec in zip(values, specs, strict=True):
            assert value.dtype == _IR_DTYPES[spec.dtype], f"{graph.name}.{spec.name}: {value.dtype}"
            if value.shape is not None:
                found = [d if isinstance(d, int) else str(d.value) for d in value.shape]
                _refuse_frozen(graph, spec, found)
            value.shape = ir.Shape(list(spec.shape))


def _refuse_frozen(graph: Graph, spec: Spec, found: list[Axis]) -> None:
    same_rank = len(found) == len(spec.shape)
    if not same_rank or any(
        isinstance(size, int) and size != axis for size, axis in zip(found, spec.shape, strict=True)
    ):
        raise SeqrecError(
            f"{graph.name}: {spec.name} was exported with the axes {found} instead of "
            f"{list(spec.shape)}; the exporter froze or dropped one"
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The exporter prints progress and warns of what is checked here anyway."""
    loggers = [
        logging.getLogger(name)
        for name in (
            "torch.onnx",
            "torch.onnx._internal.exporter._registration",
            "onnxscript",
            "onnx_ir",
        )
    ]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
