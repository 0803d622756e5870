"""The filters that an export is tried on: each way that a graph may take is taken by some case."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from seqrec_export.contract import Graph
from seqrec_export.data.attributes import Attribute
from seqrec_export.data.vocabulary import PAD, Vocabulary
from seqrec_export.exporting.exported import Exported, graphs_of
from seqrec_export.models.caser import MODEL, Caser
from seqrec_export.models.filtered import vocabularies_of
from seqrec_export.nn import filtered_search
from seqrec_export.verification.cases import Case, cases, draw
from seqrec_export.verification.reference import PyTorch, arguments
from support.served import TOP_K, Served, small_config

LISTED, LIMITED, UNLIMITED = (True,), (False, True), (False, False)  # what is chosen, in order
SHOP = 6_000  # items


def of_a_shop() -> tuple[dict[str, Graph], Caser, Mapping[str, Vocabulary]]:
    """caser with as many items as a shop has, and not trained."""
    rng = np.random.default_rng(0)
    groups = Vocabulary(f"group {i}" for i in range(40))
    values = np.full((SHOP + 2, 1), PAD, np.int32)
    values[2:, 0] = rng.integers(2, groups.num_rows, SHOP)
    attributes = [Attribute("group", groups, values)]
    vocabularies = {
        "items": Vocabulary(f"item {i}" for i in range(SHOP)),
        "users": Vocabulary(["somebody"]),
        **vocabularies_of(attributes),
    }
    config = small_config("caser")
    torch.manual_seed(0)
    net = Caser(config, {name: of.num_rows for name, of in vocabularies.items()}).eval()
    return graphs_of(MODEL, config, 100, attributes), net, vocabularies


@pytest.fixture(scope="module", params=["a test's catalogue", "a shop's"])
def asked(
    request: pytest.FixtureRequest, exports: Callable[[str], Exported]
) -> tuple[Mapping[str, Graph], Any, Mapping[str, Vocabulary]]:
    if request.param == "a shop's":
        return of_a_shop()
    exported = exports("caser")
    return exported.graphs, exported.run.net, exported.run.vocabularies


@pytest.mark.parametrize("name", ["caser_filtered", "caser_similar_items"])
def test_every_way_to_answer_is_taken_for_one_row_and_for_many(
    asked: tuple[Mapping[str, Graph], Any, Mapping[str, Vocabulary]],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graphs, net, vocabularies = asked
    graph, chosen = graphs[name], []

    def either(choice: torch.Tensor, first: Any, second: Any) -> Any:
        chosen.append(bool(choice))
        return first() if choice else second()

    monkeypatch.setattr(filtered_search, "either", either)
    rng, pytorch = np.random.default_rng(0), PyTorch(net, vocabularies)
    ways: dict[tuple[tuple[bool, ...], bool], set[str]] = {}
    for case in cases(graph, net.config.max_length, rng):
        tensors = pytorch.tensors(graph, draw(graph, vocabularies, rng, case))
        chosen.clear()
        with torch.inference_mode():
            graph.function(net, *arguments(graph, tensors))
        ways.setdefault((tuple(chosen), case.batch > 1), set()).add(case.name)
    found = {(way, many) for way in (LISTED, LIMITED, UNLIMITED) for many in (False, True)}
    assert ways.keys() == found
    # Not only by the requests that hold nothing to find.
    assert all("a few allowed" in ways[LISTED, many] for many in (False, True))
    assert all(names - {"padding only"} for names in ways.values())


WANTED = {
    "no filter": TOP_K,
    "nothing allowed": 0,
    "contradiction": 0,
    "everything allowed": TOP_K,
    "everything excluded": 0,
}


@pytest.mark.parametrize("name", WANTED)
@pytest.mark.parametrize("of", ["caser_filtered", "caser_similar_items"])
def test_a_case_leaves_over_what_its_name_says(
    graph: Callable[[str], Served], of: str, name: str
) -> None:
    served, rng = graph(of), np.random.default_rng(0)
    request = draw(
        served.graph, served.vocabularies, rng, Case(name=name, batch=16, length=5, candidates=0)
    )
    answer = served.onnx(request)
    expected = served.pytorch.reference(served.graph, request)
    items = (answer["item_ids"] != "").sum(axis=1)
    assert (items == WANTED[name]).all(), items
    assert expected.catalogue is not None
    left = (expected.catalogue > np.finfo(np.float32).min).sum(axis=1)
    np.testing.assert_array_equal(np.minimum(left, TOP_K), items)
