"""What a graph promises, whatever a caller sends: each function draws one request and looks.

All raise AssertionError. They say what they found themselves, for they are no part of the caller's
tests, where pytest would.
"""

from __future__ import annotations

import numpy as np

from seqrec_export.contract import USER_EMBEDDING
from seqrec_export.data.vocabulary import NUM_RESERVED, PAD
from seqrec_export.models import wire
from seqrec_export.models.wire import CANDIDATES, HISTORY, KNOWN_ITEMS
from seqrec_export.testing.served import LOWEST, ODD_NUMBERS, Served, Tensors, assert_same, rows


def require(holds: bool, message: str) -> None:
    """An assertion that Python's -O does not take away."""
    if not holds:
        raise AssertionError(message)


def answers_as_pytorch(
    served: Served, rng: np.random.Generator, batch: int, length: int, candidates: int, odd: bool
) -> None:
    """ONNX Runtime gives PyTorch's numbers; ids may change places only if their scores tie."""
    request = served.request(
        rng, batch=batch, length=length, candidates=candidates, unequal=True, odd=odd
    )
    if USER_EMBEDDING in request:  # of a caller's 3e38 all digits beyond the 7th are lost anyway
        request[USER_EMBEDDING] = np.clip(np.nan_to_num(request[USER_EMBEDDING]), -9, 9)
    got, expected = served.onnx(request), served.torch(request)
    assert_same(got, expected, but=("item_ids",))
    if served.ranks:
        everything = served.torch(request, served.with_top_k(served.vocabularies["items"].num_rows))
        for row in range(batch):
            score = dict(zip(everything["item_ids"][row], everything["scores"][row], strict=True))
            for identifier, value in zip(got["item_ids"][row], got["scores"][row], strict=True):
                require(bool(identifier) == bool(value > LOWEST), f"{identifier!r} has {value}")
                right = not identifier or (
                    abs(score[identifier] - value) <= served.graph.tolerance.atol
                )
                require(right, f"{identifier!r} has {value}, in PyTorch {score.get(identifier)}")


def padding_changes_nothing(
    served: Served, rng: np.random.Generator, batch: int, length: int
) -> None:
    """Empty strings anywhere in the history, and whatever stands next to them in other lists."""
    request = served.request(rng, batch=batch, length=length, padding=0)
    holes = int(rng.integers(1, 2 * max(served.window, 2)))
    # Every row has its holes elsewhere: where the real events go, in order.
    places = np.sort(
        rng.permuted(np.tile(np.arange(length + holes), (batch, 1)), axis=1)[:, :length]
    )
    padded = dict(request)
    for name in served.parallel:
        if name == HISTORY.name:
            wider = np.full((batch, length + holes), "", dtype=object)
        else:  # next to padding may stand anything
            filler = served.request(rng, batch=batch, length=length + holes, odd=True, padding=0.5)
            wider = filler[name]
        np.put_along_axis(wider, places, request[name], axis=1)
        padded[name] = wider
    assert_same(served.onnx(padded), served.onnx(request))


def numbers_without_an_event_change_nothing(
    served: Served, rng: np.random.Generator, batch: int, length: int
) -> None:
    """In front of a history that is shorter than the window of what is aligned with it."""
    request = served.request(rng, batch=batch, length=length, known=1, padding=0)
    for name, spec in served.inputs.items():
        if spec.aligned_with:
            width = request[name].shape[1]
            request[name] = rng.uniform(1, 4, (batch, width)).astype(np.float32)
            without, empty = request[name].copy(), max(width - length, 0)
            without[:, :empty] = rng.choice(ODD_NUMBERS, (batch, empty))
            assert_same(served.onnx(request | {name: without}), served.onnx(request))


def neighbours_change_nothing(
    served: Served, rng: np.random.Generator, batch: int, length: int
) -> None:
    """A row of a batch is answered as it is alone."""
    request = served.request(rng, batch=batch, length=length, unequal=True)
    together = served.onnx(request)
    row = int(rng.integers(batch))
    alone = served.onnx(rows(request, slice(row, row + 1)))
    assert_same(alone, rows(together, slice(row, row + 1)))


