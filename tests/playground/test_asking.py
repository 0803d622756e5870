"""What is asked of a server for the page."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="starlette is missing; it is in the extra playground")

from seqrec_export.clients.python import Client
from seqrec_export.errors import SeqrecError
from seqrec_export.exporting.exported import Exported
from seqrec_export.playground.asking import Place, Playground
from seqrec_export.serving.server import Server
from support.served import EMBEDDED, TOP_K

SASREC = Place(0, "sasrec")


@pytest.fixture(scope="module")
def url(tritons: Callable[[str], Server]) -> str:
    return tritons(EMBEDDED).grpc_url


@pytest.fixture(scope="module")
def runs(exports: Callable[[str], Exported]) -> Path:
    return exports("sasrec").run.path.parent


@pytest.fixture(scope="module")
def playground(url: str, runs: Path) -> Playground:
    return Playground([url], runs=runs)


@pytest.fixture(scope="module")
def ids(playground: Playground) -> list[str]:
    return [found["id"] for found in playground.suggest("sasrec", "history_item_ids", "")]


def test_the_models_to_choose_from_are_those_that_score_items(playground: Playground) -> None:
    models = {model["key"]: model for model in playground.models()}
    assert {"sasrec", "gru4att", "two_tower", "mlink"} <= models.keys()
    assert not [name for name in models if name.endswith(("encoder", "scorer", "items"))]
    sasrec = models["sasrec"]
    assert sasrec["most"] == TOP_K
    assert sasrec["similar"]
    assert sasrec["inputs"][0]["meaning"].startswith("item ids, oldest first")
    filters = {field["name"]: field["kind"] for field in sasrec["filters"]}
    assert filters == {
        "exclude_item_ids": "items",
        "allow_item_ids": "items",
        "allow_garment_group_name": "texts",
        "allow_tags": "texts",
        "keep_seen": "whole",
    }
    assert models["mlink"]["filters"] == []
    assert not models["mlink"]["similar"]
    follows = {field["name"]: field["follows"] for field in models["gru4att"]["inputs"]}
    assert follows == {
        "history_item_ids": "",
        "history_event_types": "history_item_ids",
        "history_gap_days": "history_item_ids",
    }


def test_two_servers_and_versions_are_told_apart(url: str, runs: Path, ids: list[str]) -> None:
    two = Playground([url, f"dns:///{url}"], runs=runs)
    models = [model for model in two.models() if model["place"]["model"] == "sasrec"]
    assert [model["key"] for model in models] == [f"sasrec at {url}", f"sasrec at dns:///{url}"]
    row = {"history_item_ids": ids[:2]}
    for place in (Place(1, "sasrec"), Place(0, "sasrec", "1")):
        for filters in ({}, {"exclude_item_ids": ids[:1]}):
            found = two.recommend(place, row, filters, 5)["items"]
            assert found == two.recommend(SASREC, row, filters, 5)["items"]
    with pytest.raises(SeqrecError, match="sasrec"):
        two.recommend(Place(0, "sasrec", "9"), row, {}, 5)


def test_without_a_run_folder_and_titles_only_suggestions_are_missing(
    url: str, playground: Playground, tmp_path: Path, ids: list[str]
) -> None:
    bare = Playground([url], runs=tmp_path)
    assert bare.suggest("sasrec", "history_item_ids", "") == []
    assert bare.suggest("sasrec", "allow_tags", "tag") == []
    row, filters = {"history_item_ids": [ids[0], "x"]}, {"allow_tags": ["tag 2", "nothing"]}
    answers = [of.recommend(SASREC, row, filters, 5) for of in (bare, playground)]
    pairs = [[(item["id"], item["score"]) for item in answer["items"]] for answer in answers]
    assert pairs[0] == pairs[1] != []
    assert answers[0]["unknown"] == {"history_item_ids": ["x"]}
    assert answers[1]["unknown"] == {"history_item_ids": ["x"], "allow_tags": ["nothing"]}
    assert all("tag 2" in item["attributes"]["tags"] for item in answers[1]["items"])


def test_titles_alone_are_suggested_too(url: str, tmp_path: Path, ids: list[str]) -> None:
    titled = Playground([url], runs=tmp_path, titles={ids[0]: "Red shoe", "x": "Blue shoe"})
    found = titled.suggest("sasrec", "exclude_item_ids", "blue")
    assert [(one["id"], one["title"]) for one in found] == [("x", "Blue shoe")]
    answer = titled.recommend(SASREC, {"history_item_ids": ["x"]}, {}, 5)
    assert answer["titles"] == {"x": "Blue shoe"}


def test_similar_items_obey_the_filters_that_go_with_them(
    url: str, playground: Playground, ids: list[str]
) -> None:
    filters = {"keep_seen": 1, "allow_tags": ["tag 3"], "exclude_item_ids": [ids[5]]}
    answer = playground.similar(SASREC, ids[:1], filters, 8)
    with Client(url) as client:
        row = {"query_item_ids": ids[:1], **{n: filters[n] for n in filters if n != "keep_seen"}}
        (direct,) = client.call("sasrec_similar_items", [row])
    assert [item["id"] for item in answer["items"]] == direct["item_ids"][:8]
    assert answer["known"] == 1


def test_filters_that_a_model_lacks_are_refused(playground: Playground, ids: list[str]) -> None:
    row = {"history_item_ids": ids[:1], "candidate_ids": ids}
    with pytest.raises(SeqrecError, match="mlink_filtered"):
        playground.recommend(Place(0, "mlink"), row, {"exclude_item_ids": ids}, 5)
    with pytest.raises(SeqrecError, match="takes no 'allow_colour'"):
        playground.recommend(SASREC, {}, {"allow_colour": ["red"]}, 5)
    found = playground.recommend(Place(0, "mlink"), row, {"exclude_item_ids": []}, 5)["items"]
    assert len(found) == 5
    assert all(math.isfinite(item["score"]) for item in found)


def test_a_damaged_run_is_named(url: str, tmp_path: Path) -> None:
    (tmp_path / "sasrec" / "vocabulary").mkdir(parents=True)
    (tmp_path / "sasrec" / "vocabulary" / "items.parquet").write_text("nothing of it")
    with pytest.raises(SeqrecError, match="sasrec is damaged"):
        Playground([url], runs=tmp_path).suggest("sasrec", "history_item_ids", "a")
