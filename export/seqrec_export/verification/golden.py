"""golden.json: requests with their answers, for a client of any language to replay.

Numbers that JSON lacks are the strings "NaN", "Infinity" and "-Infinity". An id of an answer may
differ from what is replayed only if its score is within `atol` of the one at that place.
Each request has its tolerances next to it: an enormous user vector makes scores less certain.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from seqrec_export.contract import Graph, Spec
from seqrec_export.data.raw_requests import Request
from seqrec_export.data.vocabulary import Vocabulary
from seqrec_export.exporting.triton_config import TRITON_DTYPES
from seqrec_export.folders import write_text
from seqrec_export.verification.cases import CANDIDATES, Case, classes_of, draw, sizes
from seqrec_export.verification.parity import scale_of
from seqrec_export.verification.reference import Answer

GOLDEN_FILE = "golden.json"
NUM_REQUESTS = 64


def write_golden(
    path: Path,
    graph: Graph,
    vocabularies: Mapping[str, Vocabulary],
    window: int,
    seed: int,
    answer: Callable[[Request], Answer],
) -> None:
    """Write requests of every class, edge cases first, with what `answer` gives to them."""
    rng = np.random.default_rng([seed, 64])
    requests = []
    for case in _cases(graph, window, rng):
        request = draw(graph, vocabularies, rng, case)
        entry = {
            "case": str(case),
            "atol": graph.tolerance.atol * float(scale_of(request).max()),
            "rtol": graph.tolerance.rtol,
            "inputs": _tensors(graph.inputs, request),
            "outputs": _tensors(graph.outputs, answer(request)),
        }
        requests.append(json.dumps(entry, ensure_ascii=False, allow_nan=False))
    # One request a line is short enough to look at, and takes a fifth of an indented file.
    lines = ",\n".join(requests)
    write_text(path, f'{{"model": {json.dumps(graph.name)}, "requests": [\n{lines}\n]}}\n')


def _cases(graph: Graph, window: int, rng: np.random.Generator) -> list[Case]:
    names = classes_of(graph)
    lengths = sizes(graph, "length", (0, 1, window, window + 1, 3 * window, max(window - 1, 1)))
    few = sizes(graph, "candidates", (1, 0, 5))
    cases = [
        Case(
            name=names[i % len(names)],
            batch=1 if i % 4 else 3,
            length=lengths[(i + i // len(names)) % len(lengths)],
            candidates=few[(i + i // len(names)) % len(few)],
        )
        for i in range(NUM_REQUESTS - 1)
    ]
    (length,) = sizes(graph, "length", (window,))
    # Many candidates in one request; the others have few, so that the file stays small.
    (many,) = sizes(graph, "candidates", (max(CANDIDATES),))
    return [*cases, Case(name="mixed ids", batch=1, length=length, candidates=many)]


def _tensors(specs: tuple[Spec, ...], tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {
        spec.name: {
            "datatype": TRITON_DTYPES[spec.dtype],
            "shape": list(tensors[spec.name].shape),
            "data": [_plain(value) for value in tensors[spec.name].ravel().tolist()],
        }
        for spec in specs
    }


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not np.isfinite(value):
        return "NaN" if np.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
