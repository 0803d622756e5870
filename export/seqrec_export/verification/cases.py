"""The requests that an export is tried on: every pair of sizes and contents, and random ones.

A case class says what a request holds; batch, length and number of candidates vary within it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqrec_export.contract import Graph, Spec
from seqrec_export.data.raw_requests import Request, last_columns
from seqrec_export.data.vocabulary import Vocabulary
from seqrec_export.verification import filter_cases

BATCHES = (1, 2, 7, 64)
CANDIDATES = (0, 1, 1000)
_RANDOM_CASES = 24
_SCORES_AT_ONCE = 16_000  # of a random case: rating a candidate may take a network of its own
_SWEPT = 313  # candidates a row when every id is looked up
_MISSING: Mapping[str, Any] = {"string": "", "float32": np.nan, "int32": 0}  # by dtype
_UNKNOWN_ID = "\N{SNOWMAN} no such id"
_LONG = 1000  # bytes of the longest ids that are tried
_ODD = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 3e38, -3e38, 1e-40], np.float32)
_ODD_INTEGERS = np.array([-(2**31), 2**31 - 1, -1, 0], np.int32)

CLASSES: Mapping[str, str] = {
    "known ids": "the model knows every id",
    "mixed ids": "known ids, unknown ones and padding, anywhere",
    "padding in the middle": "empty strings between the ids",
    "padding only": "nothing but empty strings",
    "unknown ids only": "no id that the model knows",
    "one unknown id": "one unknown id among known ones",
    "repeated ids": "one or two ids, again and again",
    "strange ids": "known ids in other case, with spaces, decomposed, not in ASCII, of 1,000 bytes",
    "extreme numbers": "NaN, infinities and numbers at the end of their range",
    "mixed lengths": "rows of every length, padded at the end as in a client's batch",
    "unequal lists": "lists that should be parallel, of unequal length",
    **filter_cases.CLASSES,
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One request to come: what it holds, and its sizes; None if the graph has no such list."""

    name: str  # one of CLASSES
    batch: int
    length: int | None = None
    candidates: int | None = None

    def __str__(self) -> str:
        sizes = {"batch": self.batch, "length": self.length, "candidates": self.candidates}
        known = [f"{name} {size}" for name, size in sizes.items() if size is not None]
        return ", ".join([self.name, *known])


