"""How far TF32 would be off: the basis of the looser gate for CUDA with TF32 on.

    python -m bench.cuda.tf32 RUN [RUN ...]        e.g. runs/sasrec runs/caser

TF32 rounds both factors of a product to 10 bits behind the point and adds up in float32. That is
imitated on the CPU: the factors of every matrix product, convolution and GRU input are rounded
before PyTorch multiplies them, on the requests of `seqrec-export verify`. Prints for each graph the
largest difference from PyTorch in float64, next to the strict tolerance and as a multiple of it;
the looser gate allows gate.TF32_FACTOR times. The state within a GRU is not rounded.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from seqrec_export.exporting.exported import export_run
from seqrec_export.training.train import load
from seqrec_export.verification.cases import cases, draw
from seqrec_export.verification.gate import TF32_FACTOR
from seqrec_export.verification.parity import compare
from seqrec_export.verification.reference import PyTorch

_aten = torch.ops.aten
PRODUCTS = (_aten.mm, _aten.bmm, _aten.matmul, _aten.linear, _aten.conv1d, _aten.gru)


class RoundedFactors(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func.overloadpacket in PRODUCTS:
            args = tree_map(rounded, args)
        return func(*args, **(kwargs or {}))


def rounded(value: Any) -> Any:
    if not (isinstance(value, torch.Tensor) and value.dtype == torch.float32):
        return value
    bits = value.contiguous().view(torch.int32)
    return ((bits + (1 << 12)) & ~0x1FFF).view(torch.float32)


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+")
    options = parser.parse_args()
    print(f"{'graph':<24} {'largest':>9} {'strict':>9} {'times':>6}  (allowed: {TF32_FACTOR:.0f})")
    for path in options.runs:
        exported = export_run(load(path))
        run = exported.run
        net = PyTorch(run.net, run.vocabularies)
        window = getattr(run.config, "max_length", 1)
        for name, graph in exported.graphs.items():
            rng, largest = np.random.default_rng(0), 0.0
            for case in cases(graph, window, rng):
                request = draw(graph, run.vocabularies, rng, case)
                reference = net.reference(graph, request)
                with RoundedFactors():
                    got = net.answer(graph, request)
                found = compare(graph, run.vocabularies, request, reference, got, graph.tolerance)
                largest = max(largest, found.max_abs)
            strict = graph.tolerance.atol
            print(f"{name:<24} {largest:>9.1e} {strict:>9.0e} {largest / strict:>6.0f}")


if __name__ == "__main__":
    main()
