"""Every user of a log as a vector, in the log's order of users."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from seqrec_export.errors import SeqrecError
from seqrec_export.exported import export_run
from seqrec_export.folders import read_json, sha256_file, write_json
from seqrec_export.graph import USER_EMBEDDING
from seqrec_export.interactions import Interactions
from seqrec_export.raw_requests import RawLog, require_inputs
from seqrec_export.run import Run
from seqrec_export.runtime import answer, session

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
    require_inputs(run.model.name, graph.inputs, interactions)
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
    log = RawLog(interactions)
    now = np.full(total, interactions.times.max(initial=0), np.int64)
    if interactions.sessions is not None:
        now[interactions.sessions.users] = interactions.sessions.times
    window = getattr(run.config, "max_length", 1)
    runtime = session(exported.model_file(name))
    for i, start in enumerate(range(done, total, batch_size)):
        users = np.arange(start, min(start + batch_size, total))
        request = log.requests(graph.inputs, users, log.offsets[users + 1], now[users], window)
        vectors[users] = answer(runtime, graph, request)[USER_EMBEDDING]
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


def _write_parquet(ids: NDArray[np.object_], vectors: NDArray[np.float32], path: Path) -> None:
    beside = path.with_name(f".{path.name}.part")
    dim = vectors.shape[1]
    schema = pa.schema([("user_id", pa.string()), ("embedding", pa.list_(pa.float32(), dim))])
    # Neither distinct ids nor floats repeat: looking for a dictionary takes longer than writing.
    with pq.ParquetWriter(beside, schema, use_dictionary=False) as writer:
        for start in range(0, len(ids), 65_536):
            block = np.ascontiguousarray(vectors[start : start + 65_536]).reshape(-1)
            column = pa.FixedSizeListArray.from_arrays(pa.array(block), dim)
            names = pa.array(ids[start : start + 65_536], pa.string())
            writer.write_table(pa.table([names, column], schema=schema))
    beside.replace(path)
