"""What it costs to find a catalogue's best items, compared with PyTorch eager, numpy and faiss.

    python -m bench.scale.topk [--items 1000,10000,100000,1000000] [--batch 1,8,64] [--threads 1]
                         [--seconds 1] [--cold] [--embedded] [--float32-only]

Random vectors of 64 components; the best 100 items of each user without the 50 that the user has
seen, in process, on as many threads as `--threads` says. The table shows times as multiples of
reading the matrix of item vectors once, which no exact search for one user can be faster than.
Contenders take turns, two calls each, of which the second is timed: what fits into the processor's
caches is in them. With `--cold`, 64 MB of other memory are read before each. The shortest time
counts: a shared machine makes times longer, never shorter. All answers are checked in the run.

- float32, int8: the served graph's search, as `--item-precision` names it, without its encoder.
- eager: the same search in PyTorch.
- numpy: product, mask, argpartition.
- faiss: `IndexFlatIP` (pip install faiss-cpu) over 150 items, and numpy to remove what was seen;
  "bare": over 100 items, with nothing removed.

`--embedded` keeps the matrix within model.onnx, where it may lie at any address.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seqrec_export.data.vocabulary import NUM_RESERVED
from seqrec_export.exporting import onnx_export
from seqrec_export.exporting.onnx_export import Traced
from seqrec_export.exporting.runtime import session
from seqrec_export.nn.item_search import Catalogue, Search, best_items, exact, int8_search
from seqrec_export.nn.ragged import Ragged

try:
    import faiss
except ImportError:
    faiss = None

DIM, TOP_K, SEEN = 64, 100, 50
SWEPT = 16_000_000  # floats, more than any cache here holds
CLOSE = 2e-4  # float32 products of 64 standard normal factors, up to 40
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
Answer = np.ndarray  # (B, K) item indices
Contender = Callable[[], Answer]


@dataclass(frozen=True)
class Request:
    """Users, and what each of them has seen."""

    users: np.ndarray  # (B, D)
    seen: np.ndarray  # (B, S) item indices

    @property
    def feeds(self) -> dict[str, np.ndarray]:
        lengths = np.full(len(self.seen), self.seen.shape[1])
        return {"user": self.users, "seen": self.seen.ravel(), "lengths": lengths}


class Searcher(nn.Module):
    """A search as a module of its own."""

    def __init__(self, vectors: Tensor, search: Search) -> None:
        super().__init__()
        self.register_buffer("vectors", vectors)
        self.search = search

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        user, seen, lengths = tensors
        history = Ragged(seen, lengths, steps=torch.arange(1))
        return best_items(self.search, Catalogue(self.vectors), user, TOP_K, history)


def exported(module: nn.Module, folder: Path) -> Path:
    inputs = [
        Traced("user", torch.float32, ("batch", DIM)),
        Traced("seen", torch.int64, ("total",)),
        Traced("lengths", torch.int64, ("batch",)),
    ]
    model = onnx_export.to_onnx(module, inputs, ["items", "scores"])
    return onnx_export.save(model, folder)


def contenders(
    vectors: Tensor, folder: Path, threads: int, *, with_int8: bool
) -> Iterator[tuple[str, Callable[[Request], Contender]]]:
    """Each by name: what prepares its answer to a request."""
    searches: dict[str, Search] = {"float32": exact}
    if with_int8:
        searches["int8"] = int8_search(Catalogue(vectors), TOP_K)
    for name, search in searches.items():
        runtime = session(exported(Searcher(vectors, search), folder / name), threads)

        def by_runtime(request: Request, runtime: Any = runtime) -> Contender:
            feeds = request.feeds
            return lambda: runtime.run(None, feeds)[0]

        yield name, by_runtime
    eager = Searcher(vectors, exact).eval()
    matrix = vectors.numpy()

    def by_eager(request: Request) -> Contender:
        tensors = [torch.from_numpy(values) for values in request.feeds.values()]

        def answer() -> Answer:
            with torch.inference_mode():
                return eager(*tensors)[0].numpy()

        return answer

    def by_numpy(request: Request) -> Contender:
        def answer() -> Answer:
            scores = request.users @ matrix.T
            np.put_along_axis(scores, request.seen, -np.inf, axis=1)
            scores[:, :NUM_RESERVED] = -np.inf
            best = np.argpartition(scores, -TOP_K, axis=1)[:, -TOP_K:]
            order = np.take_along_axis(scores, best, axis=1).argsort(axis=1)[:, ::-1]
            return np.take_along_axis(best, order, axis=1)

        return answer

    yield "eager", by_eager
    yield "numpy", by_numpy
    if faiss is not None:
        yield from _faiss_contenders(faiss, matrix)


def _faiss_contenders(
    faiss: ModuleType, matrix: np.ndarray
) -> Iterator[tuple[str, Callable[[Request], Contender]]]:
    index = faiss.IndexFlatIP(DIM)
    index.add(matrix[NUM_RESERVED:])

    def by_faiss(request: Request) -> Contender:
        def answer() -> Answer:
            items = index.search(request.users, TOP_K + SEEN)[1] + NUM_RESERVED
            unwanted = (items[:, :, None] == request.seen[:, None]).any(axis=2)
            first = unwanted.argsort(axis=1, kind="stable")[:, :TOP_K]
            return np.take_along_axis(items, first, axis=1)

        return answer

    def bare(request: Request) -> Contender:
        return lambda: index.search(request.users, TOP_K)[1]

    yield "faiss", by_faiss
    yield "faiss, bare", bare


def recall(matrix: np.ndarray, request: Request, items: Answer) -> float:
    """The share of the best items that came back; items that tie count as one another."""
    scores = request.users.astype(np.float64) @ matrix.T.astype(np.float64)
    np.put_along_axis(scores, request.seen, -np.inf, axis=1)
    scores[:, :NUM_RESERVED] = -np.inf
    last = np.partition(scores, -TOP_K, axis=1)[:, [-TOP_K]]
    found = np.take_along_axis(scores, items, axis=1) >= last - CLOSE
    distinct = [len(set(row[good].tolist())) for row, good in zip(items, found, strict=True)]
    return float(np.mean(distinct)) / TOP_K


def race(
    functions: dict[str, Callable[[], Any]], seconds: float, before: Callable[[], Any] | None
) -> dict[str, float]:
    """The shortest time of each, in ms; `seconds` for each of them, at least 5 rounds.

    What is timed comes after `before`, or else after the same once more.
    """
    for function in functions.values():
        function()
    shortest = dict.fromkeys(functions, float("inf"))
    end, rounds = time.perf_counter() + seconds * len(functions), 0
    while rounds < 5 or time.perf_counter() < end:
        for name, function in functions.items():
            (before or function)()
            began = time.perf_counter()
            function()
            shortest[name] = min(shortest[name], 1000 * (time.perf_counter() - began))
        rounds += 1
    return shortest


def limit_threads(count: int) -> None:
    """Compute on so many threads everywhere; starts the program again if numpy has others."""
    threads = dict.fromkeys(THREAD_VARIABLES, str(count))
    if any(os.environ.get(name) != value for name, value in threads.items()):
        # numpy's threads are counted when it is imported.
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | threads)
    torch.set_num_threads(count)
    if faiss is None:
        print("without faiss: pip install faiss-cpu\n")
    else:
        faiss.omp_set_num_threads(count)


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", default="1000,10000,100000,1000000")
    parser.add_argument("--batch", default="1,8,64")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each contender and size")
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--embedded", action="store_true")
    parser.add_argument("--float32-only", action="store_true")
    options = parser.parse_args()
    limit_threads(options.threads)
    if options.embedded:
        onnx_export.DATA_FILE_FROM = sys.maxsize
    swept = torch.ones(SWEPT)
    header: list[str] = []
    for count in map(int, options.items.split(",")):
        torch.manual_seed(0)
        vectors = torch.randn(count + NUM_RESERVED, DIM)
        rng = np.random.default_rng(0)
        flat = vectors.flatten()
        with tempfile.TemporaryDirectory() as folder:
            prepared = dict(
                contenders(
                    vectors, Path(folder), options.threads, with_int8=not options.float32_only
                )
            )
            if not header:
                header = list(prepared)
                print(f"{'items':>9} {'batch':>5} {'read, ms':>9}  times that:", end="")
                print("".join(f"{name:>12}" for name in header), "  int8 recall")
            for batch in map(int, options.batch.split(",")):
                users = rng.standard_normal((batch, DIM)).astype(np.float32)
                seen = rng.integers(NUM_RESERVED, count + NUM_RESERVED, (batch, SEEN))
                request = Request(users, seen)
                functions = {name: prepare(request) for name, prepare in prepared.items()}
                found = {
                    name: recall(vectors.numpy(), request, function())
                    for name, function in functions.items()
                    if name != "faiss, bare"
                }
                for name, share in found.items():
                    if share < (0.999 if name == "int8" else 1.0):
                        raise SystemExit(f"{name} finds only {share:.4f} of the best items")
                readers = {"sum": flat.sum, "max": flat.max, "dot": partial(flat.dot, flat)}
                before = swept.sum if options.cold else None
                times = race({**functions, **readers}, options.seconds, before)
                read = min(times[name] for name in readers)
                print(f"{count:>9,} {batch:>5} {read:>9.3f}  {'':11}", end="")
                print("".join(f"{times[name] / read:>12.2f}" for name in header), end="")
                print(f"{found.get('int8', 1.0):>14.4f}", flush=True)


if __name__ == "__main__":
    main()
