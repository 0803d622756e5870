"""A run that answers in this process: by its exported graphs, or by its network if there are none.

Rows go in and come out as from `Client.call`, and what is wrong with them is told in the same
words: what is tried here is what a server will do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Self

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from seqrec_export.clients import rows as asked
from seqrec_export.clients.filters import SIMILAR, Filters, Values, Where, narrowed, queries
from seqrec_export.clients.packing import Row
from seqrec_export.clients.rows import Signature
from seqrec_export.contract import Graph
from seqrec_export.errors import SeqrecError
from seqrec_export.exporting.exported import (
    DEFAULT_TOP_K,
    EXPORT_FILE,
    Exported,
    find_export,
    graphs_of,
)
from seqrec_export.exporting.runtime import answer, session
from seqrec_export.exporting.triton_config import model_config
from seqrec_export.models.settings import TOP_K
from seqrec_export.training import run as training
from seqrec_export.training.run import alone, require_still
from seqrec_export.verification.reference import PyTorch

Answer = dict[str, object]
_ITEMS = 10  # in an answer, if nobody asks for more


@dataclass(frozen=True, kw_only=True, repr=False)
class Run(training.Run):
    """A finished training or import, as it lies in its folder; its network is loaded.

    `path`, `model`, `config` (the settings), `seed`, `net` (on the CPU, in eval mode),
    `vocabularies`, `source` (of the log), `metrics` (as metrics.json has them).
    """

    @classmethod
    def of(cls, run: training.Run) -> Self:
        """The same run, which answers."""
        return cls(**{field.name: getattr(run, field.name) for field in fields(training.Run)})

    def __repr__(self) -> str:
        test = self.metrics["test"]
        found = [f"{name} {test[name]:.4f}" for name in self.model.metric.headline if name in test]
        return f"<Run of {self.model.name} in {self.path}{': ' * bool(found)}{', '.join(found)}>"

    def recommend(
        self,
        requests: Sequence[Row],
        k: int | None = None,
        *,
        exclude: Values = None,
        allow: Values = None,
        where: Where = None,
        keep_seen: bool = False,
        top_k: int | None = None,
    ) -> list[Answer]:
        """The `k` best items of each request: `item_ids` and `scores`, best first, and the rest.

        `k` is 10 if it is not given; there are fewer if no more may come back. The filters are
        those of `Client.recommend`. Raises SeqrecError if the model ranks no items, if `k` is more
        than the run was exported with, and for what `call` and filters refuse.
        """
        k, name = _top_k(k, top_k), self.model.name
        signature = self._signature(name, k)
        if signature.method != "recommend":
            raise SeqrecError(
                f"{name} gives {asked.listed(signature.outputs)}: it does not rank items; write "
                "run.call(rows)"
            )
        filters = Filters(exclude=exclude, allow=allow, where=where, keep_seen=keep_seen)
        signatures = partial(self._signature, top_k=k)
        return self._best(*narrowed(name, requests, filters, signatures), k)

    def similar(
        self,
        items: Sequence[Row | Iterable[str]],
        k: int | None = None,
        *,
        exclude: Values = None,
        allow: Values = None,
        where: Where = None,
    ) -> list[Answer]:
        """The `k` items nearest to each entry of `items`, an id or a few, as `Client.similar`."""
        k, name = _top_k(k), f"{self.model.name}{SIMILAR}"
        filters = Filters(exclude=exclude, allow=allow, where=where)
        signatures = partial(self._signature, top_k=k)
        rows = queries(self.model.name, items)
        return self._best(*narrowed(name, rows, filters, signatures), k)

    def _signature(self, name: str, top_k: int) -> Signature:
        return self._asked(name, top_k)[1]

    def _best(self, name: str, requests: Sequence[Row], k: int) -> list[Answer]:
        """Each answer of a graph that ranks, without empty ids, and with `k` items at most."""
        graph, signature, infer = self._asked(name, k)
        ranked = next(spec for spec in graph.outputs if spec.name == asked.GIVES["recommend"])
        most, rows = ranked.shape[1], self.vocabularies["items"].num_rows
        assert isinstance(most, int)
        if k > most and most < rows:
            raise SeqrecError(
                f"{self.path} was exported with {most} items in an answer, found k={k}; export it "
                f"with top_k={k}"
            )
        shorter = []
        for row in asked.call(name, signature, requests, infer):
            ids: Any = row["item_ids"]
            best = [i for i, item in enumerate(ids[:k]) if item]
            cut = {"item_ids": [ids[i] for i in best], "scores": _taken(row["scores"], best)}
            shorter.append(row | cut)
        return shorter

    def call(self, rows: Sequence[Row], graph: str | None = None) -> list[Answer]:
        """What the model, or another one of the run's graphs, answers to each row.

        As `Client.call`: strings as lists of str, numbers as arrays. Raises SeqrecError for a graph
        that the run does not have, and for values that it does not take.
        """
        name = self.model.name if graph is None else graph
        _, signature, infer = self._asked(name, DEFAULT_TOP_K)
        return asked.call(name, signature, rows, infer)

    def _asked(self, name: str, top_k: int) -> tuple[Graph, Signature, asked.Infer]:
        """A graph, what it takes, and what computes it; `top_k` is for the network alone."""
        exported, sessions = self._exported()
        if exported is not None:
            graphs: Mapping[str, Graph] = exported.graphs
        else:
            most = min(top_k, self.vocabularies["items"].num_rows)
            graphs = graphs_of(self.model, self.config, most)
        if name not in graphs:
            raise SeqrecError(f"{self.path} has no graph {name!r}; it has {', '.join(graphs)}")
        graph = graphs[name]
        compute: Any
        if exported is None:
            compute = partial(PyTorch(self.net, self.vocabularies).answer, graph)
        else:
            if name not in sessions:
                with alone(self.path):  # until the file is open
                    require_still(self)
                    sessions[name] = session(exported.model_file(name))
            compute = partial(answer, sessions[name], graph)

        def infer(tensors: dict[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
            result: Mapping[str, NDArray[Any]] = compute(
                {key: _as_triton_reads(values) for key, values in tensors.items()}
            )
            return result

        return graph, Signature.of(model_config(graph)), infer

    def _exported(self) -> tuple[Exported | None, dict[str, onnxruntime.InferenceSession]]:
        """The export that lies in the run's folder, if any, and the sessions of its graphs."""
        file = self.path / "onnx" / EXPORT_FILE
        try:
            found = file.stat()
        except FileNotFoundError:
            return None, {}
        key = (found.st_ino, found.st_mtime_ns)
        if self.__dict__.get("_opened", (None,))[0] != key:
            # Of this object alone, as a cached property would be.
            self.__dict__["_opened"] = (key, find_export(self), {})
        _, exported, sessions = self.__dict__["_opened"]
        return exported, sessions


def _top_k(k: int | None, top_k: int | None = None) -> int:
    wanted = asked.at_most(k, top_k)
    return int(TOP_K.checked(_ITEMS if wanted is None else wanted, "k"))


def _taken(values: Any, places: list[int]) -> NDArray[Any]:
    taken: NDArray[Any] = np.asarray(values)[places]
    return taken


def _as_triton_reads(values: NDArray[Any]) -> NDArray[Any]:
    """Bytes as str; a text that was sent ends before its first NUL."""
    if values.dtype != object:
        return values
    texts = [
        value if isinstance(value, str) else value.partition(b"\0")[0].decode()
        for value in values.ravel().tolist()  # padding is str
    ]
    return np.array(texts, dtype=object).reshape(values.shape)
