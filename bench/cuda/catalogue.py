"""What a CUDA card makes of a catalogue's search: ONNX Runtime there, next to PyTorch there.

    python -m bench.cuda.catalogue [--items 100000,1000000] [--batch 1,8,64] [--seconds 1]

Random vectors of 64 components; the best 100 items of each user without the 50 that the user has
seen, as in bench.scale.topk and bench.scale.filters. All contenders take turns, and each answer is
checked against numpy. Prints milliseconds; what ONNX Runtime and PyTorch get comes from the host,
and their answers go back there. `limit` is the time that a card takes to read the matrix of item
vectors once, at the rate of a copy of 4 GB that the run measures (read and written).

- float32, int8: the plain search on CUDA; CPU: float32 on the CPU, with all its cores.
- none, 50 excluded, ...: the search with filters in float32, on CUDA.
- eager: the plain search in PyTorch on the card.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.scale.filters import (
    VALUES,
    FilteredSearcher,
    allowed_of,
    exported_with_filters,
    feeds,
    recall,
    requests,
)
from bench.scale.topk import DIM, TOP_K, Searcher, exported, race
from seqrec_export.data.vocabulary import NUM_RESERVED
from seqrec_export.exporting.runtime import cuda_session, session, why_no_cuda
from seqrec_export.nn.item_search import Catalogue, exact, int8_search

COPIED = 1 << 30  # float32
CHECKED = 8  # rows of an answer
LOWEST_RECALL = {"int8": 0.999}


def copy_rate() -> float:
    """Bytes a second that the card reads and writes in a copy of its own memory."""
    source = torch.rand(COPIED, device="cuda")
    target = torch.empty_like(source)
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for event in (began, ended):
        target.copy_(source)
        event.record()
    torch.cuda.synchronize()
    return 2 * source.nbytes / (began.elapsed_time(ended) / 1000)


def eager(vectors: torch.Tensor) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    module = Searcher(vectors, exact).eval().to("cuda")

    def answer(given: dict[str, np.ndarray]) -> np.ndarray:
        with torch.inference_mode(), torch.device("cuda"):
            tensors = [torch.from_numpy(values).to("cuda") for values in given.values()]
            items: np.ndarray = module(*tensors)[0].cpu().numpy()
            return items

    return answer


def table(count: int, batches: list[int], seconds: float, rate: float) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    vectors = torch.randn(count + NUM_RESERVED, DIM)
    values = np.zeros(len(vectors), np.int32)
    values[NUM_RESERVED:] = rng.integers(NUM_RESERVED, VALUES + NUM_RESERVED, count)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain = exported(Searcher(vectors, exact), folder / "plain")
        small = exported(Searcher(vectors, int8_search(Catalogue(vectors), TOP_K)), folder / "int8")
        module = FilteredSearcher(vectors, torch.from_numpy(values), exact)
        filtered = exported_with_filters(module, folder / "filtered")
        loaded: dict[str, Any] = {
            "float32": cuda_session(plain),
            "int8": cuda_session(small),
            "filtered": cuda_session(filtered),
            "CPU": session(plain),
        }
        by_torch = eager(vectors)
        for batch in batches:
            asked = requests(rng, count, batch)
            none = asked["none"]
            bare = {"user": none["user"], "seen": none["seen"].ravel()}
            bare["lengths"] = np.full(batch, none["seen"].shape[1])
            functions: dict[str, Callable[[], Any]] = {"eager": partial(by_torch, bare)}
            for kind in ("float32", "int8", "CPU"):
                functions[kind] = lambda s=loaded[kind], f=bare: s.run(None, f)[0]
            for case, request in asked.items():
                given = feeds(request)
                functions[case] = lambda f=given: loaded["filtered"].run(None, f)[0]
            for kind, function in functions.items():
                request = {key: rows[:CHECKED] for key, rows in asked.get(kind, none).items()}
                allowed, items = allowed_of(request, values), function()[:CHECKED]
                share = recall(vectors.numpy(), request, allowed, items)
                if share < LOWEST_RECALL.get(kind, 1.0):
                    raise SystemExit(f"{kind} finds only {share:.4f} of the best items")
            times = {"limit": vectors.nbytes / rate * 1000, **race(functions, seconds, None)}
            if batch == batches[0]:
                print(f"{'items':>9} {'batch':>5}" + "".join(f"{kind:>14}" for kind in times))
            cells = "".join(f"{milliseconds:>14.3f}" for milliseconds in times.values())
            print(f"{count:>9,} {batch:>5}{cells}", flush=True)


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", default="100000,1000000")
    parser.add_argument("--batch", default="1,8,64")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each contender and size")
    options = parser.parse_args()
    if reason := why_no_cuda():
        raise SystemExit(reason)
    if not torch.cuda.is_available():
        raise SystemExit("this PyTorch finds no CUDA device")
    assert torch.get_float32_matmul_precision() == "highest"  # no TF32
    rate = copy_rate()
    print(f"{torch.cuda.get_device_name()}, a copy moves {rate / 1e12:.2f} TB/s")
    for count in map(int, options.items.split(",")):
        table(count, [int(size) for size in options.batch.split(",")], options.seconds, rate)


if __name__ == "__main__":
    main()
