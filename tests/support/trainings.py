"""Trainings that are killed, and runs compared."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from seqrec_export.training.train import Run

LOG = {"users": 120, "items": 80, "events": 2500, "sessions": 120, "seed": 2}


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.path / "weights.safetensors")


def assert_equal_runs(one: Run, other: Run) -> None:
    assert one.metrics["test"] == other.metrics["test"]
    assert one.metrics["curve"] == other.metrics["curve"]
    assert one.metrics["ended"] == other.metrics["ended"]
    before, after = weights(one), weights(other)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name


TRAIN = """
import sys
from pathlib import Path
from seqrec_export.data.readers.synthetic import generate
from seqrec_export.models.registry import MODELS
from seqrec_export.training.train import train
from support.served import small_config
from support.trainings import LOG
name, path = sys.argv[1], Path(sys.argv[2])
epochs = int(sys.argv[3])
config = small_config(name, epochs=epochs, patience=epochs)
train(MODELS[name], generate(**LOG), config, path, progress=False)
"""


@contextmanager
def begun(name: str, path: Path, epochs: int) -> Iterator[int]:
    """The id of a process that trains, once a later epoch than the first is safe; then SIGKILL."""
    command = [sys.executable, "-c", TRAIN, name, str(path), str(epochs)]
    here = {"PYTHONPATH": os.pathsep.join(sys.path)}  # so that it finds what this process finds
    process = subprocess.Popen(command, env=os.environ | here)
    state = path.with_name(f".{path.name}.training") / "checkpoints" / "last" / "state.json"
    first, deadline = 0.0, time.monotonic() + 120
    try:
        while time.monotonic() < deadline:
            assert process.poll() is None, "training ended before it could be killed"
            try:
                written = state.stat().st_mtime
            except FileNotFoundError:  # between two checkpoints, or before the first
                written = 0.0
            first = first or written
            if written > first > 0:
                break
            time.sleep(0.002)
        else:
            pytest.fail("no second checkpoint in 120 s")
        yield process.pid
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
