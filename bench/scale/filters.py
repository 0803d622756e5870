"""What filters cost: the search among allowed items next to the plain one, and next to faiss.

    python -m bench.scale.filters [--items 100000,1000000] [--batch 1,64] [--threads 1]
                                  [--seconds 1]

Random vectors of 64 components, the best 100 items of each user without the 50 that the user has
seen, in process, as in bench.scale.topk. All contenders take turns in one run, and each is shown
as a multiple of the plain search of its own precision. Each answer is checked against numpy.

- plain: the graph without filters; none: the graph with filters, asked for none.
- 50 excluded; one of 20 values of an attribute (5% of the items); 1,000 allowed items.
- faiss: `IndexFlatIP` with an `IDSelectorBatch` of the 1,000 allowed, an `IDSelectorNot` of what is
  excluded and seen, or an `IDSelectorBitmap` of the attribute's items, made before the clock runs;
  what was seen is in the selector. Of one user only: a selector holds for a whole call.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.scale.topk import CLOSE, DIM, SEEN, TOP_K, Searcher, exported, limit_threads, race
from seqrec_export.data.vocabulary import NUM_RESERVED
from seqrec_export.exporting import onnx_export
from seqrec_export.exporting.onnx_export import Traced
from seqrec_export.exporting.runtime import session
from seqrec_export.nn.filtered_search import Filters, Wanted, best_allowed_items
from seqrec_export.nn.item_search import Catalogue, Search, exact, int8_search
from seqrec_export.nn.ragged import Ragged

try:
    import faiss
except ImportError:
    faiss = None

EXCLUDED, ALLOWED, VALUES = 50, 1000, 20
LISTS = ("seen", "excluded", "allowed", "wanted")
LOWEST_RECALL = 0.999
Request = dict[str, np.ndarray]  # (B, D) "user", (B, N) each of LISTS


class FilteredSearcher(nn.Module):
    """The search with filters as a module of its own."""

    def __init__(self, vectors: Tensor, values: Tensor, search: Search) -> None:
        super().__init__()
        self.register_buffer("vectors", vectors)
        self.register_buffer("values", values)
        self.search = search

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        user, *rest = tensors
        seen, excluded, allowed, wanted = (
            Ragged(rest[i], rest[i + 1], rest[i + 2], short=True) for i in range(0, len(rest), 3)
        )
        attribute = Wanted(columns=[self.values], num_rows=VALUES + NUM_RESERVED, wanted=wanted)
        filters = Filters(excluded=(seen, excluded), allowed=allowed, attributes=[attribute])
        known = torch.ones_like(user[:, :1], dtype=torch.int32)
        catalogue = Catalogue(self.vectors)
        return best_allowed_items(self.search, catalogue, user, TOP_K, filters, known)


def exported_with_filters(module: nn.Module, folder: Path) -> Path:
    inputs = [Traced("user", torch.float32, ("batch", DIM))]
    for name in LISTS:
        inputs.append(Traced(name, torch.int64, (f"total_{name}",)))
        inputs.append(Traced(f"{name}_lengths", torch.int64, ("batch",)))
        inputs.append(Traced(f"{name}_steps", torch.int64, (f"longest_{name}",)))
    return onnx_export.save(onnx_export.to_onnx(module, inputs, ["items", "scores"]), folder)


def feeds(request: Request) -> Request:
    tensors = {"user": request["user"]}
    for name in LISTS:
        values = request[name]
        tensors[name] = values.ravel()
        tensors[f"{name}_lengths"] = np.full(len(values), values.shape[1])
        tensors[f"{name}_steps"] = np.arange(max(values.shape[1], 1))
    return tensors


def requests(rng: np.random.Generator, count: int, batch: int) -> dict[str, Request]:
    """By the name of the filter."""

    def items(number: int) -> np.ndarray:
        return rng.integers(NUM_RESERVED, count + NUM_RESERVED, (batch, number))

    users = rng.standard_normal((batch, DIM)).astype(np.float32)
    none: Request = {"user": users, "seen": items(SEEN)}
    none |= {name: np.zeros((batch, 0), np.int64) for name in LISTS[1:]}
    value = rng.integers(NUM_RESERVED, VALUES + NUM_RESERVED, (batch, 1))
    return {
        "none": none,
        f"{EXCLUDED} excluded": none | {"excluded": items(EXCLUDED)},
        f"1 of {VALUES} values": none | {"wanted": value},
        f"{ALLOWED:,} allowed": none | {"allowed": items(ALLOWED)},
    }


def allowed_of(request: Request, values: np.ndarray) -> np.ndarray:
    """(B, V) bool, by numpy."""
    batch, count = len(request["user"]), len(values)
    allowed = np.ones((batch, count), bool)
    for row in range(batch):
        if request["allowed"].size:
            allowed[row] = False
            allowed[row, request["allowed"][row]] = True
        if request["wanted"].size:
            allowed[row] &= np.isin(values, request["wanted"][row])
        allowed[row, request["seen"][row]] = False
        allowed[row, request["excluded"][row]] = False
    allowed[:, :NUM_RESERVED] = False
    return allowed


def recall(matrix: np.ndarray, request: Request, allowed: np.ndarray, items: np.ndarray) -> float:
    """The share of the best allowed items that came back; ends the run for any other item."""
    scores = request["user"].astype(np.float64) @ matrix.T.astype(np.float64)
    scores[~allowed] = -np.inf
    last = np.partition(scores, -TOP_K, axis=1)[:, [-TOP_K]]
    got = np.take_along_axis(scores, items, axis=1)
    if np.isinf(got[items != 0]).any():
        raise SystemExit("an item came back that is not allowed")
    found = got >= last - CLOSE
    distinct = [len(set(row[good].tolist())) for row, good in zip(items, found, strict=True)]
    wanted = np.minimum(allowed.sum(axis=1), TOP_K)
    return float(sum(distinct) / wanted.sum())


def by_faiss(matrix: np.ndarray, request: Request, allowed: np.ndarray) -> Callable[[], Any]:
    """One user's search with a selector."""
    index = faiss.IndexFlatIP(DIM)
    index.add(matrix)
    hidden = np.concatenate([request["seen"][0], request["excluded"][0], np.arange(NUM_RESERVED)])
    if request["allowed"].size:
        selector = faiss.IDSelectorBatch(np.flatnonzero(allowed[0]))
    elif request["wanted"].size:
        selector = faiss.IDSelectorBitmap(np.packbits(allowed[0], bitorder="little"))
    else:
        selector = faiss.IDSelectorNot(faiss.IDSelectorBatch(hidden))
    parameters = faiss.SearchParameters(sel=selector)
    return lambda: index.search(request["user"], TOP_K, params=parameters)[1]


