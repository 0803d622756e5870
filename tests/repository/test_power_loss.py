"""A loss of power at any moment of a publish: what was not synced is lost, and nothing else is."""

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from seqrec_export.exporting.exported import Exported
from seqrec_export.repository.publish import publish
from seqrec_export.repository.published import problems, read_manifest
from seqrec_export.repository.rollback import roll_back
from support.killed import GRAPHS, assert_loads, killed_at


def watched(log: Path, work: list) -> list:
    """The work, with every rename and every sync noted in `log`."""

    def do() -> None:
        notes = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        fsync, rename, replace = os.fsync, os.rename, os.replace

        def note(*event: object) -> None:
            os.write(notes, f"{json.dumps(event)}\n".encode())

        def synced(descriptor: int) -> None:
            fsync(descriptor)
            note("sync", os.fstat(descriptor).st_ino)

        def renamed(done: Callable) -> Callable:
            def renaming(source: object, target: object) -> None:
                new = not os.path.lexists(str(target))
                done(source, target)
                note("rename", str(source), str(target), new)

            return renaming

        os.fsync, os.rename, os.replace = synced, renamed(rename), renamed(replace)
        work[0](*work[1:])

    return [do]


def lose_power(folder: Path, log: Path, before: set[int]) -> None:
    """Leave of the folder what a disk may hold that had written no more than it was asked to.

    Names that were not synced are as before, but for the manifest's: a disk writes in any order.
    """
    events = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    synced = {event[1] for event in events if event[0] == "sync"}
    for file in folder.rglob("*"):
        found = file.stat()
        if stat.S_ISREG(found.st_mode) and found.st_ino not in before | synced:
            os.truncate(file, 0)
    for number, event in reversed([*enumerate(events)]):
        if event[0] == "rename":
            source, target = Path(event[1]), Path(event[2])
            later = {e[1] for e in events[number:] if e[0] == "sync"}
            lost = target.parent.exists() and target.parent.stat().st_ino not in later
            if lost and event[3] and target.name != "manifest.json" and target.exists():
                source.parent.mkdir(exist_ok=True)
                target.rename(source)


@pytest.mark.parametrize("at_work", ["publish", "roll back"])
def test_without_power_at_any_moment_the_old_version_or_the_new_is_whole(
    trained: list[Exported], tmp_path: Path, at_work: str
) -> None:
    folder, whole, log = tmp_path / "repository", tmp_path / "whole", tmp_path / "log"
    publish(trained[0], folder)
    if at_work == "publish":
        work = [publish, trained[1], folder]
    else:
        publish(trained[1], folder)
        work = [roll_back, folder, "caser"]
    shutil.copytree(folder, whole)
    moments, outcomes = 0, set()
    while True:
        shutil.rmtree(folder)
        shutil.copytree(whole, folder)
        log.unlink(missing_ok=True)
        before = {file.stat().st_ino for file in folder.rglob("*")}
        killed = killed_at(moments, watched(log, work))
        lose_power(folder, log, before)
        assert_loads(folder, trained)
        listed = {name: max((read_manifest(folder) or {})[name]) for name in GRAPHS}
        assert all(not problems(folder, name)[newest] for name, newest in listed.items())
        outcomes |= set(listed.values())
        if not killed:
            break
        moments += 2 if at_work == "publish" else 1
    assert outcomes == {1, 2}
