"""File systems of a test's own: small, read-only, or another disk, seen by nobody else."""

import ctypes
import os
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

NEW_MOUNTS, NEW_USERS = 0x00020000, 0x10000000  # CLONE_NEWNS, CLONE_NEWUSER
READ_ONLY, REMOUNT, PRIVATE = 1, 32, 0x4000 | 1 << 18  # MS_RDONLY, MS_REMOUNT, MS_REC|MS_PRIVATE
NOT_ALLOWED, FAILED = 77, 1


def mount(place: Path, size: str = "64m", flags: int = 0) -> None:
    """A tmpfs at `place`."""
    _call("mount", b"none", os.fsencode(place), b"tmpfs", flags, f"size={size}".encode())


def with_own_mounts(work: Callable[[], None]) -> None:
    """Do the work in a process that may `mount`; skips the test if no process may."""
    user, group = os.geteuid(), os.getegid()
    pid = os.fork()
    if pid == 0:  # never returns into pytest
        try:
            try:
                _call("unshare", NEW_MOUNTS | (NEW_USERS if user else 0))
                if user:
                    Path("/proc/self/setgroups").write_text("deny")
                    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
                    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
                _call("mount", None, b"/", None, PRIVATE, None)
            except OSError:
                os._exit(NOT_ALLOWED)
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        os._exit(FAILED)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status == NOT_ALLOWED:
        pytest.skip("this user may not mount a file system")
    assert status == 0


def _call(name: str, *arguments: object) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
