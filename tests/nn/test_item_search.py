"""The search for the best items: exact and with int8 vectors, in PyTorch and in ONNX Runtime."""

import shutil
from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from itertools import chain
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from seqrec_cli import options
from seqrec_export.errors import SeqrecError
from seqrec_export.exporting import onnx_export
from seqrec_export.exporting.exported import Exported, export_run, find_export
from seqrec_export.exporting.onnx_export import Traced
from seqrec_export.exporting.runtime import session
from seqrec_export.folders import read_json
from seqrec_export.nn import layers
from seqrec_export.nn.item_search import Catalogue, Int8Search, best_items, exact, int8_search
from seqrec_export.nn.ragged import Ragged
from seqrec_export.repository.publish import publish
from seqrec_export.training.run import write_files
from seqrec_export.training.train import Run, load
from seqrec_export.verification.gate import LEAST_RECALL, refused, verify
from seqrec_export.verification.parity import compare
from support.copies import own_graphs_only
from support.served import LOWEST, TOP_K, Served

SEEDS = st.integers(0, 2**32 - 1)
few = settings(max_examples=40, derandomize=True, deadline=None, database=None)
ROWS, DIM, K = 400, 12, 15
PRECISIONS = ("float32", "int8")
CLOSE = 2e-5
INPUTS = [
    Traced("user", torch.float32, ("batch", DIM)),
    Traced("seen", torch.int64, ("total",)),
    Traced("lengths", torch.int64, ("batch",)),
]


def catalogue_of(rows: int, dim: int, seed: int, *, bias: bool = True) -> Catalogue:
    rng = torch.Generator().manual_seed(seed)
    return Catalogue(
        torch.randn(rows, dim, generator=rng),
        torch.randn(rows, generator=rng) if bias else None,
        torch.rand(rows, generator=rng),
    )


class Searcher(nn.Module):
    """A search with inputs of its own: (B, D), (N,) what was seen, (B,) how much of it."""

    def __init__(self, catalogue: Catalogue, precision: str, top_k: int) -> None:
        super().__init__()
        self.vectors, self.popularity = nn.Parameter(catalogue.vectors), catalogue.popularity
        self.bias = None if catalogue.bias is None else nn.Parameter(catalogue.bias)
        self.search = exact if precision == "float32" else int8_search(catalogue, top_k)
        self.top_k = top_k

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        user, seen, lengths = tensors
        catalogue = Catalogue(self.vectors, self.bias, self.popularity)
        history = Ragged(seen, lengths, steps=torch.arange(1))
        known = layers.known_items(history)
        return best_items(self.search, catalogue, user, self.top_k, history, known)


@cache
def runtime(precision: str, bias: bool, folder: Path) -> onnxruntime.InferenceSession:
    """A searcher of `catalogue_of(ROWS, DIM, 0)` in ONNX Runtime."""
    searcher = Searcher(catalogue_of(ROWS, DIM, 0, bias=bias), precision, K)
    model = onnx_export.to_onnx(searcher, INPUTS, ["items", "scores"])
    return session(onnx_export.save(model, folder / f"{precision}-{bias}"), threads=1)


def brute_force(catalogue: Catalogue, users: np.ndarray, seen: list[list[int]]) -> np.ndarray:
    """(B, V) float64 scores, what must not come back at LOWEST."""
    assert catalogue.popularity is not None
    scores = users.astype(np.float64) @ catalogue.vectors.double().numpy().T
    if catalogue.bias is not None:
        scores += catalogue.bias.double().numpy()
    for row, items in enumerate(seen):
        if not any(item >= 2 for item in items):
            scores[row] = catalogue.popularity.double().numpy()
        scores[row, items] = LOWEST
    scores[:, :2] = LOWEST
    return scores


