"""Folders and files that are whole, on the disk before anybody relies on them, or not there."""

import errno
import os
from pathlib import Path

import pytest

from seqrec_export import folders
from seqrec_export.errors import SeqrecError
from seqrec_export.folders import read_json, recover, replace_folder, write_json


def filled(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "file").write_text(text)
    return folder


def test_a_reader_always_finds_the_old_folder_or_the_new(tmp_path: Path) -> None:
    place = filled(tmp_path / "place", "0")
    pid = os.fork()
    if pid == 0:  # a writer, until it is stopped
        number = 0
        while True:
            number += 1
            replace_folder(filled(tmp_path / "new", str(number)), place)
    try:
        seen = set()
        while len(seen) < 20:
            descriptor = os.open(place, os.O_RDONLY)  # fails if nothing is there for a moment
            seen.add(os.fstat(descriptor).st_ino)
            os.close(descriptor)
            seen.add((place / "file").read_text())
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def test_a_file_system_that_cannot_swap_gets_two_renames_and_a_killed_one_is_brought_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "_exchange", lambda one, other: False)
    place = filled(tmp_path / "place", "old")
    replace_folder(filled(tmp_path / "new", "new"), place)
    assert (place / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["place"]
    place.rename(tmp_path / ".place.old")  # where a kill leaves it
    recover(place)
    assert (place / "file").read_text() == "new"


def test_what_is_renamed_is_on_the_disk_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    write_json(tmp_path / "a.json", {})
    assert [Path(path).name for path in synced] == [f".a.json.{os.getpid()}.part", tmp_path.name]
    synced.clear()
    replace_folder(filled(tmp_path / "new", "x"), tmp_path / "place")
    assert synced == [f"{tmp_path}/new/file", f"{tmp_path}/new", str(tmp_path)]


@pytest.mark.parametrize("content", [b"", b'{"a": ', b"\xff\xfe{}", b"[" * 100_000])
def test_json_that_is_none_is_one_sentence_with_the_path(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(SeqrecError, match=rf"^{file} is damaged \(.*\); put it back"):
        read_json(file)


def test_a_full_disk_says_where_and_leaves_no_part() -> None:
    """/dev/full refuses every write, without a word about the path."""
    with (
        pytest.raises(OSError, match="No space left") as caught,
        folders.naming(Path("some/file")),
        Path("/dev/full").open("w") as full,
    ):
        full.write("x")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "some/file")
