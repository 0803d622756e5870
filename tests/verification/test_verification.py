"""What the gate writes of an export that is right, on disk and on a live server."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from seqrec_cli.main import app
from seqrec_export.clients.python import Client
from seqrec_export.errors import SeqrecError
from seqrec_export.exporting.exported import Exported, export_run
from seqrec_export.exporting.runtime import why_no_cuda
from seqrec_export.folders import read_json
from seqrec_export.models.registry import MODELS
from seqrec_export.pipeline import on_triton
from seqrec_export.repository.publish import publish
from seqrec_export.training.train import train
from seqrec_export.verification.cases import CLASSES, classes_of, why_not
from seqrec_export.verification.gate import EVERY_ID, HELD_OUT, NEIGHBOURS, refused, verify
from seqrec_export.verification.structure import CHECKS as FILE_CHECKS
from seqrec_export.verification.verdict import CPU, CUDA
from support.copies import own_graphs_only
from support.served import TOP_K, WINDOW, copied, serving, small_config
from support.toys import toy


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
        for check in parity["checks"]:
            computed = check["check"] == "weights" and name.endswith("_similar_items")
            assert check["status"] == ("SKIPPED" if computed else "OK"), (name, check)
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
            "Concat",  # of lists that share a lookup
            "Shape",
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
        elif name == "two_tower_similar_items":
            assert held_out["all"]["reason"] == "the log has no query_item_ids"
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
                assert {0, 1, WINDOW, WINDOW + 1, 3 * WINDOW} <= sizes or name.startswith(
                    ("caser", "two_tower")
                )
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


def test_a_run_without_an_export_is_said(
    exports: Callable[[str], Exported], tmp_path: Path
) -> None:
    shutil.copytree(exports("caser").run.path, tmp_path / "caser")
    shutil.rmtree(tmp_path / "caser" / "onnx")
    result = CliRunner().invoke(app, ["verify", "-m", "caser", "--runs", str(tmp_path)])
    assert "run `seqrec-export export` first" in str(result.exception)


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
    run = train(MODELS["sasrec"], log, config, folder / "sasrec", progress=False)
    with own_graphs_only():
        return export_run(run, 5)


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
