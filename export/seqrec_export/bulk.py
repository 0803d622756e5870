"""Every user of a log as a vector, in the log's order of users."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from seqrec_export import parity
from seqrec_export.batches import Indices, windows
from seqrec_export.errors import SeqrecError
from seqrec_export.exported import export_run
from seqrec_export.folders import read_json, sha256_file, write_json
from seqrec_export.graph import Graph
from seqrec_export.histories import sorted_events
from seqrec_export.interactions import SECONDS_PER_DAY, Interactions, months
from seqrec_export.run import Run

_vectors_file: Callable[..., Any] = np.lib.format.open_memmap  # has no types
_SAVE_EVERY = 20  # batches between two records of how far it came


def embed_users(
    run: Run,
    interactions: Interactions,
    out: Path,
    *,
    batch_size: int = 1024,
    resume: bool = False,
    progress: Callable[[int], Any] = lambda done: None,
) -> tuple[Path, Path]:
    """Write `out` (U, D) float32 .npy and a Parquet file beside it, `user_id` and `embedding`.

    A user's history is every event of the log; a gap is counted from the log's last event, or from
    the user's session where the log has sessions. Returns both paths. Raises SeqrecError where
    `resume` finds the work of another run or log.
    """
    if batch_size < 1:
        raise SeqrecError(f"--batch-size is {batch_size}; give at least 1")
    exported = export_run(run)
    name = f"{run.model.name}_encoder"
    graph = exported.graphs[name]
    total = len(interactions.user_ids)
    dim = graph.outputs[0].shape[1]
    assert isinstance(dim, int)
    out = out.with_suffix(".npy")
    part, state = out.with_name(f".{out.name}.part"), out.with_name(f".{out.name}.json")
    key = {
        "model": sha256_file(exported.model_file(name)),
        "data": interactions.fingerprint,
        "users": total,
    }
    done = _resume_at(part, state, key) if resume else 0
    out.parent.mkdir(parents=True, exist_ok=True)
    if not done:
        part.unlink(missing_ok=True)
        _vectors_file(part, mode="w+", dtype=np.float32, shape=(total, dim)).flush()
    vectors = _vectors_file(part, mode="r+")
    rows = _Rows(interactions, graph, run)
    runtime = parity.session(exported.model_file(name))
    for i, start in enumerate(range(done, total, batch_size)):
        users = np.arange(start, min(start + batch_size, total))
        (answer, *_) = runtime.run(None, rows.request(users))
        vectors[users] = answer
        progress(int(users[-1]) + 1)
        if i % _SAVE_EVERY == _SAVE_EVERY - 1:
            vectors.flush()
            write_json(state, key | {"done": int(users[-1]) + 1})
    vectors.flush()
    table = out.with_suffix(".parquet")
    _write_parquet(interactions.user_ids, vectors, table)
    part.replace(out)
    state.unlink(missing_ok=True)
    return out, table


def _resume_at(part: Path, state: Path, key: dict[str, Any]) -> int:
    if not (part.exists() and state.exists()):
        return 0
    found: dict[str, Any] = read_json(state)
    done = int(found.pop("done"))
    if found != key:
        raise SeqrecError(
            f"{part} was begun with another model or log; repeat without --resume to start anew"
        )
    return done


class _Rows:
    """Raw requests of users, built straight from the flat histories."""

    def __init__(self, interactions: Interactions, graph: Graph, run: Run) -> None:
        order, offsets = sorted_events(interactions)
        self.offsets = offsets
        self.graph = graph
        self.window = getattr(run.config, "max_length", 1)
        self.user_ids = interactions.user_ids
        self.items = interactions.item_ids[interactions.items[order]]
        self.times = interactions.times[order]
        self.ratings = None if interactions.ratings is None else interactions.ratings[order]
        self.types: NDArray[np.object_] | None = None
        if interactions.event_types is not None:
            names = np.array(interactions.event_type_ids, dtype=object)
            self.types = names[interactions.event_types[order]]
        self.now = np.full(len(self.user_ids), self.times.max(initial=0), np.int64)
        if interactions.sessions is not None:
            self.now[interactions.sessions.users] = interactions.sessions.times
        features = interactions.user_features
        self.ages = None if features is None else features["age"].to_numpy(dtype=np.float32)

    def request(self, users: Indices) -> dict[str, NDArray[Any]]:
        """(B,) rows of user_ids -> the encoder's raw inputs."""
        positions, real = windows(self.offsets[users], self.offsets[users + 1], self.window)
        at = np.where(real, positions, 0)
        now = self.now[users]
        return {
            spec.name: self._input(spec.name, users, at, real, now) for spec in self.graph.inputs
        }

    def _input(
        self, name: str, users: Indices, at: Indices, real: NDArray[np.bool_], now: Indices
    ) -> NDArray[Any]:
        if name == "user_id":
            return self.user_ids[users][:, None]
        if name == "age":
            unknown = np.full(len(users), np.nan, np.float32)
            return (unknown if self.ages is None else self.ages[users])[:, None]
        if name == "month":
            return months(now)[:, None]
        if name == "history_gap_days":
            days = np.maximum(now[:, None] - self.times[at], 0) / SECONDS_PER_DAY
            return np.where(real, days, np.nan).astype(np.float32)
        if name == "history_ratings":
            assert self.ratings is not None
            return np.where(real, self.ratings[at], np.nan).astype(np.float32)
        if name == "history_event_types":
            empty = np.full(real.shape, "", dtype=object)
            return empty if self.types is None else np.where(real, self.types[at], "")
        assert name == "history_item_ids", name
        return np.where(real, self.items[at], "")


def _write_parquet(ids: NDArray[np.object_], vectors: NDArray[np.float32], path: Path) -> None:
    beside = path.with_name(f".{path.name}.part")
    dim = vectors.shape[1]
    schema = pa.schema([("user_id", pa.string()), ("embedding", pa.list_(pa.float32(), dim))])
    with pq.ParquetWriter(beside, schema) as writer:
        for start in range(0, len(ids), 65_536):
            block = np.ascontiguousarray(vectors[start : start + 65_536]).reshape(-1)
            column = pa.FixedSizeListArray.from_arrays(pa.array(block), dim)
            names = pa.array(ids[start : start + 65_536], pa.string())
            writer.write_table(pa.table([names, column], schema=schema))
    beside.replace(path)