def check(scores: np.ndarray, items: np.ndarray, got: np.ndarray, *, missed: int = 0) -> None:
    """The ids and scores that came back are right, and at most `missed` of them not the best."""
    rows = np.arange(len(scores))[:, None]
    own = np.where(items == 0, LOWEST, scores[rows, items])
    real = items != 0
    assert (own[real] > LOWEST).all(), "an item came back that must not"
    assert (real.sum(axis=1) == np.minimum((scores > LOWEST).sum(axis=1), items.shape[1])).all()
    assert (got[~real] == LOWEST).all()
    assert (np.diff(got, axis=1) <= 0).all()
    np.testing.assert_allclose(got[real], own[real], atol=CLOSE, rtol=0)
    assert all(len(set(row[row != 0])) == (row != 0).sum() for row in items)
    best = np.sort(scores, axis=1)[:, ::-1][:, : items.shape[1]]
    assert (own < best[:, -1:] - CLOSE).sum() <= missed


def seen_lists(rng: np.random.Generator, batch: int, rows: int) -> list[list[int]]:
    """Of every kind: nothing, padding and unknown items only, repeated items, most of them all."""
    kinds: list[Callable[[], list[int]]] = [
        lambda: [],
        lambda: rng.integers(0, 2, 4).tolist(),
        lambda: rng.integers(0, rows, 6).tolist(),
        lambda: [rows - 1] * 5,
        lambda: rng.permutation(rows)[: rows - 3].tolist(),
    ]
    return [kinds[rng.integers(len(kinds))]() for _ in range(batch)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("precision", PRECISIONS)
@few
@given(batch=st.sampled_from([1, 2, 7]), seed=SEEDS)
def test_what_comes_back_is_the_best(
    precision: str, bias: bool, folder: Path, batch: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    catalogue = catalogue_of(ROWS, DIM, 0, bias=bias)
    users = rng.normal(size=(batch, DIM)).astype(np.float32) * rng.choice([0, 0.01, 1, 3])
    seen = seen_lists(rng, batch, ROWS)
    scores = brute_force(catalogue, users, seen)
    flat, lengths = np.array(list(chain(*seen)), np.int64), np.array([len(row) for row in seen])
    tensors = [torch.from_numpy(values) for values in (users, flat, lengths)]
    with torch.inference_mode():
        eager = Searcher(catalogue, precision, K)(*tensors)
    feeds = {"user": users, "seen": flat, "lengths": lengths}
    missed = batch if precision == "int8" else 0
    check(scores, *(t.numpy() for t in eager), missed=missed)
    check(scores, *runtime(precision, bias, folder).run(None, feeds), missed=missed)


@few
@given(rows=st.integers(2, 9), data=st.data(), seed=SEEDS)
def test_a_small_catalogue_is_answered_whole(rows: int, data: st.DataObject, seed: int) -> None:
    top_k = data.draw(st.integers(1, rows + 3))
    precision = data.draw(st.sampled_from(PRECISIONS))
    rng = np.random.default_rng(seed)
    catalogue = catalogue_of(rows, 3, seed % 2**31)
    users = rng.normal(size=(3, 3)).astype(np.float32)
    seen = [rng.integers(0, rows, rng.integers(0, 5)).tolist() for _ in users]
    lengths = torch.tensor([len(row) for row in seen])
    items, scores = Searcher(catalogue, precision, top_k)(
        torch.from_numpy(users), torch.tensor(list(chain(*seen)), dtype=torch.int64), lengths
    )
    assert items.shape == (3, top_k)
    check(brute_force(catalogue, users, seen), items.numpy(), scores.detach().numpy())


def test_only_a_catalogue_that_is_smaller_than_k_is_filled_up() -> None:
    def operators(top_k: int) -> Counter[str]:
        searcher = Searcher(catalogue_of(ROWS, DIM, 0), "float32", top_k)
        model = onnx_export.to_onnx(searcher, INPUTS, ["items", "scores"])
        return Counter(node.op_type for node in model.graph)

    usual = operators(ROWS)
    assert usual == operators(K)
    more = operators(ROWS + 1) - usual
    assert (more["Expand"], more["TopK"]) == (2, 0)


def test_int8_is_for_catalogues_of_more_than_the_candidates() -> None:
    assert int8_search(catalogue_of(2 * K + 2, DIM, 0), K) is exact
    assert isinstance(int8_search(catalogue_of(2 * K + 3, DIM, 0), K), Int8Search)


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1.0, 1e15])
def test_every_items_int8_components_add_up_to_0(scale: float) -> None:
    catalogue = catalogue_of(500, 21, 1)
    made = Int8Search(Catalogue(catalogue.vectors * scale, catalogue.bias)).items
    assert made.shape[0] % 4 == 0
    assert (made.sum(dim=0, dtype=torch.int64) == 0).all()
    assert made.abs().max() > 100  # the levels are used


