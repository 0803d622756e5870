"""What tests need of the harness's small models, and what only tests need next to it."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.harness.served import (
    GRAPHS,
    LOWEST,
    ODD_NUMBERS,
    TOLERANCE,
    TOP_K,
    WINDOW,
    Served,
    Tensors,
    assert_same,
    rows,
    small_config,
)
from seqrec_export.errors import SeqrecError
from seqrec_export.exporting.exported import Exported, find_export
from seqrec_export.serving import server
from seqrec_export.training.train import load

__all__ = [
    "EMBEDDED",
    "GRAPHS",
    "LOWEST",
    "NATIVE_LIKE",
    "ODD_NUMBERS",
    "TOLERANCE",
    "TOP_K",
    "TRIED",
    "WINDOW",
    "Served",
    "Tensors",
    "assert_same",
    "backend",
    "copied",
    "golden_tensors",
    "over",
    "rows",
    "running",
    "serving",
    "small_config",
    "unfiltered",
    "without_filters",
]


# Graphs with filters are derived in one way from all models that remove what was seen, and in
# another from one that does not: one of each is enough for what the gate does not look at.
TRIED = {
    name: (model, graph)
    for name, (model, graph) in GRAPHS.items()
    if model in ("caser", "two_tower") or not any(spec.narrows for spec in graph.inputs)
}


def over(takes: str = "", gives: str = "") -> pytest.MarkDecorator:
    """The fixture `served` in turn: the graphs that have this input and this output."""
    names = [
        name
        for name, (_, graph) in TRIED.items()
        if (not takes or takes in {spec.name for spec in graph.inputs})
        and (not gives or gives in {spec.name for spec in graph.outputs})
    ]
    return pytest.mark.parametrize("served", names, indirect=True)


def copied(exported: Exported, folder: Path) -> Exported:
    """A copy of a run in another folder, with its export as it lies there."""
    shutil.copytree(exported.run.path, folder)
    return find_export(load(folder))


def unfiltered(served: Served, request: Tensors) -> Tensors:
    """The same request without filters, if it has any."""
    nothing = {
        name: np.zeros_like(values) if values.dtype == np.int32 else np.full_like(values, "")
        for name, values in request.items()
        if served.inputs[name].narrows
    }
    return request | nothing


def without_filters(exported: Exported) -> Exported:
    """The same export as if it had no graph that filters."""
    graphs = {
        name: graph
        for name, graph in exported.graphs.items()
        if not any(spec.narrows for spec in graph.inputs)
    }
    return replace(exported, graphs=graphs)


def golden_tensors(entries: Mapping[str, Mapping[str, Any]]) -> Tensors:
    """One side of a request of golden.json, as any client would read it."""
    dtypes: dict[str, Any] = {"BYTES": object, "FP32": np.float32, "INT32": np.int32}
    return {
        name: np.array(
            [float(v) if entry["datatype"] == "FP32" else v for v in entry["data"]],
            dtype=dtypes[entry["datatype"]],
        ).reshape(entry["shape"])
        for name, entry in entries.items()
    }


EMBEDDED, NATIVE_LIKE = "embedded", "native_like"


def backend(name: str, folder: Path) -> Path:
    """What Triton is to run ONNX files with; `folder` is where to put it, if it has to be made."""
    if name == EMBEDDED:
        return server.BACKEND
    shutil.copy(Path(__file__).with_name("native_like.py"), folder / "model.py")
    shutil.copy(server.BACKEND / "model.py", folder / "embedded.py")
    return folder


@contextmanager
def running(repository: Path, backend: Path = server.BACKEND) -> Iterator[server.Server]:
    """A Triton on free ports; skips the test if there is no Triton."""
    try:
        server.find_triton()
    except SeqrecError as error:
        pytest.skip(str(error))
    ports = {"grpc_port": 0, "http_port": 0, "metrics_port": 0}
    with server.start(repository, **ports, backend=backend) as started:
        yield started


@contextmanager
def serving(repository: Path) -> Iterator[str]:
    """The gRPC address of one."""
    with running(repository) as started:
        yield started.grpc_url
