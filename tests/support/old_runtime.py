"""ONNX Runtime 1.19, the one of Triton 24.10, in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Answers = dict[str, dict[str, tuple[tuple[int, ...], list[Any]]]]  # file -> output -> shape, values
_FOLDER = Path(sys.prefix) / "onnxruntime-1.19"
_REPLAY = """
import json, sys
import numpy as np, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
answers = {}
for path, request in json.load(sys.stdin):
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    dtypes = {"tensor(string)": object, "tensor(float)": np.float32, "tensor(int32)": np.int32}
    given = {i.name: dtypes[i.type] for i in session.get_inputs()}
    inputs = {n: np.array(v, dtype=given[n]).reshape(s) for n, (s, v) in request.items()}
    names = [o.name for o in session.get_outputs()]
    outputs = dict(zip(names, session.run(names, inputs)))
    answers[path] = {n: [v.shape, v.ravel().tolist()] for n, v in outputs.items()}
print(json.dumps([onnxruntime.__version__, answers]))
"""


def answers_of_1_19(asked: Mapping[str, Mapping[str, np.ndarray]]) -> Answers:
    """ONNX file -> its inputs, to its outputs; the test is skipped if the runtime is not there."""
    if not _FOLDER.is_dir():
        pytest.skip(f"no {_FOLDER.name} in the environment; `make check` puts it there")
    replay = [
        (path, {n: [v.shape, v.ravel().tolist()] for n, v in inputs.items()})
        for path, inputs in asked.items()
    ]
    process = subprocess.run(
        [sys.executable, "-c", _REPLAY],
        input=json.dumps(replay),
        env=os.environ | {"PYTHONPATH": str(_FOLDER)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    version, answers = json.loads(process.stdout)
    assert version.startswith("1.19.")
    return {
        path: {name: (tuple(shape), values) for name, (shape, values) in outputs.items()}
        for path, outputs in answers.items()
    }
