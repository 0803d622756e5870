"""Every user of a log as a vector, in the log's order of users."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import SEEK_CUR
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from seqrec_export import locks
from seqrec_export.contract import USER_EMBEDDING
from seqrec_export.data.interactions import Interactions
from seqrec_export.data.raw_requests import RawLog, require_inputs
from seqrec_export.errors import SeqrecError
from seqrec_export.exporting.exported import export_run
from seqrec_export.exporting.runtime import answer, session
from seqrec_export.folders import move, naming, read_json, sha256_file, sync, write_json
from seqrec_export.training.train import Run, alone

_SAVE_EVERY = 20  # batches between two records of the progress
_DTYPE = np.dtype("<f4")
Report = Callable[[str], None]


def vector_files(out: str | Path) -> tuple[Path, Path]:
    """The .npy and the .parquet that `out` names, with or without one of these suffixes.

    Raises SeqrecError if it names a folder.
    """
    path = Path(out)
    if str(out).endswith("/") or path.is_dir():
        example = path / "users.npy"
        raise SeqrecError(f"{out or '.'} is a folder; name a file in it, such as {example}")
    stem = path.stem if path.suffix.lower() in (".npy", ".parquet") else path.name
    files = path.with_name(f"{stem}.npy"), path.with_name(f"{stem}.parquet")
    for file in files:
        if file.is_dir():
            raise SeqrecError(f"{file} is a folder; give another --out")
    return files


def embed_users(
    run: Run,
    interactions: Interactions,
    out: str | Path,
    *,
    batch_size: int = 1024,
    resume: bool = False,
    progress: Callable[[int], Any] = lambda done: None,
    report: Report = lambda _: None,
) -> tuple[Path, Path]:
    """Write `out` (U, D) float32 .npy and a Parquet file next to it, `user_id` and `embedding`.

    A user's history is every event of the log; a gap is counted from the log's last event, or from
    the user's session if the log has sessions. Returns both paths. Unfinished work of the same run
    and log goes on. That of another run or log starts over, or with `resume` raises SeqrecError,
    as does another process that writes there.
    """
    if batch_size < 1:
        raise SeqrecError(f"--batch-size is {batch_size}; give at least 1")
    vectors, table = vector_files(out)
    written = f"{vectors} is being written"
    with locks.exclusive(_hidden(vectors, "lock"), written, wait=False, keep=False):
        encoder = _Encoder(run, interactions, report)
        part, state = _hidden(vectors, "part"), _hidden(vectors, "json")
        for half in state.parent.glob(f".{glob.escape(state.name)}.*.part"):
            half.unlink()  # of a process that was killed
        done = _resume_at(part, state, encoder, resume, report)
        if not done:
            state.unlink(missing_ok=True)  # it says nothing about what is written from here on
        with naming(part), part.open("r+b" if done else "wb") as file:
            _begin_rows(file, (encoder.users, encoder.dim), done)
            for i, start in enumerate(range(done, encoder.users, batch_size)):
                end = min(start + batch_size, encoder.users)
                # Not through a mapping of the file: on a full disk that kills the process.
                file.write(np.ascontiguousarray(encoder.encode(start, end), _DTYPE).data)
                progress(end)
                if i % _SAVE_EVERY == _SAVE_EVERY - 1 or end == encoder.users:
                    file.flush()
                    os.fsync(file.fileno())
                    write_json(state, encoder.key | {"done": end})
        write_vectors(interactions.user_ids, np.load(part, mmap_mode="r"), table)
        move(part, vectors)
        state.unlink(missing_ok=True)
    return vectors, table


class _Encoder:
    """A run's exported encoder over the users of a log."""

    def __init__(self, run: Run, interactions: Interactions, report: Report) -> None:
        with alone(run.path):  # until the file is open
            exported = export_run(run, report=report)
            self._graph = exported.graphs[f"{run.model.name}_encoder"]
            file = exported.model_file(self._graph.name)
            require_inputs(run.model.name, self._graph.inputs, interactions)
            self._session, model = session(file), sha256_file(file)
        dim = self._graph.outputs[0].shape[1]
        assert isinstance(dim, int)
        self.dim, self.users = dim, len(interactions.user_ids)
        # What the vectors depend on.
        self.key = {"model": model, "data": interactions.fingerprint, "users": self.users}
        self._log = RawLog(interactions)
        self._now = np.full(self.users, interactions.times.max(initial=0), np.int64)
        if interactions.sessions is not None:
            self._now[interactions.sessions.users] = interactions.sessions.times
        self._window = getattr(run.config, "max_length", 1)

    def encode(self, start: int, end: int) -> NDArray[np.float32]:
        """(end - start, D) vectors of the users from `start` on."""
        users = np.arange(start, end)
        ends, now = self._log.offsets[users + 1], self._now[users]
        request = self._log.requests(self._graph.inputs, users, ends, now, self._window)
        vectors: NDArray[np.float32] = answer(self._session, self._graph, request)[USER_EMBEDDING]
        return vectors


def _hidden(file: Path, suffix: str) -> Path:
    return file.with_name(f".{file.name}.{suffix}")


def _resume_at(part: Path, state: Path, encoder: _Encoder, resume: bool, report: Report) -> int:
    """How many users are done. Raises SeqrecError if `resume` finds other work."""
    if not (part.exists() and state.exists()):
        return 0
    try:
        found = dict(read_json(state))
        done = int(found.pop("done"))
    except (ValueError, KeyError, TypeError):
        found, done = {}, 0
    if found == encoder.key and part.stat().st_size >= done * encoder.dim * _DTYPE.itemsize:
        report(f"going on after the {done:,} users that {part} holds")
        return done
    if resume:
        raise SeqrecError(
            f"{part} was begun with another model or log; repeat without --resume to start over"
        )
    report(f"{part} was begun with another model or log, and starts over")
    return 0


def _begin_rows(file: BinaryIO, shape: tuple[int, int], done: int) -> None:
    """Write the header of a .npy file, and go to the end of its first `done` rows."""
    layout = {"descr": _DTYPE.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, layout)  # type: ignore[no-untyped-call]
    file.seek(done * shape[1] * _DTYPE.itemsize, SEEK_CUR)
    file.truncate()


@contextmanager
def _whole(part: Path) -> Iterator[None]:
    """Leave nothing of a file that could not be written to its end."""
    try:
        with naming(part):
            yield
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_vectors(ids: NDArray[np.object_], vectors: NDArray[np.float32], path: Path) -> None:
    """Write a Parquet file of (U,) user ids and their (U, D) vectors, whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    dim = vectors.shape[1]
    schema = pa.schema([("user_id", pa.string()), ("embedding", pa.list_(pa.float32(), dim))])
    # Neither distinct ids nor floats repeat: looking for a dictionary takes longer than writing.
    with _whole(part), pq.ParquetWriter(part, schema, use_dictionary=False) as writer:
        for start in range(0, len(ids), 65_536):
            block = np.ascontiguousarray(vectors[start : start + 65_536]).reshape(-1)
            column = pa.FixedSizeListArray.from_arrays(pa.array(block), dim)
            names = pa.array(ids[start : start + 65_536], pa.string())
            writer.write_table(pa.table([names, column], schema=schema))
    sync(part)
    move(part, path)
