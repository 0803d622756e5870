"""The comparison that stands before every publish: every wrong answer is noticed, no right one."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrec_export.data.vocabulary import Vocabulary
from seqrec_export.exporting.exported import Exported
from seqrec_export.verification import filter_cases
from seqrec_export.verification.cases import (
    BATCHES,
    CANDIDATES,
    CLASSES,
    Case,
    alone,
    among,
    cases,
    classes_of,
    draw,
    every_id,
    why_not,
)
from seqrec_export.verification.parity import CHECKS, Histogram, compare
from seqrec_export.verification.reference import Reference
from support.served import LOWEST, Served, Tensors, over

few = settings(max_examples=25, derandomize=True, deadline=None, database=None)


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


def widen_numbers(answer: Tensors) -> None:
    answer["known_items"] = answer["known_items"].astype(np.float32)


def count_wrong(answer: Tensors) -> None:
    answer["known_items"][2] += 1


def turn_around(answer: Tensors) -> None:
    for name in ("item_ids", "scores"):
        answer[name] = answer[name][:, ::-1].copy()


WRONG: dict[Callable[[Tensors], None], str] = {
    swap_ids: "ranking",
    repeat_id: "ids",
    invent_id: "ids",
    lose_id: "ids",
    lose_score: "excluded",
    shift_score: "values",
    break_score: "finite",
    drop_row: "shape",
    widen_numbers: "shape",
    count_wrong: "exact",
    turn_around: "order",
}


@pytest.fixture(scope="module")
def caser(exports: Callable[[str], Exported]) -> Served:
    exported = exports("caser")
    return Served(exported, exported.graphs["caser"])


def reference_of(served: Served, request: Tensors) -> Reference:
    return served.pytorch.reference(served.graph, request)


def checks(
    served: Served, change: Callable[[Tensors], Any], reference: Reference | None = None
) -> set[str]:
    request = served.request(np.random.default_rng(0), batch=3, length=6)
    reference = reference or reference_of(served, request)
    got = {name: values.copy() for name, values in served.onnx(request).items()}
    change(got)
    tolerance = served.graph.tolerance
    found = compare(served.graph, served.vocabularies, request, reference, got, tolerance)
    return {problem.check for problem in found.problems}


def test_a_right_answer_passes(caser: Served) -> None:
    assert checks(caser, lambda answer: None) == set()


@pytest.mark.parametrize("change", WRONG)
def test_a_wrong_answer_is_noticed(caser: Served, change: Callable[[Tensors], None]) -> None:
    found = checks(caser, change)
    assert WRONG[change] in found
    assert found <= set(CHECKS)


def test_an_item_that_must_not_come_back_is_noticed(caser: Served) -> None:
    request = caser.request(np.random.default_rng(0), batch=3, length=6)
    reference = reference_of(caser, request)
    assert reference.catalogue is not None
    best = caser.vocabularies["items"].encode(caser.onnx(request)["item_ids"][:1, :1])[0, 0]
    reference.catalogue[0, best] = LOWEST
    assert "excluded" in checks(caser, lambda answer: None, reference)


def test_ids_may_change_places_only_where_their_scores_tie(caser: Served) -> None:
    request = caser.request(np.random.default_rng(0), batch=3, length=6)
    reference = reference_of(caser, request)
    assert reference.catalogue is not None
    answer = caser.onnx(request)
    one, other = caser.vocabularies["items"].encode(answer["item_ids"][0, [0, 1]])
    reference.catalogue[0, other] = reference.catalogue[0, one]

    def tie(answer: Tensors) -> None:
        answer["item_ids"][0, [0, 1]] = answer["item_ids"][0, [1, 0]]
        answer["scores"][0, 1] = answer["scores"][0, 0]

    # As in a ranking by another library: the same score, another of the two ids first.
    reference.double["scores"][0, 1] = reference.double["scores"][0, 0]
    assert checks(caser, tie, reference) == set()
    reference.catalogue[0, other] -= 1e-3
    assert checks(caser, tie, reference) == {"ranking"}


def test_the_reference_is_float64_and_says_who_is_off(caser: Served) -> None:
    request = caser.request(np.random.default_rng(0), batch=3, length=6)
    reference = reference_of(caser, request)
    assert reference.double["scores"].dtype == np.float64
    got = caser.onnx(request)
    got["scores"] = got["scores"] + np.float32(1e-3)
    found = compare(caser.graph, caser.vocabularies, request, reference, got, caser.graph.tolerance)
    (said,) = [p.message for p in found.problems if p.check == "values"]
    assert "off by 0.001, allowed are 2e-05; PyTorch in float32 is off by" in said
    assert found.max_abs == pytest.approx(1e-3, rel=1e-2)
    assert found.torch_max_abs < 1e-5
    assert found.where.startswith("scores[")


@over()
def test_every_pair_of_sizes_and_contents_is_tried(served: Served) -> None:
    listed = list(cases(served.graph, served.window, np.random.default_rng(0)))
    axes = {axis for spec in served.inputs.values() for axis in spec.shape}
    window = served.window
    lengths = {0, 1, window - 1, window, window + 1, 3 * window} if "length" in axes else {None}
    candidates = set(CANDIDATES) if "candidates" in axes else {None}
    names = set(classes_of(served.graph))
    assert {case.name for case in listed} == names
    wanted = {"name": names, "batch": set(BATCHES), "length": lengths, "candidates": candidates}
    for (one, first), (other, second) in itertools.combinations(wanted.items(), 2):
        found = {(getattr(case, one), getattr(case, other)) for case in listed}
        assert found >= set(itertools.product(first, second)), (one, other)


@over(takes="history_item_ids")
@pytest.mark.parametrize("name", CLASSES)
def test_a_request_holds_what_its_class_says(served: Served, name: str) -> None:
    if why_not(name, served.graph):
        assert name in {"extreme numbers", "unequal lists", *filter_cases.CLASSES}
        return
    rng, ids = np.random.default_rng(0), set(served.vocabularies["items"].ids)
    case = Case(name=name, batch=64, length=20, candidates=20)
    request = draw(served.graph, served.vocabularies, rng, case)
    history = request["history_item_ids"]
    assert history.shape == (64, 20)
    known = np.isin(history, list(ids))
    padding = history == ""
    numbers = [v for v in request.values() if v.dtype == np.float32]
    integers = [v for v in request.values() if v.dtype == np.int32]
    kinds = {"known": known.any(), "unknown": (~known & ~padding).any(), "padding": padding.any()}
    expected = {
        "known ids": {"known"},
        "mixed ids": {"known", "unknown", "padding"},
        "padding in the middle": {"known", "padding"},
        "padding only": {"padding"},
        "unknown ids only": {"unknown"},
        "one unknown id": {"known", "unknown"},
        "repeated ids": {"known"},
        "strange ids": {"known", "unknown"},
        "extreme numbers": {"known"},
        "mixed lengths": {"known", "padding"},
        "unequal lists": {"known"},
        **{one: {"known"} for one in filter_cases.CLASSES},
    }
    assert {kind for kind, found in kinds.items() if found} == expected[name]
    if name == "one unknown id":
        assert ((~known).sum(axis=1) == 1).all()
    if name == "repeated ids":
        assert max(len(set(row)) for row in history) <= 2
    if name == "extreme numbers":
        assert all(np.isnan(v).any() and np.isinf(v).any() for v in numbers)
        assert all(np.isin([-(2**31), 2**31 - 1], v).all() for v in integers)
        assert numbers or integers
    if name == "mixed lengths":
        real = 20 - padding.sum(axis=1)
        assert len(set(real)) > 10
        assert (padding == (np.arange(20)[None] >= real[:, None])).all()
        for other in served.parallel:
            values = request[other]
            assert ((values == "") if values.dtype == object else np.isnan(values))[padding].all()
    if name == "unequal lists":
        shapes = {
            draw(served.graph, served.vocabularies, rng, case)[n].shape[1]
            for n in served.parallel
            for _ in range(9)
        }
        assert len(shapes) > 2


def test_strange_ids_are_close_to_known_ones(caser: Served) -> None:
    case = Case(name="strange ids", batch=64, length=20)
    known = {f"Item {letter}" for letter in "abcdefgh"}
    vocabularies = dict(caser.vocabularies) | {"items": Vocabulary(known)}
    request = draw(caser.graph, vocabularies, np.random.default_rng(0), case)
    history = request["history_item_ids"]
    strange = {text for text in history.ravel() if text not in known}
    assert any(len(text.encode()) == 1000 for text in strange)
    assert any(not text.isascii() for text in strange)
    assert any(text.strip() in known for text in strange)
    assert any(text.swapcase() in known for text in strange)


@over()
@few
@given(seed=st.integers(0, 2**32 - 1), row=st.integers(0, 4))
def test_a_row_alone_and_beside_strangers_is_the_same_row(
    served: Served, seed: int, row: int
) -> None:
    rng = np.random.default_rng(seed)
    name = "mixed ids" if why_not("mixed lengths", served.graph) else "mixed lengths"
    case = Case(name=name, batch=5, length=served.window + 2, candidates=6)
    request, strangers = (draw(served.graph, served.vocabularies, rng, case) for _ in range(2))
    single, joined = alone(served.graph, request, row), among(request, strangers, row)
    for key, values in request.items():
        assert len(single[key]) == 1
        width = single[key].shape[1]
        np.testing.assert_array_equal(single[key][0], values[row, :width])
        rest = values[row, width:]
        assert (rest == "").all() if rest.dtype == object else np.isnan(rest).all()
        for got, wanted in ((joined[key][-1:], values[[row]]), (joined[key][:-1], strangers[key])):
            width = wanted.shape[1]  # rows of a batch are padded to the longest
            np.testing.assert_array_equal(got[:, :width], wanted)
            assert (got[:, width:] == "").all()


@over()
def test_every_id_is_looked_up(served: Served) -> None:
    names = {spec.name: spec.vocabulary for spec in served.inputs.values() if spec.vocabulary}
    seen: dict[str, set[str]] = {name: set() for name in names}
    rng = np.random.default_rng(0)
    for request, _ in every_id(served.graph, served.vocabularies, rng, served.window, 16):
        for name in names:
            seen[name] |= set(request[name].ravel())
    for name, vocabulary in names.items():
        assert seen[name] >= set(served.vocabularies[vocabulary].ids), name


def test_the_histogram_counts_every_difference() -> None:
    histogram = Histogram()
    histogram.add([np.array([0.0, 0.0, 1e-30, 4e-7, 5e-7, 5.0])])
    assert histogram.zero == 2
    assert histogram.counts.sum() == 4
    assert histogram.counts[0] == histogram.counts[-1] == 1
    assert histogram.counts.max() == 2
