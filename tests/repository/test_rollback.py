"""`rollback`: one command back to the version before, and forward again."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from seqrec_cli.main import app
from seqrec_export.errors import SeqrecError
from seqrec_export.exporting.exported import Exported
from seqrec_export.repository.describe import describe
from seqrec_export.repository.publish import publish
from seqrec_export.repository.published import published_versions, rolled_back, versions
from seqrec_export.repository.rollback import roll_back
from support.contents import content

GRAPHS = ["caser", "caser_encoder", "caser_scorer"]


@pytest.fixture
def folder(trained: list[Exported], tmp_path: Path) -> Path:
    path = tmp_path / "repository"
    for run in trained:
        publish(run, path)
    return path


def there(folder: Path) -> list[int]:
    """The versions that lie in the repository, which all graphs have and the manifest lists."""
    found = {tuple(versions(folder / name)) for name in GRAPHS}
    assert len(found) == 1
    (numbers,) = found
    assert published_versions(folder) == {name: set(numbers) for name in GRAPHS}
    return list(numbers)


def test_the_version_before_is_the_newest_again_for_all_graphs_and_can_be_undone(
    folder: Path,
) -> None:
    before = content(folder)
    done = roll_back(folder, "caser")
    assert (done.graphs, done.before, done.version) == (GRAPHS, 3, 2)
    assert there(folder) == [1, 2]
    assert [entry["rolled_back"] for entry in describe(folder)] == [[3]] * 3
    assert roll_back(folder, "caser").version == 1
    assert there(folder) == [1]
    assert roll_back(folder, "caser", 2).version == 2
    assert there(folder) == [1, 2]
    assert roll_back(folder, "caser", 3).version == 3
    assert there(folder) == [1, 2, 3]
    assert content(folder) == before
    assert not any(versions(rolled_back(folder, name)) for name in GRAPHS)


def test_a_number_is_not_given_again_and_what_was_rolled_back_goes_before_a_good_one(
    folder: Path, trained: list[Exported]
) -> None:
    roll_back(folder, "caser", 1)
    assert {p.version for p in publish(trained[1], folder)} == {4}
    assert there(folder) == [1, 4]
    assert {tuple(versions(rolled_back(folder, name))) for name in GRAPHS} == {(2, 3)}
    publish(trained[2], folder, keep=2)
    assert there(folder) == [4, 5]
    assert not any(versions(rolled_back(folder, name)) for name in GRAPHS)


def test_only_what_is_sound_in_all_graphs_is_gone_back_to(folder: Path) -> None:
    damaged = folder / "caser_encoder" / "2" / "model.onnx"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(SeqrecError, match=r"no sound version 2 in .*; it has 1, 3"):
        roll_back(folder, "caser", 2)
    assert roll_back(folder, "caser").version == 1
    with pytest.raises(SeqrecError, match=r"no sound version older than 1 in .*; it has 1, 3"):
        roll_back(folder, "caser")


def test_a_version_that_somebody_copied_there_is_taken_away_first(folder: Path) -> None:
    (folder / "caser" / "9").mkdir()
    (folder / "caser" / "9" / "model.onnx").write_bytes(b"")
    done = roll_back(folder, "caser")
    assert (done.before, done.version) == (9, 3)
    assert there(folder) == [1, 2, 3]


def test_a_name_that_is_no_model_is_refused_with_those_that_are(folder: Path) -> None:
    for name in ("sasrec", "caser_encoder", "../x"):
        with pytest.raises(SeqrecError, match=r"holds no model .*; it holds caser"):
            roll_back(folder, name)


def test_the_command_says_how_to_undo_it(folder: Path) -> None:
    whole = (folder / "report.html").read_text()
    result = CliRunner().invoke(app, ["rollback", "caser", "-r", str(folder)])
    assert result.exit_code == 0
    assert "caser, caser_encoder, caser_scorer: version 2, before 3" in result.stdout
    assert (folder / "report.html").read_text() != whole
    undo = result.stderr.partition("seqrec-export ")[2].split()
    assert CliRunner().invoke(app, undo).exit_code == 0
    assert there(folder) == [1, 2, 3]
    assert (folder / "report.html").read_text() == whole
    shown = CliRunner().invoke(app, ["rollback", "caser", "-r", str(folder), "--json"])
    assert json.loads(shown.stdout) == {"graphs": GRAPHS, "before": 3, "version": 2}


def test_inspect_shows_what_was_rolled_back_and_what_is_damaged(folder: Path) -> None:
    roll_back(folder, "caser")
    (folder / "caser" / "2" / "model.onnx").unlink()
    result = CliRunner().invoke(app, ["inspect", "-r", str(folder)])
    assert result.exit_code == 0
    assert "caser: version 2: model.onnx is missing" in result.stderr
    assert "caser: rolled back: 3" in result.stderr
    (folder / "caser" / "1" / "parity.json").unlink()
    result = CliRunner().invoke(app, ["inspect", "-r", str(folder)])
    assert "caser: no version is as it was published" in result.stderr
    assert CliRunner().invoke(app, ["inspect", "caser", "-r", str(folder)]).exit_code == 0
