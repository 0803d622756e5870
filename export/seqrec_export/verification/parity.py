"""An answer compared with its reference: what is wrong with it, and by how much.

The reference is PyTorch in float64 on the same weights, so a difference shows which side is off.
Rankings are compared tie-aware: for equal scores, ONNX Runtime gives the lowest index, PyTorch any.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqrec_export.contract import USER_EMBEDDING, Graph, Tolerance
from seqrec_export.data.raw_requests import Request
from seqrec_export.data.vocabulary import PAD, UNKNOWN, Vocabulary
from seqrec_export.nn.layers import EMBEDDING_LIMIT, LOWEST
from seqrec_export.verification.reference import Reference

Floats = NDArray[np.float64]
_DTYPES = {"string": "O", "float32": "f", "int32": "i"}
_ORDINARY = 10.0  # the largest component of a user's vector that no encoder of ours exceeds
_FEW_TERMS = 32  # of a dot product, for which the tolerance was chosen
_RELATIVE_FROM = 1e-3  # a relative difference says nothing about a reference closer to 0


@dataclass(frozen=True)
class Problem:
    """What one answer gets wrong; `check` is one of CHECKS."""

    check: str
    message: str


CHECKS: Mapping[str, str] = {
    "answers": "a request is answered, not refused",
    "shape": "an output has the axes and the type that the contract says",
    "finite": "no NaN and no infinity",
    "excluded": "what must not be scored has the lowest float32, and nothing else does",
    "values": "numbers are those of PyTorch in float64, within the tolerance",
    "order": "scores descend",
    "exact": "counts are equal",
    "ids": "an id that comes back is in the catalogue, and only once; no id means nothing found",
    "ranking": "an id's score is the reference's for it, and the reference has no better one",
    "neighbours": "a row's answer does not depend on other rows of the batch",
    "recall": "a search with int8 vectors finds nearly all that the exact one finds",
}


@dataclass
class Comparison:
    """One answer compared with its reference."""

    problems: list[Problem] = field(default_factory=list)
    differences: list[Floats] = field(default_factory=list)  # flat, of every float output
    max_abs: float = 0.0
    max_rel: float = 0.0
    where: str = ""  # the output and index of max_abs
    wanted: int = 0  # items that an exact search finds; counted if the graph may miss some
    missed: int = 0
    torch_max_abs: float = 0.0  # PyTorch in float32 against float64
    torch_differences: list[Floats] = field(default_factory=list)


def compare(
    graph: Graph,
    vocabularies: Mapping[str, Vocabulary],
    request: Request,
    reference: Reference,
    got: Mapping[str, NDArray[Any]],
    tolerance: Tolerance,
) -> Comparison:
    """Check an answer's shapes, numbers, ids and ranking.

    Scores from a caller's own vector are compared in proportion to that vector. If a search may
    miss items, its scores are compared with those of the items that it found.
    """
    result = Comparison()
    exact = graph.item_precision == "float32"
    scale = scale_of(request)
    for spec in graph.outputs:
        want, single, have = (
            reference.double[spec.name],
            reference.single[spec.name],
            got[spec.name],
        )
        if want.shape != have.shape or have.dtype.kind != _DTYPES[spec.dtype]:
            found = f"{have.dtype} {list(have.shape)}"
            result.problems.append(
                Problem("shape", f"{spec.name} is {found} instead of {spec.dtype} {[*want.shape]}")
            )
        elif spec.dtype == "float32":
            if not exact:
                want = _of_found(vocabularies["items"], reference, got)
            _compare_numbers(result, spec.name, want, single, have, tolerance, scale)
        elif spec.dtype == "int32" and (want != have).any():
            at = _index(want != have)
            result.problems.append(
                Problem("exact", f"{spec.name}{list(at)} is {have[at]} instead of {want[at]}")
            )
        elif spec.dtype == "string" and reference.catalogue is None and (want != have).any():
            at = _index(want != have)
            result.problems.append(
                Problem("ids", f"{spec.name}{list(at)} is {have[at]!r} instead of {want[at]!r}")
            )
    if reference.catalogue is not None and not any(p.check == "shape" for p in result.problems):
        _compare_ranking(result, vocabularies["items"], reference, got, tolerance, exact=exact)
    return result


def _of_found(items: Vocabulary, reference: Reference, got: Mapping[str, NDArray[Any]]) -> Floats:
    """(B, K) the reference's scores of the items that came back, its own best if none did."""
    assert reference.catalogue is not None
    index = items.encode(got["item_ids"])
    scores = reference.catalogue[np.arange(len(index))[:, None], index]
    return np.where(index == PAD, reference.double["scores"], scores)


