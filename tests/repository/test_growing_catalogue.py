"""A catalogue may be smaller than K, grow and shrink: its contract stays, its versions follow."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import seqrec_export as sx
from seqrec_export.contract import Graph
from seqrec_export.data.readers.item_tables import asked_attributes
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
NAMES = ("shop", "shop_filtered", "shop_similar_items")
SIZES = {1: (60, "float32"), 2: (90, "float32"), 3: (40, "int8"), 4: (240, "int8")}  # by version
SEEN, QUERY, EXCLUDED = "item 3", "item 6", "item 9"


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


def graphs(top_k: int) -> Mapping[str, Graph]:
    """The graph that ranks alone; those with filters are derived from it."""
    made = retrieval_graphs("shop", (wire.HISTORY,), DIM, top_k)
    return {"shop": made["shop"]}


def red(items: int) -> set[str]:
    return {f"item {i}" for i in range(0, items, 3)}


def verified(items: int, precision: str, folder: Path) -> Exported:
    ids = [f"item {i}" for i in range(items)]
    run = sx.import_module(
        Shop(items), folder, name="shop", items=ids, window=WINDOW, graphs=graphs, source="a test"
    )
    colours = ["red" if item in red(items) else "blue" for item in ids]
    table = pd.DataFrame({"item_id": ids, "colour": colours})
    found = asked_attributes(["colour"], ids, items=table)
    assert found is not None
    attributes = found.of(run.vocabularies["items"])
    exported = export_run(run, item_precision=precision, attributes=attributes)
    assert set(exported.graphs) == set(NAMES)
    assert not refused(exported, verify(exported))
    return exported


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Exported]:
    """By version."""
    folder = tmp_path_factory.mktemp("runs")
    return {v: verified(*SIZES[v], folder / str(v)) for v in SIZES}


@pytest.fixture(scope="module")
def repository(exports: dict[int, Exported], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All versions, one after the other."""
    path = tmp_path_factory.mktemp("growing") / "models"
    for version, exported in exports.items():
        published = publish(exported, path, keep=len(SIZES))
        assert {(p.name, p.version) for p in published} == {(name, version) for name in NAMES}
    return path


def asked(graph: Graph) -> Tensors:
    """One row that knows something, and one that does not; both are narrowed down, if they can."""
    of = {
        wire.HISTORY.name: [SEEN],
        wire.QUERY.name: [QUERY],
        wire.EXCLUDED.name: [EXCLUDED],
        wire.ALLOWED.name: [""],
        "allow_colour": ["red"],
    }
    request: Tensors = {
        name: np.array([values, values], object)
        for name, values in of.items()
        if name in {spec.name for spec in graph.inputs}
    }
    request[graph.inputs[0].name][1] = "no such item"
    if wire.KEEP_SEEN.name in {spec.name for spec in graph.inputs}:
        request[wire.KEEP_SEEN.name] = np.zeros((2, 1), np.int32)
    return request


def left(name: str, items: int) -> list[set[str]]:
    """What may come back in each of the rows."""
    may = {f"item {i}" for i in range(items)} if name == "shop" else red(items) - {EXCLUDED}
    return [may - {QUERY if name == "shop_similar_items" else SEEN}, may]


def file_of(repository: Path, name: str, version: int) -> Path:
    return repository / name / str(version) / "model.onnx"


def require_filled_up(ids: np.ndarray, scores: np.ndarray, left: list[set[str]]) -> None:
    """K places: what may come back first, best first, then empty ids with the lowest score."""
    assert ids.shape == scores.shape == (len(left), K)
    for row, may in enumerate(left):
        count = min(len(may), K)
        real = set(ids[row, :count])
        assert len(real) == count
        assert real <= may
        assert (ids[row, count:] == "").all()
        assert (scores[row, :count] > LOWEST).all()
        assert (np.diff(scores[row]) <= 0).all()
        assert (scores[row, count:] == LOWEST).all()


@pytest.mark.parametrize("name", NAMES)
def test_every_version_answers_with_k_places(
    repository: Path, exports: dict[int, Exported], name: str
) -> None:
    assert versions(repository / name) == [*SIZES]
    outputs = {output.name: list(output.dims) for output in model_config(repository, name).output}
    assert outputs["item_ids"] == outputs["scores"] == [K]
    for version, (items, _) in SIZES.items():
        graph = exports[version].graphs[name]
        got = answer(session(file_of(repository, name, version)), graph, asked(graph))
        require_filled_up(got["item_ids"], got["scores"], left(name, items))
        assert got[graph.outputs[2].name].tolist() == [[1], [0]]


def test_onnx_runtime_1_19_fills_up_as_well(repository: Path, exports: dict[int, Exported]) -> None:
    files = {
        str(file_of(repository, name, version)): (name, version)
        for name in NAMES
        for version in SIZES
    }
    requests = {}
    for file, (name, version) in files.items():
        graph = exports[version].graphs[name]
        requests[file] = feeds(graph, asked(graph))
    for file, outputs in answers_of_1_19(requests).items():
        name, version = files[file]
        ids, scores = (
            np.array(values).reshape(shape)
            for shape, values in (outputs["item_ids"], outputs["scores"])
        )
        require_filled_up(ids, scores.astype(np.float32), left(name, SIZES[version][0]))


def test_a_run_answers_with_what_there_is(exports: dict[int, Exported]) -> None:
    sixty = exports[1]
    assert (sixty.top_k, export_run(sixty.run).fresh) == (K, False)
    assert isinstance(sixty.run, Run)
    (row,) = sixty.run.recommend([{"history_item_ids": [SEEN]}], k=K)
    assert len(row["item_ids"]) == len(row["scores"]) == 59
