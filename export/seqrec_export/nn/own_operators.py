"""What no operator of PyTorch says: a choice for each batch, and a matrix that is read as it lies.

Each is an operator of our own while a network is exported; exporting.own_operators then writes it
with those of ONNX.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

DOMAIN = "seqrec"
EITHER, UNPACKED = "Either", "Unpacked"
Tensors = tuple[Tensor, ...]


def either(choice: Tensor, first: Callable[[], Tensors], second: Callable[[], Tensors]) -> Tensors:
    """() bool, what is computed if it is true, and if not: the same shapes and types.

    When exported, both are traced, and what only one of them needs becomes a branch of an If.
    `torch.cond` would trace choices within choices again and again: a minute for some seconds.
    """
    if not torch.compiler.is_exporting():
        return first() if choice else second()
    ways = first(), second()
    made = torch.onnx.ops.symbolic_multi_out(
        f"{DOMAIN}::{EITHER}",
        (choice, *ways[0], *ways[1]),
        dtypes=[tensor.dtype for tensor in ways[0]],
        shapes=[tensor.shape for tensor in ways[0]],
        version=1,
    )
    return tuple(made)


def unpacked(matrix: Tensor, rows: Tensor) -> Tensor:
    """(V, D), (B, D) that it will be multiplied with -> the matrix, read from the file as it lies.

    Else ONNX Runtime rearranges it for many rows when it loads it, into a second copy, and takes
    up to twice as long for one row. It does so with what is constant.
    """
    if not torch.compiler.is_exporting():
        return matrix
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::{UNPACKED}", (matrix, rows), dtype=matrix.dtype, shape=matrix.shape, version=1
    )


def size(tensor: Tensor) -> Tensor:
    """() int64: how many elements. What is computed from a shape would be taken for a constant."""
    if not torch.compiler.is_exporting():
        return torch.tensor(tensor.numel())
    return torch.onnx.ops.symbolic("Size", (tensor,), dtype=torch.int64, shape=(), version=13)
