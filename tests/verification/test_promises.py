"""What every graph of every model promises a caller, whatever the caller sends."""

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from seqrec_export.data.interactions import Interactions
from seqrec_export.testing import promises
from support.served import ODD_NUMBERS, WINDOW, Served, Tensors, assert_same, over, unfiltered

BATCHES = st.integers(1, 64)
LENGTHS = st.integers(0, 3 * WINDOW)
SEEDS = st.integers(0, 2**32 - 1)
few = settings(max_examples=25, derandomize=True, deadline=None, database=None)


@few
@given(batch=BATCHES, length=LENGTHS, candidates=st.integers(0, 70), seed=SEEDS, odd=st.booleans())
@example(batch=1, length=0, candidates=0, seed=0, odd=False)
@example(batch=64, length=3 * WINDOW, candidates=70, seed=1, odd=False)
def test_onnx_runtime_answers_as_pytorch_does(
    served: Served, batch: int, length: int, candidates: int, seed: int, odd: bool
) -> None:
    promises.answers_as_pytorch(served, np.random.default_rng(seed), batch, length, candidates, odd)


@over(takes="history_item_ids")
@few
@given(batch=st.integers(1, 8), length=LENGTHS, seed=SEEDS)
def test_padding_anywhere_in_the_history_changes_nothing(
    served: Served, batch: int, length: int, seed: int
) -> None:
    promises.padding_changes_nothing(served, np.random.default_rng(seed), batch, length)


@over(takes="history_item_ids")
@few
@given(batch=BATCHES, length=st.integers(0, WINDOW), seed=SEEDS)
def test_numbers_without_an_event_change_nothing_and_those_with_one_do(
    served: Served, batch: int, length: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    promises.numbers_without_an_event_change_nothing(served, rng, batch, length)
    request = served.request(rng, batch=batch, length=length, known=1, padding=0)
    for name, spec in served.inputs.items():
        if not spec.aligned_with:
            continue
        width = request[name].shape[1]
        request[name] = rng.uniform(1, 4, (batch, width)).astype(np.float32)
        without, with_one = request[name].copy(), request[name].copy()
        without[:, : width - length] = rng.choice(ODD_NUMBERS, (batch, width - length))
        with_one[:, -1:] += 40
        before = served.onnx(request)
        assert_same(served.onnx(request | {name: without}), before)
        if length:
            changed = served.onnx(request | {name: with_one})
            assert any((changed[output] != before[output]).any() for output in before)


@few
@given(batch=BATCHES, length=LENGTHS, seed=SEEDS)
def test_a_row_does_not_depend_on_its_batch(
    served: Served, batch: int, length: int, seed: int
) -> None:
    promises.neighbours_change_nothing(served, np.random.default_rng(seed), batch, length)


@over(takes="history_item_ids")
@few
@given(batch=st.integers(1, 8), length=LENGTHS, unknown=st.booleans(), seed=SEEDS)
def test_nothing_known_gets_the_defined_cold_answer(
    served: Served,
    interactions: Interactions,
    batch: int,
    length: int,
    unknown: bool,
    seed: int,
) -> None:
    promises.nothing_known_is_a_cold_start(served, np.random.default_rng(seed), batch, length)
    rng = np.random.default_rng(seed)
    request = served.request(
        rng, batch=batch, length=length, unequal=True, known=0, padding=0.5 if unknown else 1
    )
    cold = served.onnx(request)
    assert (cold["known_items"] == 0).all()
    if served.ranks:
        assert_most_popular(served.onnx(unfiltered(served, request)), interactions)
        return
    empty = served.request(rng, batch=1, length=0, known=0.5)
    if "candidate_ids" in empty:
        empty["candidate_ids"] = request["candidate_ids"][:1]
        request["candidate_ids"] = np.repeat(empty["candidate_ids"], batch, axis=0)
        cold = served.onnx(request)
    one = served.onnx(empty)
    assert_same(cold, {name: np.repeat(values, batch, axis=0) for name, values in one.items()}, 0)


def assert_most_popular(answer: Tensors, interactions: Interactions) -> None:
    """Events before each user's last two (of three or more), counted here once more."""
    counts: dict[str, int] = dict.fromkeys(interactions.item_ids, 0)
    for user in range(len(interactions.user_ids)):
        mine = np.flatnonzero(interactions.users == user)
        mine = mine[np.argsort(interactions.times[mine], kind="stable")]
        for event in mine[: len(mine) - 2 if len(mine) >= 3 else len(mine)]:
            counts[interactions.item_ids[interactions.items[event]]] += 1
    most = sorted(counts.values(), reverse=True)[: answer["item_ids"].shape[1]]
    for ids in answer["item_ids"]:
        assert [counts[i] for i in ids] == most


@over(takes="exclude_item_ids")
@few
@given(batch=BATCHES, length=st.integers(0, 6), seed=SEEDS)
def test_filters_are_obeyed(served: Served, batch: int, length: int, seed: int) -> None:
    promises.filters_are_obeyed(served, np.random.default_rng(seed), batch, length)


@over(takes="candidate_ids")
@few
@given(batch=BATCHES, candidates=st.integers(1, 60), seed=SEEDS)
def test_unknown_and_empty_candidates_have_the_lowest_float32_and_no_others(
    served: Served, batch: int, candidates: int, seed: int
) -> None:
    promises.unknown_candidates_are_lowest(served, np.random.default_rng(seed), batch, candidates)


@few
@given(batch=BATCHES, length=LENGTHS, candidates=st.integers(0, 20), seed=SEEDS)
def test_no_request_gets_nan_or_infinity(
    served: Served, batch: int, length: int, candidates: int, seed: int
) -> None:
    rng, all_odd = np.random.default_rng(seed), bool(seed % 2)
    promises.numbers_are_finite(served, rng, batch, length, candidates, all_odd=all_odd)


@over(takes="history_item_ids", gives="user_embedding")
@few
@given(batch=st.integers(1, 8), more=LENGTHS, seed=SEEDS)
def test_only_the_last_events_of_the_window_matter_to_an_encoder(
    served: Served, batch: int, more: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    window = served.window
    request = served.request(rng, batch=batch, length=window, padding=0)
    request["history_item_ids"][:, -1] = served.vocabularies["items"].ids[0]  # one is known
    longer = dict(request)
    earlier = served.request(rng, batch=batch, length=more, odd=True)
    for name in served.parallel:
        longer[name] = np.concatenate([earlier[name], request[name]], axis=1)
    assert_same(served.onnx(longer), served.onnx(request), but=("known_items",))


@over(takes="history_item_ids", gives="user_embedding")
@few
@given(seed=SEEDS)
def test_every_event_of_the_window_matters_to_an_encoder(served: Served, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = np.array(served.vocabularies["items"].ids, dtype=object)
    batch, window = 40, served.window
    request = served.request(rng, batch=batch, length=window, known=1, padding=0)
    before = served.onnx(request)["user_embedding"]
    for place in range(window):
        history = request["history_item_ids"].copy()
        history[:, place] = ids[rng.integers(0, len(ids), batch)]
        after = served.onnx(request | {"history_item_ids": history})["user_embedding"]
        # A filter or a ReLU may hide an item from one history, but not from all of them.
        assert np.abs(after - before).max() > 1e-5, f"place {place}"


@over(takes="history_item_ids", gives="known_items")
@few
@given(batch=st.integers(1, 16), length=LENGTHS, seed=SEEDS)
def test_known_items_counts_the_known_ids_of_the_whole_history(
    served: Served, batch: int, length: int, seed: int
) -> None:
    promises.known_items_are_counted(served, np.random.default_rng(seed), batch, length)
