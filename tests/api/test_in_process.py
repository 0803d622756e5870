"""A run in this process answers as its server does, and refuses as the client does."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import seqrec_export as sx
from seqrec_export.exporting.exported import Exported
from seqrec_export.serving.server import Server
from support.served import EMBEDDED, GRAPHS, TOLERANCE, TOP_K

HISTORY = ["0251136780", "0239708308"]


def requests(run: sx.Run, signature: Any) -> list[dict[str, Any]]:
    """Rows that callers sent before held-out events, and one of nothing."""
    return [{}] + [
        {
            name: [math.nan if value is None else value for value in values]
            for name, values in row.items()
            if name in signature.inputs
        }
        for row in run.held_out[:9]
    ]


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_run_answers_as_its_server_does(
    graph: str, exports: Callable[[str], Exported], tritons: Callable[[str], Server]
) -> None:
    run = sx.Run.of(exports(GRAPHS[graph][0]).run)
    with sx.Client(tritons(EMBEDDED).grpc_url) as client:
        rows = requests(run, client.signature(graph))
        served = client.call(graph, rows)
    for here, there in zip(run.call(rows, graph), served, strict=True):
        assert here.keys() == there.keys()
        for name, values in here.items():
            if isinstance(values, list):
                assert values == there[name]
            else:
                np.testing.assert_allclose(values, there[name], rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("name", ["gru4att", "two_tower", "caser", "sasrec"])
def test_a_run_without_an_export_answers_from_its_network(
    name: str, exports: Callable[[str], Exported], tmp_path: Path
) -> None:
    exported = exports(name)
    run = sx.Run.of(exported.run)
    alone = replace(run, path=tmp_path / "none")
    graph = exported.graphs[name]
    rows = [{spec.name: v for spec in graph.inputs if (v := row.get(spec.name)) and None not in v}
            for row in run.held_out[:5]]  # fmt: skip
    for k in (1, 7, TOP_K):
        for one, other in zip(run.recommend(rows, k), alone.recommend(rows, k), strict=True):
            assert len(one["item_ids"]) == len(other["item_ids"]) == k
            assert one["scores"].shape == (k,)
            np.testing.assert_allclose(
                one["scores"], other["scores"], rtol=TOLERANCE, atol=TOLERANCE
            )


WRONG: dict[str, tuple[Any, str]] = {
    "no list": ({"history_item_ids": HISTORY}, "found one row; put it in brackets"),
    "no dict": (["0251136780"], "row 0: takes a dict of values by input, found str"),
    "no input": ([{}, {"user": "a"}], "sasrec takes no 'user'; it takes history_item_ids"),
    "another type": ([{}, {"history_item_ids": [7]}], "row 1, 'history_item_ids': takes strings"),
    "no UTF-8": ([{"history_item_ids": "\ud800"}], "takes text that has UTF-8"),
}


@pytest.mark.parametrize("what", WRONG)
def test_it_refuses_in_the_words_of_the_client(
    what: str, exports: Callable[[str], Exported], tritons: Callable[[str], Server]
) -> None:
    rows, said = WRONG[what]
    run = sx.Run.of(exports("sasrec").run)
    refusals = []
    with sx.Client(tritons(EMBEDDED).grpc_url) as client:
        for ask in (lambda: client.call("sasrec", rows), lambda: run.recommend(rows)):
            with pytest.raises(sx.SeqrecError) as refused:
                ask()
            refusals.append(str(refused.value))
    assert refusals[0] == refusals[1]
    assert said in refusals[0]


@pytest.mark.parametrize("k", [0, -1, 1.5, True, "3"])
def test_k_is_a_whole_number_from_1(k: Any, exports: Callable[[str], Exported]) -> None:
    with pytest.raises(sx.SeqrecError, match=r"^k is .*; give a whole number from 1 to"):
        sx.Run.of(exports("sasrec").run).recommend([{}], k)


def test_k_above_that_of_the_export_is_refused(exports: Callable[[str], Exported]) -> None:
    with pytest.raises(sx.SeqrecError, match=f"export it with top_k={TOP_K + 1}$"):
        sx.Run.of(exports("sasrec").run).recommend([{}], TOP_K + 1)


def test_what_ranks_no_items_and_what_is_no_graph_are_refused(
    exports: Callable[[str], Exported],
) -> None:
    run = sx.Run.of(exports("mlink").run)
    with pytest.raises(sx.SeqrecError, match=r"does not rank items; write run\.call\(rows\)"):
        run.recommend([{}])
    with pytest.raises(sx.SeqrecError, match="has no graph 'sasrec'; it has mlink, "):
        run.call([{}], "sasrec")


def test_a_catalogue_that_has_no_more_gives_fewer(exports: Callable[[str], Exported]) -> None:
    exported = exports("sasrec")
    everything = list(exported.run.vocabularies["items"].ids)
    (answer,) = sx.Run.of(exported.run).recommend([{"history_item_ids": everything[3:]}], TOP_K)
    assert sorted(answer["item_ids"]) == sorted(everything[:3])
    assert answer["scores"].shape == (3,)


def test_no_row_is_no_answer(exports: Callable[[str], Exported]) -> None:
    assert sx.Run.of(exports("sasrec").run).recommend([]) == []


def test_a_run_shows_itself_in_a_line(exports: Callable[[str], Exported]) -> None:
    run = sx.Run.of(exports("sasrec").run)
    assert repr(run).startswith(f"<Run of sasrec in {run.path}: hr@10 0.")
    assert len(repr(exports("sasrec"))) < 300
