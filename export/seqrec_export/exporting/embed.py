"""Every user of a log, or every item of a model, as a vector."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from seqrec_export.contract import USER_EMBEDDING
from seqrec_export.data.interactions import Interactions
from seqrec_export.data.raw_requests import RawLog, require_inputs
from seqrec_export.data.vocabulary import NUM_RESERVED
from seqrec_export.errors import SeqrecError
from seqrec_export.exporting.exported import export_run
from seqrec_export.exporting.growing import Report, alone_with, growing, hidden, whole
from seqrec_export.exporting.runtime import answer, session
from seqrec_export.folders import move, sha256_file, sync
from seqrec_export.training.train import Run, alone

_DTYPE = np.dtype("<f4")
_ROWS_AT_ONCE = 65_536


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
    with alone_with(vectors):
        encoder = _Encoder(run, interactions, report)
        users, head = encoder.users, _head((encoder.users, encoder.dim))
        with growing(vectors, encoder.key, users, head, resume=resume, report=report) as grown:
            for start in range(grown.done, users, batch_size):
                end = min(start + batch_size, users)
                grown.add(np.ascontiguousarray(encoder.encode(start, end), _DTYPE).data, end)
                progress(end)
        write_vectors(interactions.user_ids, np.load(grown.path, mmap_mode="r"), table)
        grown.finish()
    return vectors, table


def embed_items(run: Run, out: str | Path) -> tuple[Path, Path]:
    """Write `out` (V, D) float32 .npy and a Parquet file next to it; returns both paths.

    A row is an item that the model knows, in the order of its vocabulary: `item_id`, `embedding`,
    and `bias` if the model has one. An item's score for a user is the dot product of their vectors,
    plus its bias. Raises SeqrecError for a model without item vectors.
    """
    catalogue = getattr(run.net, "catalogue", None)
    if catalogue is None:
        raise SeqrecError(
            f"{run.model.name} has no item vectors whose product with a user's vector is a score; "
            f"ask {run.model.name} itself for scores"
        )
    vectors, table = vector_files(out)
    real = catalogue.vectors.detach()[NUM_RESERVED:].cpu().numpy().astype(_DTYPE)
    bias = catalogue.bias
    bias = None if bias is None else bias.detach()[NUM_RESERVED:].cpu().numpy().astype(_DTYPE)
    ids = np.array(run.vocabularies["items"].ids, dtype=object)
    with alone_with(vectors):
        part = hidden(vectors, "part")
        with whole(part), part.open("wb") as file:
            file.write(_head((len(real), real.shape[1])))
            file.write(np.ascontiguousarray(real).data)
        sync(part)
        write_vectors(ids, real, table, of="item_id", bias=bias)
        move(part, vectors)
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
        self._now = interactions.asked_at
        self._window = getattr(run.config, "max_length", 1)

    def encode(self, start: int, end: int) -> NDArray[np.float32]:
        """(end - start, D) vectors of the users from `start` on."""
        users = np.arange(start, end)
        ends, now = self._log.offsets[users + 1], self._now[users]
        request = self._log.requests(self._graph.inputs, users, ends, now, self._window)
        vectors: NDArray[np.float32] = answer(self._session, self._graph, request)[USER_EMBEDDING]
        return vectors


def _head(shape: tuple[int, int]) -> bytes:
    """The header of a .npy file."""
    layout = {"descr": _DTYPE.str, "fortran_order": False, "shape": shape}
    head = BytesIO()
    np.lib.format.write_array_header_1_0(head, layout)  # type: ignore[no-untyped-call]
    return head.getvalue()


def write_vectors(
    ids: NDArray[np.object_],
    vectors: NDArray[np.float32],
    path: Path,
    *,
    of: str = "user_id",
    bias: NDArray[np.float32] | None = None,
) -> None:
    """Write a Parquet file of (N,) ids and their (N, D) vectors, whole or not at all.

    `of` is the name of the ids' column; (N,) `bias` gets one too if it is given.
    """
    part = hidden(path, "part")
    dim = vectors.shape[1]
    fields = [(of, pa.string()), ("embedding", pa.list_(pa.float32(), dim))]
    schema = pa.schema(fields + [("bias", pa.float32())] * (bias is not None))
    # Neither distinct ids nor floats repeat: looking for a dictionary takes longer than writing.
    with whole(part), pq.ParquetWriter(part, schema, use_dictionary=False) as writer:
        for start in range(0, len(ids), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            block = np.ascontiguousarray(vectors[rows]).reshape(-1)
            columns = [
                pa.array(ids[rows], pa.string()),
                pa.FixedSizeListArray.from_arrays(pa.array(block), dim),
            ]
            if bias is not None:
                columns.append(pa.array(bias[rows]))
            writer.write_table(pa.table(columns, schema=schema))
    sync(part)
    move(part, path)
