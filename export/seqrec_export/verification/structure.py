"""What can be seen in an exported graph's files without a request.

Names, types and axes agree everywhere; ids and weights are those of the run; ONNX Runtime 1.19 can
read the file; on CUDA nothing but the string lookups stays on the CPU.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from google.protobuf import text_format
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference
from tritonclient.grpc import model_config_pb2

from seqrec_export.contract import Axis, Graph, Spec
from seqrec_export.data.vocabulary import NUM_RESERVED, UNKNOWN, Vocabulary
from seqrec_export.exporting.onnx_export import IR_VERSION, MODEL_FILE, OPSET
from seqrec_export.exporting.string_lookup import ML_DOMAIN, ML_OPSET
from seqrec_export.exporting.triton_config import (
    CONFIG_FILE,
    CONTRACT_FILE,
    changed_tensors,
    contract,
    parse_config,
)
from seqrec_export.exporting.triton_config import model_config as expected_config
from seqrec_export.nn.layers import LOWEST

Status = Literal["OK", "FAIL", "SKIPPED"]
_ELEMENT_TYPES = {
    "string": TensorProto.STRING,
    "float32": TensorProto.FLOAT,
    "int32": TensorProto.INT32,
}
_CUDA_KERNELS = Path(__file__).with_name("cuda_kernels.json")
_INDICES = (TensorProto.INT32, TensorProto.INT64)
_WEIGHTS = (TensorProto.FLOAT, TensorProto.INT8, *_INDICES)
_UNREADABLE = (OSError, UnicodeDecodeError, text_format.ParseError)
_MOSTLY = 0.5  # a table with so many rows of a parameter is that parameter, with wrong rows


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    check: str  # one of CHECKS
    status: Status
    detail: str


class _Skipped(str):
    """Why a check could not look at something; other texts say what is wrong."""


@dataclass(frozen=True)
class _Files:
    """One exported graph, as it is and as it should be."""

    graph: Graph
    model: onnx.ModelProto
    folder: Path
    vocabularies: Mapping[str, Vocabulary]
    state: Mapping[str, torch.Tensor]
    on_cpu: Sequence[tuple[str, str]]  # (operator, types of its inputs) without a CUDA kernel


def check_files(
    graph: Graph,
    folder: Path,
    vocabularies: Mapping[str, Vocabulary],
    state: Mapping[str, torch.Tensor],
) -> tuple[list[Finding], list[str]]:
    """Run every one of CHECKS on the files of one graph; `state` is its network's.

    Also returns the operators that stay on the CPU if all else runs on CUDA, with their types.
    """
    try:
        model = onnx.load(folder / MODEL_FILE)
    except (OSError, DecodeError) as error:
        return [Finding("format", "FAIL", f"{MODEL_FILE} cannot be read: {error}")], []
    on_cpu = list(dict.fromkeys(_without_kernel(model)))
    files = _Files(graph, model, folder, vocabularies, state, on_cpu)
    findings = []
    for name, check in CHECKS.items():
        wrong = list(check(files))
        failed = [text for text in wrong if not isinstance(text, _Skipped)]
        status: Status = "FAIL" if failed else "SKIPPED" if wrong else "OK"
        detail = "; ".join(failed or wrong)
        findings.append(Finding(name, status, detail or _first_line(check)))
    return findings, sorted(f"{op} of {types}" for op, types in on_cpu)


def _first_line(check: Callable[..., Any]) -> str:
    return (check.__doc__ or "").partition("\n")[0].rstrip(".")


def _format(files: _Files) -> Iterator[str]:
    """The file is valid ONNX that ONNX Runtime 1.19 reads, and holds no table without a use."""
    model = files.model
    used = {name for part in _graphs(model.graph) for node in part.node for name in node.input}
    if unused := [t.name for t in model.graph.initializer if t.name not in used]:
        yield f"no node reads {', '.join(unused)}, of which ONNX Runtime warns at every load"
    if model.ir_version > IR_VERSION:
        yield f"IR version {model.ir_version}, at most {IR_VERSION} can be read"
    most = {"": OPSET, ML_DOMAIN: ML_OPSET}
    for opset in model.opset_import:
        if opset.domain not in most:
            yield f"operators of the domain {opset.domain!r}, which Triton does not have"
        elif opset.version > most[opset.domain]:
            domain = opset.domain or "ai.onnx"
            yield f"opset {opset.version} of {domain}, at most {most[opset.domain]} is meant"
    try:
        onnx.checker.check_model(str(files.folder / MODEL_FILE))
    except onnx.checker.ValidationError as error:
        yield f"not valid ONNX: {str(error).splitlines()[0]}"


def _axes(files: _Files) -> Iterator[str]:
    """Inputs and outputs have the declared names, types and symbolic axes."""
    proto, graph = files.model.graph, files.graph
    for kind, infos, specs in (
        ("inputs", proto.input, graph.onnx_inputs),
        ("outputs", proto.output, graph.onnx_outputs),
    ):
        names = [info.name for info in infos]
        if names != [spec.name for spec in specs]:
            yield f"{kind} are {names} instead of {[spec.name for spec in specs]}"
            continue
        for info, spec in zip(infos, specs, strict=True):
            tensor = info.type.tensor_type
            found: list[Axis] = [d.dim_param or d.dim_value for d in tensor.shape.dim]
            if found != list(spec.shape):
                yield f"{spec.name} has the axes {found} instead of {list(spec.shape)}"
            if tensor.elem_type != _ELEMENT_TYPES[spec.dtype]:
                found_type = TensorProto.DataType.Name(tensor.elem_type)
                yield f"{spec.name} is {found_type} instead of {spec.dtype}"


def _read_config(files: _Files) -> Any:
    return parse_config((files.folder / CONFIG_FILE).read_text(encoding="utf-8"))


def _lists(files: _Files) -> Iterator[str]:
    """No list of numbers is ragged: nothing that a caller sends reaches a neighbour's answer."""
    try:
        found = _read_config(files)
    except _UNREADABLE:
        return  # which the next check says
    for entry in found.input:
        if entry.allow_ragged_batch and entry.data_type != model_config_pb2.TYPE_STRING:
            kind = model_config_pb2.DataType.Name(entry.data_type)
            yield (
                f"{entry.name} is a ragged list of {kind}: when one request of a batch sends none, "
                "Triton's native backend computes the others on memory that nobody has set"
            )


