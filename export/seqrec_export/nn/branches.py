"""A choice that is made for each batch: of two ways to compute something, one is taken."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# In an exported graph, until exporting.branches makes an If of it. `torch.cond` would trace nested
# choices again and again, and takes a minute for what takes seconds this way.
EITHER = "Either"
DOMAIN = "seqrec"
Tensors = tuple[Tensor, ...]


def either(choice: Tensor, first: Callable[[], Tensors], second: Callable[[], Tensors]) -> Tensors:
    """() bool, what is computed if it is true, and if not: the same shapes and types.

    When exported, both are traced, and what only one of them needs becomes its branch.
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
