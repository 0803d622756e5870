"""Parts that several models share: compaction of histories, a GRU that exports, top-k."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqrec_export.vocabulary import NUM_RESERVED, PAD

LOWEST = torch.finfo(torch.float32).min  # the score of what must not be recommended
EMBEDDING_LIMIT = 1e6  # keeps a dot product of any caller's vector finite


def align(values: Tensor, history: Tensor, missing: float) -> Tensor:
    """(B, M) parallel to (B, L) -> (B, L): cut, or filled with `missing`."""
    batch, length = history.shape
    filler = values.new_full((batch, 1), missing).expand(batch, length)
    return torch.cat([values, filler], dim=1)[:, :length]


def known_items(history: Tensor) -> Tensor:
    """(B, L) item indices -> (B, 1) int32: how many of them are real items."""
    return (history >= NUM_RESERVED).sum(dim=1, keepdim=True).to(torch.int32)


def compact(
    history: Tensor,
    *parallel: Tensor,
    window: int,
    oldest_first_column: bool = False,
    fixed_width: bool = False,
) -> tuple[Tensor, ...]:
    """(B, L) item indices with padding anywhere -> (B, W) the last `window` real events, in order.

    W is min(L + 1, window), or `window` if `fixed_width`; never 0. The events stand at the right
    edge, padding before them; with `oldest_first_column` at the left edge, padding after them.
    `parallel` tensors (B, L) move along. This is the one place where raw histories are padded.
    """
    # One more padding column, so that a history of length 0 is not a case of its own.
    history = torch.cat([history.new_zeros(history.shape[0], 1), history], dim=1)
    length = history.shape[1]
    width = window if fixed_width else torch.sym_min(length, window)  # type: ignore[no-untyped-call]
    real = history != PAD
    rank = real.to(torch.int64).cumsum(dim=1)  # 1 for the first real event
    total = rank[:, -1:]
    column = (width - 1) - (total - rank)  # counted from the end: the last event is width - 1
    keep = real & (column >= 0)
    if oldest_first_column:
        column = column - (width - total).clamp(min=0)
    column = torch.where(keep, column, torch.ones_like(column) * width)  # what is dropped
    outputs = []
    for values in (history, *parallel):
        if values is not history:
            values = torch.cat([values.new_zeros(values.shape[0], 1), values], dim=1)
        room = values.new_zeros(values.shape[0], width + 1)
        outputs.append(room.scatter(1, column, values)[:, :width])
    return tuple(outputs)


class GRU(nn.GRU):
    """One-layer GRU over rows whose real steps stand first; exports as the ONNX GRU operator."""

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


def finite(x: Tensor) -> Tensor:
    """Any floats -> no NaN (0 instead), none so large that a dot product is not finite."""
    return torch.where(torch.isnan(x), 0.0, x).clamp(-EMBEDDING_LIMIT, EMBEDDING_LIMIT)


def mask_unknown(scores: Tensor, candidates: Tensor) -> Tensor:
    """(B, C) scores, (B, C) item indices -> (B, C), padding and unknown items at LOWEST."""
    return torch.where(candidates >= NUM_RESERVED, scores, LOWEST)


def mask_seen(scores: Tensor, history: Tensor) -> Tensor:
    """(B, V) scores, (B, L) item indices -> (B, V), items of the history at LOWEST."""
    return scores.scatter(1, history, LOWEST)


def cold_start(scores: Tensor, known: Tensor, popularity: Tensor) -> Tensor:
    """(B, V), (B, 1) known items, (V,) -> (B, V): popularity where nothing is known."""
    return torch.where(known > 0, scores, popularity[None])


def top_items(scores: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """(B, V) catalogue scores -> (B, K) item indices, (B, K) scores, best first.

    Reserved indices never come back; where the catalogue has no more items, the index is PAD.
    """
    reserved = scores.new_full((1, NUM_RESERVED), LOWEST).expand(scores.shape[0], NUM_RESERVED)
    scores = torch.cat([reserved, scores[:, NUM_RESERVED:]], dim=1)
    values, indices = scores.topk(top_k, dim=1)
    return torch.where(values > LOWEST, indices, PAD), values
