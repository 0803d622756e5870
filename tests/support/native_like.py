"""The embedded backend with what Triton's native one does to requests that share a batch.

Triton runs this file in place of the embedded backend, which lies next to it under another name
(`served.backend`). What it does differently:

- Numbers of a ragged input are gathered until a request has none. That request has no buffer, the
  native backend takes this for the end of the batch, and the model reads memory that nobody set in
  place of all that follows. Here that memory holds POISON. If only one request has any, its own
  buffer is used.
- A request whose first size is 0 has lost that axis. Its values count as rows, but their sizes are
  left out, and those of the rows behind it move up; what is then missing at the end is memory that
  nobody set. Here it makes the sum right. How many rows there are, the first input says; numbers
  that are too many for them shift those behind.
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

    def gather(self, name: str, arrays: Sequence[embedded.Array], rows: int) -> embedded.Array:
        """One input of all requests; numbers up to the first request that has none."""
        for array in arrays:
            if isinstance(array, embedded.Strings):
                raise ValueError(f"{name!r}: {array.size} strings in the shape {array.claimed}")
        if name not in self.ragged:
            values = np.concatenate([array.reshape(-1) for array in arrays])
            shape = (rows, *arrays[0].shape[1:])
            if values.dtype != object:  # numbers are a pointer and a shape; too many are fine
                values = values[: np.prod(shape, dtype=int)]
            return values.reshape(shape)
        whole = super().gather(name, arrays, rows)
        sizes = [array.size for array in arrays]
        if whole.dtype == object or 0 not in sizes or np.count_nonzero(sizes) < 2:
            return whole
        copied = sum(sizes[: sizes.index(0)])
        unset = np.frombuffer(POISON * whole[copied:].nbytes, whole.dtype)
        return np.concatenate([whole[:copied], unset])

    def sizes(self, shapes: Sequence[tuple[int, ...]], rows: embedded.RowShapes) -> embedded.Array:
        """The sizes of each row of one input, but of those that have lost an axis."""
        if len(shapes[-1]) == 1:  # whose rank is taken for that of all
            raise ValueError("unexpected total byte size for batch input")
        known = super().sizes([shape for shape in shapes if len(shape) > 1], rows)
        lost = sum(shape[0] for shape in shapes if len(shape) == 1)
        if rows.flat or not lost:
            return known
        unset = np.zeros((lost, 1), rows.dtype)
        unset[0] = lost
        return np.concatenate([known, unset])


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
