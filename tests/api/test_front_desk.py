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
        assert getattr(sys.modules[module], attribute) is getattr(sx, name)


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
    "no log": ({"log": [1]}, "trained on what read or from_frame gives, found list"),
    "no setting": ({"dims": 64}, "sasrec has no setting 'dims'; there are dim, "),
    "no preset": ({"preset": "x"}, "sasrec has no preset 'x'; there are "),
    "out of range": ({"dim": 0}, "dim is 0; give a whole number from 1"),
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
