"""What the gate leaves behind, on success and on failure, and that nothing it refuses is served."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor
from typer.testing import CliRunner

from seqrec_cli.main import app
from seqrec_export.clients.python import Client
from seqrec_export.contract import Graph
from seqrec_export.data.vocabulary import PAD
from seqrec_export.errors import SeqrecError
from seqrec_export.export.exported import Exported, export_run
from seqrec_export.export.onnx_export import export_graph
from seqrec_export.export.runtime import why_no_cuda
from seqrec_export.folders import read_json
from seqrec_export.models.registry import MODELS
from seqrec_export.nn import layers
from seqrec_export.nn.ragged import Ragged, compact
from seqrec_export.pipeline import on_triton
from seqrec_export.repository.publish import publish, versions
from seqrec_export.training.train import train
from seqrec_export.verification.cases import CLASSES, classes_of, why_not
from seqrec_export.verification.gate import EVERY_ID, HELD_OUT, NEIGHBOURS, refused, verify
from seqrec_export.verification.parity import CHECKS
from seqrec_export.verification.structure import CHECKS as FILE_CHECKS
from seqrec_export.verification.verdict import CPU, CUDA
from support.served import TOP_K, WINDOW, copied, serving, small_config
from support.toys import toy


def spoil(path: Path) -> None:
    """Change every weight of the last large table a little."""
    model = onnx.load(path)
    table = max(
        (t for t in model.graph.initializer if t.data_type == 1 and len(t.dims) == 2),
        key=lambda t: int(np.prod(list(t.dims))),
    )
    values = numpy_helper.to_array(table)
    changed = values + np.float32(1e-2) * np.sign(values)
    table.CopyFrom(numpy_helper.from_array(changed.astype(np.float32), table.name))
    onnx.save(model, path)


def results(parity: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(r["provider"], r["case_class"]): r for r in parity["results"]}


def test_parity_json_says_for_every_provider_and_class_what_was_found(exported: Exported) -> None:
    for name, graph in exported.graphs.items():
        parity = read_json(exported.folder / name / "parity.json")
        assert parity["ok"]
        assert parity["failures"] == []
        found = results(parity)
        for case_class in CLASSES:
            reason = why_not(case_class, graph)
            key = ("all", case_class) if reason else (CPU, case_class)
            assert found[key]["status"] == ("SKIPPED" if reason else "OK")
            assert found[key].get("reason", "") == reason
        assert found[CPU, EVERY_ID]["cases"] > 0
        assert found[CPU, NEIGHBOURS]["cases"] >= 14
        assert found["Triton", "all"] == {
            "provider": "Triton",
            "case_class": "all",
            "status": "SKIPPED",
            "reason": "no --url was given",
        }
        if why_no_cuda():
            assert found[CUDA, "all"]["reason"] == why_no_cuda()
        assert {check["check"] for check in parity["checks"]} == set(FILE_CHECKS)
        assert {check["status"] for check in parity["checks"]} == {"OK"}
        assert parity["seed"] == 0
        assert {"torch", "onnxruntime", "python", "seqrec-export"} <= parity["versions"].keys()
        compared = [r for r in parity["results"] if r["status"] == "OK"]
        assert parity["cases"] == sum(r["cases"] for r in compared)
        assert parity["max_abs_diff"] == max(r["max_abs_diff"] for r in compared)
        assert 0 < parity["max_abs_diff"] < 2e-5
        assert parity["torch_max_abs_diff"] > 0
        worst = max(compared, key=lambda r: r["max_abs_diff"])
        assert re.match(r"\w+\[\d+, \d+\], ", worst["where"])
        assert {node.split()[0] for node in parity["cpu_nodes_on_cuda"]} <= {
            "LabelEncoder",
            "Gather",
        }
        assert all("string" in node for node in parity["cpu_nodes_on_cuda"])


def test_real_held_out_rows_are_compared(exported: Exported) -> None:
    run = exported.run
    assert len(run.held_out) == 64
    for name in exported.graphs:
        held_out = {
            p: r for (p, c), r in results(parity_of(exported, name)).items() if c == HELD_OUT
        }
        if name == "two_tower_item_encoder":
            assert held_out["all"]["status"] == "SKIPPED"
            assert "garment_group_name" in held_out["all"]["reason"]
        else:
            assert held_out[CPU]["status"] == "OK"
            assert held_out[CPU]["max_abs_diff"] > 0


def parity_of(exported: Exported, name: str) -> dict[str, Any]:
    parity: dict[str, Any] = read_json(exported.folder / name / "parity.json")
    return parity


def test_held_out_rows_are_what_a_caller_would_have_sent(exported: Exported) -> None:
    """Known items, none of them the one that came next, and no more than three windows."""
    run, name = exported.run, exported.run.model.name
    inputs = {spec.name: spec for spec in exported.graphs[name].inputs}
    items = set(run.vocabularies["items"].ids)
    for row in run.held_out:
        assert inputs.keys() <= row.keys()
        history = [i for i in row.get("history_item_ids", []) if i]
        assert len(history) <= 3 * getattr(run.config, "max_length", 1)
        assert len(row["candidate_ids"]) == 20
        lengths = {len(v) for n, v in row.items() if n.startswith("history_") and inputs[n].ragged}
        assert len(lengths) <= 1
        for spec in inputs.values():
            if spec.aligned_with:
                width = spec.shape[1]
                known = [number is not None for number in row[spec.name]]
                events = min(len(history), width)
                assert known == [False] * (width - events) + [True] * events
    asked = {i for row in run.held_out for i in row.get("history_item_ids", []) if i}
    assert not asked or len(asked & items) > 0.8 * len(asked)


def test_one_seed_gives_one_result(exports: Callable[[str], Exported], tmp_path: Path) -> None:
    exported = copied(exports("caser"), tmp_path / "run")

    def found(seed: int) -> list[dict[str, Any]]:
        content = [v.as_dict() for v in verify(exported, seed=seed).values()]
        return [{k: v for k, v in c.items() if k != "load_seconds"} for c in content]

    def golden() -> str:
        return (exported.folder / "caser" / "golden.json").read_text()

    first, requests = found(1), golden()
    assert found(1) == first
    assert golden() == requests
    assert found(2) != first
    assert golden() != requests


def test_golden_requests_hold_every_class_and_the_edges(exported: Exported) -> None:
    for name, graph in exported.graphs.items():
        golden = json.loads((exported.folder / name / "golden.json").read_text())
        requests = golden["requests"]
        assert len(requests) == 64
        for request in golden["requests"]:
            assert request["rtol"] == graph.tolerance.rtol
            extreme = name.endswith("_scorer") and request["case"].startswith("extreme")
            assert request["atol"] == graph.tolerance.atol or extreme
        classes = {request["case"].partition(",")[0] for request in requests}
        assert classes == set(classes_of(graph))
        for spec in (*graph.inputs, *graph.outputs):
            side = "inputs" if spec in graph.inputs else "outputs"
            shapes = [tuple(request[side][spec.name]["shape"]) for request in requests]
            sizes = {shape[1] for shape in shapes}
            if spec.shape[1] == "length":
                assert {0, 1, WINDOW, WINDOW + 1, 3 * WINDOW} <= sizes or name.startswith("caser")
            if spec.shape[1] == "candidates":
                assert {0, 1, 1000} <= sizes
            assert {shape[0] for shape in shapes} == {1, 3}
            for request in requests:
                tensor = request[side][spec.name]
                assert len(tensor["data"]) == int(np.prod(tensor["shape"]))


def test_the_report_of_a_run_shows_all_of_its_graphs(exported: Exported) -> None:
    page = (exported.run.path / "report.html").read_text()
    assert all(name in page for name in exported.graphs)
    assert "<script" not in page


def test_the_report_of_a_repository_shows_all_that_is_served(repository: Path) -> None:
    page = (repository / "report.html").read_text()
    assert all(name in page for model in MODELS.values() for name in _graphs(model.name))


def _graphs(name: str) -> list[str]:
    return list(MODELS[name].graphs(small_config(name), TOP_K))


@pytest.fixture
def spoilt(exports: Callable[[str], Exported], tmp_path: Path) -> Exported:
    """An export whose encoder is off."""
    exported = copied(exports("sasrec"), tmp_path / "runs" / "sasrec")
    spoil(exported.model_file("sasrec_encoder"))
    return exported


def test_a_failure_leaves_a_request_and_a_script_that_shows_it(spoilt: Exported) -> None:
    verdicts = verify(spoilt)
    assert [name for name, v in verdicts.items() if not v.ok] == ["sasrec_encoder"]
    failure = next(f for f in verdicts["sasrec_encoder"].failures if f.check == "values")
    assert failure.provider == CPU
    script = spoilt.run.path / failure.reproduce
    assert str(script.with_name("sasrec_encoder-")) in refused(spoilt, verdicts)
    assert len(script.read_text().splitlines()) <= 12
    shown = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert "user_embedding is most off at" in shown.stdout
    with np.load(script.with_suffix(".npz"), allow_pickle=False) as case:
        assert len(case["input_history_item_ids"]) == 1  # cut down to one row
        off = np.abs(case["expected_user_embedding"] - case["got_user_embedding"]).max()
        torch_off = np.abs(case["expected_user_embedding"] - case["torch_user_embedding"]).max()
    assert off > 1e-4 > 1e-5 > torch_off
    parity = parity_of(spoilt, "sasrec_encoder")
    assert {f["check"] for f in parity["failures"]} <= CHECKS.keys() | FILE_CHECKS.keys()
    assert not (spoilt.folder / "sasrec_encoder" / "golden.json").exists()
    assert failure.reproduce in (spoilt.run.path / "report.html").read_text()


def test_what_was_left_of_a_failure_goes_when_it_is_repaired(
    spoilt: Exported, exports: Callable[[str], Exported]
) -> None:
    verify(spoilt)
    assert list((spoilt.run.path / "repro").iterdir())
    good = exports("sasrec").model_file("sasrec_encoder")
    shutil.copy(good, spoilt.model_file("sasrec_encoder"))
    assert refused(spoilt, verify(spoilt)) == ""
    assert not (spoilt.run.path / "repro").exists()


def test_what_is_refused_is_not_published_and_the_old_version_stays(
    exports: Callable[[str], Exported], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt_export(graph: Graph, net: Any, vocabularies: Any, folder: Path, *rest: Any) -> Path:
        path = export_graph(graph, net, vocabularies, folder, *rest)
        if graph.name == "sasrec_encoder":
            spoil(path)
        return path

    repository, runs = tmp_path / "repository", tmp_path / "runs"
    publish(exports("sasrec"), repository)
    shutil.copytree(exports("sasrec").run.path, runs / "sasrec")
    shutil.rmtree(runs / "sasrec" / "onnx")
    before = {f: f.read_bytes() for f in repository.rglob("*") if f.is_file()}
    monkeypatch.setattr("seqrec_export.export.exported.export_graph", spoilt_export)
    arguments = ["-m", "sasrec", "--runs", runs, "--repository", repository, "--top-k", TOP_K]
    result = CliRunner().invoke(app, ["export", *map(str, arguments)])
    assert isinstance(result.exception, SeqrecError)
    assert "is not published: sasrec_encoder: " in str(result.exception)
    assert "repro/sasrec_encoder-" in str(result.exception)
    assert "not published" in result.stdout
    assert {f: f.read_bytes() for f in repository.rglob("*") if f.is_file()} == before
    assert versions(repository / "sasrec") == [1]


def test_verify_ends_with_status_1_where_something_differs(spoilt: Exported) -> None:
    command = [sys.executable, "-m", "seqrec_cli.main", "verify", "-m", "sasrec"]
    command += ["--runs", str(spoilt.run.path.parent)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("error: sasrec does not answer as PyTorch does")
    assert "FAIL" in ended.stdout


def test_an_export_that_was_changed_on_disk_is_made_again(spoilt: Exported) -> None:
    again = export_run(spoilt.run)
    assert again.fresh
    assert refused(again, verify(again)) == ""


def test_a_run_without_an_export_is_said(
    exports: Callable[[str], Exported], tmp_path: Path
) -> None:
    shutil.copytree(exports("caser").run.path, tmp_path / "caser")
    shutil.rmtree(tmp_path / "caser" / "onnx")
    result = CliRunner().invoke(app, ["verify", "-m", "caser", "--runs", str(tmp_path)])
    assert "run `seqrec-export export` first" in str(result.exception)


def test_a_request_that_ends_the_process_stays_in_repro(
    exports: Callable[[str], Exported], tmp_path: Path
) -> None:
    """ONNX Runtime has no exception for a GRU over no steps without lengths: it aborts."""
    exported = copied(exports("mlink"), tmp_path / "runs" / "mlink")

    def without_a_step(net: Any, history: Ragged, ratings: Tensor) -> tuple[Tensor, ...]:
        items, stars = compact(history, (ratings, 0.0), window=9)
        items = items[:, 1:]  # no step where the longest history has one
        x = torch.cat([net.items(items), torch.nan_to_num(stars[:, 1:])[..., None]], dim=2)
        _, state = net.gru(x, (items != PAD).sum(dim=1).clamp(min=1))
        return state, layers.known_items(history)

    graph = replace(exported.graphs["mlink_encoder"], function=without_a_step)
    folder = exported.folder / "mlink_encoder"
    path = export_graph(graph, exported.run.net, exported.run.vocabularies, folder)
    model = onnx.load(path)
    next(n for n in model.graph.node if n.op_type == "GRU").input[4] = ""
    onnx.save(model, path)
    command = [sys.executable, "-m", "seqrec_cli.main", "verify", "-m", "mlink"]
    command += ["--runs", str(tmp_path / "runs")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode < 0
    kept = exported.run.path / "repro" / "mlink_encoder-aborted.py"
    assert "ended the process at: " in kept.read_text()
    again = subprocess.run([sys.executable, kept], capture_output=True, check=False)
    assert again.returncode == ended.returncode
    assert not (folder / "parity.json").exists()
    with pytest.raises(SeqrecError, match="was not verified"):
        publish(exported, tmp_path / "repository")


def test_verify_looks_at_the_export_as_it_is(
    exports: Callable[[str], Exported], tmp_path: Path
) -> None:
    """Not at a new one of another --top-k."""
    exported = copied(exports("caser"), tmp_path / "runs" / "caser")
    before = exported.model_file("caser").stat().st_mtime_ns
    arguments = ["verify", "-m", "caser", "--runs", str(tmp_path / "runs"), "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    assert json.loads(result.stdout).keys() == exported.graphs.keys()
    assert exported.model_file("caser").stat().st_mtime_ns == before


LONG = "x" * 1000
STRANGE = [
    "Chair",
    "chair",
    "CHAIR",
    " chair",
    "商品",
    "商品 ",
    "é",
    "e\u0301",
    "🍣",
    LONG,
    LONG[:-1] + "y",
]


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A catalogue of ids that a careless lookup would take for each other."""
    rng = np.random.default_rng(0)
    log = toy([[STRANGE[i] for i in rng.permutation(len(STRANGE))[:6]] for _ in range(60)])
    folder = tmp_path_factory.mktemp("strange")
    config = small_config("sasrec", epochs=1)
    return export_run(train(MODELS["sasrec"], log, config, folder / "sasrec", progress=False), 5)


