"""Training objectives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812

from seqrec_export.data.vocabulary import NUM_RESERVED
from seqrec_export.nn.item_search import Catalogue

_LOGITS_AT_ONCE = 1_000_000


def full_softmax(users: Tensor, catalogue: Catalogue, targets: Tensor) -> Tensor:
    """(N, D), the items, (N,) item indices -> mean cross-entropy over the whole catalogue.

    Padding and unknown have no logit, so no target may be one of them. Returns 0 for zero rows.
    """
    if not len(targets):
        return users.sum() * 0
    weight, bias = (part[NUM_RESERVED:] for part in _vectors_and_bias(catalogue))
    if users.device.type != "cpu" or not torch.is_grad_enabled():
        return F.cross_entropy(F.linear(users, weight, bias), targets - NUM_RESERVED)
    loss: Tensor = _FullSoftmax.apply(users, weight, bias, targets - NUM_RESERVED)  # type: ignore[no-untyped-call]
    return loss


class _FullSoftmax(torch.autograd.Function):
    """Linear layer and cross-entropy in one, a few rows at a time.

    The gradient is computed with the loss, while the logits are still in the cache: no (N, V)
    tensor is ever written to memory, nor read back from there.
    """

    @staticmethod
    def forward(ctx: Any, users: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        """(N, D), (V, D), (V,), (N,) classes -> scalar."""
        half = torch.is_autocast_enabled("cpu")
        with torch.autocast("cpu", enabled=False):
            kind = torch.bfloat16 if half else weight.dtype
            tiny = torch.finfo(weight.dtype).tiny  # the least that a probability is taken for
            factor, users = weight.to(kind), users.to(kind)
            by_user = torch.empty(users.shape, dtype=weight.dtype)
            by_weight = torch.zeros(weight.shape[::-1], dtype=weight.dtype)  # the faster way round
            by_bias = torch.zeros_like(bias)
            loss = torch.zeros((), dtype=weight.dtype)
            size = min(max(1, _LOGITS_AT_ONCE // len(weight)), len(users))
            buffers = torch.empty(2, size, len(weight), dtype=weight.dtype)
            products = torch.empty(size, len(weight), dtype=kind) if half else buffers[0]
            for start in range(0, len(users), size):
                rows = slice(start, min(start + size, len(users)))
                count, own = rows.stop - start, targets[rows, None]
                logits, share = buffers[:, :count]
                if half:
                    torch.mm(users[rows], factor.T, out=products[:count])
                    torch.add(products[:count], bias, out=logits)
                else:
                    torch.addmm(bias, users[rows], factor.T, out=logits)
                torch.softmax(logits, dim=1, out=share)
                loss -= share.gather(1, own).clamp_(min=tiny).log_().sum()
                share.scatter_add_(1, own, share.new_full(own.shape, -1.0))  # now the gradient
                by_bias += share.sum(dim=0)
                gradient = products[:count].copy_(share) if half else share
                by_user[rows] = gradient @ factor
                by_weight += users[rows].T @ gradient
        ctx.save_for_backward(by_user, by_weight.T, by_bias)
        ctx.count = len(users)
        return loss / len(users)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """A scalar -> the gradients of what `forward` takes."""
        scale = gradient / ctx.count
        return *(scale * part for part in ctx.saved_tensors), None


def _vectors_and_bias(catalogue: Catalogue) -> tuple[Tensor, Tensor]:
    """(V, D), (V,): zeros if there is no bias."""
    vectors, bias = catalogue.vectors, catalogue.bias
    return vectors, vectors.new_zeros(len(vectors)) if bias is None else bias


def bpr(positive: Tensor, negative: Tensor) -> Tensor:
    """(N,) logits of chosen and of sampled items -> scalar (Rendle et al. 2009, eq. 4)."""
    return -F.logsigmoid(positive - negative).mean()


def in_batch_softmax(
    users: Tensor, items: Tensor, item_index: Tensor, log_q: Tensor, temperature: float
) -> Tensor:
    """(B, D), (B, D) unit vectors, (B,) item indices, (B,) log sampling probability -> scalar.

    Every other row's item is a negative, corrected by log Q for being there in proportion to its
    popularity (Yi et al. 2019, "Sampling-Bias-Corrected Neural Modeling", eq. 3); the row's own
    item a second time is not its negative.
    """
    logits = users @ items.T / temperature - log_q[None]
    same = item_index[:, None] == item_index[None]
    same.fill_diagonal_(False)
    logits = logits.masked_fill(same, float("-inf"))
    return F.cross_entropy(logits, torch.arange(len(users), device=users.device))


def listwise_softmax(scores: Tensor, labels: Tensor, real: Tensor) -> Tensor:
    """(S, C) scores, (S, C) labels, (S, C) which candidates are real -> scalar.

    Cross-entropy between the labels, normalised to sum to 1, and the softmax of the scores
    (ListNet's top-one objective, Cao et al. 2007). Every row needs a positive label.
    """
    log_probability = scores.masked_fill(~real, float("-inf")).log_softmax(dim=1)
    target = torch.where(real, labels, 0.0)
    target = target / target.sum(dim=1, keepdim=True)
    return -(target * torch.where(real, log_probability, 0.0)).sum(dim=1).mean()


def sampled_softmax(
    users: Tensor, catalogue: Catalogue, targets: Tensor, negatives: Tensor
) -> Tensor:
    """(N, D), the items, (N,) targets, (M,) uniform negatives of all rows -> scalar.

    The negatives stand for the whole catalogue, so their logits are raised by log(V / M) (Bengio
    and Senecal 2008); one that is the row's target is left out.
    """
    weight, bias = _vectors_and_bias(catalogue)
    own = (users * weight[targets]).sum(dim=1, keepdim=True) + bias[targets][:, None]
    others = F.linear(users, weight[negatives], bias[negatives])
    others = others + torch.log(torch.tensor((len(weight) - NUM_RESERVED) / len(negatives)))
    others = others.masked_fill(negatives[None] == targets[:, None], float("-inf"))
    first = torch.zeros(len(users), dtype=torch.int64, device=users.device)
    return F.cross_entropy(torch.cat([own, others], dim=1), first)