def cases(graph: Graph, window: int, rng: np.random.Generator) -> Iterator[Case]:
    """Each pair of class, batch, length and number of candidates; then random ones.

    Cases for which the graph has no input are left out.
    """
    lengths = sizes(graph, "length", (0, 1, max(window - 1, 1), window, window + 1, 3 * window))
    counts = sizes(graph, "candidates", CANDIDATES)
    names = classes_of(graph)
    # 4 batches and 3 numbers of candidates have no common factor: i + j goes through all pairs.
    for i, name in enumerate(names):
        for j in range(max(len(lengths), len(BATCHES))):
            yield Case(
                name=name,
                batch=BATCHES[(i + j) % len(BATCHES)],
                length=lengths[j % len(lengths)],
                candidates=counts[(i + j) % len(counts)],
            )
    for batch in BATCHES if filter_cases.FEW in names else ():
        # Next to long lists, a graph does not choose to score nothing but what they hold.
        yield Case(name=filter_cases.FEW, batch=batch, length=lengths[:2][-1], candidates=counts[0])
    for _ in range(_RANDOM_CASES):
        batch = int(rng.integers(1, max(BATCHES) + 1))
        most = min(max(CANDIDATES), _SCORES_AT_ONCE // batch)
        yield Case(
            name=str(rng.choice(names)),
            batch=batch,
            length=_up_to(3 * window, lengths, rng),
            candidates=_up_to(most, counts, rng),
        )


def sizes(graph: Graph, axis: str, of: tuple[int, ...]) -> tuple[int | None, ...]:
    """The sizes to try an axis with; None alone if the graph does not have it."""
    return of if any(axis in spec.shape for spec in graph.inputs) else (None,)


def _up_to(most: int, tried: tuple[int | None, ...], rng: np.random.Generator) -> int | None:
    return None if tried == (None,) else int(rng.integers(0, most + 1))


def classes_of(graph: Graph) -> list[str]:
    """The classes that a graph has cases of."""
    return [name for name in CLASSES if not why_not(name, graph)]


def why_not(name: str, graph: Graph) -> str:
    """Why a graph has no case of a class; empty if it has one."""
    lists = _lists(graph)
    if name == "extreme numbers" and all(spec.dtype == "string" for spec in graph.inputs):
        return "the graph takes no numbers"
    if name in {"padding in the middle", "repeated ids", "mixed lengths"} and not lists:
        return "the graph takes no lists"
    if name == "unequal lists" and len(_parallel(lists)) < 2:
        return "the graph takes no parallel lists"
    if name in filter_cases.CLASSES and not any(spec.narrows for spec in graph.inputs):
        return "the graph takes no filters"
    return ""


def _lists(graph: Graph) -> list[Spec]:
    """The inputs of any length."""
    return [spec for spec in graph.inputs if isinstance(spec.shape[1], str)]


def _parallel(lists: list[Spec]) -> list[Spec]:
    """The history and what is parallel to it."""
    return [spec for spec in lists if "candidates" not in spec.shape and not spec.narrows]


def draw(
    graph: Graph, vocabularies: Mapping[str, Vocabulary], rng: np.random.Generator, case: Case
) -> Request:
    """A random request of a case."""
    known: dict[str, int | None] = {
        "batch": case.batch,
        "length": case.length,
        "candidates": case.candidates,
    }
    request: Request = {}
    filters = filter_cases.Filters(case.name, case.batch, vocabularies, rng)
    for spec in graph.inputs:
        if spec.narrows:
            request[spec.name] = filters.draw(spec)
            continue
        shape: list[int] = []
        for axis in spec.shape:
            if isinstance(axis, int):
                shape.append(axis)
            elif (size := known.get(axis)) is not None:
                shape.append(size)
            else:  # a list that is parallel to the history
                other = case.name == "unequal lists"
                assert case.length is not None
                shape.append(max(0, case.length + (int(rng.integers(-3, 4)) if other else 0)))
        if spec.dtype == "string":
            assert spec.vocabulary is not None
            request[spec.name] = _ids(
                case.name, tuple(shape), vocabularies[spec.vocabulary].ids, rng
            )
        else:
            request[spec.name] = _numbers(case.name, tuple(shape), spec, rng)
    if case.name == "mixed lengths":
        _shorten(request, graph, rng)
    return request


def _ids(
    name: str, shape: tuple[int, ...], ids: tuple[str, ...], rng: np.random.Generator
) -> NDArray[np.object_]:
    unknown = _unknown(ids)
    known = np.array([*ids, unknown][: max(len(ids), 1)], dtype=object)
    values = known[rng.integers(0, len(known), shape)]
    chance = rng.random(shape)
    if name == "mixed ids":
        values = np.where(chance < 0.1, unknown, np.where(chance < 0.2, "", values))
    elif name == "padding in the middle":
        values = np.where(chance < 0.4, "", values)
        values[:, :1] = known[rng.integers(0, len(known), values[:, :1].shape)]
    elif name == "padding only":
        values = np.full(shape, "", dtype=object)
    elif name == "unknown ids only":
        values = np.full(shape, unknown, dtype=object)
    elif name == "one unknown id" and shape[1]:
        values[np.arange(shape[0]), rng.integers(0, shape[1], shape[0])] = unknown
    elif name == "repeated ids":
        pair = known[rng.integers(0, len(known), (shape[0], 2))]
        values = np.take_along_axis(pair, (chance < 0.3).astype(np.int64), axis=1)
    elif name == "strange ids":
        strange = np.array(
            [change(str(known[rng.integers(len(known))])) for change in _CHANGES], dtype=object
        )
        values = np.where(chance < 0.5, strange[rng.integers(0, len(strange), shape)], values)
    return np.asarray(values, dtype=object)


_CHANGES: tuple[Callable[[str], str], ...] = (
    str.swapcase,
    lambda i: f" {i}",
    lambda i: f"{i} ",
    lambda i: f"{i}\n",
    lambda i: i[:-1] or "?",
    lambda i: unicodedata.normalize("NFD", f"{i}é"),
    lambda i: unicodedata.normalize("NFC", f"{i}é"),
    lambda i: f"{i}\N{FULLWIDTH DIGIT ONE}",
    lambda i: (i * _LONG)[:_LONG],
    lambda i: "\N{SUSHI}" * (_LONG // 4),
    lambda i: "商品",
)


def _unknown(ids: tuple[str, ...]) -> str:
    unknown = _UNKNOWN_ID
    while unknown in ids:
        unknown += "?"
    return unknown


def _numbers(
    name: str, shape: tuple[int, ...], spec: Spec, rng: np.random.Generator
) -> NDArray[Any]:
    low, high = spec.usual
    chance = rng.random(shape)
    if spec.dtype == "int32":
        months = rng.integers(int(low), int(high) + 1, shape).astype(np.int32)
        if name == "extreme numbers":
            return np.where(chance < 0.5, rng.choice(_ODD_INTEGERS, shape), months)
        return np.where(chance < 0.1, np.int32(0), months)
    numbers = rng.uniform(low, high, shape).astype(np.float32)
    numbers = np.where(chance < 0.3, np.round(numbers), numbers)  # on the edge of a bucket
    if name == "extreme numbers":
        numbers = np.where(chance < 0.5, rng.choice(_ODD, shape), numbers)
    elif name == "mixed ids":
        numbers = np.where(chance > 0.9, np.float32(np.nan), numbers)
        numbers = np.where((chance > 0.8) & (chance < 0.9), low - numbers, numbers)
    elif name == "unknown ids only":
        numbers = np.full(shape, np.nan, np.float32)
    return np.asarray(numbers, dtype=np.float32)


def _shorten(request: Request, graph: Graph, rng: np.random.Generator) -> None:
    """Cut each row to a random length, and pad it at the end; parallel lists alike."""
    real: dict[bool, NDArray[np.int64]] = {}
    for spec in _lists(graph):
        if spec.narrows:
            continue
        values = request[spec.name]
        of_candidates = "candidates" in spec.shape
        if of_candidates not in real:
            real[of_candidates] = rng.integers(0, values.shape[1] + 1, (len(values), 1))
        kept = np.arange(values.shape[1])[None] < real[of_candidates]
        request[spec.name] = np.where(kept, values, _MISSING[spec.dtype]).astype(values.dtype)


def every_id(
    graph: Graph,
    vocabularies: Mapping[str, Vocabulary],
    rng: np.random.Generator,
    window: int,
    most: int,
) -> Iterator[tuple[Request, int]]:
    """Requests that hold each known id once, and how many of the ids are new in each.

    There are at most `most` requests for each input of ids; if a vocabulary is longer, its ids are
    drawn at random.
    """
    for spec in graph.inputs:
        if spec.dtype != "string" or spec.vocabulary is None:
            continue
        ids = np.array(vocabularies[spec.vocabulary].ids, dtype=object)
        if not len(ids):
            continue
        batch = max(BATCHES)
        axis = spec.shape[1]
        width = axis if isinstance(axis, int) else _SWEPT if axis == "candidates" else window
        ids = ids[rng.permutation(len(ids))][: most * batch * width]
        case = Case(name="known ids", batch=batch, length=window, candidates=width)
        for start in range(0, len(ids), batch * width):
            chunk = ids[start : start + batch * width]
            request = draw(graph, vocabularies, rng, case)
            yield request | {spec.name: np.resize(chunk, (batch, width))}, len(chunk)


def stack(graph: Graph, rows: list[dict[str, Any]]) -> Request:
    """Rows of raw values by input (None: unknown) -> one request, shorter lists padded at the end.

    Numbers that are aligned with a list are right-aligned: the last event's number comes last.
    Filters are left out.
    """
    request: Request = {}
    for spec in graph.inputs:
        if spec.narrows:
            continue
        lists = [row[spec.name] for row in rows]
        if spec.aligned_with:
            numbers = [[np.nan if item is None else item for item in items] for items in lists]
            columns = [last_columns(np.array([row], np.float32), spec) for row in numbers]
            request[spec.name] = np.concatenate(columns)
            continue
        width = max(map(len, lists))
        dtype = object if spec.dtype == "string" else spec.dtype
        values = np.full((len(rows), width), _MISSING[spec.dtype], dtype)
        for i, items in enumerate(lists):
            values[i, : len(items)] = [np.nan if item is None else item for item in items]
        request[spec.name] = values
    return request


def rows_of(tensors: Mapping[str, NDArray[Any]], chosen: slice) -> Request:
    """Some rows of a request or an answer."""
    return {name: values[chosen] for name, values in tensors.items()}


def alone(graph: Graph, request: Request, row: int) -> Request:
    """One row as its own request, its lists without the padding at the end."""
    single = rows_of(request, slice(row, row + 1))
    lists = {spec.name: single[spec.name] for spec in _parallel(_lists(graph))}
    real = [
        values != "" if values.dtype == object else ~np.isnan(values) for values in lists.values()
    ]
    length = max((int(np.flatnonzero(r[0]).max(initial=-1)) + 1 for r in real), default=0)
    return single | {name: values[:, :length] for name, values in lists.items()}


def among(request: Request, strangers: Request, row: int) -> Request:
    """One row as the last one, after all rows of the strangers."""
    both: Request = {}
    for name, values in request.items():
        one, others = values[row : row + 1], strangers[name]
        width = max(one.shape[1], others.shape[1])  # filters may have any
        both[name] = np.concatenate([_widened(others, width), _widened(one, width)])
    return both


def _widened(values: NDArray[Any], width: int) -> NDArray[Any]:
    if values.shape[1] == width:
        return values
    padding = np.full((len(values), width - values.shape[1]), "", object)
    return np.concatenate([values, padding], axis=1)
