"""Builds the requests of fuzz_cases.py: good ones, and good ones with one thing done to them."""

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from tritonclient.grpc.service_pb2 import ModelInferRequest

from bench.harness.served import Served
from bench.harness.wire import (
    NUMBERS,
    TYPED,
    framed,
    message,
    raw,
    read_request,
    start_of_last_string,
)

Rng = np.random.Generator
Build = Callable[[Served, Rng], ModelInferRequest]
Change = Callable[[ModelInferRequest, Served, Rng], None]


# Good requests


def usual(served: Served, rng: Rng) -> ModelInferRequest:
    sizes = {"batch": int(rng.integers(1, 6)), "length": int(rng.integers(0, 60))}
    kind = {"unequal": bool(rng.random() < 0.3), "odd": bool(rng.random() < 0.3)}
    candidates = int(rng.integers(0, 60))
    return message(served.graph.name, served.request(rng, candidates=candidates, **sizes, **kind))


def sized(**sizes: Any) -> Build:
    def build(served: Served, rng: Rng) -> ModelInferRequest:
        tensors = served.request(rng, **({"batch": 2, "length": 5} | sizes))
        return message(served.graph.name, tensors)

    return build


def filled(dtype: str, *values: Any) -> Build:
    """Every tensor of a type has nothing but these values."""

    def build(served: Served, rng: Rng) -> ModelInferRequest:
        tensors = served.request(rng, batch=3, length=7)
        for name, spec in served.inputs.items():
            if spec.dtype == dtype:
                chosen = [values[i] for i in rng.integers(0, len(values), tensors[name].size)]
                array = np.array(chosen, dtype=tensors[name].dtype)
                tensors[name] = array.reshape(tensors[name].shape)
        return message(served.graph.name, tensors)

    return build


