"""A repository under corrupt files and publishers that are killed at any moment."""

import os
import shutil
from pathlib import Path

import onnx
import pytest

from seqrec_export.errors import SeqrecError
from seqrec_export.exporting.exported import Exported, find_export
from seqrec_export.folders import inside, read_json, write_json
from seqrec_export.repository import publish as repository
from seqrec_export.repository.describe import describe
from seqrec_export.repository.publish import publish
from seqrec_export.repository.published import problems, read_manifest
from seqrec_export.repository.rollback import roll_back
from seqrec_export.training.train import load
from seqrec_export.verification.gate import verify
from support.contents import content, leftovers
from support.killed import GRAPHS, assert_loads, killed_at


@pytest.fixture
def folder(trained: list[Exported], tmp_path: Path) -> Path:
    """A repository with the first two runs."""
    path = tmp_path / "repository"
    for run in trained[:2]:
        publish(run, path)
    return path


def stray(exported: Exported, tmp_path: Path) -> Exported:
    """A copy of a verified export that a test may damage."""
    shutil.copytree(exported.run.path, tmp_path / "stray")
    return find_export(load(tmp_path / "stray"))


# Before Triton sees it


@pytest.mark.parametrize("file", ["model.onnx", "config.pbtxt", "contract.json"])
@pytest.mark.parametrize("damage", ["truncated", "one bit", "absent"])
def test_a_damaged_export_is_refused_and_nothing_is_written(
    trained: list[Exported], folder: Path, tmp_path: Path, file: str, damage: str
) -> None:
    before = content(folder)
    damaged = stray(trained[2], tmp_path)
    path = damaged.folder / "caser_scorer" / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes({"truncated": data[:-1], "one bit": data, "absent": b""}[damage])
    if damage == "absent":
        path.unlink()
    with pytest.raises(SeqrecError, match=rf"caser_scorer is not as it was verified.*\({file}\)"):
        publish(damaged, folder)
    assert content(folder) == before


def test_the_weights_beside_a_large_model_are_looked_at_as_well(
    trained: list[Exported], tmp_path: Path
) -> None:
    large = stray(trained[0], tmp_path)
    for name in GRAPHS:
        proto = onnx.load(large.model_file(name))
        beside = "model.onnx.data"
        onnx.save(proto, large.model_file(name), save_as_external_data=True, location=beside)
    verify(large)
    data = large.folder / "caser" / "model.onnx.data"
    whole = data.read_bytes()
    for part in (whole[:-1], b""):
        data.write_bytes(part)
        with pytest.raises(SeqrecError, match=r"not as it was verified.*\(model\.onnx\.data\)"):
            publish(large, tmp_path / "repository")
    data.unlink()
    with pytest.raises(SeqrecError, match=r"not as it was verified.*\(model\.onnx\.data\)"):
        publish(large, tmp_path / "repository")
    data.write_bytes(whole)
    assert publish(large, tmp_path / "repository")[0].new


