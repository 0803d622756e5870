"""Calls served models over gRPC with raw values: ids as strings, features as they are."""

from __future__ import annotations

import numbers
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import tritonclient.grpc as grpc
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from seqrec_export.errors import SeqrecError

Row = Mapping[str, object]

KINDS: dict[str, type] = {
    "BYTES": str,
    **dict.fromkeys(("FP16", "FP32", "FP64"), numbers.Real),
}


@dataclass(frozen=True)
class Tensor:
    """An input or output: `dims` is the shape of one row, -1 where any length goes.

    `aligned_with` names the list with whose last values these go, the last one at the right edge.
    """

    name: str
    datatype: str
    dims: tuple[int, ...]
    aligned_with: str | None = None

    @property
    def unknown(self) -> object:
        """What stands for a value that the caller does not have."""
        if self.datatype == "BYTES":
            return ""
        return float("nan") if self.datatype.startswith("FP") else 0


@dataclass(frozen=True)
class Signature:
    """What a model takes and gives, by name."""

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    max_batch_size: int
    instances: int


@dataclass(frozen=True, kw_only=True)
class TLS:
    """PEM files of an encrypted connection.

    `ca` is who vouches for the server (None: whom gRPC trusts), `cert` and `key` are what this side
    shows a server that asks for it.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


class Client:
    """A connection to a Triton server; may be shared by threads.

    Every method raises SeqrecError where the server cannot be reached, refuses the request, or does
    not answer in `timeout_seconds`.
    """

    def __init__(
        self,
        url: str = "127.0.0.1:8001",
        *,
        timeout_seconds: float = 10.0,
        tls: TLS | None = None,
    ) -> None:
        self.url = url
        self.timeout_seconds = timeout_seconds
        # gRPC would send even a call to this machine through the proxy of the environment.
        local = url.startswith(("127.", "localhost:", "[::1]"))
        options = [("grpc.enable_http_proxy", 0)] if local else []
        unlimited = [(f"grpc.max_{way}_message_length", -1) for way in ("send", "receive")]
        files = _readable(tls) if tls else {}
        self._connection = grpc.InferenceServerClient(
            url, ssl=tls is not None, channel_args=options + unlimited, **files
        )
        self._signatures: dict[tuple[str, str], Signature] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def call(
        self, model: str, rows: Sequence[Row], *, version: str = ""
    ) -> list[dict[str, object]]:
        """Each row's outputs: BYTES as list[str], others as arrays.

        A row holds raw values for some of the model's inputs, a list or a scalar each. What it
        leaves out is unknown: "" for strings, NaN for floats, 0 for integers.
        """
        signature = self.signature(model, version=version)
        size = signature.max_batch_size or 1
        results: list[dict[str, object]] = []
        for start in range(0, len(rows), size):
            results += self._infer(model, version, signature, rows[start : start + size])
        return results

    def recommend(
        self, model: str, rows: Sequence[Row], top_k: int | None = None
    ) -> list[list[tuple[str, float]]]:
        """Each row's best items with their scores, best first; all that the model gives, or k."""
        results = []
        for row in self.call(model, rows):
            pairs = zip(*self._pick(model, row, "item_ids", "scores"), strict=True)
            results.append([(item, float(score)) for item, score in pairs if item][:top_k])
        return results

    def encode(self, model: str, rows: Sequence[Row]) -> NDArray[np.float32]:
        """(n, D) user embeddings, from `<model>_encoder`."""
        name = f"{model}_encoder"
        results = self.call(name, rows)
        if not results:
            outputs = self.signature(name).outputs
            dims = outputs["user_embedding"].dims if "user_embedding" in outputs else (0,)
            return np.empty((0, *dims), dtype=np.float32)
        return np.stack([self._pick(name, row, "user_embedding")[0] for row in results])

    def score(self, model: str, rows: Sequence[Row]) -> list[NDArray[np.float32]]:
        """Each row's `candidate_ids` scored, in their order.

        By the model itself where it takes candidates, else by `<model>_scorer`, which takes a
        `user_embedding` beside them.
        """
        takes_candidates = "candidate_ids" in self.signature(model).inputs
        name = model if takes_candidates else f"{model}_scorer"
        results = self.call(name, rows)
        counts = [len(values(row.get("candidate_ids"))) for row in rows]
        return [
            self._pick(name, result, "scores")[0][:count]
            for result, count in zip(results, counts, strict=True)
        ]

    def infer(
        self, model: str, tensors: Mapping[str, NDArray[Any]], *, version: str = ""
    ) -> dict[str, NDArray[Any]]:
        """One request as arrays, strings as arrays of str -> every output as an array."""
        signature = self.signature(model, version=version)
        inputs = []
        for name, array in tensors.items():
            datatype = signature.inputs[name].datatype if name in signature.inputs else "BYTES"
            inputs.append(grpc.InferInput(name, list(array.shape), datatype))
            inputs[-1].set_data_from_numpy(array)
        try:
            with self._errors(model):
                answer = self._connection.infer(
                    model, inputs, version, client_timeout=self.timeout_seconds
                )
        except SeqrecError:
            self._signatures.pop((model, version), None)  # it may have been published anew
            raise
        return {name: _decoded(answer.as_numpy(name)) for name in signature.outputs}

    def models(self) -> dict[str, str]:
        """Each model that the server has tried to load, and why it is not ready, or "" where it is.

        A model with one version ready is ready, and one that was unloaded is left out. `serve`
        answers this to nobody: it is part of loading and unloading; see `serving`.
        """
        with self._errors("the repository"):
            index = self._connection.get_model_repository_index(
                client_timeout=self.timeout_seconds
            ).models
        found: dict[str, str] = {}
        for entry in index:
            if entry.state == "READY":
                found[entry.name] = ""
            elif entry.state and entry.reason != "unloaded" and found.get(entry.name) != "":
                found[entry.name] = entry.reason.partition("\n\nAt:")[0] or entry.state
        return found

    def serving(self) -> dict[str, list[int]]:
        """Each model that is ready, and which versions of it are."""
        with self._errors("the server"):
            found = self._connection.get_inference_statistics(client_timeout=self.timeout_seconds)
        versions: dict[str, list[int]] = {}
        for entry in found.model_stats:
            versions.setdefault(entry.name, []).append(int(entry.version))
        return versions

    def probe(self, model: str) -> None:
        """Make one real inference on each instance of a model, of one unknown value an input.

        Readiness is not enough: it stays when the process behind a model has died.
        """
        signature = self.signature(model)
        row = {
            name: [tensor.unknown] * max(1, *tensor.dims)
            for name, tensor in signature.inputs.items()
        }
        for _ in range(signature.instances):
            self._infer(model, "", signature, [row])

    def signature(self, model: str, *, version: str = "") -> Signature:
        """What the model takes and gives; the server is asked once."""
        key = (model, version)
        if key not in self._signatures:
            with self._errors(model):
                config = self._connection.get_model_config(
                    model, version, client_timeout=self.timeout_seconds
                ).config
            self._signatures[key] = Signature(
                inputs={entry.name: tensor(entry, config.parameters) for entry in config.input},
                outputs={entry.name: tensor(entry) for entry in config.output},
                max_batch_size=config.max_batch_size,
                instances=sum(g.count * max(1, len(g.gpus)) for g in config.instance_group) or 1,
            )
        return self._signatures[key]

    def _infer(
        self, model: str, version: str, signature: Signature, rows: Sequence[Row]
    ) -> list[dict[str, object]]:
        for name in {name for row in rows for name in row} - signature.inputs.keys():
            raise SeqrecError(f"{model} takes no {name!r}; it takes {sorted(signature.inputs)}")
        batched = signature.max_batch_size > 0
        tensors = {}
        for name, tensor_ in signature.inputs.items():
            array = pack(model, tensor_, rows)
            tensors[name] = array if batched else array[0]
        results: list[dict[str, object]] = [{} for _ in rows]
        for name, array in self.infer(model, tensors, version=version).items():
            for result, part in zip(results, array if batched else [array], strict=True):
                result[name] = part.ravel().tolist() if part.dtype == object else part
        return results

    def _pick(self, model: str, result: dict[str, object], *names: str) -> list[Any]:
        for name in names:
            if name not in result:
                raise SeqrecError(f"{model} gives no {name!r}; it gives {sorted(result)}")
        return [result[name] for name in names]

    @contextmanager
    def _errors(self, model: str) -> Iterator[None]:
        try:
            yield
        except InferenceServerException as error:
            status, message = str(error.status()), error.message()
            if "DEADLINE_EXCEEDED" in status:
                message = f"no answer in {self.timeout_seconds} seconds"
            elif "UNAVAILABLE" in status and "connect" in message:
                message = (
                    "no server answers there; start one with `seqrec-export serve`"
                    f" or name its gRPC address, with TLS where it has that ({message})"
                )
            raise SeqrecError(f"{model} at {self.url}: {message}") from error


