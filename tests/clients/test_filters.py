"""Filters and similar items, as the Python client asks for them and a run answers in process."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

import seqrec_export as sx
from seqrec_export.clients.filters import Filters, narrowed
from seqrec_export.clients.packing import Tensor
from seqrec_export.clients.python import Client
from seqrec_export.clients.rows import Signature
from seqrec_export.data.interactions import Interactions
from seqrec_export.errors import SeqrecError
from seqrec_export.exporting.exported import Exported
from seqrec_export.serving.server import Server
from support.served import EMBEDDED

GROUP = "garment_group_name"


@pytest.fixture
def client(tritons: Callable[[str], Server]) -> Iterator[Client]:
    with Client(tritons(EMBEDDED).grpc_url) as connected:
        yield connected


@pytest.fixture(scope="module")
def groups(interactions: Interactions) -> Mapping[str, str]:
    """Each item's group."""
    features = interactions.item_features
    assert features is not None
    return dict(zip(interactions.item_ids, map(str, features[GROUP]), strict=True))


@pytest.fixture(scope="module")
def row(exports: Callable[[str], Exported]) -> dict[str, Any]:
    return {"history_item_ids": list(exports("sasrec").run.vocabularies["items"].ids[:3])}


def ids(answer: list[tuple[str, float]]) -> list[str]:
    return [item for item, _ in answer]


def test_a_filtered_answer_obeys_and_keeps_the_scores(
    client: Client, row: dict[str, Any], groups: Mapping[str, str]
) -> None:
    (plain,) = client.recommend("sasrec", [row])
    wanted = [groups[ids(plain)[0]]]
    left_out = ids(plain)[:2]
    (found,) = client.recommend("sasrec", [row], k=5, exclude=left_out, where={GROUP: wanted})
    assert found
    assert {groups[item] for item, _ in found} == set(wanted)
    due = [pair for pair in plain if groups[pair[0]] in wanted and pair[0] not in left_out][:5]
    assert ids(found)[: len(due)] == ids(due)
    assert [s for _, s in found[: len(due)]] == pytest.approx([s for _, s in due], abs=1e-5)


def test_what_was_seen_comes_back_only_if_it_may(client: Client, row: dict[str, Any]) -> None:
    seen = row["history_item_ids"]
    assert client.recommend("sasrec", [row], allow=seen) == [[]]
    (kept,) = client.recommend("sasrec", [row], allow=seen, keep_seen=True)
    assert set(ids(kept)) == set(seen)


def test_only_unknown_items_are_no_items(client: Client, row: dict[str, Any]) -> None:
    assert client.recommend("sasrec", [row, {}], allow=["no such item"]) == [[], []]
    assert client.recommend("sasrec", [row], where={GROUP: ["no such group"]}) == [[]]


def test_rows_have_filters_of_their_own(client: Client, row: dict[str, Any]) -> None:
    first, second, *_ = ids(client.recommend("sasrec", [row])[0])
    asked = [row, row | {"allow_item_ids": [first, second], "exclude_item_ids": [second]}]
    all_but_second, none = client.recommend("sasrec", asked, exclude=[first])
    assert second in ids(all_but_second)
    assert first not in ids(all_but_second)
    assert none == []


def test_any_collection_is_a_list(client: Client, row: dict[str, Any]) -> None:
    first, second, *_ = ids(client.recommend("sasrec", [row])[0])
    for allowed in ({first, second}, (first, second), dict.fromkeys([first, second]).keys()):
        assert set(ids(client.recommend("sasrec", [row], allow=allowed)[0])) == {first, second}
    assert ids(client.recommend("sasrec", [row], allow=first)[0]) == [first]


