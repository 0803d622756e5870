"""New versions of a served model, good and corrupt, and whether Triton serves them."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import torch
from tritonclient.grpc.service_pb2 import ModelReadyRequest, RepositoryModelLoadRequest

from bench.harness.load import Ask
from bench.harness.served import TOP_K, Served
from bench.harness.wire import DEADLINE, message
from seqrec_export.exporting.exported import Exported, export_run
from seqrec_export.repository.publish import publish
from seqrec_export.repository.published import models, versions
from seqrec_export.serving.endpoints import Endpoints
from seqrec_export.serving.server import launch, start
from seqrec_export.serving.supervision import Supervisor
from seqrec_export.training.run import write_files
from seqrec_export.training.train import load
from seqrec_export.verification.gate import refused, verify

# Who makes Triton load what was published: Triton itself, which looks every second; whoever calls
# its gRPC API; or `seqrec-export serve`, which follows the manifest.
MODES = ("poll", "explicit", "serve")

# Of a graph's published versions, the v-th holds contents[(v - 1) % len(contents)]: so an answer
# that names its version can be checked.
Contents = Sequence[Exported]


@contextmanager
def served(repository: Path, mode: str) -> Iterator[str]:
    """The gRPC address of a server in one of MODES."""
    assert mode in MODES
    if mode == "poll":
        with start(repository, grpc_port=0, metrics_port=0, poll_seconds=1) as running:
            yield running.grpc_url
    elif mode == "explicit":
        open_ = Endpoints(grpc_port=0, metrics_port=0, model_control=True)
        with launch(repository, models(repository), open_) as running:
            yield running.grpc_url
    else:
        free = Endpoints(grpc_port=0, metrics_port=0)
        with Supervisor(repository, free, say=print, look_seconds=0.2) as supervisor:
            yield supervisor.server.grpc_url


def other_weights(exported: Exported, folder: Path) -> Exported:
    """A verified export of the same run with each number a little larger."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(exported.run.path, folder)
    weights = load_file(folder / "weights.safetensors")
    for name, tensor in weights.items():
        weights[name] = tensor * 1.05 if torch.is_floating_point(tensor) else tensor
    save_file(weights, folder / "weights.safetensors")
    write_files(folder)
    other = export_run(load(folder), TOP_K)
    assert not refused(other, verify(other))
    return other


def asks(contents: Contents, each: int, seed: int) -> list[Ask]:
    """Requests to every graph, with the right answers of every content."""
    found = []
    for number in range(each):
        for i, name in enumerate(contents[0].graphs):
            rng = np.random.default_rng([seed, i, number])
            graphs = [Served(content, content.graphs[name]) for content in contents]
            tensors = graphs[0].request(rng, batch=1 + number % 3, length=int(rng.integers(30)))
            answers = tuple(graph.onnx(tensors) for graph in graphs)
            found.append(Ask(name, message(name, tensors).SerializeToString(), answers))
    return found


def publish_next(contents: Contents, repository: Path) -> int:
    """Publish what comes next, as the version that is returned."""
    version = newest(contents, repository) + 1
    published = publish(contents[(version - 1) % len(contents)], repository)
    assert {p.version for p in published} == {version}
    return version


def newest(contents: Contents, repository: Path) -> int:
    name = next(iter(contents[0].graphs))
    return versions(repository / name)[-1]


def corrupt_next(contents: Contents, repository: Path) -> int:
    """Put a version there by hand whose files are cut off."""
    version = newest(contents, repository) + 1
    for name in contents[0].graphs:
        folder = repository / name / str(version)
        shutil.copytree(repository / name / str(version - 1), folder.with_name("copying"))
        model = folder.with_name("copying") / "model.onnx"
        model.write_bytes(model.read_bytes()[: model.stat().st_size // 2])
        folder.with_name("copying").rename(folder)
    return version


def load_all(server: Any, contents: Contents) -> list[str]:
    """Ask Triton, over gRPC, to load each graph anew; what it says of those that it could not."""
    refusals = []
    for name in contents[0].graphs:
        try:
            server.RepositoryModelLoad(RepositoryModelLoadRequest(model_name=name), timeout=60)
        except grpc.RpcError as error:
            refusals.append(error.details())
    return refusals


def serves(server: Any, contents: Contents, version: int) -> bool:
    """Whether this version of every graph is ready."""
    return all(
        server.ModelReady(
            ModelReadyRequest(name=name, version=str(version)), timeout=DEADLINE
        ).ready
        for name in contents[0].graphs
    )