def test_a_copy_that_went_wrong_is_not_published(
    trained: list[Exported], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fails between reading and writing: the export is whole, what was copied is not."""
    before = content(folder)

    copy_file = repository.copy_file

    def fail(source: Path, target: Path) -> None:
        copy_file(source, target)
        if source.name == "model.onnx":
            os.truncate(target, 1000)

    monkeypatch.setattr(repository, "copy_file", fail)
    with pytest.raises(SeqrecError, match=r"model\.onnx was not copied well: .*1000 bytes"):
        publish(trained[2], folder)
    assert content(folder) == before
    assert not leftovers(folder)


# In the repository


def test_damage_is_found_and_the_next_publish_leaves_it_behind(
    trained: list[Exported], folder: Path
) -> None:
    newest = folder / "caser" / "2" / "model.onnx"
    newest.write_bytes(newest.read_bytes()[:-7])
    (folder / "caser_encoder" / "1" / "golden.json").unlink()
    shutil.copytree(folder / "caser_scorer" / "2", folder / "caser_scorer" / "7")
    found = {entry["model"]: entry["problems"] for entry in describe(folder)}
    assert list(found["caser"]) == [2]
    assert "model.onnx is not what was published" in found["caser"][2]
    assert found["caser_encoder"] == {1: "golden.json is missing"}
    assert "not in manifest.json" in found["caser_scorer"][7]
    shown = {entry["model"]: entry["version"] for entry in describe(folder)}
    assert shown == {"caser": 1, "caser_encoder": 2, "caser_scorer": 2}
    assert {p.version for p in publish(trained[1], folder)} == {8}
    assert not problems(folder, "caser")[8]
    assert "not in manifest.json" in problems(folder, "caser_scorer")[7]


def test_a_manifest_that_was_lost_is_written_again_from_what_verdicts_vouch_for(
    trained: list[Exported], folder: Path
) -> None:
    before = content(folder)
    (folder / "manifest.json").unlink()
    damaged = folder / "caser" / "1" / "model.onnx"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-1])
    publish(trained[1], folder)
    assert sorted((read_manifest(folder) or {})["caser"]) == [2]
    damaged.write_bytes(whole)
    (folder / "manifest.json").unlink()
    publish(trained[1], folder)
    assert content(folder) == before


@pytest.mark.parametrize(
    ("model", "version", "file"),
    [
        ("..", "1", "model.onnx"),
        ("../other", "1", "model.onnx"),
        ("/etc", "1", "passwd"),
        ("caser", "1", "../../../secret"),
        ("caser", "1", "/etc/passwd"),
        ("caser", "1", ""),
        ("caser", "../1", "model.onnx"),
        ("linked", "1", "model.onnx"),
        ("caser", "1", "linked.onnx"),
    ],
)
def test_a_manifest_that_leads_out_of_the_repository_is_refused(
    folder: Path, model: str, version: str, file: str
) -> None:
    (folder / "linked").symlink_to("/")
    (folder / "caser" / "1" / "linked.onnx").symlink_to("/etc/hostname")
    manifest = read_json(folder / "manifest.json")
    manifest["models"][model] = {version: {"files": {file: "0" * 64}}}
    write_json(folder / "manifest.json", manifest)
    with pytest.raises(SeqrecError, match=r"leads out of|is damaged"):
        describe(folder)
    with pytest.raises(SeqrecError, match=r"leads out of|is damaged"):
        roll_back(folder, "caser")


def test_a_damaged_manifest_says_what_to_do(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"models": {"caser": {"1"')
    with pytest.raises(SeqrecError, match=r"manifest\.json is damaged .* remove it and publish"):
        describe(folder)


def test_names_that_stay_inside(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "within").symlink_to("a")
    assert inside(tmp_path, "a", "b..c") == tmp_path / "a" / "b..c"
    assert inside(tmp_path, "within") == tmp_path / "within"
    for names in [("..",), ("a", ".."), (".",), ("a/b",), ("a\0",), ("",)]:
        with pytest.raises(SeqrecError, match="leads out of"):
            inside(tmp_path, *names)


# Killed


@pytest.mark.parametrize("at_work", ["publish", "roll back", "roll forward"])
def test_killed_at_any_moment_it_leaves_a_repository_that_loads_and_is_no_mix(
    trained: list[Exported], folder: Path, at_work: str
) -> None:
    first = trained[0]
    if at_work == "publish":
        work = [publish, trained[2], folder]
    elif at_work == "roll back":
        work = [roll_back, folder, "caser"]
    else:
        roll_back(folder, "caser")
        work = [roll_back, folder, "caser", 2]
    whole = folder.with_name("whole")
    shutil.copytree(folder.parent, whole)
    moments, outcomes = 0, set()
    while True:
        for path in folder.parent.iterdir():
            if path != whole:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(whole, folder.parent, dirs_exist_ok=True)
        if not killed_at(moments, work):
            break
        moments += 1
        assert_loads(folder, trained)
        manifest = read_manifest(folder) or {}
        outcomes.add(max(manifest["caser"]))
        # The next publisher is not disturbed, and clears away what was left.
        if moments % 4 == 0:
            publish(first, folder)
            assert_loads(folder, trained)
            assert not leftovers(folder)
    assert moments > 5
    assert len(outcomes) == 2, "killed both before and after it took effect"