def test_ids_that_look_alike_are_kept_apart(strange: Exported) -> None:
    assert set(strange.run.vocabularies["items"].ids) == set(STRANGE)
    assert refused(strange, verify(strange)) == ""
    page = (strange.folder / "sasrec" / "golden.json").read_text()
    assert "商品 " in page
    assert LONG in page


def test_a_live_triton_is_compared_too(strange: Exported, tmp_path: Path) -> None:
    verify(strange)
    assert publish(strange, tmp_path / "repository")
    with serving(tmp_path / "repository") as url, Client(url) as client:
        verdicts = verify(strange, extra=on_triton(client))
        assert refused(strange, verdicts) == ""
        for name, verdict in verdicts.items():
            found = results(verdict.as_dict())
            for (provider, case_class), result in list(found.items()):
                if provider == CPU:
                    of_server = found[f"Triton at {url}", case_class]
                    assert of_server["status"] == "OK"
                    assert of_server["cases"] == result["cases"], name


def test_a_triton_that_serves_other_weights_is_found_out(
    exports: Callable[[str], Exported], tmp_path: Path
) -> None:
    exported = copied(exports("caser"), tmp_path / "runs" / "caser")
    assert publish(exported, tmp_path / "repository")
    with serving(tmp_path / "repository") as url, Client(url) as client:
        with torch.no_grad():
            exported.run.net.out_bias += 1e-3
        of_scorer = replace(exported, graphs={"caser_scorer": exported.graphs["caser_scorer"]})
        (verdict,) = verify(of_scorer, extra=on_triton(client)).values()
        assert {f.provider for f in verdict.failures if f.check == "values"} == {
            CPU,
            f"Triton at {url}",
        }
        arguments = ["verify", "-m", "caser", "--runs", str(tmp_path / "runs"), "--url", url]
        assert CliRunner().invoke(app, arguments).exit_code == 0


def test_an_address_without_a_server_is_said(
    exports: Callable[[str], Exported], tmp_path: Path
) -> None:
    exported = copied(exports("caser"), tmp_path / "run")
    with (
        Client("127.0.0.1:1") as client,
        pytest.raises(SeqrecError, match="seqrec-export serve"),
    ):
        verify(exported, extra=on_triton(client))


def test_the_help_of_verify_explains_itself() -> None:
    shown = " ".join(CliRunner().invoke(app, ["verify", "--help"]).output.split())
    for word in ("PyTorch", "float64", "CUDA", "Triton", "parity.json", "golden.json", "repro/"):
        assert word in shown, word
