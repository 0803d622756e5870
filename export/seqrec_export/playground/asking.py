"""What the page asks of the servers: which models there are, and their answers with all about them.

What an id is known for is asked of the served graph itself: files may be of another version.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seqrec_export.clients.addresses import grpc_address
from seqrec_export.clients.filters import FILTERED, KEEP_SEEN, QUERY, SIMILAR
from seqrec_export.clients.packing import Tensor, values
from seqrec_export.clients.python import TLS, Client
from seqrec_export.clients.rows import Signature
from seqrec_export.errors import SeqrecError
from seqrec_export.exporting.kept_attributes import ATTRIBUTES_FILE
from seqrec_export.playground.items import ALLOW, HISTORY, Known, Suggestions, read_run

HISTORY_IDS = "history_item_ids"
_ITEMS = "item_ids", "candidate_ids"  # what the names of inputs with items end with
LOWEST = float(np.finfo(np.float32).min)  # the score of a candidate that is unknown
_READ = "vocabulary", "onnx", f"onnx/{ATTRIBUTES_FILE}"  # of a run's folder
_MOST_LOOKED_UP = 500  # ids of one request


@dataclass(frozen=True)
class Place:
    """One of the models to choose from: where it is served, and its version, "" for the newest."""

    server: int
    model: str
    version: str = ""


class Playground:
    """Answers what the page asks; may be shared by threads."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        runs: Path = Path("runs"),
        titles: Mapping[str, str] | None = None,
        tls: TLS | None = None,
    ) -> None:
        self._urls = [grpc_address(url, tls=tls is not None) for url in urls]
        self._tls = tls
        self._runs = runs
        self._titles = titles or {}
        self._titled = Suggestions(self._titles, self._titles)
        self._known: dict[str, tuple[Any, Known]] = {}  # by model: when it was written, and what
        self._suggestions: dict[tuple[str, str], tuple[Known, Suggestions]] = {}

    def models(self) -> list[dict[str, Any]]:
        """Each model that ranks items or rates candidates, each version of it, on each server."""
        return [
            described for server in range(len(self._urls)) for described in self._models_of(server)
        ]

    def suggest(self, model: str, field: str, typed: str) -> list[dict[str, Any]]:
        """What may be meant by what was typed into a field, the best match first."""
        known = self._about(model)
        if not field.endswith(_ITEMS):
            found = self._found(known, (model, field), known.texts(field))
            return [{"id": text} for text in found.find(typed)]
        ids = known.ids.get("items")
        found = self._found(known, (model, ""), ids) if ids else self._titled
        return [self._described(known, text) for text in found.find(typed)]

    def recommend(
        self, place: Place, row: Mapping[str, Any], filters: Mapping[str, Any], top_k: int
    ) -> dict[str, Any]:
        """The best items, or the candidates of the row in the order of their scores."""
        filters = {name: value for name, value in filters.items() if value}
        if filters.get(KEEP_SEEN):
            filters[KEEP_SEEN] = 1
        graph = f"{place.model}{FILTERED}" if filters else place.model
        return self._answer(place, graph, {**row, **filters}, top_k)

    def similar(
        self, place: Place, ids: Sequence[str], filters: Mapping[str, Any], top_k: int
    ) -> dict[str, Any]:
        """The items nearest to these, under the filters that are not about a history."""
        row = {n: value for n, value in filters.items() if value and n != KEEP_SEEN}
        return self._answer(place, f"{place.model}{SIMILAR}", {QUERY: ids, **row}, top_k)

    def _models_of(self, server: int) -> list[dict[str, Any]]:
        at = f" at {self._urls[server]}" if len(self._urls) > 1 else ""
        with self._client(server) as client:
            serving = client.serving()
            return [
                described
                for name in sorted(serving)
                for described in self._versions(client, server, name, serving, at)
            ]

    def _versions(
        self, client: Client, server: int, name: str, serving: Mapping[str, Sequence[int]], at: str
    ) -> list[dict[str, Any]]:
        """A model's versions, the newest first; none if it is no model to choose."""
        signature = client.signature(name)
        if _belongs_to_another(name, serving) or not _is_for_people(signature):
            return []
        filtered = name + FILTERED
        more = client.signature(filtered).inputs if filtered in serving else {}
        fields = self._fields(name, signature, more)
        newest, *older = sorted(serving[name], reverse=True)
        return [
            {
                "key": f"{name}{f' {version}' if version else ''}{at}",
                "label": f"{name}, version {version or newest}{at}",
                "place": {"server": server, "model": name, "version": version},
                "similar": name + SIMILAR in serving,
                **fields,
            }
            for version in ("", *map(str, older))
        ]

    def _fields(
        self, model: str, signature: Signature, more: Mapping[str, Tensor]
    ) -> dict[str, Any]:
        known = self._about(model)

        def field(tensor: Tensor) -> dict[str, str]:
            return {
                "name": tensor.name,
                "kind": _kind(tensor),
                "follows": _follows(tensor, signature),
                "meaning": known.meanings.get(tensor.name, ""),
            }

        filters = [tensor for name, tensor in more.items() if name not in signature.inputs]
        ranked = signature.outputs.get("item_ids")
        return {
            "inputs": [field(tensor) for tensor in signature.inputs.values()],
            "filters": [field(tensor) for tensor in filters],
            "most": ranked.dims[0] if ranked else None,
        }

    def _answer(
        self, place: Place, graph: str, row: Mapping[str, Any], top_k: int
    ) -> dict[str, Any]:
        known = self._about(place.model)
        with self._client(place.server) as client:
            signature = client.signature(graph, version=place.version)
            started = time.perf_counter()
            (result,) = client.call(graph, [row], version=place.version)
            seconds = time.perf_counter() - started
            given = {
                name: list(dict.fromkeys(text for text in values(row.get(name)) if text))
                for name, tensor in signature.inputs.items()
                if _kind(tensor) in ("items", "texts") and row.get(name)
            }
            unknown = _unknown(client, place, known, given)
        scores = values(result["scores"])
        ids = values(result.get("item_ids", row.get("candidate_ids")))
        ranked = zip(ids, scores[: len(ids)], strict=True)
        best = sorted((pair for pair in ranked if pair[0]), key=lambda pair: -pair[1])
        return {
            "graph": graph,
            "milliseconds": 1000 * seconds,
            "known": values(result["known_items"])[0] if "known_items" in result else None,
            "items": [
                self._described(known, item) | {"score": score if score > LOWEST else None}
                for item, score in best[:top_k]
            ],
            "unknown": unknown,
            "titles": {
                item: self._titles[item]
                for name in given
                if name.endswith(_ITEMS)
                for item in given[name]
                if item in self._titles
            },
        }

    def _found(self, known: Known, key: tuple[str, str], texts: Sequence[str]) -> Suggestions:
        """What is suggested for a field; it is kept until a training has replaced it."""
        of, found = self._suggestions.get(key, (None, None))
        if found is None or of is not known:
            found = Suggestions(texts, {} if key[1] else self._titles)
            if texts:  # nothing is kept of names that somebody made up
                self._suggestions[key] = known, found
        return found

    def _client(self, server: int) -> Client:
        """A connection for one request: it knows no older contract, and no older failure."""
        if not 0 <= server < len(self._urls):
            raise SeqrecError(f"there is no server {server}; load the page again")
        return Client(self._urls[server], tls=self._tls)

    def _described(self, known: Known, item: str) -> dict[str, Any]:
        attributes = known.attributes.get(item, {})
        return {"id": item, "title": self._titles.get(item, ""), "attributes": attributes}

    def _about(self, model: str) -> Known:
        """What the run folder of a model holds; it is read again if a training has replaced it."""
        if Path(model).name != model:  # a caller names it, who is not to choose the folder
            return Known()
        run = self._runs / model
        stamps = [_changed(run / name) for name in _READ]
        before, known = self._known.get(model, (None, Known()))
        if before != stamps:
            known = read_run(run, (model, model + FILTERED))
            if any(stamps):
                self._known[model] = stamps, known
        return known


