"""Locks on files: one process at a time, which is named, and no longer than it lives."""

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from seqrec_export.errors import SeqrecError
from seqrec_export.locks import exclusive, holds, reading

HOLD = """
import sys, time
from pathlib import Path
from seqrec_export.locks import exclusive
with exclusive(Path(sys.argv[1]), "it is held"):
    print("held", flush=True)
    time.sleep(600)
"""


def holder(file: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(file)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_with_the_number_of_the_first(tmp_path: Path) -> None:
    file = tmp_path / "new" / ".lock"
    process = holder(file)
    try:
        with (
            pytest.raises(SeqrecError, match=f"^it is held by process {process.pid};"),
            exclusive(file, "it is held", wait=False),
        ):
            pass
    finally:
        process.kill()
        process.wait()
    with exclusive(file, "it is held", wait=False):
        assert holds(file)
    assert not holds(file)


def test_who_waits_says_for_whom_and_goes_on_when_it_is_killed(tmp_path: Path) -> None:
    file = tmp_path / ".lock"
    process = holder(file)
    said: list[str] = []

    def heard(text: str) -> None:
        said.append(text)
        process.send_signal(signal.SIGKILL)

    with exclusive(file, "it is held", report=heard):
        assert process.wait() == -signal.SIGKILL
    assert said == [f"it is held by process {process.pid}; waiting until it ends"]


def test_a_thread_that_holds_it_goes_on_and_another_thread_does_not(tmp_path: Path) -> None:
    file = tmp_path / ".lock"
    refused: list[bool] = []

    def other() -> None:
        try:
            with exclusive(file, "it is held", wait=False):
                refused.append(False)
        except SeqrecError:
            refused.append(True)

    with exclusive(file, "it is held"):
        with exclusive(file, "it is held", wait=False):
            pass
        assert holds(file), "the inner one does not let go"
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert refused == [True]


def test_who_may_not_write_reads_when_nobody_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / ".lock"
    with reading(file, "it is held") as may_write:
        assert may_write
    real = os.open

    def read_only(path: Any, flags: int, *more: Any) -> int:  # root may write anywhere
        if flags & (os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real(path, flags, *more)

    process = holder(file)
    monkeypatch.setattr(os, "open", read_only)
    with reading(file, "it is held", report=lambda _: process.kill()) as may_write:
        assert not may_write
        assert process.wait() == -signal.SIGKILL
    with reading(tmp_path / "none" / ".lock", "it is held") as may_write:
        assert not may_write


def test_a_file_where_the_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(NotADirectoryError, match=str(tmp_path / "file")),
        exclusive(tmp_path / "file" / ".lock", "it is held"),
    ):
        pass