def table(count: int, batches: list[int], threads: int, seconds: float) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    vectors = torch.randn(count + NUM_RESERVED, DIM)
    values = np.zeros(len(vectors), np.int32)
    values[NUM_RESERVED:] = rng.integers(NUM_RESERVED, VALUES + NUM_RESERVED, count)
    searches: dict[str, Search] = {
        "float32": exact,
        "int8": int8_search(Catalogue(vectors), TOP_K),
    }
    with tempfile.TemporaryDirectory() as folder:
        loaded = {}
        for name, search in searches.items():
            plain = exported(Searcher(vectors, search), Path(folder) / name)
            module = FilteredSearcher(vectors, torch.from_numpy(values), search)
            filtered = exported_with_filters(module, Path(folder) / f"{name}_filtered")
            loaded[name] = session(plain, threads), session(filtered, threads)
        for batch in batches:
            asked = requests(rng, count, batch)
            functions: dict[str, Callable[[], Any]] = {}
            for name, (plain, filtered) in loaded.items():
                lengths = np.full(batch, SEEN)
                bare = {"user": asked["none"]["user"], "seen": asked["none"]["seen"].ravel()}
                bare["lengths"] = lengths
                functions[f"{name} plain"] = lambda s=plain, f=bare: s.run(None, f)[0]
                for case, request in asked.items():
                    given = feeds(request)
                    key = f"{name} {case}"
                    functions[key] = lambda s=filtered, f=given: s.run(None, f)[0]
                    allowed = allowed_of(request, values)
                    share = recall(vectors.numpy(), request, allowed, functions[key]())
                    if share < (LOWEST_RECALL if name == "int8" else 1.0):
                        raise SystemExit(f"{key} finds only {share:.4f} of the best items")
            if faiss is not None and batch == 1:
                for case, request in asked.items():
                    allowed = allowed_of(request, values)
                    functions[f"faiss {case}"] = by_faiss(vectors.numpy(), request, allowed)
            times = race(functions, seconds, None)
            for name in (*loaded, *(["faiss"] if faiss is not None and batch == 1 else [])):
                of = times[f"{name} plain" if name != "faiss" else "float32 plain"]
                cells = "".join(f"{times[f'{name} {case}'] / of:>16.2f}" for case in asked)
                print(f"{count:>9,} {batch:>5} {name:>8} {of:>10.3f}{cells}", flush=True)


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", default="100000,1000000")
    parser.add_argument("--batch", default="1,64")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each contender and size")
    options = parser.parse_args()
    limit_threads(options.threads)
    cases = requests(np.random.default_rng(0), 1000, 1)
    print(f"{'items':>9} {'batch':>5} {'':>8} {'plain, ms':>10}", end="")
    print("".join(f"{case:>16}" for case in cases))
    for count in map(int, options.items.split(",")):
        batches = [int(size) for size in options.batch.split(",")]
        table(count, batches, options.threads, options.seconds)


if __name__ == "__main__":
    main()