def _compare_numbers(
    result: Comparison,
    name: str,
    want: Floats,
    single: NDArray[np.float32],
    have: NDArray[np.float32],
    tolerance: Tolerance,
    scale: Floats,
) -> None:
    if not np.isfinite(have).all():
        at = _index(~np.isfinite(have))
        result.problems.append(Problem("finite", f"{name}{list(at)} is {have[at]}"))
        return
    # LOWEST is a mark, not a number: its place has to agree exactly.
    real = want != LOWEST
    if (real == (have == LOWEST)).any():
        at = _index(real == (have == LOWEST))
        said = f"{name}{list(at)} is {have[at]}, PyTorch gives {want[at]}"
        result.problems.append(Problem("excluded", said))
        return
    off = np.where(real, np.abs(want - have), 0.0) / scale
    torch_off = np.where(real, np.abs(want - single), 0.0) / scale
    if not off.size:
        return
    result.differences.append(off[real])
    result.torch_differences.append(torch_off[real])
    result.torch_max_abs = max(result.torch_max_abs, float(torch_off.max()))
    sized = real & (np.abs(want) >= _RELATIVE_FROM)
    relative = np.divide(off, np.abs(want), out=np.zeros_like(off), where=sized)
    result.max_rel = max(result.max_rel, float(relative.max()))
    if off.max() >= result.max_abs:
        result.max_abs = float(off.max())
        result.where = f"{name}{list(_index(off == off.max()))}"
    allowed = tolerance.atol + tolerance.rtol * np.abs(want) / scale
    if (off > allowed).any():
        at = _index(off == np.where(off > allowed, off, 0.0).max())
        result.problems.append(
            Problem(
                "values",
                f"{name}{list(at)} is {have[at]:.8g}, PyTorch in float64 gives {want[at]:.8g}: off "
                f"by {off[at]:.2g}, allowed are {allowed[at]:.2g}; PyTorch in float32 is off by "
                f"{torch_off[at]:.2g}",
            )
        )


def scale_of(request: Request) -> Floats:
    """(B, 1): how much larger the caller's vector is than an ordinary one.

    The rounding of a dot product grows in proportion to its factors, and with the root of their
    number.
    """
    vector = request.get(USER_EMBEDDING)
    if vector is None:
        return np.ones((1, 1))
    size = np.nan_to_num(np.abs(vector.astype(np.float64)), nan=0.0, posinf=EMBEDDING_LIMIT)
    largest = size.max(axis=1, keepdims=True, initial=0.0)
    terms = math.sqrt(max(vector.shape[1] / _FEW_TERMS, 1.0))
    scale: Floats = np.maximum(1.0, np.minimum(largest, EMBEDDING_LIMIT) / _ORDINARY * terms)
    return scale


