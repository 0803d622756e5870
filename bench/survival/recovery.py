"""How soon `serve` serves again after kills and rollbacks, and what callers notice.

    python -m bench.survival.recovery [--rounds 5] [--poll 1]

Four callers ask all the while. Each line is one event: from the kill, or the start of the command,
to the first right answer, and how many calls failed.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.harness.serving_setup import MODEL, Calls, Served, calling, scores, serve, verified_runs
from seqrec_export.clients.python import Client
from seqrec_export.repository.publish import publish


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--poll", default="1")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder, "repository")
        exports = verified_runs(Path(folder, "runs"), 2)
        publish(exports[0], repository)
        with serve(repository, "--poll", arguments.poll) as served:
            with Client(served.url) as client:
                old = scores(client)
            publish(exports[1], repository)
            with calling(served.url, scores) as calls:
                new = until(calls, lambda answer: answer != old)
                for what, act in {
                    "kill -9 of a backend": lambda: kill(served, "_stub", f"{MODEL}/"),
                    "kill -9 of Triton": lambda: kill(served, "bin/tritonserver"),
                }.items():
                    seconds = [
                        after(act, calls, lambda a: a == new) for _ in range(arguments.rounds)
                    ]
                    show(what, seconds)
                swaps = []
                for _ in range(arguments.rounds):
                    swaps.append(after(lambda: roll_back(repository), calls, lambda a: a == old))
                    swaps.append(after(lambda: roll_back(repository, 2), calls, lambda a: a == new))
                show("rollback and its undoing", swaps)
            print(served.said.read_text(), file=sys.stderr)


def until(calls: Calls, wanted: Callable[[str], bool]) -> str:
    """Wait for the first answer from now on that is wanted."""
    seen = len(calls.answered)
    while True:
        for _, answer in calls.answered[seen:]:
            if wanted(answer):
                return answer
            seen += 1
        time.sleep(0.01)


def after(
    act: Callable[[], None], calls: Calls, wanted: Callable[[str], bool]
) -> tuple[float, int]:
    """Seconds from the start of the act to the first wanted answer, and the calls that failed."""
    failed = len(calls.failed)
    began = time.monotonic()
    with ThreadPoolExecutor() as pool:
        acting = pool.submit(act)
        time.sleep(0.05)  # calls under way may still be answered
        until(calls, wanted)
        seconds = time.monotonic() - began
        acting.result()
    time.sleep(2)
    return seconds, len(calls.failed) - failed


def show(what: str, found: list[tuple[float, int]]) -> None:
    seconds = [s for s, _ in found]
    print(
        f"{what}: median {statistics.median(seconds):.2f} s, slowest {max(seconds):.2f} s,"
        f" {sum(f for _, f in found)} calls failed in {len(found)} rounds",
        flush=True,
    )


def kill(served: Served, name: str, argument: str = "") -> None:
    """The first descendant of `serve` with this name, and this in its first argument."""
    found = [served.pid]
    for pid in found:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    for pid in found:
        command, _, rest = Path(f"/proc/{pid}/cmdline").read_text().partition("\0")
        first = rest.partition("\0")[0]
        if command.endswith(name) and argument in first:
            os.kill(pid, signal.SIGKILL)
            return
    raise SystemExit(f"no process called {name} runs")


def roll_back(repository: Path, to: int | None = None) -> None:
    command = [sys.executable, "-m", "seqrec_cli.main", "rollback", MODEL, "-r", str(repository)]
    command += [] if to is None else ["--to", str(to)]
    subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    main()
