"""Triton's `onnxruntime` backend in Python, for servers that lack the native one.

This is a standalone file: Triton's Python backend runs it in a process of its own, one per model
instance, with the interpreter's packages. It serves the same repository as the native backend:
`<model>/config.pbtxt` and `<model>/<version>/model.onnx`.
"""

from __future__ import annotations

import ctypes
import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

Array = NDArray[Any]
Feeds = dict[str, Array]

ONNX_TYPES = {
    "TYPE_BOOL": "bool",
    "TYPE_UINT8": "uint8",
    "TYPE_UINT16": "uint16",
    "TYPE_UINT32": "uint32",
    "TYPE_UINT64": "uint64",
    "TYPE_INT8": "int8",
    "TYPE_INT16": "int16",
    "TYPE_INT32": "int32",
    "TYPE_INT64": "int64",
    "TYPE_FP16": "float16",
    "TYPE_FP32": "float",
    "TYPE_FP64": "double",
    "TYPE_STRING": "string",
}
MOST_FRAMED = 100_000  # about 20 MB
# Replaces a string that is not UTF-8, which ONNX Runtime takes from C but not from Python. It is
# unknown to every graph: a string that was sent ends before its first NUL.
NOT_UTF8 = "\0 not UTF-8"
ROW_SHAPES = {"BATCH_ITEM_SHAPE": False, "BATCH_ITEM_SHAPE_FLATTEN": True}  # -> whether flat
BATCH_INPUT_TYPES = {"TYPE_INT32": np.int32, "TYPE_FP32": np.float32}

# After a batch of more than this, memory is given back: neither ONNX Runtime's arena nor the C
# library does that by itself, and one history of a million steps would keep 200 MB for good.
LARGE_BYTES = 2**18
LIBC = ctypes.CDLL(None)
SHRINK = ort.RunOptions()
SHRINK.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")


@dataclass(frozen=True)
class RowShapes:
    """What Triton tells a file of the rows of an input."""

    source: str
    dtype: np.dtype[Any]
    flat: bool  # one row's sizes after the other's


@dataclass(frozen=True)
class Layout:
    """How a configuration lays out the tensors of a batch of requests."""

    batched: bool
    ranks: Mapping[str, int]  # input -> how many axes it has in a request
    ragged: frozenset[str]  # inputs that are flat, one request after the other
    row_shapes: Mapping[str, RowShapes]  # inputs of the file that hold them, of each row
    scattered: Mapping[str, str]  # outputs that are flat too -> the input with a value for each

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """Read a configuration; raises ValueError at what this backend does not do."""
        row_shapes, scattered = {}, {}
        for entry in config.get("batch_input", []):
            if entry["kind"] not in ROW_SHAPES:
                raise ValueError(f"batch_input of the kind {entry['kind']} is not supported")
            for name in entry["target_name"]:
                row_shapes[name] = RowShapes(
                    entry["source_input"][0],
                    np.dtype(BATCH_INPUT_TYPES[entry["data_type"]]),
                    ROW_SHAPES[entry["kind"]],
                )
        for entry in config.get("batch_output", []):
            (name,), (source,) = entry["target_name"], entry["source_input"]
            scattered[name] = source
        batched = config["max_batch_size"] > 0
        ranks = {entry["name"]: len(entry["dims"]) + batched for entry in config["input"]}
        flat = frozenset(e["name"] for e in config["input"] if e.get("allow_ragged_batch"))
        return cls(batched, ranks, flat, row_shapes, scattered)

    def objection(self, request: Feeds) -> str:
        """Why Triton should not have let the request in, or ""."""
        for name, array in request.items():
            if isinstance(array, Strings):  # Triton let it in: the product of the sizes overflowed
                return f"{name!r} has the shape {array.claimed} and {array.size} strings"
            # If a request has no rows, Triton drops the first axis and takes what the others say.
            if array.ndim != self.ranks[name]:
                return f"{name!r} has no rows; a request holds at least one"
        return ""

    def join(self, inputs: Sequence[Feeds]) -> Feeds:
        """Requests -> what the file takes: rows stacked, ragged ones flat with their row shapes."""
        rows = sum(len(next(iter(each.values()))) for each in inputs)
        feeds = {
            name: self.gather(name, [each[name] for each in inputs], rows) for name in inputs[0]
        }
        for target, shapes in self.row_shapes.items():
            sizes = self.sizes([request[shapes.source].shape for request in inputs], shapes)
            feeds[target] = sizes.reshape(-1) if shapes.flat else sizes
        return feeds

    def sizes(self, shapes: Sequence[tuple[int, ...]], rows: RowShapes) -> Array:
        """The sizes of each row of one input, of all requests."""
        items = np.array([shape[1:] for shape in shapes], rows.dtype)
        return items.repeat([shape[0] for shape in shapes], axis=0)

    def gather(self, name: str, arrays: Sequence[Array], rows: int) -> Array:
        """One input of all requests, of so many rows."""
        if name in self.ragged:
            arrays = [array.reshape(-1) for array in arrays]
        return np.concatenate(arrays) if len(arrays) > 1 else arrays[0]

    def split(self, outputs: Feeds, inputs: Sequence[Feeds]) -> list[Feeds]:
        """What the file gives -> each request's share."""
        if not self.batched:
            return [outputs]
        rows = [len(next(iter(request.values()))) for request in inputs]
        shares: list[Feeds] = [{} for _ in inputs]
        for name, array in outputs.items():
            source = self.scattered.get(name)
            counts = rows if source is None else [request[source].size for request in inputs]
            if len(array) != sum(counts):
                raise ValueError(f"output {name!r} has {len(array)} rows for a batch of {counts}")
            begin = 0
            for share, request, count in zip(shares, inputs, counts, strict=True):
                part = array[begin : begin + count]
                share[name] = part if source is None else part.reshape(request[source].shape)
                begin += count
        return shares


