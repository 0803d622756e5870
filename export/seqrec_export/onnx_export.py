"""Graph -> model.onnx: dynamic batch and sequence axes, strings in and out.

Opset 18 and IR 10, which ONNX Runtime 1.19 (Triton 24.10) reads; newer operator versions lack CUDA
kernels there.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch._dynamo.exc import UserError

from seqrec_export.errors import SeqrecError
from seqrec_export.graph import Axis, Graph, Spec
from seqrec_export.string_lookup import add_lookups
from seqrec_export.vocabulary import Vocabulary

OPSET = 18
IR_VERSION = 10
MODEL_FILE = "model.onnx"
_BATCH_IN_EXAMPLE = 3  # torch.export bakes in a batch of 1
_LENGTHS_IN_EXAMPLE = (7, 5, 6, 4)  # one an axis, so that no two axes are taken for the same
_TORCH_DTYPES = {"string": torch.int64, "float32": torch.float32, "int32": torch.int32}
_IR_DTYPES = {
    "string": ir.DataType.STRING,
    "float32": ir.DataType.FLOAT,
    "int32": ir.DataType.INT32,
}
_EXTERNAL_DATA_FROM = 1_500_000_000  # bytes; a protobuf message ends at 2 GB


class _Exported(nn.Module):
    """torch.export takes a module: this one is `graph.function` bound to its network."""

    def __init__(self, net: nn.Module, graph: Graph) -> None:
        super().__init__()
        self.net, self.graph = net, graph

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return self.graph.function(self.net, *inputs)


def export_graph(
    graph: Graph,
    net: nn.Module,
    vocabularies: Mapping[str, Vocabulary],
    folder: Path,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write `model.onnx` (and its weights, from 1.5 GB up) into `folder`; returns its path.

    Raises SeqrecError where an axis that the graph declares as dynamic was frozen.
    """
    program = _to_onnx(graph, net.eval())
    model = program.model
    add_lookups(model, graph, vocabularies)
    _declare_axes(model.graph, graph)
    model.ir_version = IR_VERSION
    model.producer_name = "seqrec-export"
    model.graph.name = graph.name
    model.doc_string = graph.meaning
    model.metadata_props.update(metadata or {})
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / MODEL_FILE
    size = sum(p.numel() * p.element_size() for p in net.state_dict().values())
    if size > _EXTERNAL_DATA_FROM:
        ir.save(model, path, external_data=f"{MODEL_FILE}.data")
    else:
        ir.save(model, path)
    return path


def _to_onnx(graph: Graph, net: nn.Module) -> Any:
    axes = _dynamic_axes(graph)
    example = tuple(_example(spec, axes) for spec in graph.inputs)
    dimensions = {name: torch.export.Dim(name) for name in axes}
    shapes = tuple(
        {i: dimensions[axis] for i, axis in enumerate(spec.shape) if isinstance(axis, str)}
        for spec in graph.inputs
    )
    with _quiet():
        # torch.export first: it fails loudly where torch.onnx.export would freeze an axis.
        try:
            program = torch.export.export(
                _Exported(net, graph),
                example,
                dynamic_shapes={"inputs": shapes},
                strict=False,
                prefer_deferred_runtime_asserts_over_guards=True,
            )
        except UserError as error:
            reason = " ".join(str(error).split())
            raise SeqrecError(
                f"{graph.name} holds for some sizes of {', '.join(axes)} only: {reason}"
            ) from error
        onnx_program = torch.onnx.export(
            program,
            dynamo=True,
            dynamic_shapes={"inputs": shapes},  # again, or the axes lose their names
            opset_version=OPSET,
            input_names=[spec.name for spec in graph.inputs],
            output_names=[spec.name for spec in graph.outputs],
            verbose=False,
        )
    assert onnx_program is not None
    return onnx_program


def _dynamic_axes(graph: Graph) -> dict[str, int]:
    """Every named axis of the inputs, with its size in the example."""
    names = dict.fromkeys(a for spec in graph.inputs for a in spec.shape if isinstance(a, str))
    lengths = iter(_LENGTHS_IN_EXAMPLE)
    return {name: _BATCH_IN_EXAMPLE if name == "batch" else next(lengths) for name in names}


def _example(spec: Spec, axes: Mapping[str, int]) -> Tensor:
    shape = [axes[axis] if isinstance(axis, str) else axis for axis in spec.shape]
    return torch.ones(shape, dtype=_TORCH_DTYPES[spec.dtype])


def _declare_axes(onnx_graph: ir.Graph, graph: Graph) -> None:
    """Check names, order, dtypes and axes against the Specs, and write the declared axes down."""
    ends = ((onnx_graph.inputs, graph.inputs), (onnx_graph.outputs, graph.outputs))
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
def _quiet() -> Iterator[None]:
    """The exporter prints progress and warns of what is checked here anyway."""
    loggers = [
        logging.getLogger(name)
        for name in ("torch.onnx", "torch.onnx._internal.exporter._registration", "onnxscript")
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
