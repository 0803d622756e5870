"""Requests that are not what they say, and that Triton lets in all the same.

Triton multiplies the sizes of a shape in 64 bits, and compares the product with the number of
elements that were sent. The number of rows it keeps in 32 bits; if these are 0, it drops the
first axis. Strings it passes on as the bytes they are.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from tritonclient.grpc.service_pb2 import ModelInferRequest

from bench.harness.served import Served, Tensors
from bench.harness.wire import framed, message, unframed

Rng = np.random.Generator
ROWS = (2, 3, 4, 5, 6, 12, 33, 48, 63, 64)  # of shapes that overflow: even and odd


def lists(served: Served) -> list[str]:
    """The inputs of any length."""
    return [name for name, spec in served.inputs.items() if isinstance(spec.shape[1], str)]


def overflowing(
    served: Served, rng: Rng, rows: int | None = None, name: str | None = None
) -> ModelInferRequest:
    """One list claims to be far longer than it is, so that `rows` times that is what it is."""
    rows = rows or int(rng.choice(ROWS))
    name = name or str(rng.choice(lists(served)))
    tensors = served.request(rng, batch=rows, length=4, candidates=4)
    elements = rows & -rows  # what is not a multiple of this power of 2, no width gives
    tensors[name] = tensors[name].ravel()[:elements]
    return _with_shapes(served, tensors, {name: (rows, _width(rows, elements))})


def _width(rows: int, elements: int) -> int:
    """An int64 past 32 bits which, times `rows`, is `elements` modulo 2^64."""
    shared = rows & -rows
    modulus = 2**64 // shared
    width = elements // shared * pow(rows // shared, -1, modulus) % modulus
    width += modulus if width < 2**32 else 0
    return width - 2**64 if width >= 2**63 else width


def no_rows(served: Served, rng: Rng, length: int = 3) -> ModelInferRequest:
    """What would be one row, but claims to be none."""
    tensors = served.request(rng, batch=1, length=length, candidates=length)
    return _with_shapes(served, tensors, {n: (0, *a.shape[1:]) for n, a in tensors.items()})


def more_rows(served: Served, rng: Rng, rows: int) -> ModelInferRequest:
    """More rows than 32 bits hold, or than Triton takes, of empty lists."""
    tensors = served.request(rng, batch=min(rows % 2**32, 64), length=0, candidates=0)
    return _with_shapes(served, tensors, {n: (rows, *a.shape[1:]) for n, a in tensors.items()})


def _with_shapes(
    served: Served, tensors: Tensors, shapes: Mapping[str, Sequence[int]]
) -> ModelInferRequest:
    request = message(served.graph.name, tensors)
    for entry in request.inputs:
        if entry.name in shapes:
            entry.ClearField("shape")
            entry.shape.extend(shapes[entry.name])
    return request


def change_strings(request: ModelInferRequest, change: Callable[[bytes], bytes]) -> None:
    """In the raw bytes: numpy's arrays would lose a NUL at the end."""
    for i, entry in enumerate(request.inputs):
        if entry.datatype == "BYTES":
            items = unframed(request.raw_input_contents[i])
            assert items is not None
            request.raw_input_contents[i] = framed(map(change, items))


def nul_inside(request: ModelInferRequest, served: Served, rng: Rng) -> None:
    """Known ids, padding and unknown ids with a NUL behind them, and more behind that."""
    more = (b"\0", b"\0more", b"\0\0", b"\0\xff", "\0寿司".encode())
    change_strings(request, lambda item: item + more[int(rng.integers(len(more)))])


def not_utf8(request: ModelInferRequest, served: Served, rng: Rng) -> None:
    """Some ids end within a letter, or have bytes in them or behind them that are no letter."""
    bad = (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"fine\xfe", b"\xff\0fine")

    def change(item: bytes) -> bytes:
        kinds = (item, item + b"\xff", bad[int(rng.integers(len(bad)))])
        return kinds[int(rng.integers(len(kinds)))]

    change_strings(request, change)
