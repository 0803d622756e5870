"""Inference over gRPC as bare protobuf: what a careful client would refuse to send gets through."""

import struct
from collections.abc import Iterable, Mapping
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

Tensors = dict[str, NDArray[Any]]
DEADLINE = 30.0  # seconds; what takes longer hangs

NUMBERS: Mapping[str, type[np.generic]] = {"FP32": np.float32, "INT32": np.int32}
# Where a message that does without raw bytes has the values of a tensor.
TYPED = {"BYTES": "bytes_contents", "FP32": "fp32_contents", "INT32": "int_contents"}


def connect(url: str) -> grpc.Channel:
    """A connection of its own, not one that the process shares with others of the same address."""
    options = [
        ("grpc.enable_http_proxy", 0),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
    ]
    return grpc.insecure_channel(url, options)


def stub(channel: grpc.Channel) -> Any:
    return GRPCInferenceServiceStub(channel)


def datatype(array: NDArray[Any]) -> str:
    return {"O": "BYTES", "f": "FP32", "i": "INT32"}[array.dtype.kind]


def framed(items: Iterable[bytes]) -> bytes:
    """Strings as Triton has them: the length in four bytes, little end first, then the bytes."""
    return b"".join(part for item in items for part in (struct.pack("<I", len(item)), item))


def start_of_last_string(data: bytes) -> int:
    """Where the length of the last one stands, which may itself end past the data."""
    start = offset = 0
    while offset + 4 <= len(data):
        start = offset
        offset += 4 + int.from_bytes(data[offset : offset + 4], "little")
    return start


def raw(array: NDArray[Any]) -> bytes:
    if array.dtype != object:
        return array.tobytes()
    return framed(item.encode() for item in array.ravel().tolist())


def message(model: str, tensors: Tensors) -> ModelInferRequest:
    """A well-formed request."""
    request = ModelInferRequest(model_name=model)
    for name, array in tensors.items():
        request.inputs.add(name=name, datatype=datatype(array), shape=array.shape)
        request.raw_input_contents.append(raw(array))
    return request


def read_request(request: ModelInferRequest) -> Tensors | None:
    """The tensors of a request, raw or typed; None if it is malformed."""
    tensors: Tensors = {}
    for i, entry in enumerate(request.inputs):
        if entry.datatype not in TYPED or entry.name in tensors:
            return None
        if request.raw_input_contents:
            if i >= len(request.raw_input_contents) or entry.HasField("contents"):
                return None
            values = _unpacked(request.raw_input_contents[i], entry.datatype)
        else:
            values = list(getattr(entry.contents, TYPED[entry.datatype]))
        shape = tuple(entry.shape)
        if (
            values is None
            or min(shape, default=0) < 0
            or np.prod(shape, dtype=object) != len(values)
        ):
            return None
        tensors[entry.name] = _array(values, entry.datatype, shape)
    return tensors


def read_answer(response: ModelInferResponse) -> Tensors:
    tensors: Tensors = {}
    for entry, data in zip(response.outputs, response.raw_output_contents, strict=True):
        values = _unpacked(data, entry.datatype)
        assert values is not None
        tensors[entry.name] = _array(values, entry.datatype, tuple(entry.shape))
    return tensors


def _unpacked(data: bytes, datatype: str) -> list[Any] | NDArray[Any] | None:
    if datatype != "BYTES":
        return None if len(data) % 4 else np.frombuffer(data, NUMBERS[datatype])
    return unframed(data)


def unframed(data: bytes) -> list[bytes] | None:
    """Strings that are framed as Triton has them; None if one ends past the data."""
    items, offset = [], 0
    while offset < len(data):
        start = offset + 4
        if start > len(data):
            return None
        offset = start + int.from_bytes(data[offset:start], "little")
        if offset > len(data):
            return None
        items.append(data[start:offset])
    return items


def _array(values: Any, datatype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    if datatype != "BYTES":
        return np.asarray(values, NUMBERS[datatype]).reshape(shape)
    array = np.empty(len(values), dtype=object)
    array[:] = list(map(text, values))
    return array.reshape(shape)


def text(value: bytes) -> str:
    """A string as Triton's backends read it: up to the first NUL, unknown if it is not UTF-8."""
    try:
        return value.partition(b"\0")[0].decode()
    except UnicodeDecodeError:
        return "\0"  # no string of a request is this one
