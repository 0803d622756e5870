"""What the benches of `serve` share: small verified runs, a `serve`, callers without a pause."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from seqrec_export.clients.python import Client, Row
from seqrec_export.data.readers.synthetic import generate
from seqrec_export.errors import SeqrecError
from seqrec_export.exporting.exported import Exported, export_run
from seqrec_export.models.registry import MODELS
from seqrec_export.serving.server import start
from seqrec_export.training.train import train
from seqrec_export.verification.gate import refused, verify

MODEL = "caser"
SHOP = generate(users=300, items=200, events=6000, sessions=300, seed=1)
ROW: Row = {
    "history_item_ids": [str(i) for i in SHOP.item_ids[:5]],
    "user_id": str(SHOP.user_ids[0]),
}


def verified_runs(folder: Path, count: int) -> list[Exported]:
    """Runs of one model, of other weights each, exported and verified."""
    exports = []
    for seed in range(count):
        config = MODELS[MODEL].config(epochs=1)
        run = train(MODELS[MODEL], SHOP, config, folder / str(seed), seed=seed, progress=False)
        exports.append(export_run(run, 20))
        assert not refused(exports[-1], verify(exports[-1]))
    return exports


@dataclass
class Served:
    """A `seqrec-export serve` in a process of its own."""

    pid: int
    url: str
    said: Path


@contextmanager
def serve(repository: Path, *options: str) -> Iterator[Served]:
    command = [sys.executable, "-m", "seqrec_cli.main", "serve", "--repository", str(repository)]
    command += ["--grpc-port", "0", "--metrics-port", "0", *options]
    said = repository.with_name("said")
    with (
        said.open("w") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as process,
    ):
        try:
            assert process.stdout
            line = process.stdout.readline()
            assert line, said.read_text()
            yield Served(process.pid, line.split()[1], said)
        finally:
            process.terminate()


@contextmanager
def polled(repository: Path) -> Iterator[Served]:
    """A Triton that looks for new versions itself."""
    with start(repository, grpc_port=0, metrics_port=0, poll_seconds=1) as running:
        yield Served(running.pid, running.grpc_url, running.log)


@dataclass
class Calls:
    """What came of the calls so far: when each ended, and the version or the error."""

    answered: list[tuple[float, str]] = field(default_factory=list)
    failed: list[tuple[float, str]] = field(default_factory=list)


@contextmanager
def calling(url: str, answer: Callable[[Client], str], callers: int = 4) -> Iterator[Calls]:
    """Calls from several callers without a pause, each noted with what `answer` makes of it."""
    calls, done = Calls(), threading.Event()

    def call() -> None:
        with Client(url, timeout_seconds=5) as client:
            while not done.is_set():
                try:
                    calls.answered.append((time.monotonic(), answer(client)))
                    time.sleep(0.002)
                except SeqrecError as error:
                    calls.failed.append((time.monotonic(), str(error)))
                    time.sleep(0.01)

    with ThreadPoolExecutor(callers) as pool:
        futures = [pool.submit(call) for _ in range(callers)]
        try:
            yield calls
        finally:
            done.set()
        for future in futures:
            future.result()


def scores(client: Client) -> str:
    """The answer to ROW, by which the weights are told apart."""
    return " ".join(f"{score:.3f}" for _, score in client.recommend(MODEL, [ROW], 5)[0])
