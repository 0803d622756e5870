"""A repository wherever people have one: a mount point, a link to another disk, ".", read-only."""

import importlib.util
import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from seqrec_cli.main import app
from seqrec_export.exporting.exported import Exported
from seqrec_export.repository.describe import describe
from seqrec_export.repository.publish import publish
from seqrec_export.repository.published import rolled_back, served_version, versions
from seqrec_export.repository.rollback import roll_back
from seqrec_export.serving.server import start
from support.contents import content, leftovers
from support.mounts import READ_ONLY, REMOUNT, mount, with_own_mounts


def use(repository: Path, trained: list[Exported]) -> None:
    """Publish twice, take the second back, and look."""
    publish(trained[0], repository)
    publish(trained[1], repository)
    assert roll_back(repository, "caser").version == 1
    assert [entry["served"] for entry in describe(repository)] == [1, 1, 1]
    assert [entry["rolled_back"] for entry in describe(repository)] == [[2], [2], [2]]
    assert {p.version for p in publish(trained[2], repository, keep=1)} == {3}
    assert not leftovers(repository)


def test_a_mount_point(trained: list[Exported], tmp_path: Path) -> None:
    def work() -> None:
        place = tmp_path / "models"
        place.mkdir()
        mount(place)
        (place / "lost+found").mkdir(mode=0)
        use(place, trained)

    with_own_mounts(work)
    assert {path.name for path in tmp_path.iterdir()} == {"models"}


def test_a_link_to_another_disk(trained: list[Exported], tmp_path: Path) -> None:
    def work() -> None:
        (tmp_path / "disk").mkdir()
        mount(tmp_path / "disk")
        (tmp_path / "disk" / "models").mkdir()
        (tmp_path / "models").symlink_to(tmp_path / "disk" / "models")
        use(tmp_path / "models", trained)

    with_own_mounts(work)


def test_a_full_disk_leaves_the_old_version_and_room_brings_the_new(
    trained: list[Exported], tmp_path: Path
) -> None:
    def work() -> None:
        place = tmp_path / "models"
        place.mkdir()
        mount(place)
        publish(trained[0], place)
        before = content(place)
        used = os.statvfs(place)
        blocks = used.f_blocks - used.f_bavail
        for more in range(0, 600, 12):  # full after ever more of it
            mount(place, f"{(blocks + more) * used.f_frsize}", REMOUNT)
            refused = None
            try:
                publish(trained[1], place)
            except OSError as error:
                refused = error
            assert not leftovers(place)
            if refused is None:
                assert more > 0
                break
            assert refused.strerror == "No space left on device"
            assert refused.filename
            found = content(place)
            if found["manifest.json"] == before["manifest.json"]:
                assert found == before
        assert served_version(place, "caser") == 2

    with_own_mounts(work)


def test_a_read_only_one_is_looked_at_and_refuses_the_rest_with_its_path(
    trained: list[Exported], tmp_path: Path
) -> None:
    def work() -> None:
        place = tmp_path / "models"
        place.mkdir()
        mount(place)
        publish(trained[0], place)
        mount(place, flags=REMOUNT | READ_ONLY)
        assert [entry["served"] for entry in describe(place)] == [1, 1, 1]
        for change in (lambda: publish(trained[1], place), lambda: roll_back(place, "caser")):
            with pytest.raises(OSError, match="Read-only") as caught:
                change()
            assert str(place) in str(caught.value.filename)

    with_own_mounts(work)


def test_the_current_folder(
    trained: list[Exported], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "deeper").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "deeper")
    use(Path(".."), trained)
    monkeypatch.chdir(tmp_path / "here")
    publish(trained[0], Path())
    assert versions(Path("caser")) == [3, 4]
    for command in (["inspect"], ["rollback", "caser"], ["clients", "--out", "code"]):
        assert CliRunner().invoke(app, [*command, "-r", "."]).exit_code == 0, command
    assert "here: what is served" in Path("report.html").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"here"}


def test_what_lay_beside_the_repository_is_taken_over(
    trained: list[Exported], tmp_path: Path
) -> None:
    repository = tmp_path / "models"
    for run in trained:
        publish(run, repository)
    roll_back(repository, "caser", 1)
    whole = content(repository)
    for name in ("caser", "caser_encoder", "caser_scorer"):  # as it once was
        beside = tmp_path / ".models.rolled_back" / name
        beside.parent.mkdir(exist_ok=True)
        rolled_back(repository, name).rename(beside)
    (tmp_path / ".models.staging" / "caser").mkdir(parents=True)
    (tmp_path / ".models.lock").touch()
    link = tmp_path / "link"
    link.symlink_to("models")
    roll_back(link, "caser", 1)
    assert content(repository) == whole
    assert {path.name for path in tmp_path.iterdir()} == {"models", "link"}
    assert roll_back(repository, "caser", 3).version == 3


@pytest.mark.skipif(
    importlib.util.find_spec("pytriton") is None, reason="the nvidia-pytriton wheel is absent"
)
def test_triton_has_no_complaint_about_what_is_put_aside(
    trained: list[Exported], tmp_path: Path
) -> None:
    """A folder that is no model ends Triton at its start; within a model's folder it may lie."""
    repository = tmp_path / "models"
    use(repository, trained)
    publish(trained[0], repository)
    roll_back(repository, "caser")
    (repository / ".caser.model.onnx.part").touch()
    shutil.copytree(repository / "caser" / "3", repository / "caser" / ".5.part")
    with start(repository, grpc_port=0, metrics_port=0, poll_seconds=1) as running:
        assert {*running.control.states()} == {"caser", "caser_encoder", "caser_scorer"}
        said = running.log.read_text()
    assert "ignore version directory '.rolled_back'" in said
    assert "Poll failed" not in said
    assert "failed to load" not in said