def _unknown(
    client: Client, place: Place, known: Known, given: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """Which of the given ids and values the served model does not know, as far as one can tell.

    Of ids the graph itself says it, each in a row of its own.
    """
    found: dict[str, list[str]] = {}
    for name, texts in given.items():
        if name.startswith(ALLOW) and not name.endswith(_ITEMS) and known.values:
            there = set(known.texts(name))
            found[name] = [text for text in texts if text not in there]
    ids = {n: texts for n, texts in given.items() if n.endswith(_ITEMS)}
    distinct = list(dict.fromkeys(text for texts in ids.values() for text in texts))
    graph, asked = _looks_up(client, place)
    if graph and len(distinct) <= _MOST_LOOKED_UP:
        rows = [{asked: [text]} for text in distinct]
        results = client.call(graph, rows, version=place.version)
        pairs = zip(distinct, results, strict=True)
        strange = {text for text, result in pairs if not values(result["known_items"])[0]}
        found |= {n: [t for t in texts if t in strange] for n, texts in ids.items()}
    return {name: texts for name, texts in found.items() if texts}


def _looks_up(client: Client, place: Place) -> tuple[str, str]:
    """A graph that says whether it knows an id, and the input for it; "" if there is none."""
    serving = client.serving()
    for graph, asked in ((place.model + SIMILAR, QUERY), (place.model, HISTORY_IDS)):
        if graph not in serving:
            continue
        signature = client.signature(graph, version=place.version)
        if asked in signature.inputs and "known_items" in signature.outputs:
            return graph, asked
    return "", ""


def _changed(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.exists() else None


def _belongs_to_another(name: str, serving: Mapping[str, object]) -> bool:
    return any(name.endswith(s) and name.removesuffix(s) in serving for s in (FILTERED, SIMILAR))


def _is_for_people(signature: Signature) -> bool:
    """Whether it scores items, and nobody has to type a vector for it."""
    kinds = [_kind(tensor) for tensor in signature.inputs.values() if not tensor.aligned_with]
    return "scores" in signature.outputs and "vector" not in kinds


def _kind(tensor: Tensor) -> str:
    if tensor.datatype == "BYTES":
        if tensor.dims == (1,):
            return "text"
        return "items" if tensor.name.endswith(_ITEMS) else "texts"
    if tensor.dims != (1,) and not tensor.aligned_with:
        return "vector"
    return "number" if tensor.datatype.startswith("FP") else "whole"


def _follows(tensor: Tensor, signature: Signature) -> str:
    """The list of items that an input has a value for each of; "" if it stands alone."""
    if tensor.aligned_with or HISTORY_IDS not in signature.inputs:
        return tensor.aligned_with
    parallel = tensor.name.startswith(HISTORY) and _kind(tensor) == "texts"
    return HISTORY_IDS if parallel else ""