class TritonPythonModel:
    """One instance of one version of a model."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open `model.onnx`; raise if the model's configuration disagrees with it."""
        config = json.loads(args["model_config"])
        file = config.get("default_model_filename") or "model.onnx"
        path = Path(args["model_repository"], args["model_version"], file)
        self.layout = Layout.of(config)
        self.outputs = [output["name"] for output in config["output"]]
        self.large = False  # the last batch was
        self.session = open_session(path, config.get("parameters", {}), args)
        check(config, self.layout, self.session)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer the requests in order, in one run."""
        if self.large:  # only now are its tensors gone
            LIBC.malloc_trim(0)
        responses: list[Any] = [None] * len(requests)
        chosen, inputs = [], []
        for i, request in enumerate(requests):
            feeds = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            if objection := self.layout.objection(feeds):
                responses[i] = refusal(objection, invalid=True)
            else:
                chosen.append(i)
                inputs.append(feeds)
        self.large = sum(a.nbytes for feeds in inputs for a in feeds.values()) > LARGE_BYTES
        answers = self.answer([requests[i] for i in chosen], inputs)
        for i, response in zip(chosen, answers, strict=True):
            responses[i] = response
        return responses

    def answer(self, requests: Sequence[Any], inputs: Sequence[Feeds]) -> list[Any]:
        """One response a request; if the joint run fails, only the guilty request fails."""
        if not requests:
            return []
        if len(requests) > 1 and not self.layout.batched:
            return [self.answer([r], [i])[0] for r, i in zip(requests, inputs, strict=True)]
        try:
            return self.run(requests, inputs)
        # ONNX Runtime's errors have no common class, and an exception from `execute` would fail
        # every request of the batch, also those of other callers.
        except Exception as error:
            if len(requests) > 1:
                return [self.answer([r], [i])[0] for r, i in zip(requests, inputs, strict=True)]
            return [refusal(str(error), invalid=type(error).__name__ == "InvalidArgument")]

    def run(self, requests: Sequence[Any], inputs: Sequence[Feeds]) -> list[Any]:
        """Answer all requests in one run of the file."""
        wanted = {name for request in requests for name in request.requested_output_names()}
        names = [name for name in self.outputs if name in wanted]
        options = SHRINK if self.large else None
        arrays = self.session.run(names, self.layout.join(inputs), options)
        shares = self.layout.split(dict(zip(names, arrays, strict=True)), inputs)
        return [respond(request, share) for request, share in zip(requests, shares, strict=True)]


def open_session(
    path: Path, parameters: Mapping[str, Mapping[str, str]], args: Mapping[str, str]
) -> ort.InferenceSession:
    """On the GPU if Triton placed the instance there and ONNX Runtime has CUDA, else the CPU."""

    def threads(name: str) -> int:
        # One thread an instance gave 1.6 times the requests per second of the default.
        return int(parameters.get(name, {}).get("string_value", 1))

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads("intra_op_thread_count")
    options.inter_op_num_threads = threads("inter_op_thread_count")
    providers: list[Any] = ["CPUExecutionProvider"]
    on_gpu = args["model_instance_kind"] == "GPU"
    if on_gpu and "CUDAExecutionProvider" in ort.get_available_providers():
        device = {"device_id": args["model_instance_device_id"]}
        providers.insert(0, ("CUDAExecutionProvider", device))
    return ort.InferenceSession(path, options, providers=providers)


def check(config: Mapping[str, Any], layout: Layout, session: ort.InferenceSession) -> None:
    """Raise ValueError naming every way in which the configuration disagrees with the file."""
    problems: list[str] = []
    inputs = {entry["name"]: entry for entry in config["input"]}
    for entry in config.get("batch_input", []):
        source = inputs[entry["source_input"][0]]
        dims = [] if ROW_SHAPES[entry["kind"]] else [len(source["dims"])]
        for name in entry["target_name"]:
            inputs[name] = {"data_type": entry["data_type"], "dims": dims}
    outputs = {entry["name"]: entry for entry in config["output"]}
    ends = (("input", inputs, session.get_inputs()), ("output", outputs, session.get_outputs()))
    for kind, declared, tensors in ends:
        found = {tensor.name: tensor for tensor in tensors}
        for name in declared.keys() - found.keys():
            problems.append(f"the file has no {kind} {name!r}, it has {sorted(found)}")
        if kind == "input":  # an output that nobody declared is never computed
            for name in found.keys() - declared.keys():
                problems.append(f"the file's input {name!r} is not in the configuration")
        for name in declared.keys() & found.keys():
            entry, tensor = declared[name], found[name]
            type_ = f"tensor({ONNX_TYPES.get(entry['data_type'])})"
            if type_ != tensor.type:
                problems.append(
                    f"{kind} {name!r} is {entry['data_type']} in the configuration"
                    f" and {tensor.type} in the file"
                )
            dims = [int(dim) for dim in entry["dims"]]
            if name in layout.ragged or name in layout.scattered:
                dims = [-1]
            elif layout.batched:
                dims.insert(0, -1)
            shape = [dim if isinstance(dim, int) else -1 for dim in tensor.shape]
            if len(dims) != len(shape) or any(
                fixed not in (-1, dim) for dim, fixed in zip(dims, shape, strict=True)
            ):
                problems.append(
                    f"{kind} {name!r} has the shape {dims} by the configuration"
                    f" (max_batch_size {config['max_batch_size']}) and {shape} in the file"
                )
    if problems:
        raise ValueError(f"model {config['name']!r}: " + "; ".join(sorted(problems)))


def respond(request: Any, outputs: Feeds) -> Any:
    """A response with the outputs that the request asked for, in the configuration's order."""
    asked = set(request.requested_output_names())
    tensors = [pb_utils.Tensor(name, array) for name, array in outputs.items() if name in asked]
    return pb_utils.InferenceResponse(tensors)


