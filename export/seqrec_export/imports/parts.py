"""What the imported networks have in common."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from seqrec_export.contract import Graph
from seqrec_export.data.vocabulary import NUM_RESERVED, PAD, UNKNOWN
from seqrec_export.imports.run import IMPORT_TOLERANCE
from seqrec_export.models import wire
from seqrec_export.models.retrieval import retrieval_graphs
from seqrec_export.nn.layers import LOWEST
from seqrec_export.nn.ragged import Ragged

BARRED = -1e9  # added to a logit that must not count: finite, and its exponential is 0


class Attention(nn.Module):
    """Scaled dot-product attention with several heads (Vaswani et al. 2017, section 3.2)."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, asking: Tensor, asked: Tensor, bias: Tensor) -> Tensor:
        """(B, L, D), (B, M, D), what is added to the logits (B or 1, 1, L, M) -> (B, L, D)."""
        split = (self.num_heads, asking.shape[-1] // self.num_heads)
        query, key, value = (
            linear(given).unflatten(-1, split).transpose(1, 2)
            for linear, given in ((self.query, asking), (self.key, asked), (self.value, asked))
        )
        logits = query @ key.transpose(-1, -2) / math.sqrt(split[1]) + bias
        attended: Tensor = self.out((logits.softmax(-1) @ value).transpose(1, 2).flatten(-2))
        return attended


def barred(allowed: Tensor, like: Tensor) -> Tensor:
    """Booleans, false for what attention may not look at -> what is added to its logits."""
    return torch.where(allowed, 0.0, BARRED).to(like.dtype)


def known_events(history: Ragged) -> Ragged:
    """Item indices without the unknown ones: these networks have never met one."""
    values = torch.where(history.values == UNKNOWN, PAD, history.values)
    return Ragged(values, history.lengths, history.steps)


def with_reserved(table: Tensor) -> Tensor:
    """(1 + V, D), the first row padding's -> (NUM_RESERVED + V, D), zeros for what is no item."""
    return torch.cat([table.new_zeros(NUM_RESERVED, table.shape[1]), table[1:]])


def no_popularity(num_rows: int) -> Tensor:
    """(V,) the order of items for users of whom nothing is known, if nobody gives one."""
    popularity = torch.zeros(num_rows)
    popularity[:NUM_RESERVED] = LOWEST
    return popularity


class _Config(Protocol):
    @property
    def dim(self) -> int: ...
    @property
    def keep_seen(self) -> bool: ...


def history_graphs(name: str, config: _Config, top_k: int) -> dict[str, Graph]:
    """`<name>`, `<name>_encoder` and `<name>_scorer` of a network that takes a history alone."""
    return retrieval_graphs(
        name,
        (wire.HISTORY,),
        config.dim,
        top_k,
        keep_seen=config.keep_seen,
        tolerance=IMPORT_TOLERANCE,
    )