@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_int8_finds_what_the_exact_search_finds(spread: float) -> None:
    """Also if some vectors are many times longer than others, and biases are large."""
    rng = torch.Generator().manual_seed(5)
    lengths = torch.exp(spread * torch.randn(20_000, 1, generator=rng))
    vectors = torch.randn(20_000, 64, generator=rng) * lengths + 3.0
    catalogue = Catalogue(vectors, 5 * torch.randn(20_000, generator=rng))
    users = torch.randn(50, 64, generator=rng)
    scores, _ = exact(catalogue, users, 100, None)
    by_int8, _ = Int8Search(catalogue)(catalogue, users, 100, None)
    assert ((by_int8 - scores).abs() < 1e-3).float().mean() >= LEAST_RECALL


def copied(exported: Exported, path: Path) -> Run:
    shutil.copytree(exported.run.path, path)
    return load(path)


@pytest.fixture(scope="module")
def int8_sasrec(
    exports: Callable[[str], Exported], tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    run = copied(exports("sasrec"), tmp_path_factory.mktemp("int8") / "run")
    exported = export_run(run, TOP_K, "int8")
    assert exported.fresh
    assert not refused(exported, verify(exported))
    return exported


def test_the_precision_is_remembered_and_another_is_exported_anew(
    int8_sasrec: Exported, tmp_path: Path
) -> None:
    graphs = {name: graph.item_precision for name, graph in int8_sasrec.graphs.items()}
    assert graphs.pop("sasrec") == graphs.pop("sasrec_filtered") == "int8"
    assert set(graphs.values()) == {"float32"}
    again = export_run(int8_sasrec.run)
    assert not again.fresh
    assert again.item_precision == find_export(int8_sasrec.run).item_precision == "int8"
    with own_graphs_only():
        assert export_run(copied(int8_sasrec, tmp_path / "run"), TOP_K, "float32").fresh
    with pytest.raises(SeqrecError, match="'int4'; give float32 or int8"):
        options.make_plan(item_precision="int4")


def test_the_recall_of_int8_stands_in_the_verdict(int8_sasrec: Exported, tmp_path: Path) -> None:
    parity = read_json(int8_sasrec.folder / "sasrec" / "parity.json")
    assert parity["item_precision"] == "int8"
    assert set(parity["recall"]) == {"all cases", "held-out rows"}
    assert min(parity["recall"].values()) >= LEAST_RECALL
    assert {c["status"] for c in parity["checks"] if c["check"] == "recall"} == {"OK"}
    assert read_json(int8_sasrec.folder / "sasrec_encoder" / "parity.json")["recall"] == {}
    assert [model.version for model in publish(int8_sasrec, tmp_path / "repository")] == [1] * 5


def test_int8_is_refused_where_it_misses_items(
    exports: Callable[[str], Exported], tmp_path: Path
) -> None:
    """One item is so much longer than the others that nothing of them is left in 8 bits."""

    run = copied(exports("sasrec"), tmp_path / "run")
    weights = load_file(run.path / "weights.safetensors")
    weights["bias"] *= 1e-3
    weights["items.weight"] *= 1e-3
    weights["items.weight"][7] *= 3e3
    save_file(weights, run.path / "weights.safetensors")
    write_files(run.path)
    with own_graphs_only():
        exported = export_run(load(run.path), TOP_K, "int8")
    said = refused(exported, verify(exported))
    assert "recall: int8 vectors find 0." in said
    assert "--item-precision float32" in said
    parity = read_json(exported.folder / "sasrec" / "parity.json")
    assert {failure["check"] for failure in parity["failures"]} == {"recall"}
    assert min(parity["recall"].values()) < LEAST_RECALL
    with pytest.raises(SeqrecError, match="not published"):
        publish(exported, tmp_path / "repository")


def test_a_missed_item_is_counted_and_a_wrong_score_is_not_excused(int8_sasrec: Exported) -> None:
    served = Served(int8_sasrec, int8_sasrec.graphs["sasrec"])
    request = served.request(np.random.default_rng(0), batch=3, length=6)
    reference, right = served.pytorch.reference(served.graph, request), served.onnx(request)
    assert reference.catalogue is not None
    judge = partial(compare, served.graph, served.vocabularies, request, reference)
    row = reference.catalogue[1]
    beyond = int(np.argsort(-row)[TOP_K + 3])
    got = {name: values.copy() for name, values in right.items()}
    got["item_ids"][1, -1] = served.vocabularies["items"].strings[beyond]
    got["scores"][1, -1] = row[beyond]
    found = judge(got, served.graph.tolerance)
    assert (found.problems, found.missed, found.wanted) == ([], 1, 3 * TOP_K)
    assert judge(right, served.graph.tolerance).missed == 0
    got["scores"][1, -1] -= 1e-3
    checks = {problem.check for problem in judge(got, served.graph.tolerance).problems}
    assert checks == {"values", "ranking"}


def test_large_weights_lie_at_pages_of_a_file_that_is_verified(
    exports: Callable[[str], Exported], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "DATA_FILE_FROM", 0)
    monkeypatch.setattr(onnx_export, "_PAGE", 256)
    with own_graphs_only():
        exported = export_run(copied(exports("sasrec"), tmp_path / "run"), TOP_K - 1)
    data = exported.folder / "sasrec" / onnx_export.DATA_FILE
    assert data.stat().st_size > 0
    model = onnx_export.ir.load(exported.model_file("sasrec"))
    offsets = [
        value.const_value.offset
        for value in model.graph.initializers.values()
        if isinstance(value.const_value, onnx_export.ir.ExternalTensor)
    ]
    assert len(offsets) > 1
    assert all(offset % 256 == 0 for offset in offsets)
    assert not refused(exported, verify(exported))
    files = read_json(exported.folder / "sasrec" / "parity.json")["files"]
    assert onnx_export.DATA_FILE in files
    publish(exported, tmp_path / "repository")
    published = tmp_path / "repository" / "sasrec" / "1" / onnx_export.DATA_FILE
    assert published.read_bytes() == data.read_bytes()
    with data.open("r+b") as file:
        file.write(b"\1")
    with pytest.raises(SeqrecError, match="not as it was verified"):
        publish(exported, tmp_path / "repository")


def test_graphs_share_the_file_of_a_large_weight(
    exports: Callable[[str], Exported], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "DATA_FILE_FROM", 0)
    monkeypatch.setattr(onnx_export, "OWN_FILE_FROM", 4096)
    run = copied(exports("sasrec"), tmp_path / "run")
    exported = export_run(run, TOP_K - 1)
    assert not refused(exported, verify(exported))
    publish(exported, tmp_path / "repository")
    there = [*(tmp_path / "repository").glob("*/1/net.items.weight.data")]
    assert {path.parts[-3] for path in there} == {*exported.graphs}
    assert len({path.stat().st_ino for path in there}) == 1
    assert there[0].stat().st_size == run.net.items.weight.numel() * 4
    for name in exported.graphs:  # which ONNX Runtime does not mind
        session(tmp_path / "repository" / name / "1" / "model.onnx")
