"""Files that one process holds at a time, and that say which one: nobody undoes another's work.

A lock is the kernel's (flock), so it ends with its process, however that ends. The file stays, and
its text says who holds it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from seqrec_export.errors import SeqrecError

_SILENT_SECONDS = 1.0  # a shorter wait is not worth a line
_POLL_SECONDS = 0.05
_MAY_NOT_WRITE = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT}
_held = threading.local()


class HeldError(SeqrecError):
    """Another process holds the lock."""


def _say(text: str) -> None:
    print(text, file=sys.stderr)


@contextmanager
def exclusive(
    file: Path,
    what: str,
    *,
    wait: bool = True,
    keep: bool = True,
    report: Callable[[str], None] = _say,
) -> Iterator[None]:
    """Hold `file` alone; a thread that holds it already goes on.

    `what` tells people what the lock guards, as in "runs/sasrec is being trained". If another
    process has it, this waits, and says so after a second, or with `wait=False` raises HeldError,
    which names the process. Without `keep` the file is deleted in the end.
    """
    file = _absolute(file)
    mine: set[Path] = _held.__dict__.setdefault("files", set())
    if file in mine:
        yield
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        number = errno.ENOTDIR
        raise NotADirectoryError(number, os.strerror(number), error.filename) from error
    descriptor = _acquire(file, what, report=report, wait=wait)
    mine.add(file)
    try:
        with suppress(OSError):  # a full disk keeps the name out, not the lock
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()} {socket.gethostname()}".encode(), 0)
        yield
    finally:
        mine.discard(file)
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
            if not keep:
                file.unlink()
        os.close(descriptor)


@contextmanager
def reading(file: Path, what: str, *, report: Callable[[str], None] = _say) -> Iterator[bool]:
    """Hold `file` to read what it guards; gives whether this process may also write there.

    A process that may not write (as the folder is read-only, or another user's) shares the lock
    with other readers, or reads without it if nobody ever locked there.
    """
    with ExitStack() as held:
        may_write = False
        try:
            if file.parent.is_dir():
                held.enter_context(exclusive(file, what, report=report))
                may_write = True
        except OSError as error:
            if error.errno not in _MAY_NOT_WRITE:
                raise
            with suppress(FileNotFoundError):
                descriptor = _acquire(file, what, report=report, shared=True)
                held.callback(os.close, descriptor)
        yield may_write


@contextmanager
def shared(
    file: Path, what: str, *, wait: bool = True, report: Callable[[str], None] = _say
) -> Iterator[bool]:
    """Hold `file` together with other readers; without `wait`, gives whether nobody holds it alone.

    Writes nothing, so it works in a read-only folder. A thread that itself holds it alone need not
    wait.
    """
    if holds(file):
        yield wait
        return
    with ExitStack() as held:
        free = True
        with suppress(FileNotFoundError):  # nobody has ever locked there
            try:
                descriptor = _acquire(file, what, report=report, wait=wait, shared=True)
                held.callback(os.close, descriptor)
            except HeldError:
                free = False
        yield free


def holds(file: Path) -> bool:
    """Whether this thread holds `file`."""
    return _absolute(file) in _held.__dict__.get("files", ())


def _absolute(file: Path) -> Path:
    return file.parent.resolve() / file.name


def _acquire(
    file: Path,
    what: str,
    *,
    report: Callable[[str], None],
    wait: bool = True,
    shared: bool = False,
) -> int:
    flags = os.O_RDONLY if shared else os.O_RDWR | os.O_CREAT
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    began, said = time.monotonic(), False
    while True:
        descriptor = os.open(file, flags | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(descriptor)
            os.close(descriptor)
            if not wait:
                raise HeldError(f"{what} by {holder}; wait until it ends, or stop it") from None
            if not said and time.monotonic() - began > _SILENT_SECONDS:
                report(f"{what} by {holder}; waiting until it ends")
                said = True
            time.sleep(_POLL_SECONDS)
            continue
        except BaseException:
            os.close(descriptor)
            raise
        if _is_there(file, descriptor):
            return descriptor
        os.close(descriptor)  # it was deleted meanwhile, and another may hold the new file


def _is_there(file: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(file.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _holder(descriptor: int) -> str:
    pid, _, host = os.pread(descriptor, 400, 0).decode(errors="replace").partition(" ")
    if not pid:
        return "another process"
    return f"process {pid}" + (f" on {host}" if host != socket.gethostname() else "")
