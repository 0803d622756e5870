"""Parts that several models share: a GRU that exports, masks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from seqrec_export.data.vocabulary import NUM_RESERVED, PAD, UNKNOWN
from seqrec_export.nn.ragged import Ragged

LOWEST = torch.finfo(torch.float32).min  # the score of what must not be recommended
EMBEDDING_LIMIT = 1e6  # keeps a dot product of any caller's vector finite


def known_items(history: Ragged) -> Tensor:
    """Item indices -> (B, 1) int32: how many of each row are real items."""
    return history.counts[1][:, None].to(torch.int32)


class GRU(nn.GRU):
    """One-layer GRU over rows whose real steps come first; exports as the ONNX GRU operator."""

    weight_ih_l0: Tensor
    weight_hh_l0: Tensor
    bias_ih_l0: Tensor
    bias_hh_l0: Tensor

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """(B, L, I), (B,) at least 1 -> (B, L, H) states, (B, H) the last real state."""
        if torch.compiler.is_exporting():
            return self._onnx_gru(x, lengths)
        states, _ = super().forward(x)
        last = (lengths - 1)[:, None, None].expand(-1, 1, self.hidden_size)
        return states, states.gather(1, last)[:, 0]

    def _onnx_gru(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        # pack_padded_sequence and nn.GRU do not export with a dynamic length; the operator does.
        def gates(parameter: Tensor) -> Tensor:
            reset, update, new = parameter.chunk(3, dim=0)  # PyTorch's order; ONNX: update first
            return torch.cat([update, reset, new], dim=0)

        bias = torch.cat([gates(self.bias_ih_l0), gates(self.bias_hh_l0)])
        batch, length, _ = x.shape
        states, last = torch.onnx.ops.symbolic_multi_out(
            "GRU",
            [
                x.transpose(0, 1),
                gates(self.weight_ih_l0)[None],
                gates(self.weight_hh_l0)[None],
                bias[None],
                lengths.to(torch.int32),
            ],
            attrs={"hidden_size": self.hidden_size, "linear_before_reset": 1},
            dtypes=[torch.float32, torch.float32],
            shapes=[[length, 1, batch, self.hidden_size], [1, batch, self.hidden_size]],
            version=14,
        )
        return states[:, 0].transpose(0, 1), last[0]


def add_distances(module: nn.Module, learned: bool, *shape: int) -> None:
    """Gives `module` its `by_distance`: (..., W) added to logits, the last of the step itself.

    It is a parameter if it is learned, else zeros that are not part of the state.
    """
    by_distance = torch.zeros(shape)
    if learned:
        module.register_parameter("by_distance", nn.Parameter(by_distance))
    else:
        module.register_buffer("by_distance", by_distance, persistent=False)


def distances(window: int, step: Tensor) -> Tensor:
    """(L,) steps 0, 1, .. -> (L, L) the place in `by_distance` that step i has for step j <= i."""
    return (window - 1 - step[:, None] + step[None]).clamp(max=window - 1)


class _Dropped(torch.autograd.Function):
    """Elements that are dropped, with the scale of the others; the mask is all that is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, levels: int) -> Tensor:
        """Any shape; an element is dropped with the probability `levels` / 256."""
        # One draw of 64 bits decides about eight elements; torch would draw one for each.
        draws = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        keep = (draws.view(torch.uint8)[: x.numel()] >= levels).view(x.shape)
        ctx.save_for_backward(keep)
        ctx.scale = 256 / (256 - levels)
        return _kept(x, keep).mul_(ctx.scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """The same for the gradient."""
        (keep,) = ctx.saved_tensors
        return _kept(gradient, keep).mul_(ctx.scale), None


def _kept(x: Tensor, keep: Tensor) -> Tensor:
    """Zeros in place of what `keep` leaves out. On the bits this takes a tenth of `masked_fill`."""
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]
    return (x.contiguous().view(bits) & keep.to(bits).neg_()).view(x.dtype)


class Dropout(nn.Dropout):
    """Like PyTorch's, but at a fifth of its cost on the CPU; the probability has steps of 1/256."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        if not self.training or x.device.type != "cpu":
            return super().forward(x)
        levels = round(256 * self.p)
        if levels in (0, 256):
            return super().forward(x)
        dropped: Tensor = _Dropped.apply(x, levels)  # type: ignore[no-untyped-call]
        return dropped


def hide_items(items: Tensor, share: float) -> Tensor:
    """Item indices of any shape -> the same, a random share of those that are no padding unknown.

    So that a model learns what an item that it has never seen is like.
    """
    hidden = torch.rand(items.shape, device=items.device) < share
    return torch.where(hidden & (items != PAD), UNKNOWN, items)


def finite(x: Tensor) -> Tensor:
    """Any floats -> no NaN (0 instead), none so large that a dot product is not finite."""
    return torch.where(torch.isnan(x), 0.0, x).clamp(-EMBEDDING_LIMIT, EMBEDDING_LIMIT)


def dot(vectors: Tensor, user: Tensor, candidates: Ragged) -> Tensor:
    """(V, D), (B, D), item indices -> (N,) each candidate's vector times that of its row's user."""
    users = user.index_select(0, candidates.rows)
    return (vectors.index_select(0, candidates.values) * users).sum(dim=1)


def mask_unknown(scores: Tensor, candidates: Tensor) -> Tensor:
    """(N,) scores, (N,) item indices -> (N,), padding and unknown items at LOWEST."""
    return torch.where(candidates >= NUM_RESERVED, scores, LOWEST)


def mask_seen(scores: Tensor, history: Ragged) -> Tensor:
    """(B, V) scores, item indices -> (B, V), the items of a row's history at LOWEST."""
    lowest = scores.new_full((1,), LOWEST)
    return scores.index_put((history.rows, history.values), lowest)


def cold_start(scores: Tensor, known: Tensor, popularity: Tensor) -> Tensor:
    """(B, V), (B, 1) known items, (V,) -> (B, V): popularity if nothing is known."""
    return torch.where(known > 0, scores, popularity[None])