def _config(files: _Files) -> Iterator[str]:
    """config.pbtxt says what the graph is."""
    try:
        found = _read_config(files)
    except _UNREADABLE as error:
        yield f"{CONFIG_FILE} cannot be read: {error}"
        return
    wanted = expected_config(files.graph)
    for field in wanted.DESCRIPTOR.fields:
        before, after = getattr(wanted, field.name), getattr(found, field.name)
        changed = (
            changed_tensors(wanted, found, field.name) if field.name in ("input", "output") else {}
        )
        for name, (was, is_) in changed.items():
            yield f"{field.name} {name}: (type, dims) is {is_} in {CONFIG_FILE} instead of {was}"
        if before != after and not changed:
            yield f"{field.name} is {_short(after)} in {CONFIG_FILE} instead of {_short(before)}"


def _short(value: object) -> str:
    return " ".join(str(value).split()) or "nothing"


def _contract(files: _Files) -> Iterator[str]:
    """contract.json says what the graph is."""
    try:
        found = json.loads((files.folder / CONTRACT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        yield f"{CONTRACT_FILE} cannot be read: {error}"
        return
    wanted = contract(files.graph)
    for kind in ("inputs", "outputs"):
        names = [entry.get("name") for entry in found.get(kind, [])]
        if names != [entry["name"] for entry in wanted[kind]]:
            yield f"{kind} are {names} in {CONTRACT_FILE}"
            continue
        for before, after in zip(wanted[kind], found[kind], strict=True):
            if before != after:
                keys = [k for k in before if before[k] != after.get(k)]
                yield f"{before['name']} has another {', '.join(keys)} in {CONTRACT_FILE}"
    if found.get("model") != wanted["model"]:
        yield f"{CONTRACT_FILE} is for {found.get('model')!r}"


def _vocabulary(files: _Files) -> Iterator[str]:
    """Every id is looked up and given back as the run numbered it."""
    nodes = {node.output[0]: node for node in files.model.graph.node if node.output}
    by_input = {name: node for node in files.model.graph.node for name in node.input[:1]}
    joined = {
        name: by_input.get(node.output[0])
        for node in files.model.graph.node
        if node.op_type == "Concat"
        for name in node.input
    }
    tables = {t.name: t for t in files.model.graph.initializer}
    for spec in files.graph.inputs:
        if spec.vocabulary is not None:
            node = joined.get(spec.name) or by_input.get(spec.name)
            yield from _lookup(spec, node, files.vocabularies[spec.vocabulary])
    for spec in files.graph.outputs:
        if spec.vocabulary is None:
            continue
        node = nodes.get(spec.name)
        if node is None or node.op_type != "Gather" or node.input[0] not in tables:
            yield f"{spec.name} does not come from a table of ids"
            continue
        found = [text.decode() for text in tables[node.input[0]].string_data]
        wanted = files.vocabularies[spec.vocabulary].strings.tolist()
        if found != wanted:
            row = next(
                (i for i, (a, b) in enumerate(zip(found, wanted, strict=False)) if a != b),
                min(len(found), len(wanted)),
            )
            yield f"{spec.name}: row {row} of {len(found)} gives another id than the run's"


def _lookup(spec: Spec, node: onnx.NodeProto | None, vocabulary: Vocabulary) -> Iterator[str]:
    if node is None or node.op_type != "LabelEncoder":
        yield f"{spec.name} is not looked up before it is used"
        return
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    keys = [key.decode() for key in attributes.get("keys_strings", [])]
    found = dict(zip(keys, attributes.get("values_int64s", []), strict=False))
    wanted = vocabulary.indices
    if attributes.get("default_int64") != UNKNOWN:
        default = attributes.get("default_int64")
        yield f"{spec.name}: an unknown id becomes {default} instead of {UNKNOWN}"
    if found != wanted:
        wrong = next(k for k in [*wanted, *found] if found.get(k) != wanted.get(k))
        yield f"{spec.name}: {wrong!r} becomes {found.get(wrong)} instead of {wanted.get(wrong)}"


def _weights(files: _Files) -> Iterator[str]:
    """Every table with a row for each id is bit for bit one of the network's or an attribute's.

    Requests can look at a few thousand rows only; this looks at all.
    """
    missing = set(files.graph.tables)
    sizes = {vocabulary.num_rows for vocabulary in files.vocabularies.values() if vocabulary.ids}
    state: dict[tuple[int, ...], dict[str, NDArray[Any]]] = {}
    of_tables = {tuple(table.shape) for table in files.graph.tables.values()}
    for name, tensor in files.state.items():
        array = tensor.detach().cpu().numpy().squeeze()
        for form in {array.shape, array.T.shape}:
            state.setdefault(form, {})[name] = array if form == array.shape else array.T
    for initializer in files.model.graph.initializer:
        if initializer.data_type not in _WEIGHTS or not sizes & set(initializer.dims):
            continue
        table = numpy_helper.to_array(initializer, str(files.folder)).squeeze()
        if initializer.data_type in _INDICES and table.shape not in of_tables:
            continue  # numbers that a computation counts with
        same = state.get(table.shape, {})
        if equal := {name for name, array in same.items() if _is_same(table, array)}:
            missing -= equal
            continue
        axis = 0 if table.shape and table.shape[0] in sizes else table.ndim - 1
        yield _nearest(initializer.name, np.moveaxis(table, axis, 0), same, axis)
    if missing:
        yield f"no table is {', '.join(sorted(missing))}, row by row"


def _is_same(table: NDArray[Any], array: NDArray[Any]) -> bool:
    """Bit for bit, except reserved indices of a table that keeps them from coming back."""
    masked = table.ndim == 1 and (table[:NUM_RESERVED] == LOWEST).all()
    first = NUM_RESERVED if masked else 0
    return np.array_equal(table[first:], array[first:], equal_nan=True)


def _nearest(name: str, table: NDArray[Any], same: Mapping[str, NDArray[Any]], axis: int) -> str:
    rows = table.reshape(len(table), -1)
    for parameter, array in same.items():
        equal = (np.moveaxis(array, axis, 0).reshape(rows.shape) == rows).all(axis=1)
        if equal.mean() >= _MOSTLY:
            row = int(np.flatnonzero(~equal)[0])
            return f"row {row} of {name} is not that of {parameter}"
    return _Skipped(
        f"{name} {list(table.shape)} is computed from the network's tables: it is checked by "
        "requests only"
    )


def _cuda(files: _Files) -> Iterator[str]:
    """On CUDA, only the string lookups have no kernel."""
    for op, types in files.on_cpu:
        node = f"{op} of {types}"
        if op == "MatMulInteger" and files.graph.item_precision == "int8":
            yield _Skipped(f"{node} is made for the CPU, also if everything else is on CUDA")
        elif "string" not in types:
            yield f"{node} has no CUDA kernel in ONNX Runtime 1.19 and would wait for the CPU"


def _without_kernel(model: onnx.ModelProto) -> Iterator[tuple[str, str]]:
    """(operator, type of its inputs) of every node that CUDA cannot compute."""
    kernels = _cuda_kernels()
    inferred = shape_inference.infer_shapes(model)
    types = {
        value.name: value.type.tensor_type.elem_type
        for part in _graphs(inferred.graph)
        for value in (*part.value_info, *part.input, *part.output)
    }
    types |= {t.name: t.data_type for part in _graphs(model.graph) for t in part.initializer}
    for node in (node for part in _graphs(model.graph) for node in part.node):
        found = [_type_name(types.get(name)) for name in node.input if name]
        kernel = kernels.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        allowed = [] if kernel is None else _allowed(kernel, len(found))
        fits = kernel is not None and all(
            kind in kinds or kind == "?" for kind, kinds in zip(found, allowed, strict=True)
        )
        if not fits:
            yield node.op_type, ", ".join(dict.fromkeys(found))


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and the branches within it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _graphs(attribute.g)


def _type_name(elem_type: int | None) -> str:
    """The type as in the list of kernels; "?" if shape inference does not know it."""
    return TensorProto.DataType.Name(elem_type).lower() if elem_type else "?"


def _allowed(kernel: Mapping[str, Any], count: int) -> list[list[str]]:
    """The types that a kernel takes at each of `count` inputs; the last one may repeat."""
    parameters = kernel["inputs"]
    names = [parameters[min(i, len(parameters) - 1)] for i in range(count)]
    return [kernel["types"].get(name, [name]) for name in names]


@cache
def _cuda_kernels() -> dict[str, Any]:
    kernels: dict[str, Any] = json.loads(_CUDA_KERNELS.read_text(encoding="utf-8"))["kernels"]
    return kernels


CHECKS: Mapping[str, Callable[[_Files], Iterator[str]]] = {
    "format": _format,
    "axes": _axes,
    "lists": _lists,
    "config": _config,
    "contract": _contract,
    "vocabulary": _vocabulary,
    "weights": _weights,
    "cuda": _cuda,
}
