"""Writes so that a crash, or a loss of power, leaves the old or the new, never a half.

A rename tells everybody that what is renamed is whole, so it has to be on the disk by then: files
and folders are synced first, and the folder of the new name after.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from seqrec_export.errors import SeqrecError


class DamagedError(SeqrecError, ValueError):
    """A file of this package does not hold what was written there."""


def write_json(path: Path, content: Any) -> None:
    """Write next to `path`, then rename."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write next to `path`, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with naming(part):
        try:
            with part.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise
    sync(path.parent)


def read_json(path: Path) -> Any:
    """The parsed content of a JSON file. Raises DamagedError if it is none."""
    try:
        with naming(path):
            return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: object) -> DamagedError:
    """What to raise if the content of `path` is not what it should be."""
    said = f"{type(error).__name__}: {error}" if isinstance(error, LookupError) else str(error)
    return DamagedError(
        f"{path} is damaged ({said}); put it back, or repeat the command that wrote it"
    )


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give `path` to an OSError that does not say where: a write to a full disk does not."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        number, reason = error.errno or errno.EIO, error.strerror or str(error)
        raise OSError(number, reason, str(path)) from error


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync folders; they write names at once.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF) or not path.is_dir():
            raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Wait until a folder and all that it holds are on the disk."""
    for place, _, files in os.walk(folder):
        for name in files:
            file = Path(place, name)
            if file.is_file() and not file.is_symlink():
                sync(file)
        sync(Path(place))


def move(path: Path, target: Path) -> None:
    """Rename, within one file system, and wait until both folders say so on the disk."""
    path.rename(target)
    sync(target.parent)
    if path.parent != target.parent:
        sync(path.parent)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's content and wait until it is on the disk."""
    with naming(target):
        shutil.copyfile(source, target)
        sync(target)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it on a disk that has no such links."""
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        copy_file(source, target)


def replace_folder(new: Path, path: Path) -> None:
    """Put the folder `new` at `path`; what was there is removed only after that.

    The caller holds the lock of `path`, if others may write there as well.
    """
    recover(path)
    sync_tree(new)
    if path.exists() and _exchange(new, path):
        sync(path.parent)
        remove(new)
        return
    old = _set_aside(path)
    remove(old)
    if path.exists():
        path.rename(old)
    move(new, path)
    remove(old)


def replace_content(new: Path, path: Path) -> None:
    """Put the content of the folder `new`, in `path`, in place of all else that `path` holds.

    For a folder that has to stay itself: a mount point, or somebody's current folder. A crash may
    leave some of the old and some of the new.
    """
    for entry in sorted(path.iterdir()):
        if entry != new:
            remove(entry)
        if (new / entry.name).exists():
            (new / entry.name).rename(entry)
    for entry in sorted(new.iterdir()):
        entry.rename(path / entry.name)
    remove(new)
    sync(path)


def recover(path: Path) -> None:
    """Bring back what a `replace_folder` that was killed between its two renames set aside.

    The caller holds the lock of `path`: if the writer was alive, this would undo its first rename.
    """
    if not path.exists() and _set_aside(path).exists():
        _set_aside(path).rename(path)


def _set_aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names at once, so that a reader always finds one; False if that cannot be done."""
    swap = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if swap is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of renameat2(2)
    if swap(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0:
        return True
    found = ctypes.get_errno()
    if found in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):  # not on this file system
        return False
    raise OSError(found, os.strerror(found), str(one), None, str(other))


def remove(path: Path) -> None:
    """Delete a folder, a file, or nothing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def inside(root: Path, *names: str) -> Path:
    """`root/name/name`. Raises SeqrecError for names that lead out: "..", absolute, or a link."""
    path = root.joinpath(*names)
    plain = all(name not in ("", ".", "..") and not set("/\0") & set(name) for name in names)
    links = plain and any(root.joinpath(*names[:i]).is_symlink() for i in range(1, len(names) + 1))
    if not plain or (links and not path.resolve().is_relative_to(root.resolve())):
        shown = "/".join(names)
        raise SeqrecError(f"{shown!r} leads out of {root}; give plain names of what is in it")
    return path


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file."""
    with naming(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(content: Any) -> str:
    """Hex sha256 of anything that JSON can hold, independent of the order of keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
