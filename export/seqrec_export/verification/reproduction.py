"""repro/<case>.npz and .py: one failing request, and ten lines that show what is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqrec_export.data.raw_requests import Request
from seqrec_export.folders import write_text
from seqrec_export.verification.reference import Answer, Reference

_SCRIPT = """# {message}
import numpy as np, onnxruntime, pathlib
case = np.load(pathlib.Path(__file__).with_suffix(".npz"))
inputs = {{k[6:]: case[k].astype(object) if case[k].dtype.kind == "U" else case[k]
          for k in case if k.startswith("input_")}}
session = onnxruntime.InferenceSession(pathlib.Path(__file__).parent / {model!r})
for output, got in zip(session.get_outputs(), session.run(None, inputs)):
    want = case["expected_" + output.name].reshape(got.shape)  # PyTorch in float64
    off = abs(got - want) if got.dtype.kind == "f" else np.asarray(got != want)
    at = np.unravel_index(off.argmax(), off.shape) if off.size else ()
    print(output.name, "is most off at", at, "ONNX Runtime:", got[at], "PyTorch:", want[at])
"""


def write_reproduction(
    path: Path, model: Path, message: str, inputs: Request, reference: Reference, got: Answer
) -> Path:
    """Write `path` (.npz: inputs, PyTorch's answers, the wrong one) and a script; its path.

    `inputs` are those of the ONNX file. The script needs numpy and onnxruntime only.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, NDArray[Any]] = {}
    parts: tuple[tuple[str, Mapping[str, NDArray[Any]]], ...] = (
        ("input", inputs),
        ("expected", reference.double),
        ("torch", reference.single),
        ("got", got),
    )
    for part, tensors in parts:
        for key, values in tensors.items():
            # Strings of fixed width: an array of objects would be a pickle.
            plain = values.astype(np.str_) if values.dtype == object else values
            arrays[f"{part}_{key}"] = plain
    if reference.catalogue is not None:
        arrays["catalogue"] = reference.catalogue
    np.savez_compressed(path, **arrays)
    script = path.with_suffix(".py")
    relative = os.path.relpath(model, path.parent)
    write_text(script, _SCRIPT.format(message=" ".join(message.split()), model=relative))
    return script