def test_similar_items_are_others_and_obey(
    client: Client, row: dict[str, Any], groups: Mapping[str, str]
) -> None:
    few = row["history_item_ids"]
    of_one, of_few = client.similar("sasrec", [few[0], few], k=7)
    assert len(of_one) == len(of_few) == 7
    assert few[0] not in ids(of_one)
    assert not set(few) & set(ids(of_few))
    assert all(-1.001 <= score <= 1.001 for _, score in of_one)
    wanted = groups[of_one[1][0]]
    asked = {"exclude": [of_one[0][0]], "where": {GROUP: [wanted]}}
    (filtered,) = client.similar("sasrec", [few[0]], **asked)
    assert {groups[item] for item in ids(filtered)} == {wanted}
    assert of_one[0][0] not in ids(filtered)
    assert ids(client.similar("sasrec_similar_items", [few], k=7)[0]) == ids(of_few)
    assert len(client.similar("two_tower", [few])[0]) > 7


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda c: c.recommend("sasrec", [{}], allow=[]), "allow: found a list without a value"),
        (lambda c: c.recommend("sasrec", [{}], allow=["", "\0"]), "allow: found a list without"),
        (lambda c: c.recommend("sasrec", [{}], where={GROUP: []}), "where={'garment_group_name'"),
        (lambda c: c.similar("sasrec", [["a"]], allow=[]), "allow: found a list without a value"),
        (
            lambda c: c.recommend("sasrec", [{"allow_tags": []}]),
            "row 0, 'allow_tags': found a list without",
        ),
        (
            lambda c: c.recommend("sasrec", [{}], where={"colour": ["red"]}),
            "sasrec does not filter by where={'colour': ...}; it takes exclude, allow, "
            "where={'garment_group_name': ...}, where={'tags': ...}, keep_seen",
        ),
        (lambda c: c.recommend("sasrec", [], where={"colour": ["red"]}), "it takes exclude"),
        (lambda c: c.recommend("two_tower", [{}], keep_seen=True), "does not filter by keep_seen"),
        (lambda c: c.recommend("sasrec", [{}], where={"item_ids": ["a"]}), "give it as allow"),
        (lambda c: c.recommend("sasrec", [{}], where=["a"]), "where takes lists of values by"),
        (lambda c: c.recommend("sasrec", [{}], keep_seen="yes"), "True or False, found 'yes'"),
        (lambda c: c.recommend("sasrec", [{}], exclude=[5]), "exclude: takes strings, found 5"),
        (lambda c: c.recommend("sasrec", {}, exclude=["a"]), "found one row; put it in brackets"),
        (
            lambda c: c.recommend("sasrec", [{"allow_item_ids": ["a"]}], allow=["b"]),
            "row 0 has 'allow_item_ids' of its own, and allow is given for all rows",
        ),
        (lambda c: c.recommend("sasrec", [{}], k=1, top_k=1), "k=1 and top_k=1 are the same"),
        (lambda c: c.recommend("mlink", [{}], exclude=["a"]), "write score('mlink', ...)"),
        (lambda c: c.similar("sasrec", "1193"), "similar() takes a list"),
        (lambda c: c.similar("mlink", [["a"]]), "unknown model: 'mlink_similar_items'"),
    ],
)
def test_a_filter_that_is_wrong_is_one_sentence(
    client: Client, ask: Callable[[Client], object], said: str
) -> None:
    with pytest.raises(SeqrecError) as refused:
        ask(client)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("filters", "rows", "graph"),
    [
        (Filters(), [{}], "m"),
        (Filters(exclude=[], where={}), [{"exclude_item_ids": []}], "m"),
        (Filters(allow=None, where={"colour": None}), [{"keep_seen": False}], "m"),
        (Filters(exclude=["a"]), [{}], "m_filtered"),
        (Filters(keep_seen=True), [{}], "m_filtered"),
        (Filters(), [{}, {"keep_seen": True}], "m_filtered"),
        (Filters(where={"colour": ["red"]}), [{}], "m_filtered"),
        (Filters(), [{"allow_x": []}], "m"),  # an input of the model itself
    ],
)
def test_the_plain_graph_is_asked_if_nothing_filters(
    filters: Filters, rows: list[dict[str, Any]], graph: str
) -> None:
    own = {name: Tensor(name, "BYTES", (-1,)) for name in ("history_item_ids", "allow_x")}
    more = ("exclude_item_ids", "allow_item_ids", "allow_colour", "keep_seen")
    filtered = own | {name: Tensor(name, "BYTES", (-1,)) for name in more}
    inputs = {"m": own, "m_filtered": filtered}

    def signature_of(name: str) -> Signature:
        return Signature(inputs[name], {}, 64, 1)

    assert narrowed("m", rows, filters, signature_of)[0] == graph


def test_a_server_of_an_older_export_is_told_from_a_mistake() -> None:
    plain = Signature({}, {}, 64, 1)

    def signature_of(name: str) -> Signature:
        if name != "m":
            raise SeqrecError(f"unknown model: {name!r}")
        return plain

    with pytest.raises(
        SeqrecError, match=r"m_filtered answers exclude: .* m has to be exported again"
    ):
        narrowed("m", [{}], Filters(exclude=["a"]), signature_of)


def test_a_run_answers_as_the_server(
    client: Client, exports: Callable[[str], Exported], row: dict[str, Any]
) -> None:
    run = sx.Run.of(exports("sasrec").run)
    (plain,) = client.recommend("sasrec", [row])
    asked = {"exclude": ids(plain)[:3], "keep_seen": True}
    (here,) = run.recommend([row], 5, **asked)
    (there,) = client.recommend("sasrec", [row], 5, **asked)
    assert here["item_ids"] == ids(there)
    (here,) = run.similar([row["history_item_ids"]], k=5)
    (there,) = client.similar("sasrec", [row["history_item_ids"]], k=5)
    assert here["item_ids"] == ids(there)
    assert len(run.recommend([row], top_k=4)[0]["item_ids"]) == 4
    with pytest.raises(SeqrecError, match="allow: found a list without a value"):
        run.recommend([row], allow=[])
    with pytest.raises(SeqrecError, match="has no graph 'mlink_similar_items'"):
        sx.Run.of(exports("mlink").run).similar([["a"]])