def _readable(tls: TLS) -> dict[str, str | None]:
    """What tritonclient calls the files. Raises SeqrecError for one that cannot be read."""
    if (tls.cert is None) != (tls.key is None):
        raise SeqrecError("a TLS certificate and its key belong together; give both or neither")
    for file in (tls.ca, tls.cert, tls.key):
        if file and not os.access(file, os.R_OK):
            raise SeqrecError(f"{file} cannot be read; TLS needs PEM files")
    files = {"root_certificates": tls.ca, "certificate_chain": tls.cert, "private_key": tls.key}
    return {name: str(file) if file else None for name, file in files.items()}


def _decoded(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype != object:
        return array
    texts = [item.decode() for item in array.ravel()]
    return np.array(texts, dtype=object).reshape(array.shape)


def tensor(entry: Any, parameters: Mapping[str, Any] = MappingProxyType({})) -> Tensor:
    """A model configuration's input or output, with the configuration's parameters."""
    datatype = model_config_pb2.DataType.Name(entry.data_type).removeprefix("TYPE_")
    aligned = parameters.get(f"aligned_with.{entry.name}")
    return Tensor(
        entry.name,
        datatype.replace("STRING", "BYTES"),
        tuple(entry.dims),
        aligned.string_value if aligned else None,
    )


def values(value: object) -> list[Any]:
    """A row's value for one input as a list."""
    if value is None:
        return []
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]


