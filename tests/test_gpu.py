"""What only a CUDA device can show. Without one these tests are skipped, and say why.

`bench/cuda/gpu_check.py` measures there; its rehearsal runs everywhere.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from seqrec_export.data.interactions import Interactions
from seqrec_export.exporting import runtime
from seqrec_export.exporting.exported import Exported, export_run
from seqrec_export.exporting.runtime import why_no_cuda
from seqrec_export.exporting.string_lookup import ML_DOMAIN
from seqrec_export.folders import read_json
from seqrec_export.models.registry import MODELS
from seqrec_export.training.train import train
from seqrec_export.verification.cases import CLASSES, why_not
from seqrec_export.verification.gate import refused, verify
from seqrec_export.verification.verdict import CPU, CUDA, CUDA_TF32
from support.copies import own_graphs_only
from support.served import TOP_K, WINDOW, Served, copied, small_config

ROOT = Path(__file__).parents[1]
SMALL_LOG = ("--users", "60", "--items", "50", "--events", "800")


def gpu(test: Callable[..., None]) -> Callable[..., None]:
    skip = pytest.mark.skipif(bool(why_no_cuda()), reason=why_no_cuda())
    marked: Callable[..., None] = pytest.mark.gpu(skip(test))
    return marked


def torch_on_cuda() -> None:
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch finds no CUDA device")


@gpu
def test_every_case_is_right_on_cuda_with_and_without_tf32(
    exported: Exported, tmp_path: Path
) -> None:
    for name, verdict in verify(copied(exported, tmp_path / "run")).items():
        found: dict[str, dict[str, str]] = {}
        for row in verdict.as_dict()["results"]:
            found.setdefault(row["provider"], {})[row["case_class"]] = row["status"]
        for case_class in CLASSES:
            assert case_class in found[CPU] or why_not(case_class, exported.graphs[name])
        for provider in (CUDA, CUDA_TF32):
            assert found[provider] == dict.fromkeys(found[CPU], "OK"), (name, provider)


@gpu
def test_on_cuda_the_cpu_looks_up_strings_and_computes_no_float(
    served: Served, tmp_path: Path
) -> None:
    path = served.exported.model_file(served.graph.name)
    request = served.request(np.random.default_rng(0), batch=3, length=WINDOW + 3)
    placed = list(profile(path, runtime.feeds(served.graph, request), tmp_path))
    floats = {
        where: {op for w, op, gives in placed if w == where and gives} for where, *_ in placed
    }
    assert floats[runtime.CUDA]
    assert not floats.get(runtime.CPU)
    ours = {node.op_type for node in onnx.load(path).graph.node if node.domain == ML_DOMAIN}
    on_cpu = {op for where, op, _ in placed if where == runtime.CPU}
    assert ours & on_cpu == {"LabelEncoder"}


def profile(path: Path, feeds: Any, folder: Path) -> Iterator[tuple[str, str, bool]]:
    """(execution provider, operator, whether it gives a float) of every node that ran."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    options.log_severity_level = 3
    providers = [runtime.CUDA, runtime.CPU]
    session = onnxruntime.InferenceSession(path, options, providers=providers)
    session.run(None, feeds)
    for event in json.loads(Path(session.end_profiling()).read_text()):
        args = event.get("args", {})
        if event["cat"] == "Node" and "provider" in args:
            kinds = {kind for output in args["output_type_shape"] for kind in output}
            yield args["provider"], args["op_name"], bool(kinds & {"float", "float16", "double"})


@gpu
@pytest.mark.parametrize("name", MODELS)
def test_a_model_trained_on_cuda_is_exported_from_the_cpu(
    name: str, interactions: Interactions, tmp_path: Path
) -> None:
    torch_on_cuda()
    torch.cuda.init()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run = train(MODELS[name], interactions, small_config(name), tmp_path / "run", progress=False)
    assert torch.cuda.max_memory_allocated() > before, "it was trained on the CPU"
    figures = [*run.metrics["test"].values(), *(epoch["loss"] for epoch in run.metrics["curve"])]
    assert np.isfinite(figures).all()
    assert {tensor.device.type for tensor in run.net.state_dict().values()} == {"cpu"}
    with own_graphs_only():  # a test above has all of them
        exported = export_run(run, TOP_K)
    assert refused(exported, verify(exported)) == ""


@gpu
def test_the_gpu_check_measures_everything_on_cuda(tmp_path: Path) -> None:
    torch_on_cuda()
    report = gpu_check(tmp_path)
    assert report["device"] == torch.cuda.get_device_name()
    for _, entry in on_cuda(report):
        assert entry["status"] == "OK"
        assert all(value >= 0 for value in entry.values() if value != "OK")


def test_the_rehearsal_of_the_gpu_check_skips_what_needs_cuda_and_says_why(tmp_path: Path) -> None:
    report = gpu_check(tmp_path, "--device", "cpu")
    reason = report["why_no_cuda"]
    assert reason
    assert reason == (why_no_cuda() or reason)
    places = [place for place, _ in on_cuda(report)]
    assert [places.count(place) for place in (CUDA, CUDA_TF32, "cuda")] == [20, 5, 1]
    for _, entry in on_cuda(report):
        assert (entry.pop("status"), entry.pop("reason")) == ("SKIPPED", reason)
        assert set(entry.values()) == {None}
    found = report["models"]["caser"]
    for graph in found["graphs"].values():
        assert graph["ok"]
        assert graph["parity"][CPU]["cases"] > 0
        for row in graph["latency"]:
            assert row[CPU]["median_ms"] > 0
            assert row["PyTorch eager"]["device"] == "cpu"
    assert found["training"]["loop"]["cpu"]["targets_per_second"] > 0


def gpu_check(out: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.cuda.gpu_check", "--model", "caser", "--out", str(out)]
    done = subprocess.run(
        [*command, *SMALL_LOG, "--rounds", "1", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"GOMP_SPINCOUNT": "1000", **os.environ},
    )
    assert done.returncode == 0, done.stderr
    (path,) = out.iterdir()
    assert path.match("gpu_check-*.json")
    assert str(path) in done.stdout
    report: dict[str, Any] = read_json(path)
    return report


def on_cuda(part: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every entry of a report, at any depth, that is about CUDA."""
    if isinstance(part, list):
        part = dict(enumerate(part))
    if not isinstance(part, dict):
        return
    for name, inner in part.items():
        if name in (CUDA, CUDA_TF32, "cuda"):
            yield name, inner
        yield from on_cuda(inner)


def test_the_mark_gpu_selects_what_needs_a_gpu_and_nothing_else() -> None:
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "--collect-only", "-q", __file__]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ids = [line.split("::")[1] for line in done.stdout.splitlines() if "::" in line]
    selected = {name.partition("[")[0] for name in ids}
    assert len(selected) >= 3
    assert selected == {
        name
        for name, test in globals().items()
        if any(mark.name == "gpu" for mark in getattr(test, "pytestmark", ()))
    }