def _compare_ranking(
    result: Comparison,
    items: Vocabulary,
    reference: Reference,
    got: Mapping[str, NDArray[Any]],
    tolerance: Tolerance,
    *,
    exact: bool,
) -> None:
    """What is wrong with `item_ids` and their order."""
    assert reference.catalogue is not None
    ids, scores = got["item_ids"], got["scores"].astype(np.float64)
    problems = result.problems
    if (np.diff(scores, axis=1) > 0).any():
        at = _index(np.diff(scores, axis=1) > 0)
        problems.append(
            Problem("order", f"scores{list(at)} is {scores[at]:.8g}, and the next one is higher")
        )
    index = items.encode(ids)
    rows = np.arange(len(ids))[:, None]
    sorted_index = np.sort(index, axis=1)
    twice = (np.diff(sorted_index, axis=1) == 0) & (sorted_index[:, 1:] != PAD)
    wrong = {
        "is not an item of the catalogue": index == UNKNOWN,
        "comes with a score": (index == PAD) & (scores != LOWEST),
        "comes with the lowest float32": (index != PAD) & (scores == LOWEST),
    }
    for reason, cells in wrong.items():
        if cells.any():
            at = _index(cells)
            problems.append(Problem("ids", f"item_ids{list(at)}, {ids[at]!r}, {reason}"))
    if twice.any():
        row = _index(twice)[0]
        problems.append(Problem("ids", f"item_ids[{row}] holds an id twice"))
    expected = reference.catalogue[rows, index]
    real = index > UNKNOWN
    if (real & (expected == LOWEST)).any():
        at = _index(real & (expected == LOWEST))
        problems.append(
            Problem("excluded", f"item_ids{list(at)}, {ids[at]!r}, must not be recommended here")
        )
        return
    allowed = tolerance.atol + tolerance.rtol * np.abs(expected)
    off = np.where(real, np.abs(expected - scores), 0.0)
    # An id that is not among the best K has a reference score below the K-th.
    short = np.where(real, reference.double["scores"][:, -1:] - expected, 0.0)
    if not exact:
        result.wanted = int((reference.double["scores"] != LOWEST).sum())
        result.missed = int((short > allowed).sum())
    worst = np.maximum(off, short) if exact else off
    if (worst > allowed).any():
        at = _index(worst > allowed)
        problems.append(
            Problem(
                "ranking",
                f"item_ids{list(at)}, {ids[at]!r}, has the score {scores[at]:.8g}; PyTorch in "
                f"float64 gives it {expected[at]:.8g}",
            )
        )


def _index(cells: NDArray[np.bool_]) -> tuple[int, ...]:
    """The first cell that is true."""
    return tuple(int(i) for i in np.argwhere(cells)[0])


HISTOGRAM_EDGES = tuple(np.arange(-12.0, 0.5, 0.5).tolist())  # log10 of |difference|


@dataclass
class Histogram:
    """How many differences are how large."""

    counts: NDArray[np.int64] = field(
        default_factory=lambda: np.zeros(len(HISTOGRAM_EDGES) - 1, np.int64)
    )
    zero: int = 0

    def add(self, differences: Iterable[Floats]) -> None:
        """Count some more; what is beyond the edges goes into the outermost bins."""
        for values in differences:
            positive = values[values > 0]
            self.zero += int(values.size - positive.size)
            logs = np.clip(np.log10(positive), HISTOGRAM_EDGES[0], HISTOGRAM_EDGES[-1] - 1e-9)
            self.counts += np.histogram(logs, HISTOGRAM_EDGES)[0]


@dataclass
class Tally:
    """All cases of one class on one provider."""

    cases: int = 0
    max_abs: float = 0.0
    max_rel: float = 0.0
    where: str = ""
    failed: int = 0
    wanted: int = 0
    missed: int = 0

    def add(self, comparison: Comparison, case: str) -> None:
        """Count one more case."""
        self.cases += 1
        self.failed += bool(comparison.problems)
        self.wanted += comparison.wanted
        self.missed += comparison.missed
        self.max_rel = max(self.max_rel, comparison.max_rel)
        if comparison.max_abs >= self.max_abs and comparison.where:
            self.max_abs, self.where = comparison.max_abs, f"{comparison.where}, {case}"


def no_answer(error: Exception) -> Comparison:
    """The comparison for a request that got no answer."""
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return Comparison(problems=[Problem("answers", first[:300])])