def pack(model: str, tensor: Tensor, rows: Sequence[Row]) -> NDArray[Any]:
    """(B, L): each row's values, padded to the longest with unknowns."""
    if len(tensor.dims) != 1:
        raise SeqrecError(f"{model} takes {tensor.name!r} of shape {tensor.dims}, not a plain list")
    lists = [values(row.get(tensor.name)) for row in rows]
    width = tensor.dims[0] if tensor.dims[0] >= 0 else max(map(len, lists))
    array = np.full((len(rows), width), tensor.unknown, triton_to_np_dtype(tensor.datatype))
    kind = KINDS.get(tensor.datatype, numbers.Integral)
    for i, items in enumerate(lists):
        where = f"{model}, row {i}, {tensor.name!r}"
        if tensor.aligned_with:
            history = values(rows[i].get(tensor.aligned_with))
            items = _aligned(items, history, width, tensor.unknown)
        if len(items) not in (0, width) and tensor.dims[0] >= 0:
            raise SeqrecError(f"{where}: takes {width} values, found {len(items)}")
        for item in items:
            if not isinstance(item, kind):
                raise SeqrecError(f"{where}: takes {kind.__name__} values, found {item!r}")
        # numpy 1.26 wraps an integer that is too large, without a word.
        if kind is numbers.Integral and items:
            limits = np.iinfo(array.dtype)
            if min(items) < limits.min or max(items) > limits.max:
                raise SeqrecError(f"{where}: {tensor.datatype} goes to {limits.max}, found {items}")
        try:
            array[i, : len(items)] = [item.encode() for item in items] if kind is str else items
        except UnicodeEncodeError as error:
            raise SeqrecError(f"{where}: {error}") from error
    return array


def _aligned(items: list[Any], history: list[Any], width: int, unknown: object) -> list[Any]:
    """What stands at the places of the last `width` events of a history, the last one's last."""
    padded = items + [unknown] * (len(history) - len(items))
    events = [item for item, event in zip(padded, history, strict=False) if event != ""]
    return [unknown] * (width - len(events)) + events[-width:]
