"""The check that stands before every publish notices each kind of wrong answer."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from served import LOWEST, Served, Tensors

from seqrec_export import parity
from seqrec_export.exported import Exported


def swap_ids(answer: Tensors) -> None:
    answer["item_ids"][0, [0, 7]] = answer["item_ids"][0, [7, 0]]


def repeat_id(answer: Tensors) -> None:
    answer["item_ids"][0, 3] = answer["item_ids"][0, 2]


def invent_id(answer: Tensors) -> None:
    answer["item_ids"][0, 3] = "no such item"


def lose_id(answer: Tensors) -> None:
    answer["item_ids"][0, -1] = ""


def lose_score(answer: Tensors) -> None:
    answer["scores"][0, -1] = LOWEST


def shift_score(answer: Tensors) -> None:
    answer["scores"][1, 2] += 3e-5


def break_score(answer: Tensors) -> None:
    answer["scores"][1, 2] = np.nan


def drop_row(answer: Tensors) -> None:
    answer["scores"] = answer["scores"][:-1]


def count_wrong(answer: Tensors) -> None:
    answer["known_items"][2] += 1


WRONG: list[Callable[[Tensors], Any]] = [
    swap_ids,
    repeat_id,
    invent_id,
    lose_id,
    lose_score,
    shift_score,
    break_score,
    drop_row,
    count_wrong,
]


@pytest.fixture(scope="module")
def caser(exports: Callable[[str], Exported]) -> Served:
    exported = exports("caser")
    return Served(exported, exported.graphs["caser"])


def failures(served: Served, change: Callable[[Tensors], Any]) -> list[str]:
    request = served.request(np.random.default_rng(0), batch=3, length=6)
    wide = served.torch(request, served.with_top_k(served.vocabularies["items"].num_rows))
    got = {name: values.copy() for name, values in served.onnx(request).items()}
    change(got)
    return parity.compare(served.graph, served.torch(request), got, wide)[1]


def test_a_right_answer_passes(caser: Served) -> None:
    assert failures(caser, lambda answer: None) == []


@pytest.mark.parametrize("change", WRONG)
def test_a_wrong_answer_is_noticed(caser: Served, change: Callable[[Tensors], Any]) -> None:
    assert failures(caser, change)


def test_the_requests_of_the_check_cover_what_a_caller_may_send(caser: Served) -> None:
    cases = list(parity.cases(caser.window))
    assert {case["batch"] for case in cases} >= {1, 2, 64}
    assert {case["length"] for case in cases} >= {0, 1, caser.window, caser.window + 1}
    assert max(case["length"] for case in cases) >= 3 * caser.window
    assert {case["content"] for case in cases} >= {"padding", "unknown", "holes", "odd numbers"}
    assert {case["candidates"] for case in cases} >= {0, 1}
    for content in ("padding", "unknown", "mixed"):
        request = parity.random_request(
            caser.graph,
            caser.vocabularies,
            np.random.default_rng(0),
            batch=64,
            length=20,
            content=content,
        )
        known = np.isin(request["history_item_ids"], caser.vocabularies["items"].ids)
        assert known.any() == (content == "mixed")
        assert (request["history_item_ids"] == "").any() == (content != "unknown")
