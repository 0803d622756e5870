"""Calls served models over gRPC with raw values: ids as strings, features as they are."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import tritonclient.grpc as grpc
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from seqrec_export.clients.addresses import grpc_address, is_local
from seqrec_export.clients.filters import (
    FILTERED,
    SIMILAR,
    Filters,
    Values,
    Where,
    narrowed,
    queries,
)
from seqrec_export.clients.packing import Row, require, values
from seqrec_export.clients.rows import GIVES, Signature, at_most, call, decoded, listed, no_input
from seqrec_export.errors import SeqrecError


@dataclass(frozen=True, kw_only=True)
class TLS:
    """PEM files of an encrypted connection.

    `ca` is the authority that vouches for the server (None: those that gRPC trusts), `cert` and
    `key` are what this side shows a server that asks for it.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


class Client:
    """A connection to a Triton server; may be shared by threads.

    `url` is the address of its gRPC, HOST:PORT; the port is 8001 if there is none.
    Every method raises SeqrecError if the server cannot be reached, refuses the request, or does
    not answer in `timeout_seconds`.
    """

    def __init__(
        self,
        url: str = "127.0.0.1:8001",
        *,
        timeout_seconds: float = 10.0,
        tls: TLS | None = None,
    ) -> None:
        self.url = grpc_address(url, tls=tls is not None)
        self.timeout_seconds = timeout_seconds
        # gRPC would send even a call to this machine through the proxy of the environment.
        options = [("grpc.enable_http_proxy", 0)] if is_local(self.url) else []
        unlimited = [(f"grpc.max_{way}_message_length", -1) for way in ("send", "receive")]
        files = _readable(tls) if tls else {}
        self._connection = grpc.InferenceServerClient(
            self.url, ssl=tls is not None, channel_args=options + unlimited, **files
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
        infer = partial(self.infer, model, version=version)
        return call(model, self.signature(model, version=version), rows, infer)

    def recommend(
        self,
        model: str,
        rows: Sequence[Row],
        k: int | None = None,
        *,
        exclude: Values = None,
        allow: Values = None,
        where: Where = None,
        keep_seen: bool = False,
        top_k: int | None = None,
    ) -> list[list[tuple[str, float]]]:
        """Each row's best items with their scores, best first; `k` of them, or all.

        What `exclude` holds never comes back. If `allow` is given, nothing but what it holds does.
        `where` has values by attribute, of which an item must have one. With `keep_seen`, what the
        history holds may come back. All of them hold together, for every row; a row may have
        filters of its own, as `exclude_item_ids` and so on. `<model>_filtered` is asked if there
        is a filter, else the model. `top_k` is another name of `k`.
        """
        self._require(model, model, "recommend")
        filters = Filters(exclude=exclude, allow=allow, where=where, keep_seen=keep_seen)
        name, asked = narrowed(model, rows, filters, self.signature)
        return self._ranked(name, asked, at_most(k, top_k))

    def similar(
        self,
        model: str,
        items: Sequence[Row | Iterable[str]],
        k: int | None = None,
        *,
        exclude: Values = None,
        allow: Values = None,
        where: Where = None,
    ) -> list[list[tuple[str, float]]]:
        """The items nearest to each entry of `items`, an id or a few, by cosine, nearest first.

        What is asked for does not come back; if no id is known, popular items do. The filters are
        those of `recommend`. It asks `<model>_similar_items`.
        """
        name = model if model.endswith(SIMILAR) else f"{model}{SIMILAR}"
        rows = queries(model, items)
        self._require(model, name, "recommend")
        filters = Filters(exclude=exclude, allow=allow, where=where)
        return self._ranked(*narrowed(name, rows, filters, self.signature), k)

    def _ranked(
        self, name: str, rows: Sequence[Row], k: int | None
    ) -> list[list[tuple[str, float]]]:
        results = []
        for row in self.call(name, rows):
            pairs = zip(*_outputs(row, "item_ids", "scores"), strict=True)
            results.append([(item, float(score)) for item, score in pairs if item][:k])
        return results

    def encode(self, model: str, rows: Sequence[Row]) -> NDArray[np.float32]:
        """(n, D) embeddings: of `<model>_encoder`, or of a model whose own name ends in that."""
        name = model if model.endswith("_encoder") else f"{model}_encoder"
        outputs = self._require(model, name, "encode").outputs
        output = next(name for name in outputs if name.endswith(GIVES["encode"]))
        vectors = [_outputs(row, output)[0] for row in self.call(name, rows)]
        empty = np.empty((0, *outputs[output].dims), dtype=np.float32)
        return np.stack(vectors) if vectors else empty

    def score(self, model: str, rows: Sequence[Row]) -> list[NDArray[np.float32]]:
        """Each row's `candidate_ids` scored, in their order.

        The model itself scores them if it takes candidates, else `<model>_scorer`, which also takes
        a `user_embedding`.
        """
        takes_candidates = "candidate_ids" in self.signature(model).inputs
        name = model if takes_candidates else f"{model}_scorer"
        inputs = self._require(model, name, "score").inputs
        missing = {key for row in rows for key in row} - inputs.keys()
        if missing and "user_embedding" in inputs:
            raise SeqrecError(
                f"{name} takes {listed(inputs)}, found {listed(missing)}; give the vector of"
                f" encode({_base(name)!r}, ...) as user_embedding"
            )
        results = self.call(name, rows)
        counts = [len(values(row.get("candidate_ids"))) for row in rows]
        return [
            _outputs(result, "scores")[0][:count]
            for result, count in zip(results, counts, strict=True)
        ]

    def infer(
        self, model: str, tensors: Mapping[str, NDArray[Any]], *, version: str = ""
    ) -> dict[str, NDArray[Any]]:
        """One request as arrays, strings as arrays of str -> every output as an array."""
        signature = self.signature(model, version=version)
        inputs = []
        for name, given in tensors.items():
            if name not in signature.inputs:
                raise no_input(model, name, signature)
            datatype = signature.inputs[name].datatype
            array = _checked(f"{model}, {name!r}", datatype, given)
            if signature.max_batch_size and not array.shape[:1] > (0,):
                # Triton 2.51 would never answer this.
                raise SeqrecError(f"{model}, {name!r}: no rows, found shape {list(array.shape)}")
            inputs.append(grpc.InferInput(name, list(array.shape), datatype))
            inputs[-1].set_data_from_numpy(array)
        try:
            with self._errors(model):
                answer = self._connection.infer(
                    model, inputs, version, client_timeout=self.timeout_seconds
                )
        except SeqrecError:
            self._signatures.pop((model, version), None)  # it may have been published again
            raise
        try:
            return {name: decoded(answer.as_numpy(name)) for name in signature.outputs}
        except (ValueError, TypeError, struct.error, InferenceServerException) as error:
            raise SeqrecError(f"{model} at {self.url}: malformed answer ({error})") from error

    def models(self) -> dict[str, str]:
        """Each model that the server has tried to load, and why it is not ready, or "" if it is.

        A model with one version ready is ready, and one that was unloaded is left out. A server
        that `serve` started does not answer this: it is part of loading and unloading.
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

        Readiness is not enough: a model stays ready when the process behind it has died.
        """
        signature = self.signature(model)
        row = {
            name: [tensor.unknown] * max(1, *tensor.dims)
            for name, tensor in signature.inputs.items()
        }
        for _ in range(signature.instances):
            self.call(model, [row])

    def signature(self, model: str, *, version: str = "") -> Signature:
        """What the model takes and gives; the server is asked once."""
        key = (model, version)
        if key not in self._signatures:
            with self._errors(model):
                config = self._connection.get_model_config(
                    model, version, client_timeout=self.timeout_seconds
                ).config
            self._signatures[key] = Signature.of(config)
        return self._signatures[key]

    def _require(self, asked: str, name: str, method: str) -> Signature:
        """The signature of a model that has this method; raises SeqrecError with what to write."""
        try:
            signature = self.signature(name)
        except SeqrecError as error:
            if _base(asked) == asked:
                raise
            raise SeqrecError(
                f"{error}; {method}() takes a model's own name: {method}({_base(asked)!r}, ...)"
            ) from error
        if signature.method != method:
            base = _base(name)
            own = f", or {method}({base!r}, ...)" if base != name else ""
            raise SeqrecError(
                f"{name} gives {listed(signature.outputs)}: {method}() is not for it; write"
                f" {signature.method}({name!r}, ...){own}"
            )
        return signature

    @contextmanager
    def _errors(self, model: str) -> Iterator[None]:
        try:
            yield
        except InferenceServerException as error:
            status, message = str(error.status()), error.message()
            if "DEADLINE_EXCEEDED" in status:
                message = f"no answer in {self.timeout_seconds} seconds"
            elif "UNAVAILABLE" in status and ("connect" in message or "resolv" in message):
                message = (
                    "no server answers there; start one with `seqrec-export serve`"
                    f" or name its gRPC address, with TLS if it has that ({message})"
                )
            raise SeqrecError(f"{model} at {self.url}: {message}") from error
        except ValueError as error:  # of a connection that was closed, or a message over 2 GB
            raise SeqrecError(f"{model} at {self.url}: {error}") from error


def _readable(tls: TLS) -> dict[str, str | None]:
    """What tritonclient calls the files. Raises SeqrecError for one that cannot be read."""
    if (tls.cert is None) != (tls.key is None):
        raise SeqrecError("a TLS certificate and its key belong together; give both or neither")
    for file in (tls.ca, tls.cert, tls.key):
        if file and not os.access(file, os.R_OK):
            raise SeqrecError(f"{file} cannot be read; TLS needs PEM files")
    files = {"root_certificates": tls.ca, "certificate_chain": tls.cert, "private_key": tls.key}
    return {name: str(file) if file else None for name, file in files.items()}


def _base(model: str) -> str:
    """The model that one of its graphs belongs to."""
    for end in ("_encoder", "_scorer", FILTERED, SIMILAR):
        model = model.removesuffix(end)
    return model


def _outputs(result: Mapping[str, object], *names: str) -> list[Any]:
    return [result[name] for name in names]


def _checked(where: str, datatype: str, array: object) -> NDArray[Any]:
    """The array as tritonclient takes it; raises SeqrecError if the tensor is of another type."""
    if not isinstance(array, np.ndarray):
        raise SeqrecError(f"{where}: takes a numpy array, found {type(array).__name__}")
    if datatype == "BYTES":
        if array.dtype.kind not in "OSU":
            raise SeqrecError(f"{where}: takes an array of str, found {array.dtype}")
        texts = [text for text in array.ravel().tolist() if not isinstance(text, bytes)]
        require(where, datatype, texts)
        return array if array.dtype.kind == "S" else array.astype(object, copy=False)
    expected = np.dtype(triton_to_np_dtype(datatype))
    if array.dtype != expected:
        raise SeqrecError(f"{where}: takes an array of {expected}, found {array.dtype}")
    return array
