"""The embedded backend with what Triton's native one does to requests that share a batch.

Triton runs this file in place of the embedded backend, which lies beside it under another name
(`served.backend`). What it does differently:

- Numbers of a ragged input are gathered until a request has none. That request has no buffer, the
  native backend takes this for the end of the batch, and the model reads memory that nobody set in
  place of all that follows. Here that memory holds POISON. If only one request has any, its own
  buffer is used.
- A run that fails, fails every request of its batch, with the status INTERNAL.
- Shapes whose size overflows are not noticed.

A graph that answers every caller rightly here does so on the native one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import embedded
import numpy as np

POISON = b"\x4b"  # each byte; 1.3e7 as FP32


class Layout(embedded.Layout):
    """How the native backend lays out a batch."""

    def objection(self, request: embedded.Feeds) -> str:
        """None: it trusts what Triton lets in."""
        return ""

    def gather(self, name: str, arrays: Sequence[embedded.Array]) -> embedded.Array:
        """One input of all requests; numbers up to the first request that has none."""
        for array in arrays:
            if isinstance(array, embedded.Strings):
                raise ValueError(f"{name!r}: {array.size} strings in the shape {array.claimed}")
        whole = super().gather(name, arrays)
        sizes = [array.size for array in arrays]
        if whole.dtype == object or 0 not in sizes or np.count_nonzero(sizes) < 2:
            return whole
        copied = sum(sizes[: sizes.index(0)])
        unset = np.frombuffer(POISON * whole[copied:].nbytes, whole.dtype)
        return np.concatenate([whole[:copied], unset])


class TritonPythonModel(embedded.TritonPythonModel):
    """One instance of one version of a embedded."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open `model.onnx`."""
        super().initialize(args)
        self.layout = Layout.of(json.loads(args["model_config"]))

    def answer(self, requests: Sequence[Any], inputs: Sequence[embedded.Feeds]) -> list[Any]:
        """One response a request, or the same error for each."""
        if not self.layout.batched:
            return super().answer(requests, inputs)
        try:
            return self.run(requests, inputs)
        except Exception as error:  # whatever it is: they share it
            return [embedded.refusal(str(error), invalid=False) for _ in requests]
