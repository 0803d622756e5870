"""Requests of a log's users with all that they have done, as an ONNX file takes them.

An encoder looks at a window of the history. What was seen is left out of an answer however long
ago that was, so a list needs all of it; and padded, one user with a long history would make a
batch as wide for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqrec_export.contract import Graph
from seqrec_export.data.batches import Indices
from seqrec_export.data.raw_requests import RawLog, Request

_CELLS_AT_ONCE = 1 << 20  # of what is padded on the way
# (N,) values row by row, or (B, W); and how many each of the B rows has.
Rows = tuple[NDArray[Any], NDArray[np.int32]]


def whole_feeds(
    graph: Graph, log: RawLog, users: Indices, now: Indices, others: Mapping[str, Rows]
) -> Request:
    """(B,) users, (B,) seconds since 1970 -> what a session of the graph takes.

    `others` are the inputs that no log holds, by name.
    """
    lengths = log.offsets[users + 1] - log.offsets[users]
    parts = [_of_log(graph, log, users[some], now[some], lengths[some]) for some in _parts(lengths)]
    feeds: Request = {}
    for spec in graph.inputs:
        found = [others] if spec.name in others else parts
        values, counts = (np.concatenate([part[spec.name][i] for part in found]) for i in (0, 1))
        feeds[spec.name] = values
        for tensor in graph.of_rows(spec):
            feeds[tensor.name] = counts[:, None] if len(tensor.shape) == 2 else counts
    return feeds


def _of_log(
    graph: Graph, log: RawLog, users: Indices, now: Indices, lengths: Indices
) -> Mapping[str, Rows]:
    width = max(int(lengths.max(initial=1)), 1)
    request = log.requests(graph.inputs, users, log.offsets[users + 1], now, width)
    real = np.arange(width) >= width - lengths[:, None]
    found: dict[str, Rows] = {}
    for spec in graph.inputs:
        if spec.name not in request:
            continue
        values = request[spec.name]
        if spec.ragged and values.shape[1] == width:  # the history, or parallel to it
            found[spec.name] = values[real], lengths.astype(np.int32)
        else:
            counts = np.full(len(values), values.shape[1], np.int32)
            found[spec.name] = values.reshape(-1) if spec.ragged else values, counts
    return found


def _parts(lengths: Indices) -> Iterator[slice]:
    """Neighbours that are not too large together once they are padded to the longest of them."""
    start, longest = 0, 1
    for row, length in enumerate(lengths.tolist()):
        longest = max(longest, length)
        if row > start and (row + 1 - start) * longest > _CELLS_AT_ONCE:
            yield slice(start, row)
            start, longest = row, max(length, 1)
    yield slice(start, len(lengths))
