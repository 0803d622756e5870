"""Tokens that training takes a CPU-second: `sasrec` next to what one would use instead.

    python -m bench.training.contest [--data movielens:ml-1m_sasrec.txt.gz] [--dim 50] [--layers 2]
                             [--heads 2] [--window 200] [--batch 32] [--seconds 20] [--rounds 3]
                             [--others PATH/bin/python] [--to-the-end EPOCHS] [--only NAME ...]
                             [--json FILE]

Same events, split, sizes, dropout and loss (cross-entropy over the whole catalogue), one thread
each. Every contender is a process that trains while it is its turn, `--seconds` of CPU time a
round, and waits while the others train; the table shows medians over the rounds.

- fp32, bf16: `seqrec-export train`, with Lightning's Trainer in 32-true and in bf16-mixed; no
  validation and no checkpoints.
- plain: nn.TransformerEncoder, F.cross_entropy over all positions, Adam, windows padded to the end;
  plain-bf16: the same under autocast.
- rectools: RecTools' SASRecModel, loss="softmax".
- recbole: RecBole's SASRec, loss_type CE, inner_size as `dim`. It makes a sequence of every event
  and predicts the last one only, so that 32 windows are 32 tokens.

A token is a target that is no padding. `padding` is the share of encoded places without a target,
`limit` the share of the time that the matrix products of a step without padding would take at the
rate of a large product (2048 cubed) in the same precision: forward and backward, causal attention
counted half, softmax included.

The other libraries want an environment of their own:

    python -m venv others && others/bin/pip install torch==2.13.0
    others/bin/pip install torch==2.13.0 "rectools[torch]==0.19.0"
    others/bin/pip install --no-deps recbole==1.2.1 thop
    others/bin/pip install torch==2.13.0 "numpy<2" colorlog==4.7.2 colorama==0.4.4 scikit-learn \\
        pyyaml tabulate texttable psutil tensorboard

`--to-the-end 5` trains bf16, plain and rectools for 5 epochs one after another instead and ranks
all items but the seen ones for each test item, after every epoch (rectools: after the last). Time
for the ranking is not counted. It ends with how much sooner bf16 was as good as each other was in
the end. An epoch of `seqrec-export` is every event; the others take the last `window` targets of
each user.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.training.contenders.turns import Task
from seqrec_export.data.histories import Dataset, prepare
from seqrec_export.data.readers import read
from seqrec_export.data.vocabulary import NUM_RESERVED

FOLDER = Path(__file__).with_name("contenders")

OURS = ("fp32", "bf16")
HALF = ("bf16", "plain-bf16")
SCRIPTS = {
    "fp32": "ours.py",
    "bf16": "ours.py",
    "plain": "plain.py",
    "plain-bf16": "plain.py",
    "rectools": "by_rectools.py",
    "recbole": "by_recbole.py",
}
FOREIGN = ("rectools", "recbole")
TO_THE_END = ("bf16", "plain", "rectools")
GOALS = {"plain": 3.0, "rectools": 10.0}
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Absent(Exception):  # noqa: N818
    """Why a contender does not take part."""


class Contender:
    """A process that trains when asked to."""

    def __init__(self, name: str, python: str, task: Task, folder: Path) -> None:
        self.log = folder / f"{name}.log"
        if name in HALF:
            task = replace(task, precision="bf16-mixed")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [python, FOLDER / SCRIPTS[name], json.dumps(asdict(task))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | ONE_THREAD,
                cwd=folder,
            )

    def turn(self, seconds: float) -> dict[str, float]:
        assert self.process.stdin
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, float]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            said = self.log.read_text().strip().splitlines()
            raise Absent(said[-1] if said else f"ended with {self.process.wait()}")
        result: dict[str, float] = json.loads(line)
        return result

    def end(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def write_events(dataset: Dataset, path: Path) -> None:
    """Users, items and parts (0 train, 1 validation, 2 test) of all events, oldest first."""
    part = np.zeros(len(dataset.histories.items), np.int8)
    part[dataset.validation], part[dataset.test] = 1, 2
    np.savez(path, users=dataset.histories.users, items=dataset.histories.items, part=part)


def operations(dataset: Dataset, task: Task) -> float:
    """Floating-point operations of the matrix products, a token, forward and backward."""
    events = np.bincount(dataset.histories.users[dataset.trained])
    full, rest = np.divmod(events, task.window)
    attended = (full * task.window * (task.window + 1) + rest * (rest + 1)).sum() / 2 / events.sum()
    layer = 6 * task.dim**2 + 2 * task.dim * attended  # of which a query meets `attended` keys
    catalogue = task.dim * (dataset.items.num_rows - NUM_RESERVED)
    return 3 * 2 * (task.layers * layer + catalogue)


def product_rate(dtype: torch.dtype, size: int = 2048) -> float:
    """Floating-point operations a CPU-second of one large product; the best of three."""
    left, right = (torch.randn(size, size).to(dtype) for _ in range(2))
    shortest = float("inf")
    for _ in range(3):
        began = time.process_time()
        left @ right
        shortest = min(shortest, time.process_time() - began)
    return 2 * size**3 / shortest


def start(
    names: list[str], others: str | None, task: Task, folder: Path
) -> tuple[dict[str, Contender], dict[str, str]]:
    """Those that are ready for their first turn, and why the rest is absent."""
    ready: dict[str, Contender] = {}
    absent: dict[str, str] = {}
    for name in names:
        try:
            if name in FOREIGN and not others:
                raise Absent("no --others PATH/bin/python")
            if name == "recbole" and task.epochs:
                raise Absent("takes part by turns only; an epoch of it takes hours")
            python = str(others) if name in FOREIGN else sys.executable
            contender = Contender(name, python, task, folder)
            if not task.epochs:
                contender.answer()
            ready[name] = contender
            print(f"{name} is ready", file=sys.stderr)
        except (Absent, OSError) as error:
            absent[name] = str(error)
    return ready, absent


def by_turns(
    contenders: dict[str, Contender], seconds: float, rounds: int, absent: dict[str, str]
) -> tuple[dict[str, list[dict[str, float]]], dict[str, float]]:
    """What each did in each round, and the rates of a large product in both precisions.

    One that dies between the rounds becomes absent.
    """
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    rates = {"fp32": 0.0, "bf16": 0.0}
    for number in range(rounds):
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            rates[name] = max(rates[name], product_rate(dtype))
        for name in list(turns):
            try:
                turn = contenders[name].turn(seconds)
            except (Absent, OSError) as error:
                del turns[name]
                absent[name] = str(error)
                continue
            turns[name].append(turn | {"rate": turn["tokens"] / turn["cpu_seconds"]})
            print(f"round {number + 1} {name} {turns[name][-1]['rate']:.0f}", file=sys.stderr)
    return turns, rates


def summary(
    turns: dict[str, list[dict[str, float]]], rates: dict[str, float], flops: float
) -> dict[str, dict[str, float]]:
    rows = {}
    for name, own in turns.items():
        total = {key: sum(turn[key] for turn in own) for key in own[0]}
        rate = statistics.median(turn["rate"] for turn in own)
        rows[name] = {
            "tokens_per_cpu_second": rate,
            "ms_per_step": 1e3 * total["cpu_seconds"] / total["steps"],
            "padding": 1 - total["tokens"] / total["places"],
            "peak_mb": max(turn["peak_mb"] for turn in own),
            "share_of_limit": rate * flops / rates["bf16" if name in HALF else "fp32"],
        }
        for ours in OURS:
            if ours in turns:
                pairs = zip(turns[ours], own, strict=True)
                rows[name][f"{ours}_is"] = statistics.median(
                    a["rate"] / b["rate"] for a, b in pairs
                )
    return rows


def show(rows: dict[str, dict[str, float]]) -> None:
    print("            tokens/CPU-s  fp32 is  bf16 is  ms/step  padding  peak MB  limit")
    for name, row in rows.items():
        ratios = (f"{row[key]:.2f}x" if key in row else "-" for key in ("fp32_is", "bf16_is"))
        print(
            f"{name:10} {row['tokens_per_cpu_second']:13,.0f}",
            *(f"{ratio:>8}" for ratio in ratios),
            f"{row['ms_per_step']:8,.0f} {row['padding']:8.0%} {row['peak_mb']:8,.0f}"
            f" {row['share_of_limit']:6.1%}",
        )
    for name, goal in GOALS.items():
        if "bf16_is" in rows.get(name, {}):
            ratio = rows[name]["bf16_is"]
            print(f"bf16 is {ratio:.1f} times {name}, goal {goal:g}: {verdict(ratio, goal)}")


def verdict(ratio: float, goal: float) -> str:
    return "met" if ratio >= goal else "MISSED"


def to_the_end(contender: Contender, epochs: int) -> Iterator[dict[str, float]]:
    """What it says after its epochs, the last one at least: CPU-minutes so far, and metrics."""
    epoch = 0.0
    while epoch < epochs:
        said = contender.answer()
        epoch = said["epoch"]
        yield said | {"cpu_minutes": said["cpu_seconds"] / 60}


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="synthetic")
    parser.add_argument("--dim", type=int, default=50)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--window", type=int, default=200)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--seconds", type=float, default=20.0, help="CPU time of a turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--others", help="the interpreter that has RecTools and RecBole")
    parser.add_argument("--only", nargs="+", choices=SCRIPTS)
    parser.add_argument("--to-the-end", type=int, default=0, metavar="EPOCHS")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    dataset = prepare(read(options.data), "leave_one_out")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_events(dataset, folder / "events.npz")
        task = Task(
            data=where(options.data),
            events=str(folder / "events.npz"),
            dim=options.dim,
            layers=options.layers,
            heads=options.heads,
            window=options.window,
            batch=options.batch,
            dropout=options.dropout,
            precision="32-true",
            epochs=options.to_the_end,
        )
        flops = operations(dataset, task)
        others = options.others and str(Path(options.others).absolute())
        names = options.only or list(TO_THE_END if task.epochs else SCRIPTS)
        result: dict[str, Any] = {"task": asdict(task), "torch": torch.__version__, "flops": flops}
        if task.epochs:
            result |= train_to_the_end(names, others, task, folder)
        else:
            contenders, absent = start(names, others, task, folder)
            turns, rates = by_turns(contenders, options.seconds, options.rounds, absent)
            rows = summary(turns, rates, flops)
            print(
                f"torch {torch.__version__}, 1 thread; {len(dataset.train):,} training events of "
                f"{len(dataset.items):,} items; dim {task.dim}, {task.layers} layers, "
                f"{task.heads} heads, window {task.window}, batch {task.batch}\n"
                f"{flops / 1e6:.2f} million operations a token; a large product does "
                f"{rates['fp32'] / 1e9:.0f} billion a second in fp32, "
                f"{rates['bf16'] / 1e9:.0f} in bf16\n"
            )
            show(rows)
            for contender in contenders.values():
                contender.end()
            result |= {"rates": rates, "rows": rows, "turns": turns, "absent": absent}
        for absentee, why in result["absent"].items():
            print(f"absent: {absentee}: {why}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def train_to_the_end(
    names: list[str], others: str | None, task: Task, folder: Path
) -> dict[str, Any]:
    curves: dict[str, list[dict[str, float]]] = {}
    absent: dict[str, str] = {}
    print("            epoch  CPU-minutes  tokens/CPU-s   HR@10  NDCG@10")
    for name in names:
        contenders, missing = start([name], others, task, folder)
        absent |= missing
        for contender in contenders.values():
            curves[name] = []
            try:
                for row in to_the_end(contender, task.epochs):
                    curves[name].append(row)
                    print(
                        f"{name:10} {row['epoch']:6} {row['cpu_minutes']:12.2f}"
                        f" {row['tokens'] / row['cpu_seconds']:13,.0f}"
                        f"  {row['hr@10']:.4f}   {row['ndcg@10']:.4f}",
                        flush=True,
                    )
            except Absent as error:
                del curves[name]
                absent[name] = str(error)
                continue
            contender.end()
    sooner = how_much_sooner(curves)
    for name, ratio in sooner.items():
        if ratio is None:
            print(f"bf16 never was as good as {name} in the end")
        else:
            print(f"bf16 was as good as {name} in the end {ratio:.1f} times sooner")
    return {"curves": curves, "sooner": sooner, "absent": absent}


def how_much_sooner(curves: dict[str, list[dict[str, float]]]) -> dict[str, float | None]:
    """CPU time of the others over that in which bf16 had their last NDCG@10; None: never."""
    ratios: dict[str, float | None] = {}
    for name, curve in curves.items():
        if name != "bf16" and "bf16" in curves:
            end = curve[-1]
            reached = [row for row in curves["bf16"] if row["ndcg@10"] >= end["ndcg@10"]]
            ratios[name] = end["cpu_minutes"] / reached[0]["cpu_minutes"] if reached else None
    return ratios


def where(data: str) -> str:
    """The same source for a process that runs in another folder."""
    name, _, path = data.partition(":")
    return f"{name}:{Path(path).absolute()}" if path and Path(path).exists() else data


if __name__ == "__main__":
    main()
