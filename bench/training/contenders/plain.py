"""A plain PyTorch loop: nn.TransformerEncoder, cross-entropy over all items, Adam.

Of each user the last `window` targets, padded to the window, an epoch in a new random order.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from turns import Task, Turns

from seqrec_export.data.batches import Indices
from seqrec_export.data.histories import Dataset, prepare
from seqrec_export.data.readers import read
from seqrec_export.data.vocabulary import PAD
from seqrec_export.evaluation.ranking import retrieval_metrics

LEARNING_RATE = 1e-3


class Net(nn.Module):
    def __init__(self, task: Task, num_items: int) -> None:
        super().__init__()
        self.items = nn.Embedding(num_items, task.dim, padding_idx=PAD)
        self.positions = nn.Embedding(task.window, task.dim)
        for table in (self.items, self.positions):
            nn.init.normal_(table.weight, std=0.02)
        self.dropout = nn.Dropout(task.dropout)
        layer = nn.TransformerEncoderLayer(
            task.dim, task.heads, task.dim, task.dropout, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(
            layer, task.layers, nn.LayerNorm(task.dim), enable_nested_tensor=False
        )

    def forward(self, history: Tensor) -> Tensor:
        """(B, L) item indices, padding last -> (B, L, D)."""
        length = history.shape[1]
        x = self.dropout(self.items(history) + self.positions.weight[:length])
        mask = torch.ones(length, length, dtype=torch.bool).triu(1)
        return self.encoder(x, mask=mask, src_key_padding_mask=history == PAD, is_causal=True)


def padded(dataset: Dataset, starts: Indices, ends: Indices, width: int) -> Tensor:
    """The last `width` events of each range -> (B, width) item indices, padding last."""
    starts = np.maximum(starts, ends - width)
    positions = starts[:, None] + np.arange(width)
    real = positions < ends[:, None]
    return torch.from_numpy(np.where(real, dataset.histories.items[positions * real], PAD))


def main() -> None:
    task = Task.given()
    turns = Turns(task)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dataset = prepare(read(task.data), "leave_one_out")
    histories = dataset.histories
    net = Net(task, dataset.items.num_rows)
    optimizer = torch.optim.Adam(net.parameters(), LEARNING_RATE)
    starts = histories.offsets[:-1]
    ends = starts + np.bincount(histories.users[dataset.trained], minlength=histories.num_users)
    sequences = padded(dataset, starts, ends, task.window + 1)
    sequences = sequences[(sequences != PAD).sum(1) > 1]

    def score(targets: Indices) -> Tensor:
        history = padded(dataset, histories.starts(targets), targets, task.window)
        last = (history != PAD).sum(1) - 1
        return net(history)[torch.arange(len(last)), last] @ net.items.weight.T

    epoch = 0
    turns.start()
    while not task.epochs or epoch < task.epochs:
        epoch += 1
        for rows in torch.randperm(len(sequences)).split(task.batch):
            inputs, targets = sequences[rows, :-1], sequences[rows, 1:]
            with torch.autocast("cpu", torch.bfloat16, enabled=task.precision == "bf16-mixed"):
                logits = net(inputs) @ net.items.weight.T
                loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=PAD)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            turns.step(int((targets != PAD).sum()), targets.numel())
        with turns.uncounted():
            net.eval()
            metrics = retrieval_metrics(score, dataset, dataset.test)
            net.train()
        turns.epoch(epoch, metrics)


if __name__ == "__main__":
    main()