def refusal(message: str, *, invalid: bool) -> Any:
    """A response that is an error."""
    code = pb_utils.TritonError.INVALID_ARG if invalid else pb_utils.TritonError.INTERNAL
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))


class Strings(np.ndarray[Any, np.dtype[np.object_]]):
    """The strings of one tensor, not yet in its shape.

    The stub calls `reshape` next, and an exception there would end this process. So strings that do
    not fill the shape stay what they are.
    """

    claimed: tuple[int, ...] = ()

    def reshape(self, shape: Sequence[int]) -> Array:  # type: ignore[override]
        """A plain array of that shape; if it has another number of elements, this one."""
        self.claimed = tuple(shape)
        if min(shape, default=0) < 0 or math.prod(shape) != self.size:
            return self
        return self.view(np.ndarray).reshape(shape)


def deserialize_bytes_tensor(encoded: Array) -> Strings:
    """Triton's string tensor (4-byte little-endian length, then the bytes, each) -> str.

    It is read as the native backend does: a string ends before its first NUL, and one that is not
    UTF-8 equals no other string.
    """
    data = encoded.tobytes()
    items: list[bytes] = []
    offset, end, unpack = 0, len(data), struct.Struct("<I").unpack_from
    while offset < end:
        start = offset + 4
        offset = start + unpack(data, offset)[0]
        items.append(data[start:offset])
    if b"\0" in b"".join(items):
        items = [item.partition(b"\0")[0] for item in items]
    # An array of fixed width would take the longest item's width for each.
    array = np.empty(len(items), dtype=np.object_)
    try:
        array[:] = list(map(bytes.decode, items))
    except UnicodeDecodeError:
        array[:] = list(map(decode, items))
    return array.view(Strings)


def decode(item: bytes) -> str:
    """The string, or NOT_UTF8."""
    try:
        return item.decode()
    except UnicodeDecodeError:
        return NOT_UTF8


class Framed(dict[str, bytes]):
    """str -> its length and bytes, kept: the same items are recommended again and again."""

    def __missing__(self, item: str) -> bytes:
        if len(self) >= MOST_FRAMED:
            self.clear()
        data = item.encode()
        framed = self[item] = struct.pack("<I", len(data)) + data
        return framed


FRAMED = Framed()


def serialize_byte_tensor(array: Array) -> bytes | tuple[()]:
    """str -> Triton's string tensor; an empty one is `()`, as the replaced function has it."""
    return b"".join(map(FRAMED.__getitem__, array.ravel().tolist())) if array.size else ()


# The stub looks these two up in its utility module for each string tensor; its own take 3 to 4
# times as long.
pb_utils.deserialize_bytes_tensor = deserialize_bytes_tensor
pb_utils.serialize_byte_tensor = serialize_byte_tensor