def nothing_known_is_a_cold_start(
    served: Served, rng: np.random.Generator, batch: int, length: int
) -> Tensors:
    """A history of unknown ids and padding is an empty one, and `known_items` says 0."""
    request = served.request(
        rng, batch=batch, length=length, unequal=True, known=0, padding=float(rng.choice([0.5, 1]))
    )
    empty = request | {
        name: request[name][:, :0] if served.inputs[name].ragged else request[name]
        for name in served.parallel
    }
    if CANDIDATES.name in request:
        drawn = served.request(rng, batch=batch, length=0, known=0.5)[CANDIDATES.name]
        request[CANDIDATES.name] = empty[CANDIDATES.name] = drawn
    cold = served.onnx(request)
    assert_same(cold, served.onnx(empty))
    if KNOWN_ITEMS.name in cold:
        require((cold[KNOWN_ITEMS.name] == 0).all(), "known_items is not 0 if nothing is known")
    return cold


def filters_are_obeyed(served: Served, rng: np.random.Generator, batch: int, length: int) -> None:
    """Nothing comes back that a row's filters leave out, by the ids and values that it holds."""
    request = served.request(rng, batch=batch, length=length)
    items = served.vocabularies["items"].ids
    values = {
        wire.allowed_values(of.name, "").name: [
            {*of.vocabulary.strings[row[row != PAD]]} for row in of.values[NUM_RESERVED:]
        ]
        for of in served.exported.attributes
    }
    for row, ids in enumerate(served.onnx(request)["item_ids"]):
        asked = {name: {*request[name][row].ravel()} - {""} for name in request}
        left = {*items} - asked[wire.EXCLUDED.name]
        if asked[wire.ALLOWED.name]:
            left &= asked[wire.ALLOWED.name]
        for name, of_items in values.items():
            if asked[name]:
                left &= {i for i, own in zip(items, of_items, strict=True) if own & asked[name]}
        if asked.get(wire.KEEP_SEEN.name) == {0}:
            left -= asked[HISTORY.name]
        if wire.QUERY.name in asked:
            left -= asked[wire.QUERY.name]
        wrong = {*ids} - {""} - left
        require(not wrong, f"{sorted(wrong)[:3]} came back, which the filters leave out")
        wanted = min(len(left), len(ids))
        require(wanted == len({*ids} - {""}), f"{wanted} items are left, not all of them came")


def unknown_candidates_are_lowest(
    served: Served, rng: np.random.Generator, batch: int, candidates: int
) -> None:
    """An unknown or empty candidate has the lowest float32, and no other one has."""
    request = served.request(rng, batch=batch, length=5, candidates=candidates, known=0.5)
    known = np.isin(request[CANDIDATES.name], served.vocabularies["items"].ids)
    lowest = served.onnx(request)["scores"] == LOWEST
    require(bool((lowest == ~known).all()), "the lowest float32 marks other candidates too")


def numbers_are_finite(
    served: Served,
    rng: np.random.Generator,
    batch: int,
    length: int,
    candidates: int,
    *,
    all_odd: bool,
) -> None:
    """NaN, infinities and enormous numbers of a caller give none back."""
    request = served.request(
        rng, batch=batch, length=length, candidates=candidates, unequal=True, odd=True
    )
    for name, spec in served.inputs.items():
        if spec.dtype == "float32" and all_odd:
            request[name] = rng.choice(ODD_NUMBERS, request[name].shape)
    for name, values in served.onnx(request).items():
        if values.dtype == np.float32:
            require(bool(np.isfinite(values).all()), f"{name} is not finite")


def known_items_are_counted(
    served: Served, rng: np.random.Generator, batch: int, length: int
) -> None:
    """`known_items` counts the known ids of the whole history."""
    request = served.request(rng, batch=batch, length=length, known=0.5)
    known = np.isin(request[HISTORY.name], served.vocabularies["items"].ids)
    counted = served.onnx(request)[KNOWN_ITEMS.name][:, 0]
    np.testing.assert_array_equal(counted, known.sum(axis=1))
