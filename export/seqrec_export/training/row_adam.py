"""Adam over embeddings of which a step looks up few rows, at the cost of those rows.

Adam moves every row at every step: without a gradient, by what is left of its momentum. Here a row
makes up for the steps that it missed when it is looked up again. Its momentum has by then faded
by a known factor a step, so the missed steps are one sum (of the steps of Kingma and Ba 2015,
algorithm 1, with no gradient), and the weights are those of `torch.optim.Adam` except for rounding.
Only epsilon is no such factor: its mean over the missed steps replaces it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

HIGHEST_BETA2 = 0.99999  # the powers of a higher one that are not 0 yet would be gigabytes
_NEGLIGIBLE = 1e-10
_ROWS_AT_ONCE = 16_384
_NEVER = -1


class RowAdam(torch.optim.Adam):
    """Adam without weight decay; parameters with sparse gradients are stepped by row.

    `sparse` are the embeddings that give those gradients, and the only readers of their weights.
    Anything else has to call `catch_up` before it reads them. All rows catch up when the learning
    rate changes, so it should not change at every step.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        sparse: Iterable[nn.Embedding],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        super().__init__(parameters, lr=lr, betas=betas)
        first, second = self.defaults["betas"]
        # What is left of a step's momentum after 1, 2, .. steps, as a share of the deviation.
        self._fading = first / math.sqrt(second)
        self._horizon = math.ceil(math.log(_NEGLIGIBLE) / math.log(self._fading))
        steps = torch.arange(math.ceil(math.log(_NEGLIGIBLE) / math.log(second)) + 1).double()
        self._unbiased = (1 - second**steps).sqrt()
        self._correction = self._unbiased / (1 - first**steps)
        self._reached: dict[Tensor, Tensor] = {}  # by weight: (rows,) the step each row has made
        self._rates: dict[Tensor, float] = {}  # by weight: the learning rate of the last step
        self._handles: list[RemovableHandle] = [
            embedding.register_forward_pre_hook(self._before_lookup) for embedding in sparse
        ]

    def close(self) -> None:
        """Catch up, and leave the embeddings alone."""
        self.catch_up()
        for handle in self._handles:
            handle.remove()

    @torch.no_grad()
    def catch_up(self) -> None:
        """Bring every row to the last step."""
        for weight in self._reached:
            self._catch_up_all(weight)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step, like `torch.optim.Adam.step`."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None and weight.grad.is_sparse:
                    self._step_rows(weight, group)
                    weight.grad = None
        super().step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """That of `torch.optim.Adam`."""
        self.catch_up()
        return super().state_dict()

    def _before_lookup(self, embedding: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        assert isinstance(embedding, nn.Embedding)
        if torch.is_grad_enabled():
            with torch.no_grad():
                self._catch_up(embedding.weight, torch.unique(arguments[0]))

    @torch.no_grad()
    def _step_rows(self, weight: Tensor, group: dict[str, Any]) -> None:
        assert weight.grad is not None
        state = self.state[weight]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(weight)
            state["exp_avg_sq"] = torch.zeros_like(weight)
        gradient = weight.grad.coalesce()
        rows, values = gradient.indices()[0], gradient.values()
        if self._rates.get(weight) != group["lr"]:
            self._catch_up_all(weight)
            self._rates[weight] = group["lr"]
        self._catch_up(weight, rows)
        state["step"] += 1
        step = int(state["step"])
        first, second = group["betas"]
        mean = torch.lerp(state["exp_avg"][rows], values, 1 - first)
        square = state["exp_avg_sq"][rows] * second + (1 - second) * values * values
        deviation = square.sqrt() / math.sqrt(1 - second**step) + group["eps"]
        weight[rows] -= group["lr"] / (1 - first**step) * mean / deviation
        state["exp_avg"][rows], state["exp_avg_sq"][rows] = mean, square
        self._steps_of(weight)[rows] = step

    def _catch_up_all(self, weight: Tensor) -> None:
        for start in range(0, len(weight), _ROWS_AT_ONCE):
            self._catch_up(weight, torch.arange(start, min(start + _ROWS_AT_ONCE, len(weight))))

    def _steps_of(self, weight: Tensor) -> Tensor:
        if weight not in self._reached:
            # A loaded state comes from a training that had caught up.
            known = self.state[weight]["exp_avg_sq"].any(dim=1)
            step = int(self.state[weight]["step"])
            self._reached[weight] = torch.where(known, step, _NEVER)
        return self._reached[weight]

    def _catch_up(self, weight: Tensor, rows: Tensor) -> None:
        state = self.state.get(weight)
        if not state:
            return
        reached, last = self._steps_of(weight), int(state["step"])
        since = reached[rows]
        behind = (since != _NEVER) & (since < last)
        rows, since = rows[behind], since[behind]
        if not len(rows):
            return
        group = next(g for g in self.param_groups if any(p is weight for p in g["params"]))
        first, second = group["betas"]
        missed = (last - since)[:, None]
        ahead = torch.arange(1, self._horizon + 1)
        at = (since[:, None] + ahead).clamp_(max=len(self._correction) - 1)
        shares = self._correction[at] * self._fading**ahead * (ahead <= missed)
        total = shares.sum(1, keepdim=True)
        epsilon = (shares * self._unbiased[at] * second ** (-ahead / 2)).sum(1, keepdim=True)
        epsilon *= group["eps"] / total
        mean, square = state["exp_avg"][rows], state["exp_avg_sq"][rows]
        moved = total.to(mean) * mean / (square.sqrt() + epsilon.to(mean))
        weight[rows] -= self._rates[weight] * moved
        state["exp_avg"][rows] = mean * first**missed
        state["exp_avg_sq"][rows] = square * second**missed
        reached[rows] = last
