"""A catalogue may be smaller than K, grow and shrink: its contract stays, its versions follow."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seqrec_export as sx
from seqrec_export.contract import Graph, ItemPrecision
from seqrec_export.data.vocabulary import NUM_RESERVED
from seqrec_export.exporting.exported import DEFAULT_TOP_K, Exported, export_run
from seqrec_export.exporting.runtime import answer, feeds, session
from seqrec_export.in_process import Run
from seqrec_export.models import wire
from seqrec_export.models.filtered import mean_direction
from seqrec_export.models.retrieval import retrieval_graphs
from seqrec_export.nn.item_search import Catalogue
from seqrec_export.nn.ragged import Ragged
from seqrec_export.repository.publish import publish
from seqrec_export.repository.published import model_config, versions
from seqrec_export.verification.gate import refused, verify
from support.old_runtime import answers_of_1_19
from support.served import LOWEST, Tensors

K, DIM, WINDOW = DEFAULT_TOP_K, 8, 3
# How many items each version has. The search for 240 takes int8 vectors, the one for 60 does not.
SIZES: Mapping[ItemPrecision, Sequence[int]] = {"float32": (60, 90), "int8": (240, 60)}
SERVED = [("float32", "shop"), ("float32", "shop_filtered"), ("int8", "shop")]
SEEN, EXCLUDED, ALLOWED = "item 3", "item 6", [f"item {i}" for i in range(20)]


class Shop(nn.Module):
    """A network of somebody else, not trained: the vector of a history is its items' direction."""

    popularity: Tensor

    def __init__(self, items: int) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(items)
        self.vectors = nn.Parameter(torch.randn(items + NUM_RESERVED, DIM, generator=rng))
        self.register_buffer("popularity", torch.arange(items + NUM_RESERVED, 0.0, -1.0))

    @property
    def catalogue(self) -> Catalogue:
        return Catalogue(self.vectors, popularity=self.popularity)

    def encode(self, history: Ragged) -> Tensor:
        return mean_direction(self.catalogue.by_cosine(), history)


def verified(items: int, precision: ItemPrecision, folder: Path) -> Exported:
    """An export of the graphs that are served."""
    wanted = {name for of, name in SERVED if of == precision}

    def graphs(top_k: int) -> Mapping[str, Graph]:
        shop = retrieval_graphs("shop", (wire.HISTORY,), DIM, top_k)["shop"]
        derived = shop.filtered
        assert derived is not None

        def filtered(attributes: Any) -> dict[str, Graph]:
            return {name: graph for name, graph in derived(attributes).items() if name in wanted}

        return {"shop": replace(shop, filtered=filtered)}

    run = sx.import_module(
        Shop(items),
        folder,
        name="shop",
        items=[f"item {i}" for i in range(items)],
        window=WINDOW,
        graphs=graphs,
        source="a test",
    )
    exported = export_run(run, item_precision=precision)
    assert set(exported.graphs) == wanted
    assert not refused(exported, verify(exported))
    return exported


Exports = Mapping[tuple[str, int], Exported]  # by precision and number of items


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    folder = tmp_path_factory.mktemp("runs")
    return {
        (precision, items): verified(items, precision, folder / f"{items}-{precision}")
        for precision, sizes in SIZES.items()
        for items in sizes
    }


@pytest.fixture(scope="module")
def repositories(exports: Exports, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of each precision, with one version after the other."""
    folder = tmp_path_factory.mktemp("growing")
    for precision, sizes in SIZES.items():
        for version, items in enumerate(sizes, start=1):
            exported = exports[precision, items]
            published = publish(exported, folder / precision)
            assert {p.version for p in published} == {version}
            assert {p.name for p in published} == set(exported.graphs)
    return folder


def asked(graph: Graph) -> list[tuple[Tensors, set[str]]]:
    """Requests of two rows, the second of which knows nothing, and which items may come back."""
    history = np.array([[SEEN], ["no such item"]], object)
    if len(graph.inputs) == 1:
        return [({wire.HISTORY.name: history}, set())]
    request: Tensors = {
        wire.HISTORY.name: history,
        wire.EXCLUDED.name: np.full((2, 1), EXCLUDED, object),
        wire.ALLOWED.name: np.full((2, 1), "", object),
        wire.KEEP_SEEN.name: np.zeros((2, 1), np.int32),
    }
    # Both ways to search: in the whole catalogue, and among what is listed.
    listed = request | {wire.ALLOWED.name: np.array([ALLOWED, ALLOWED], object)}
    return [(request, set()), (listed, {*ALLOWED})]


def require_filled_up(outputs: Tensors, items: int, request: Tensors, allowed: set[str]) -> None:
    """K places: all that may come back, best first, then empty ids with the lowest score."""
    may = allowed or {f"item {i}" for i in range(items)}
    if wire.EXCLUDED.name in request:
        may = may - {EXCLUDED}
    ids, scores = outputs["item_ids"], outputs["scores"]
    assert ids.shape == scores.shape == (2, K)
    for row, left in enumerate((may - {SEEN}, may)):
        count = min(len(left), K)
        real = set(ids[row, :count])
        assert len(real) == count
        assert real <= left
        assert (ids[row, count:] == "").all()
        assert (scores[row, :count] > LOWEST).all()
        assert (np.diff(scores[row]) <= 0).all()
        assert (scores[row, count:] == LOWEST).all()


@pytest.mark.parametrize(("precision", "name"), SERVED)
def test_every_version_answers_with_k_places(
    repositories: Path, exports: Exports, precision: ItemPrecision, name: str
) -> None:
    repository = repositories / precision
    assert versions(repository / name) == [1, 2]
    dims = {output.name: list(output.dims) for output in model_config(repository, name).output}
    assert dims["item_ids"] == dims["scores"] == [K]
    for version, items in enumerate(SIZES[precision], start=1):
        graph = exports[precision, items].graphs[name]
        runtime = session(repository / name / str(version) / "model.onnx")
        for request, allowed in asked(graph):
            require_filled_up(answer(runtime, graph, request), items, request, allowed)


def test_onnx_runtime_1_19_fills_up_as_well(exports: Exports) -> None:
    requests = {
        str(exported.model_file(name)): (items, asked(graph)[0], feeds(graph, asked(graph)[0][0]))
        for (_, items), exported in exports.items()
        for name, graph in exported.graphs.items()
    }
    answers = answers_of_1_19({file: inputs for file, (_, _, inputs) in requests.items()})
    for file, (items, (request, allowed), _) in requests.items():
        outputs = {
            name: np.array(values, dtype).reshape(shape)
            for name, dtype in (("item_ids", object), ("scores", np.float32))
            for shape, values in [answers[file][name]]
        }
        require_filled_up(outputs, items, request, allowed)


def test_a_run_answers_with_what_there_is(exports: Exports) -> None:
    sixty = exports["float32", 60]
    assert (sixty.top_k, export_run(sixty.run).fresh) == (K, False)
    assert isinstance(sixty.run, Run)
    (row,) = sixty.run.recommend([{"history_item_ids": [SEEN]}], k=K)
    assert len(row["item_ids"]) == len(row["scores"]) == 59
