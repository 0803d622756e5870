"""What Lightning's Trainer costs a step, compared with a plain loop over the same batches.

    python -m bench.training.trainer_overhead [--epochs 2] [--rounds 3]

Prints the median time of a step in both, interleaved, and the ratio. Validation and checkpoints are
left out of both. The loop is the limit: nothing that trains these networks can be faster.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import lightning
import numpy as np
import torch

from seqrec_export.data.histories import Dataset, prepare
from seqrec_export.data.readers import read
from seqrec_export.models.model import Model, fill_buffers
from seqrec_export.models.registry import MODELS
from seqrec_export.training.fit import lightning_module
from seqrec_export.training.trainer import quieten


def plain_loop(model: Model, dataset: Dataset, config: object, epochs: int) -> float:
    net = model.net(config, dataset.num_rows)
    fill_buffers(net, dataset)
    net.train()
    optimizer = torch.optim.Adam(net.parameters(), lr=config.learning_rate)
    steps = 0
    started = time.perf_counter()
    for epoch in range(epochs):
        for batch in model.batches(dataset, config, np.random.default_rng([0, epoch])):
            optimizer.zero_grad()
            net.loss(batch).backward()
            if config.gradient_clip:
                torch.nn.utils.clip_grad_norm_(net.parameters(), config.gradient_clip)
            optimizer.step()
            steps += 1
    return (time.perf_counter() - started) / steps


def trainer(model: Model, dataset: Dataset, config: object, epochs: int) -> float:
    net = model.net(config, dataset.num_rows)
    fill_buffers(net, dataset)
    module = lightning_module(model, net, dataset, config, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        lightning_trainer = lightning.Trainer(
            accelerator="cpu",
            max_epochs=epochs,
            gradient_clip_val=config.gradient_clip or None,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            default_root_dir=Path(folder),
        )
        started = time.perf_counter()
        lightning_trainer.fit(module)
    return (time.perf_counter() - started) / (epochs * model.num_batches(dataset, config))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="synthetic")
    parser.add_argument("--model", action="append", choices=list(MODELS))
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    quieten()
    interactions = read(options.data)
    print("model       loop ms  Trainer ms  ratio")
    for name in options.model or MODELS:
        model = MODELS[name]
        dataset = prepare(interactions, model.split, new_items=model.ranks_new_items)
        config = model.config()
        plain_loop(model, dataset, config, 1)
        pairs = [
            (
                plain_loop(model, dataset, config, options.epochs),
                trainer(model, dataset, config, options.epochs),
            )
            for _ in range(options.rounds)
        ]
        loop, whole = (statistics.median(times) * 1e3 for times in zip(*pairs, strict=True))
        ratio = statistics.median(t / p for p, t in pairs)
        print(f"{model.name:10}  {loop:7.2f}  {whole:10.2f}  {ratio:5.2f}", flush=True)


if __name__ == "__main__":
    main()
