"""What the gate leaves of an export that is wrong, and that nothing it refuses is served."""

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
from seqrec_export.contract import Graph
from seqrec_export.data.vocabulary import PAD
from seqrec_export.errors import SeqrecError
from seqrec_export.exporting import exported as exported_files
from seqrec_export.exporting.exported import Exported, export_run
from seqrec_export.exporting.onnx_export import export_graph
from seqrec_export.folders import read_json
from seqrec_export.nn import layers
from seqrec_export.nn.ragged import Ragged, compact
from seqrec_export.repository.publish import publish, versions
from seqrec_export.verification.gate import refused, verify
from seqrec_export.verification.parity import CHECKS
from seqrec_export.verification.structure import CHECKS as FILE_CHECKS
from seqrec_export.verification.verdict import CPU
from support.copies import own_graphs_only
from support.served import TOP_K, copied


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
    parity = read_json(spoilt.folder / "sasrec_encoder" / "parity.json")
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
    monkeypatch.setattr(exported_files, "export_graph", spoilt_export)
    arguments = ["-m", "sasrec", "--runs", runs, "--repository", repository, "--top-k", TOP_K]
    with own_graphs_only():
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


def test_a_request_that_ends_the_process_stays_in_repro(
    exports: Callable[[str], Exported], tmp_path: Path
) -> None:
    """ONNX Runtime has no exception for a GRU over no steps without lengths: it aborts."""
    exported = copied(exports("mlink"), tmp_path / "runs" / "mlink")

    def without_a_step(net: Any, history: Ragged, ratings: Tensor) -> tuple[Tensor, ...]:
        items, stars = compact(history, (ratings, 0.0), window=9)
        items = items[:, 1:]  # no step if the longest history has one
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
    with pytest.raises(SeqrecError, match="is not as it was verified"):
        publish(exported, tmp_path / "repository")