def a_long_id(request: ModelInferRequest, served: Served, rng: Rng) -> None:
    for i, entry in enumerate(request.inputs):
        if entry.datatype == "BYTES":
            long = ("寿" * (2**20 // 3)).encode()
            items = [long, *[b"a"] * (int(np.prod(entry.shape)) - 1)]
            request.raw_input_contents[i] = framed(items)
            return


def typed(served: Served, rng: Rng) -> ModelInferRequest:
    """The same values in the fields of their types instead of bytes."""
    request = usual(served, rng)
    tensors = read_request(request)
    assert tensors is not None
    request.ClearField("raw_input_contents")
    for entry in request.inputs:
        values = tensors[entry.name].ravel().tolist()
        if entry.datatype == "BYTES":
            values = [value.encode() for value in values]
        getattr(entry.contents, TYPED[entry.datatype]).extend(values)
    return request


def shuffled(request: ModelInferRequest, served: Served, rng: Rng) -> None:
    order = rng.permutation(len(request.inputs))
    entries, contents = list(request.inputs), list(request.raw_input_contents)
    request.ClearField("inputs")
    request.ClearField("raw_input_contents")
    request.inputs.extend(entries[i] for i in order)
    request.raw_input_contents.extend(contents[i] for i in order)


def some_outputs(request: ModelInferRequest, served: Served, rng: Rng) -> None:
    names = list(served.outputs)
    chosen = rng.permutation(len(names))[: rng.integers(1, len(names) + 1)]
    for i in chosen:
        request.outputs.add(name=names[i])


def an_output_a_thousand_times(request: ModelInferRequest, served: Served, rng: Rng) -> None:
    for _ in range(1000):
        request.outputs.add(name=next(iter(served.outputs)))


def many_parameters(request: ModelInferRequest, served: Served, rng: Rng) -> None:
    request.id = "a" * 1000
    for i in range(1000):
        request.parameters[f"parameter {i}"].int64_param = i
    request.parameters["sequence_id"].int64_param = -5
    request.parameters["sequence_end"].bool_param = True
    request.parameters["priority"].uint64_param = 2**64 - 1
    request.parameters["timeout"].int64_param = 1
    request.parameters["odd"].double_param = float("nan")
    request.inputs[0].parameters["odd"].string_param = "\0"


# Bad requests: what is done to a good one


def changed(change: Change, build: Build | None = None) -> Build:
    def changing(served: Served, rng: Rng) -> ModelInferRequest:
        request = (build or sized())(served, rng)
        change(request, served, rng)
        return request

    return changing


def some_input(request: ModelInferRequest, rng: Rng) -> int:
    return int(rng.integers(len(request.inputs)))


def set_shape(entry: Any, shape: Sequence[int]) -> None:
    entry.ClearField("shape")
    entry.shape.extend(shape)


def other_datatype(request: ModelInferRequest, served: Served, rng: Rng) -> None:
    entry = request.inputs[some_input(request, rng)]
    others = (
        "BYTES",
        "FP32",
        "INT32",
        "FP16",
        "INT64",
        "BOOL",
        "UINT8",
        "bytes",
        "no such type",
        "",
    )
    entry.datatype = rng.choice([other for other in others if other != entry.datatype])


def other_type_of_the_same_size(request: ModelInferRequest, served: Served, rng: Rng) -> None:
    for entry in request.inputs:
        if entry.datatype != "BYTES":
            entry.datatype = {"FP32": "INT32", "INT32": "FP32"}[entry.datatype]


def rank(change: Callable[[list[int]], list[int]]) -> Build:
    def reshape(request: ModelInferRequest, served: Served, rng: Rng) -> None:
        entry = request.inputs[some_input(request, rng)]
        set_shape(entry, change(list(entry.shape)))

    return changed(reshape)


def ranks(change: Callable[[list[int]], list[int]]) -> Build:
    def reshape(request: ModelInferRequest, served: Served, rng: Rng) -> None:
        for entry in request.inputs:
            set_shape(entry, change(list(entry.shape)))

    return changed(reshape)


def missing(request: ModelInferRequest, served: Served, rng: Rng) -> None:
    i = some_input(request, rng)
    del request.inputs[i]
    del request.raw_input_contents[i]


def all_missing(request: ModelInferRequest, served: Served, rng: Rng) -> None:
    request.ClearField("inputs")
    request.ClearField("raw_input_contents")


def extra(request: ModelInferRequest, served: Served, rng: Rng) -> None:
    request.inputs.add(name="no_such_input", datatype="FP32", shape=[2, 1])
    request.raw_input_contents.append(bytes(8))


def a_thousand_extra(request: ModelInferRequest, served: Served, rng: Rng) -> None:
    for i in range(1000):
        request.inputs.add(name=f"no_such_input_{i}", datatype="FP32", shape=[2, 1])
        request.raw_input_contents.append(bytes(8))


def renamed(request: ModelInferRequest, served: Served, rng: Rng) -> None:
    entry = request.inputs[some_input(request, rng)]
    entry.name = str(rng.choice(["", entry.name.upper(), "\0", f" {entry.name}"]))


def a_long_name(request: ModelInferRequest, served: Served, rng: Rng) -> None:
    request.inputs[0].name = "a" * 100_000


def duplicate(request: ModelInferRequest, served: Served, rng: Rng) -> None:
    i = some_input(request, rng)
    request.inputs.append(request.inputs[i])
    request.raw_input_contents.append(request.raw_input_contents[i])


def unequal_batches(request: ModelInferRequest, served: Served, rng: Rng) -> None:
    i = some_input(request, rng)
    tensors = served.request(rng, batch=3, length=5)
    other = message(served.graph.name, tensors)
    request.inputs[i].CopyFrom(other.inputs[i])
    request.raw_input_contents[i] = other.raw_input_contents[i]


def other_width(request: ModelInferRequest, served: Served, rng: Rng) -> None:
    """One value too many if the number of values is fixed."""
    for i, entry in enumerate(request.inputs):
        width = served.inputs[entry.name].shape[1]
        if isinstance(width, int):
            set_shape(entry, [2, width + 1])
            values: Any = np.full((2, width + 1), 1, NUMBERS.get(entry.datatype, object))
            request.raw_input_contents[i] = raw(
                values.astype(str) if values.dtype == object else values
            )


def dims(*shapes: tuple[int, ...]) -> Build:
    def reshape(request: ModelInferRequest, served: Served, rng: Rng) -> None:
        shape = shapes[int(rng.integers(len(shapes)))]
        for entry in request.inputs if rng.random() < 0.5 else [request.inputs[0]]:
            set_shape(entry, shape)

    return changed(reshape)


def contents(change: Callable[[bytes, Rng], bytes]) -> Build:
    """The raw bytes of one input, changed."""

    def replace(request: ModelInferRequest, served: Served, rng: Rng) -> None:
        i = some_input(request, rng)
        request.raw_input_contents[i] = change(request.raw_input_contents[i], rng)

    return changed(replace)


def strings(change: Callable[[bytes, Rng], bytes]) -> Build:
    """The raw bytes of one input of strings, changed."""

    def replace(request: ModelInferRequest, served: Served, rng: Rng) -> None:
        found = [i for i, entry in enumerate(request.inputs) if entry.datatype == "BYTES"]
        i = int(rng.choice(found))
        request.raw_input_contents[i] = change(request.raw_input_contents[i], rng)

    return changed(replace)


def cut(request: ModelInferRequest, served: Served, rng: Rng) -> None:
    i = some_input(request, rng)
    data = request.raw_input_contents[i]
    end = len(data) if request.inputs[i].datatype != "BYTES" else start_of_last_string(data) + 4
    request.raw_input_contents[i] = data[: rng.integers(end)]


def length_of_first(length: int) -> Callable[[bytes, Rng], bytes]:
    return lambda data, _: struct.pack("<I", length) + data[4:]


def one_less(data: bytes, rng: Rng) -> bytes:
    return data[4 + int.from_bytes(data[:4], "little") :]


def typed_otherwise(change: Callable[[Any, Any], None]) -> Build:
    """The values of one input in its typed field, changed. `change` gets the entry, the values."""

    def build(served: Served, rng: Rng) -> ModelInferRequest:
        request = typed(served, rng)
        for entry in request.inputs:
            values = getattr(entry.contents, TYPED[entry.datatype])
            if values:
                change(entry, values)
                return request
        return build(served, rng)

    return build


def drop_last(entry: Any, values: Any) -> None:
    del values[-1]


def drop_all(entry: Any, values: Any) -> None:
    del values[:]


def repeat_first(entry: Any, values: Any) -> None:
    values.append(values[0])


def wrong_field(entry: Any, values: Any) -> None:
    number = len(values)
    entry.ClearField("contents")
    entry.contents.uint64_contents.extend([1] * number)


def second_field(entry: Any, values: Any) -> None:
    entry.contents.bool_contents.extend([True] * len(values))


def raw_beside_typed(request: ModelInferRequest, served: Served, rng: Rng) -> None:
    tensors = read_request(request)
    assert tensors is not None
    request.raw_input_contents.extend(raw(array) for array in tensors.values())


def raw_for_some(request: ModelInferRequest, served: Served, rng: Rng) -> None:
    del request.raw_input_contents[-1]


def raw_for_more(request: ModelInferRequest, served: Served, rng: Rng) -> None:
    request.raw_input_contents.append(b"more")


def field(name: str, *values: str) -> Build:
    def replace(request: ModelInferRequest, served: Served, rng: Rng) -> None:
        setattr(request, name, values[int(rng.integers(len(values)))])

    return changed(replace)


def unknown_output(request: ModelInferRequest, served: Served, rng: Rng) -> None:
    request.outputs.add(name=next(iter(served.outputs)))
    request.outputs.add(name=str(rng.choice(["no_such_output", "", "a" * 5000])))


# Parameters that Triton knows, of types that it does not expect.
ODD_PARAMETERS: Sequence[tuple[str, Mapping[str, Any]]] = (
    ("sequence_id", {"bool_param": True}),
    ("sequence_start", {"int64_param": 1}),
    ("sequence_end", {"string_param": "yes"}),
    ("priority", {"int64_param": -7}),
    ("priority", {"string_param": "high"}),
    ("timeout", {"string_param": "soon"}),
    ("timeout", {"double_param": 1.5}),
    ("triton_anything", {"int64_param": 1}),
    ("triton_enable_empty_final_response", {"string_param": "yes"}),
)
ODD_TENSOR_PARAMETERS: Sequence[tuple[str, Mapping[str, Any]]] = (
    ("shared_memory_region", {"string_param": "no_such_region"}),
    ("shared_memory_region", {"int64_param": 1}),
    ("shared_memory_byte_size", {"int64_param": -1}),
    ("shared_memory_offset", {"string_param": "0"}),
)
ODD_OUTPUT_PARAMETERS = (
    *ODD_TENSOR_PARAMETERS,
    ("classification", {"int64_param": -3}),
    ("classification", {"string_param": "3"}),
)


def set_parameter(owner: Any, odd: Sequence[tuple[str, Mapping[str, Any]]], rng: Rng) -> None:
    name, value = odd[int(rng.integers(len(odd)))]
    owner.parameters[name].MergeFrom(type(owner.parameters[name])(**value))


def odd_parameter(request: ModelInferRequest, served: Served, rng: Rng) -> None:
    set_parameter(request, ODD_PARAMETERS, rng)


def odd_input_parameter(request: ModelInferRequest, served: Served, rng: Rng) -> None:
    set_parameter(request.inputs[0], ODD_TENSOR_PARAMETERS, rng)


def odd_output_parameter(request: ModelInferRequest, served: Served, rng: Rng) -> None:
    output = request.outputs.add(name=next(iter(served.outputs)))
    set_parameter(output, ODD_OUTPUT_PARAMETERS, rng)


def a_region_that_nobody_shared(request: ModelInferRequest, served: Served, rng: Rng) -> None:
    entry = request.inputs[0]
    entry.parameters["shared_memory_region"].string_param = "no_such_region"
    entry.parameters["shared_memory_byte_size"].int64_param = 64
    del request.raw_input_contents[0]
