"""The best items of every user of a log, by the exported graph: what the server would answer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from seqrec_export.contract import SCORES, Graph
from seqrec_export.data.attributes import places_of
from seqrec_export.data.interactions import Interactions
from seqrec_export.data.raw_requests import Input, RawLog, Request, require_inputs
from seqrec_export.data.readers.id_tables import Pairs, read_pairs, read_users
from seqrec_export.errors import SeqrecError
from seqrec_export.exporting.exported import Exported, export_run
from seqrec_export.exporting.growing import Report, alone_with, growing
from seqrec_export.exporting.list_files import SCHEMA, Shard, list_file, write_lists
from seqrec_export.exporting.runtime import session
from seqrec_export.exporting.whole_histories import Rows, whole_feeds
from seqrec_export.folders import sha256_file, sha256_json
from seqrec_export.models.settings import TOP_K
from seqrec_export.training.train import Run, alone

_MOST_USERS, _SCORES_AT_ONCE = 256, 1 << 25  # in a batch: its users, and they times the items
_EXCLUDE = "exclude_item_ids"
_NOTHING, _ZERO = np.array([], object), np.zeros(1, np.int32)


def recommend_all(
    run: Run,
    interactions: Interactions,
    out: str | Path,
    *,
    k: int = 10,
    users: str | Path | Sequence[str] | Any = None,
    filters: Mapping[str, Any] | None = None,
    exclude_from: str | Path | Any = None,
    shard: Shard | None = None,
    batch_size: int | None = None,
    threads: int = 0,
    resume: bool = False,
    progress: Callable[[int, int], Any] = lambda done, total: None,
    report: Report = lambda _: None,
) -> Path:
    """Write a Parquet file: `user_id`, `rank` from 1, `item_id`, `score`, user after user.

    Users are those of the log in its order, or of `users`, a table or a list, in its order; a user
    whom the log does not know gets the cold start. A history is every event of the log. `filters`
    are inputs of `<model>_filtered` that hold for all, and `exclude_from` is a table of what not to
    give to whom, user and item. A list is shorter than `k` if no more items are left.

    `shard` (2, 4) is the second quarter of the users, in a file of its own; see `join_lists`.
    `threads` 0 takes all cores. Unfinished work of the same kind goes on; any other starts over, or
    with `resume` raises SeqrecError, as does another process that writes there.
    """
    k = TOP_K.checked(k, "k")
    if batch_size is not None and batch_size < 1:
        raise SeqrecError(f"--batch-size is {batch_size}; give at least 1")
    path = list_file(out, shard)
    with alone_with(path):
        pairs = None if exclude_from is None else read_pairs(exclude_from)
        maker = _Maker(run, interactions, k, users, filters or {}, pairs, threads, report)
        size = batch_size or usual_batch(run)
        made_from = maker.made_from | {"users in a batch": size}
        first, last = _users_of(shard, len(maker.users), size)
        key = made_from | ({} if shard is None else {"shard": list(shard)})
        total, head = last - first, SCHEMA.serialize().to_pybytes()
        with growing(path, key, total, head, resume=resume, report=report) as grown:
            starts = range(first + grown.done, last, size)
            ranges = ((start, min(start + size, last)) for start in starts)
            for end, lists in maker.all_lists(ranges):
                grown.add(lists.serialize(), end - first)
                progress(end - first, total)
        write_lists(grown.path, path, key)
        grown.finish(keep=False)
    return path


def usual_batch(run: Run) -> int:
    """How many users at a time, if nobody says it: fewer if the catalogue is large."""
    rows = run.vocabularies["items"].num_rows
    return int(min(_MOST_USERS, max(_SCORES_AT_ONCE // rows // 8 * 8, 8)))


def _users_of(shard: Shard | None, users: int, batch: int) -> tuple[int, int]:
    """From which user to which; a shard has whole batches, the same that one run would ask."""
    number, count = shard or (1, 1)
    batches = -(-users // batch)
    first, last = ((i * batches // count) * batch for i in (number - 1, number))
    return first, min(last, users)


class _Maker:
    """A run's exported graph over users of a log."""

    def __init__(
        self,
        run: Run,
        interactions: Interactions,
        k: int,
        users: Any,
        filters: Mapping[str, Any],
        pairs: Pairs | None,
        threads: int,
        report: Report,
    ) -> None:
        self._k = k
        log = interactions
        if users is None:
            self.users = np.arange(len(log.user_ids))
        else:
            log, self.users = _chosen(interactions, users, report)
        filtered = bool(filters) or pairs is not None
        with alone(run.path):  # until the file is open
            exported = export_run(run, report=report)
            self._graph = _graph(exported, filtered)
            _require_k(exported, k)
            _require_filters(self._graph, filters)
            _say_unknown(exported, self._graph, filters, report)
            require_inputs(run.model.name, self._graph.inputs, log)
            _require_from_log(self._graph)
            file = exported.model_file(self._graph.name)
            self._session, model = session(file, threads), sha256_file(file)
        self._names = ["item_ids", SCORES]
        # Each as one row has it.
        self._filters: dict[str, NDArray[Any]] = {
            name: np.full(1, value, np.int32) if isinstance(value, int) else np.array(value, object)
            for name, value in filters.items()
        }
        self._ids = log.user_ids[self.users]
        self._pairs = None
        if pairs is not None:
            self._pairs = _PairsByUser(pairs, self._ids, run.vocabularies["items"].ids, report)
        self._log, self._now = RawLog(log), log.asked_at
        # What the lists depend on.
        self.made_from: dict[str, Any] = {
            "model": model,
            "log": interactions.fingerprint,
            "number of items": k,
            "users": None if users is None else _digest(self._ids),
            "filters": sha256_json(dict(filters)),
            "pairs": None if self._pairs is None else self._pairs.digest,
        }

    def all_lists(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The lists of the users from `start` to `end` of each range, after that `end`.

        One batch is computed while the next one is prepared and the last one is written.
        """
        with ThreadPoolExecutor(1) as computing:
            begun = (
                (asked, computing.submit(self._session.run, self._names, self.feeds(*asked)))
                for asked in ranges
            )
            for batch, _ in pairwise(chain(begun, [None])):  # drawn after the next one has begun
                assert batch is not None
                asked, answer = batch
                yield asked[1], self._lists(*asked, *answer.result())

    def _lists(
        self, start: int, end: int, ids: NDArray[np.object_], scores: NDArray[np.float32]
    ) -> pa.RecordBatch:
        ids, scores = ids[:, : self._k], scores[:, : self._k]
        there = ids != ""
        user, rank = np.nonzero(there)
        columns = [
            pa.array(self._ids[start:end], pa.string()).take(pa.array(user)),
            pa.array(rank.astype(np.int32) + 1),
            pa.array(ids[there], pa.string()),
            pa.array(scores[there]),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)

    def feeds(self, start: int, end: int) -> Request:
        """What the session takes for these users."""
        users, count = self.users[start:end], end - start
        others: dict[str, Rows] = {}
        for spec in self._graph.inputs:
            if spec.narrows:
                row = self._filters.get(spec.name, _NOTHING if spec.ragged else _ZERO)
                values = np.tile(row, count if spec.ragged else (count, 1))
                others[spec.name] = values, np.full(count, len(row), np.int32)
        if self._pairs is not None:
            others[_EXCLUDE] = self._pairs.added(start, end, self._filters.get(_EXCLUDE))
        return whole_feeds(self._graph, self._log, users, self._now[users], others)


class _PairsByUser:
    """The items that each of U users is not to get."""

    def __init__(
        self, pairs: Pairs, users: NDArray[np.object_], items: Sequence[str], report: Report
    ) -> None:
        rows, known = _rows(pairs.user_ids, users), _rows(pairs.item_ids, np.array(items, object))
        if (known < 0).all():
            raise SeqrecError(
                f"{pairs.what} has none of the model's items: its first is "
                f"{pairs.item_ids[0]!r}, and an item is called {items[0]!r}; correct its ids"
            )
        kept = (rows[pairs.users] >= 0) & (known[pairs.items] >= 0)
        if left := len(kept) - int(kept.sum()):
            report(
                f"note: {left:,} of {len(kept):,} pairs of {pairs.what} name a user who gets no "
                "list, or an item that the model does not know"
            )
        of = rows[pairs.users[kept]]
        order = np.argsort(of, kind="stable")
        self._item_ids, self._items = pairs.item_ids, pairs.items[kept][order]
        self._offsets = np.concatenate([[0], np.cumsum(np.bincount(of, minlength=len(users)))])
        found = hashlib.sha256(self._offsets.tobytes())
        found.update(_digest(self._item_ids[self._items]).encode())
        self.digest = found.hexdigest()

    def added(self, start: int, end: int, always: NDArray[Any] | None) -> Rows:
        """The items of the users from `start` on, each after those that nobody gets."""
        ends = self._offsets[start : end + 1]
        own = self._item_ids[self._items[ends[0] : ends[-1]]]
        counts = np.diff(ends).astype(np.int32)
        if always is None:
            return own, counts
        values = np.insert(
            own.astype(object),
            np.repeat(ends[:-1] - ends[0], len(always)),
            np.tile(always, end - start),
        )
        return values, counts + np.int32(len(always))


def _chosen(
    log: Interactions, users: Any, report: Report
) -> tuple[Interactions, NDArray[np.int64]]:
    """The log with users whom it does not know, and the rows of those who are asked for."""
    asked, repeated = read_users(users)
    if repeated:
        report(f"note: {repeated:,} users were named before, and get one list")
    rows = _rows(asked, log.user_ids)
    unknown = np.flatnonzero(rows < 0)
    if len(unknown):
        report(
            f"note: {len(unknown):,} of {len(asked):,} users are not in the log, such as "
            f"{asked[unknown[0]]!r}; they get what the model gives if nothing is known"
        )
    rows[unknown] = len(log.user_ids) + np.arange(len(unknown))
    features = log.user_features
    if features is not None:
        features = features.reset_index(drop=True).reindex(range(len(features) + len(unknown)))
    ids = np.concatenate([log.user_ids, asked[unknown]])
    return replace(log, user_ids=ids, user_features=features), rows


def _rows(ids: NDArray[np.object_], among: NDArray[np.object_]) -> NDArray[np.int64]:
    """Where each id stands among others; -1 if it does not."""
    return places_of(*(pa.array(some, pa.large_string()) for some in (ids, among)))


def _digest(ids: NDArray[np.object_]) -> str:
    found = hashlib.sha256()
    for buffer in pa.array(ids, pa.large_string()).buffers()[1:]:
        found.update(memoryview(buffer))
    return found.hexdigest()


def _graph(exported: Exported, filtered: bool) -> Graph:
    name = exported.run.model.name
    plain = exported.graphs[name]
    if "item_ids" not in {spec.name for spec in plain.outputs}:
        given = ", ".join(spec.name for spec in plain.outputs)
        raise SeqrecError(f"{name} gives {given}: it does not rank the items of a catalogue")
    if not filtered:
        return plain
    if f"{name}_filtered" not in exported.graphs:
        raise SeqrecError(f"{name} has no graph {name}_filtered, so that nothing can be left out")
    return exported.graphs[f"{name}_filtered"]


def _require_k(exported: Exported, k: int) -> None:
    rows = exported.run.vocabularies["items"].num_rows
    if exported.top_k < min(k, rows):
        raise SeqrecError(
            f"{exported.run.path} was exported with {exported.top_k} items in an answer, and a "
            f"list is to have {k}; export it with --top-k {k}"
        )


def _require_from_log(graph: Graph) -> None:
    for spec in graph.inputs:
        if not isinstance(spec, Input) and not spec.narrows:
            raise SeqrecError(f"{graph.name} takes {spec.name}, which no log holds; call it itself")


def _require_filters(graph: Graph, filters: Iterable[str]) -> None:
    taken = [spec.name for spec in graph.inputs if spec.narrows]
    for name in filters:
        if name not in taken:
            raise SeqrecError(f"{graph.name} takes no {name}; it takes {', '.join(taken)}")


def _say_unknown(
    exported: Exported, graph: Graph, filters: Mapping[str, Any], report: Report
) -> None:
    """What the model does not know excludes nothing and allows nothing, and often is a slip."""
    for spec in graph.inputs:
        if spec.vocabulary is not None and (given := filters.get(spec.name)):
            known = exported.run.vocabularies[spec.vocabulary].indices
            if unknown := [text for text in given if text not in known]:
                report(
                    f"note: {len(unknown):,} of the {len(given):,} values of {spec.name} are not "
                    f"known to {exported.run.model.name}, such as {unknown[0]!r}"
                )
