"""What a contender of `bench/training/contest.py` is told, and when it trains: they take turns.

A contender is a process. It builds its network and begins to train; after each step it calls
`Turns.step`, which returns at once while its turn lasts and otherwise waits for the next. A turn
starts with a line on stdin, its CPU-seconds, and ends with a line of JSON on stdout.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

WARM_UP = 3  # steps before the first turn


@dataclass(frozen=True)
class Task:
    """What to train, the same for every contender."""

    data: str  # as `seqrec-export train --data` takes it
    events: str  # an .npz file with the split, for those who cannot import seqrec_export
    dim: int
    layers: int
    heads: int
    window: int
    batch: int
    dropout: float
    precision: str
    epochs: int  # 0: train by turns, without end

    @classmethod
    def given(cls) -> Task:
        return cls(**json.loads(sys.argv[1]))


class Turns:
    """Takes stdout for itself: what a library prints goes to stderr."""

    def __init__(self, task: Task) -> None:
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._endless = task.epochs == 0
        self._warm_up = WARM_UP
        self._seconds = 0.0
        self._tokens = self._places = self._steps = 0
        self._began = time.process_time()

    def step(self, tokens: int, places: int) -> None:
        """After a step on `tokens` targets, for which the network had to encode `places` events."""
        self._tokens += tokens
        self._places += places
        self._steps += 1
        if not self._endless:
            return
        if self._warm_up:
            self._warm_up -= 1
            if not self._warm_up:
                self.answer({"ready": True})
                self._wait()
        elif time.process_time() - self._began >= self._seconds:
            self.answer({})
            self._wait()

    def answer(self, more: dict[str, Any]) -> None:
        counted = {
            "tokens": self._tokens,
            "places": self._places,
            "steps": self._steps,
            "cpu_seconds": time.process_time() - self._began,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        print(json.dumps(counted | more), file=self._answers, flush=True)

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """What is done within is not training."""
        began = time.process_time()
        yield
        self._began += time.process_time() - began

    def epoch(self, number: int, metrics: Mapping[str, float]) -> None:
        """After the `number`th one, counted from 1, of a training that ends."""
        self.answer({"epoch": number, **{name: metrics[name] for name in ("hr@10", "ndcg@10")}})

    def start(self) -> None:
        """Count from here."""
        self._tokens = self._places = self._steps = 0
        self._began = time.process_time()

    def _wait(self) -> None:
        line = sys.stdin.readline()
        if not line:
            os._exit(0)  # from the middle of somebody's training loop
        self._seconds = float(line)
        self.start()
