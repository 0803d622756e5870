"""kill -9 of a publisher at random moments, with a real `serve` on the repository all the while.

    python -m bench.survival.kill_build [--kills 200] [--seed 0] [--triton-polls]

A process publishes two runs in turn and is killed, again and again. After each kill the repository
has to hold whole versions only, and what the manifest lists has to be one run's in all graphs; the
callers of the server have to get one run's answers or the other's, and no error. --triton-polls
puts a Triton there that looks for new versions itself, as an operator's container may.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

from bench.harness.serving_setup import calling, polled, scores, serve, verified_runs
from seqrec_export.exporting.exported import find_export
from seqrec_export.folders import read_json
from seqrec_export.repository.publish import publish
from seqrec_export.repository.published import models, published_versions, versions, vouched
from seqrec_export.training.train import load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--triton-polls", action="store_true")
    parser.add_argument("--publish", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.publish:
        repository, runs = map(Path, arguments.publish)
        kill_publishers(repository, runs, arguments.kills, arguments.seed)
        return
    with tempfile.TemporaryDirectory() as folder:
        runs, repository = Path(folder, "runs"), Path(folder, "repository")
        exports = verified_runs(runs, 2)
        publish(exports[0], repository)
        command = [sys.executable, "-m", "bench.survival.kill_build"]
        command += ["--publish", str(repository), str(runs)]
        command += ["--kills", str(arguments.kills), "--seed", str(arguments.seed)]
        serving = (
            polled(repository) if arguments.triton_polls else serve(repository, "--poll", "0.2")
        )
        with serving as served, calling(served.url, scores) as calls:
            subprocess.run(command, check=True)
            # A server does not look while somebody publishes, which is nearly all the time here.
            end = time.monotonic() + 60
            while len({answer for _, answer in calls.answered}) < 2 and time.monotonic() < end:
                time.sleep(0.2)
        answers = Counter(answer for _, answer in calls.answered)
        swaps = sum(a != b for (_, a), (_, b) in pairwise(sorted(calls.answered)))
        print(f"{len(calls.answered)} calls answered, {len(calls.failed)} failed")
        print(f"{len(answers)} different answers, of 2 runs, changing {swaps} times")
        assert not calls.failed, calls.failed[:3]
        assert len(answers) == 2


def kill_publishers(repository: Path, runs: Path, kills: int, seed: int) -> None:
    """In a process without threads, so that it can fork publishers that start at once."""
    exports = [find_export(load(runs / name)) for name in ("0", "1")]
    rng = random.Random(seed)
    began = time.perf_counter()
    publish(exports[1], repository)
    whole = time.perf_counter() - began
    outcomes: Counter[str] = Counter()
    for _ in range(kills):
        pid = os.fork()
        if pid == 0:
            while True:
                for exported in exports:
                    publish(exported, repository)
        time.sleep(rng.uniform(0, 3 * whole))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        outcomes[check(repository)] += 1
    publish(exports[1], repository)
    assert not list(repository.rglob("*.part"))
    print(f"a publish takes {whole * 1000:.0f} ms; {kills} kills left: {dict(outcomes)}")


def check(repository: Path) -> str:
    """Raise if the repository is not what it should be; how much of a publish it shows."""
    listed = published_versions(repository)
    newest = {max(listed[name]) for name in models(repository)}
    assert len(newest) == 1, listed
    for name in models(repository):
        for version in versions(repository / name):
            assert vouched(repository / name / str(version)), (name, version)
    keys = {
        read_json(repository / name / str(max(listed[name])) / "parity.json")["files"]["model.onnx"]
        for name in listed
    }
    assert len(keys) == len(listed)
    there = {versions(repository / name)[-1] for name in listed}
    if there != newest:
        return "versions that the manifest does not list yet"
    return "staged files" if list(repository.rglob("*.part")) else "nothing"


if __name__ == "__main__":
    main()
