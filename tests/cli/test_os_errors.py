"""What the machine says no to is one line with the path and exit status 1, in every command."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from seqrec_cli.main import main
from seqrec_export.errors import SeqrecError
from seqrec_export.exporting.exported import Exported
from seqrec_export.repository.describe import describe
from seqrec_export.repository.publish import publish

SYNTHETIC = "synthetic:users=50,items=50,events=900"
LONG = "x" * 300


@pytest.fixture
def place(trained: list[Exported], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands in a folder with `models`, `runs`, and `file`."""
    monkeypatch.chdir(tmp_path)
    publish(trained[0], Path("models"))
    Path("runs").mkdir()
    Path("runs/caser").symlink_to(trained[0].run.path)
    Path("file").touch()
    return tmp_path


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], str]:
    """Runs a command line that fails; gives its last line on stderr."""

    def run(line: str) -> str:
        monkeypatch.setattr(sys, "argv", ["seqrec-export", *line.split()])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr().err
        assert ended.value.code == 1, said
        assert "Traceback" not in said
        last = said.splitlines()[-1]
        assert last.startswith("error: ")
        assert said.count("error: ") == 1
        return last

    return run


@pytest.mark.parametrize(
    ("line", "path"),
    [
        (f"train -m caser --data {SYNTHETIC} --runs file", "file"),
        (f"train -m caser --data {SYNTHETIC} --runs /proc/nope", "/proc/nope"),
        (f"train -m caser --data {SYNTHETIC} --runs {LONG}", LONG),
        (f"train -m caser --data table:{LONG}", LONG),
        ("train -m caser --data table:models", "models"),
        ("train -m caser --config models", "models"),
        ("export -m caser --runs file", "file"),
        ("export -m caser -r file", "file"),
        (f"export -m caser -r {LONG}", LONG),
        (f"build -m caser --data {SYNTHETIC} -r file", "file"),
        ("verify -m caser --runs file", "file"),
        (f"embed -m caser --data {SYNTHETIC} --out file/x.npy", "file"),
        (f"embed -m caser --data {SYNTHETIC} --out {LONG}.npy", LONG),
        (f"embed -m caser --data {SYNTHETIC} --out /proc/nope/x.npy", "/proc/nope"),
        ("inspect -r file", "file"),
        (f"inspect -r {LONG}", LONG),
        ("clients -r models --out file/code", "file"),
        ("clients -r models --out file", "file"),
        (f"clients -r models --out {LONG}", LONG),
        ("clients -r file --out code", "file"),
        ("rollback caser -r file", "file"),
        (f"rollback caser -r {LONG}", LONG),
        ("serve -r file", "file"),
        (f"serve -r {LONG}", LONG),
        ("recommend --tls-ca models", "models"),
        ("inspect -r models --url 127.0.0.1:1 --tls-ca nothing", "nothing"),
    ],
)
def test_a_path_that_does_not_do_is_one_line(
    place: Path, run: Callable[[str], str], line: str, path: str
) -> None:
    assert path in run(line)


def test_an_error_without_a_path_is_one_line_too(
    place: Path, run: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("first\nsecond")

    monkeypatch.setattr("seqrec_export.repository.describe.models", refuse)
    assert run("inspect -r models") == "error: first second"


FILES = ["contract.json", "1/parity.json", "1/metrics.json", "1/golden.json"]
CONTENTS = [b"", b'{"models": ', b"[1, 2]", b"null", b'{"requests": 1}', b"\xff\xfe"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("content", CONTENTS)
def test_a_damaged_file_of_a_repository_is_inspected_and_published_over(
    place: Path,
    trained: list[Exported],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    content: bytes,
) -> None:
    (place / "models" / "caser_encoder" / file).write_bytes(content)
    for line in ("inspect -r models", "inspect caser_encoder -r models --json"):
        monkeypatch.setattr(sys, "argv", ["seqrec-export", *line.split()])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
        shown = capsys.readouterr()
        assert Path(file).name in shown.out + shown.err
    assert publish(trained[1], place / "models")[0].new
    assert [entry["damage"] for entry in describe(place / "models")] == [[]] * 3
    assert {entry["served"] for entry in describe(place / "models")} == {2}


@pytest.mark.parametrize("file", ["contract.json", "1/golden.json"])
@pytest.mark.parametrize("content", CONTENTS)
def test_clients_of_a_damaged_repository_are_a_sentence(
    place: Path, run: Callable[[str], str], file: str, content: bytes
) -> None:
    (place / "models" / "caser_encoder" / file).write_bytes(content)
    assert f"{file} is damaged" in run("clients -r models --out code")
    assert not (place / "code").exists()


@pytest.mark.parametrize("content", [*CONTENTS, b'{"models": 1}', b'{"models": {"caser": [1]}}'])
def test_a_damaged_manifest_is_a_sentence_and_says_what_to_do(
    place: Path, run: Callable[[str], str], trained: list[Exported], content: bytes
) -> None:
    (place / "models" / "manifest.json").write_bytes(content)
    for line in ("inspect -r models", "rollback caser -r models", "serve -r models"):
        assert "manifest.json is damaged" in run(line)
        assert "remove it and publish again" in run(line)
    with pytest.raises(SeqrecError, match="remove it and publish again"):
        publish(trained[1], place / "models")
    (place / "models" / "manifest.json").unlink()
    publish(trained[1], place / "models")
    assert {entry["served"] for entry in describe(place / "models")} == {2}


@pytest.mark.parametrize("content", [b"", b"input {", b"\xff\xfe", b"name: 7"])
def test_a_damaged_config_is_a_sentence_and_says_what_to_do(
    place: Path, run: Callable[[str], str], content: bytes, trained: list[Exported]
) -> None:
    config = place / "models" / "caser" / "config.pbtxt"
    config.write_bytes(content)
    with pytest.raises(SeqrecError, match=r"config\.pbtxt cannot be read|other (in|out)puts"):
        publish(trained[1], place / "models")
    config.unlink()
    assert publish(trained[1], place / "models")[0].new
