"""`import seqrec_export`: fast, lazy, what it promises; and each call's refusals."""

import ast
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import seqrec_export as sx
from seqrec_export.exporting.exported import Exported
from seqrec_export.verification.verdict import Failure, Verdict

HEAVY = ("torch", "numpy", "pandas", "pyarrow", "onnxruntime", "tritonclient", "lightning")


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_an_import_imports_nothing_before_a_name_is_used() -> None:
    heavy = f"[name for name in {HEAVY} if name in sys.modules]"
    code = f"import sys, seqrec_export as sx; dir(sx); print({heavy}); sx.read; print({heavy})"
    first, second = python(code).splitlines()
    assert first == "[]"
    assert "torch" not in second
    assert "pyarrow" in second


def test_every_promised_name_is_there_and_listed() -> None:
    for name in sx.__all__:
        assert getattr(sx, name) is not None
    assert set(sx.__all__) <= set(dir(sx))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        sx.nothing  # noqa: B018


def test_type_checkers_see_the_names_that_python_finds() -> None:
    tree = ast.parse(Path(sx.__file__).read_text(encoding="utf-8"))
    seen = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for branch in tree.body
        if isinstance(branch, ast.If)
        for node in branch.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(seen) == sorted(sx.__all__)
    for name, place in seen.items():
        module, _, attribute = place.rpartition(".")
        promised = getattr(sx, name)  # which imports its module
        assert getattr(sys.modules[module], attribute) is promised


def refuse(exported: Exported) -> sx.Verified:
    verdict = Verdict(graph="sasrec", tolerance=exported.graphs["sasrec"].tolerance)
    verdict.failures.append(Failure("scores", "off by <1>", "ONNX Runtime CPU", "one row"))
    return sx.Verified(exported=exported, verdicts={"sasrec": verdict})


def test_what_did_not_pass_says_so_and_is_not_published(
    exports: Callable[[str], Exported], tmp_path: Path
) -> None:
    verified = refuse(exports("sasrec"))
    assert not verified.ok
    assert "FAIL: scores" in repr(verified)
    assert "off by &lt;1&gt;" in verified._repr_html_()
    with pytest.raises(sx.SeqrecError, match="sasrec does not answer as PyTorch does"):
        sx.publish(verified, tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_publish_takes_what_was_verified(exports: Callable[[str], Exported]) -> None:
    with pytest.raises(sx.SeqrecError, match=r"write publish\(verify\(exported\)\)"):
        sx.publish(exports("sasrec"), "nowhere")  # type: ignore[arg-type]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no model": ({"model": "nmf"}, "no model is called 'nmf'"),
    "a class": ({"model": int}, "a model is a name, package.module:MODEL or a Model, found type"),
    "no log": ({"log": [1]}, "a log is what read or from_frame gives, found list"),
    "no setting": ({"dims": 64}, "sasrec has no setting 'dims'; there are dim, "),
    "no preset": ({"preset": "x"}, "sasrec has no preset 'x'; there are "),
    "out of range": ({"dim": 0}, "dim is 0; give a whole number from 1"),
    "no folder": ({"path": ""}, "path is ''; give the path of a folder"),
    "a number for a folder": ({"path": 3}, "path is 3; give the path of a folder"),
    "a seed": ({"seed": -1}, "seed is -1; give a whole number from 0"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_train_refuses_in_one_sentence(
    what: str, interactions: sx.Interactions, tmp_path: Path
) -> None:
    changed, said = REFUSED[what]
    arguments: dict[str, Any] = {"model": "sasrec", "log": interactions, "path": tmp_path / "run"}
    with pytest.raises(sx.SeqrecError, match=said):
        sx.train(**arguments | changed, progress=False)
    assert not any(tmp_path.iterdir())


ODD: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a folder to export": (lambda _: sx.export("runs/x"), "export takes what train, load or"),
    "a precision": (lambda e: sx.export(e.run, item_precision="int4"), "item_precision is 'int4'"),
    "a run to verify": (lambda e: sx.verify(e.run), "verify takes what export gives, found"),
    "a seed": (lambda e: sx.verify(e, seed="a"), "seed is 'a'; give a whole number"),
    "an address": (lambda e: sx.verify(e, client="localhost:8001"), "client takes a Client, as"),
    "no run": (lambda _: sx.load(None), "path is None; give the path of a folder"),
    "a path to read": (lambda _: sx.read(Path("log.csv")), "the text READER:PATH, found PosixPath"),
    "columns": (lambda _: sx.read("table:x", columns="user=uid"), "give a dict of the log's"),
    "no rows": (lambda e: sx.Run.of(e.run).call(None), "takes a list of rows, found NoneType"),
}  # fmt: skip


@pytest.mark.parametrize("what", ODD)
def test_a_wrong_kind_of_argument_is_refused_in_one_sentence(
    what: str, exports: Callable[[str], Exported]
) -> None:
    call, said = ODD[what]
    exported = exports("sasrec")
    before = (exported.folder / "export.json").read_bytes()
    with pytest.raises(sx.SeqrecError, match=said):
        call(exported)
    assert (exported.folder / "export.json").read_bytes() == before


def test_build_refuses_what_comes_after_the_training_before_it(
    interactions: sx.Interactions, tmp_path: Path
) -> None:
    for late in ({"top_k": 0}, {"item_precision": "int4"}, {"keep": 0}, {"keep": "a"}):
        wrong: dict[str, Any] = late
        with pytest.raises(sx.SeqrecError, match=f"{next(iter(late))} is "):
            sx.build("sasrec", interactions, tmp_path / "run", tmp_path / "models", **wrong)
    assert not any(tmp_path.iterdir())


def test_the_folder_where_one_is_has_a_name(
    exports: Callable[[str], Exported], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = exports("sasrec").run
    monkeypatch.chdir(run.path)
    assert sx.load(".").path.samefile(run.path)


def test_a_log_shows_itself_in_a_line(interactions: sx.Interactions) -> None:
    shown = repr(interactions)
    assert "\n" not in shown
    assert f"{len(interactions):,} events of {len(interactions.user_ids):,} users" in shown


def test_progress_is_lines_for_a_function_and_none_when_quiet(
    exports: Callable[[str], Exported], capsys: pytest.CaptureFixture[str]
) -> None:
    run, lines = exports("sasrec").run, []
    made = replace(exports("sasrec"), fresh=True)
    sx.export(run, progress=lines.append)
    assert lines == []  # it lies there
    sx.verify(made, progress=lines.append)
    assert lines == [f"verifying {name}" for name in made.graphs]
    assert capsys.readouterr() == ("", "")
