"""What a fused graph promises of its served, and how encoder and scorer relate to it."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrec_export.exporting.exported import Exported
from seqrec_export.models.registry import MODELS
from support.served import LOWEST, TOLERANCE, TOP_K, WINDOW, Served, assert_same, over, unfiltered

BATCHES = st.integers(1, 16)
LENGTHS = st.integers(0, 3 * WINDOW)
SEEDS = st.integers(0, 2**32 - 1)
few = settings(max_examples=25, derandomize=True, deadline=None, database=None)


@over(gives="item_ids")
@few
@given(batch=BATCHES, length=LENGTHS, known=st.sampled_from([0.0, 0.5, 1.0]), seed=SEEDS)
def test_ids_are_distinct_and_scores_descend(
    served: Served, batch: int, length: int, known: float, seed: int
) -> None:
    request = served.request(
        np.random.default_rng(seed), batch=batch, length=length, known=known, unequal=True, odd=True
    )
    answer = served.onnx(request)
    assert (np.diff(answer["scores"], axis=1) <= 0).all()
    for ids, scores in zip(answer["item_ids"], answer["scores"], strict=True):
        real = ids[scores > LOWEST]
        assert len(set(real)) == len(real)
        assert set(real) <= set(served.vocabularies["items"].ids)
    filled = served.onnx(unfiltered(served, request))["scores"]
    assert (filled > LOWEST).all()


@over(takes="history_item_ids", gives="item_ids")
@few
@given(batch=BATCHES, length=LENGTHS, seed=SEEDS)
def test_what_the_history_holds_is_never_recommended(
    served: Served, batch: int, length: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    request = served.request(rng, batch=batch, length=length + 2 * WINDOW, known=0.9)
    request = unfiltered(served, request)
    # The most likely answers of all stand before the window.
    first = served.onnx(request)["item_ids"][:, : 2 * WINDOW]
    request["history_item_ids"][:, : 2 * WINDOW] = first
    for history, ids in zip(
        request["history_item_ids"], served.onnx(request)["item_ids"], strict=True
    ):
        assert not set(history) & set(ids)


@over(takes="history_item_ids", gives="item_ids")
@few
@given(seed=SEEDS, left=st.integers(0, TOP_K - 1))
def test_a_history_of_nearly_everything_leaves_empty_ids_with_the_lowest_score(
    served: Served, seed: int, left: int
) -> None:
    rng = np.random.default_rng(seed)
    ids = np.array(served.vocabularies["items"].ids, dtype=object)
    shuffled = rng.permutation(ids)
    request = unfiltered(served, served.request(rng, batch=1, length=len(ids) - left))
    request["history_item_ids"] = shuffled[None, left:]
    answer = served.onnx(request)
    assert set(answer["item_ids"][0, :left]) == set(shuffled[:left])
    assert (answer["item_ids"][0, left:] == "").all()
    assert (answer["scores"][0, left:] == LOWEST).all()


@over(gives="item_ids")
@few
@given(batch=BATCHES, length=LENGTHS, small=st.integers(1, TOP_K), seed=SEEDS)
def test_a_prefix_of_the_answer_is_the_answer_of_a_smaller_top_k(
    served: Served, batch: int, length: int, small: int, seed: int
) -> None:
    request = served.request(np.random.default_rng(seed), batch=batch, length=length)
    smaller = served.torch(request, served.with_top_k(small))
    answer = served.onnx(request)
    prefix = answer | {name: answer[name][:, :small] for name in ("item_ids", "scores")}
    assert_same(prefix, smaller, but=("item_ids",))
    # Ids may differ only if the next ones have the same score.
    wrong = prefix["item_ids"] != smaller["item_ids"]
    tied = np.zeros_like(wrong)
    scores = answer["scores"]
    close = np.abs(np.diff(scores, axis=1)) <= 2 * TOLERANCE
    tied[:, : small - 1] |= close[:, : small - 1]
    tied[:, 1:] |= close[:, : small - 1]
    tied[:, -1] |= close[:, small - 1] if small < TOP_K else True
    assert not (wrong & ~tied).any()


@over(gives="item_ids")
def test_a_top_k_beyond_the_catalogue_is_filled_up_with_empty_ids(served: Served) -> None:
    whole = served.vocabularies["items"].num_rows
    for length in (0, WINDOW):
        request = served.request(np.random.default_rng(length), batch=5, length=length)
        answer, wider = (
            served.torch(request, served.with_top_k(top_k)) for top_k in (whole, whole + 9)
        )
        for name, empty in (("item_ids", ""), ("scores", LOWEST)):
            np.testing.assert_array_equal(wider[name][:, :whole], answer[name])
            assert wider[name].shape[1] == whole + 9
            assert (wider[name][:, whole:] == empty).all()


@few
@given(batch=BATCHES, length=LENGTHS, seed=SEEDS)
@pytest.mark.parametrize("name", MODELS)
def test_encoder_and_scorer_together_give_the_scores_of_the_fused_graph(
    exports: Callable[[str], Exported], name: str, batch: int, length: int, seed: int
) -> None:
    exported = exports(name)
    fused, encoder, scorer = (
        Served(exported, exported.graphs[n]) for n in (name, f"{name}_encoder", f"{name}_scorer")
    )
    request = fused.request(np.random.default_rng(seed), batch=batch, length=length, unequal=True)
    whole = fused.onnx(request)
    encoded = encoder.onnx({n: v for n, v in request.items() if n in encoder.inputs})
    np.testing.assert_array_equal(encoded["known_items"], whole["known_items"])
    candidates = whole["item_ids"] if fused.ranks else request["candidate_ids"]
    scored = scorer.onnx({"user_embedding": encoded["user_embedding"], "candidate_ids": candidates})
    # A served without a known item is by popularity; everything else is by score.
    by_score = (whole["known_items"][:, 0] > 0) | (not fused.ranks) | (not fused.reads_history)
    np.testing.assert_allclose(
        scored["scores"][by_score], whole["scores"][by_score], rtol=1e-6, atol=TOLERANCE
    )
