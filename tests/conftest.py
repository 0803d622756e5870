"""One training, export and verification of every model a session; every test looks at the same."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bench.harness.wire import connect, stub
from seqrec_export.data.interactions import Interactions
from seqrec_export.data.readers.synthetic import generate
from seqrec_export.exporting.exported import Exported, export_run, find_export
from seqrec_export.models.registry import MODELS
from seqrec_export.repository.publish import publish
from seqrec_export.serving.server import Server
from seqrec_export.training.train import load, train
from seqrec_export.verification.gate import refused, verify
from support.attributes import attributes
from support.copies import copy
from support.served import (
    EMBEDDED,
    GRAPHS,
    NATIVE_LIKE,
    TOP_K,
    TRIED,
    Served,
    backend,
    running,
    small_config,
    without_filters,
)


@pytest.fixture(scope="session")
def interactions() -> Interactions:
    return generate(users=300, items=120, events=6000, sessions=300, seed=1)


@pytest.fixture(scope="session")
def exports(
    interactions: Interactions, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Exported]:
    """Model name -> its verified export; made when it is first asked for, not to be changed."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of all workers, who share what one of them has made
    folder = folder / "exports"
    folder.mkdir(exist_ok=True)

    def made(name: str) -> Path:
        return folder / f"{name} is made"

    def make(name: str, *, wait: bool) -> None:
        """Unless another worker has made it, or does so now and this one is not to wait."""
        with (folder / f"{name}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            if not made(name).exists():
                config = small_config(name)
                run = train(MODELS[name], interactions, config, folder / name, progress=False)
                exported = export_run(run, TOP_K, attributes=attributes(run, interactions))
                assert not refused(exported, verify(exported))
                made(name).touch()

    @cache
    def export(name: str) -> Exported:
        # All workers begin with the same models. One that only waited would leave a core idle.
        for one in (name, *MODELS):
            if not made(name).exists():
                make(one, wait=False)
        make(name, wait=True)
        return find_export(load(folder / name))

    return export


@pytest.fixture(scope="session", params=list(MODELS))
def exported(request: pytest.FixtureRequest, exports: Callable[[str], Exported]) -> Exported:
    """Every model in turn."""
    return exports(request.param)


@pytest.fixture(scope="session", params=TRIED)
def served(request: pytest.FixtureRequest, exports: Callable[[str], Exported]) -> Served:
    """Every graph of every model in turn, those with filters of two models."""
    model, _ = GRAPHS[request.param]
    exported = exports(model)
    return Served(exported, exported.graphs[request.param])


@pytest.fixture(scope="session")
def repository(
    exports: Callable[[str], Exported], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A repository with every model."""
    path = tmp_path_factory.mktemp("published") / "model_repository"
    for name in MODELS:
        publish(exports(name), path)
    return path


@pytest.fixture(scope="session")
def tritons(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Server]]:
    """Backend -> a Triton with every model, started when it is first asked for.

    And with one that was never built.
    """
    unbuilt = repository / "never_built"
    unbuilt.mkdir(exist_ok=True)
    (unbuilt / "config.pbtxt").write_text('name: "never_built" backend: "onnxruntime"')
    with ExitStack() as started:

        @cache
        def start(name: str) -> Server:
            folder = tmp_path_factory.mktemp(name)
            return started.enter_context(running(repository, backend(name, folder)))

        yield start


@pytest.fixture(params=[EMBEDDED, NATIVE_LIKE])
def triton(request: pytest.FixtureRequest, tritons: Callable[[str], Server]) -> Server:
    """A Triton with our backend, and one whose backend has the faults of NVIDIA's."""
    return tritons(request.param)


@pytest.fixture
def infer(triton: Server) -> Iterator[Any]:
    """Its gRPC calls, bare."""
    with connect(triton.grpc_url) as channel:
        yield stub(channel)


@pytest.fixture(scope="session")
def graph(exports: Callable[[str], Exported]) -> Callable[[str], Served]:
    """Graph name -> that graph."""
    return lambda name: Served(exports(GRAPHS[name][0]), exports(GRAPHS[name][0]).graphs[name])


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="session")
def trained(
    exports: Callable[[str], Exported], tmp_path_factory: pytest.TempPathFactory
) -> list[Exported]:
    """Three runs of one model, of other weights each, verified.

    They are for what is done with files of any graph, so they go without the two that filter.
    """
    folder = tmp_path_factory.mktemp("trained")
    runs = [without_filters(exports("caser"))]
    for number in (1, 2):

        def change(weights: dict, number: int = number) -> None:
            weights["out_bias"] += 0.5 * number

        runs.append(without_filters(copy(exports("caser"), folder / str(number), change)))
        verify(runs[-1])
    return runs
