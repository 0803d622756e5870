"""A real file system that is soon full: a tmpfs of some megabytes, if one can be mounted."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


@contextmanager
def small_disk(path: Path, kilobytes: int) -> Iterator[Path]:
    """A file system of this size at `path`; skips the test if none can be mounted."""
    path.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={kilobytes}k", "none", str(path)]
    try:
        mounted = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
        said = mounted.stderr.strip() if mounted.returncode else ""
    except OSError as error:
        said = str(error)
    if said:
        pytest.skip(f"no file system can be mounted here: {said}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(disk: Path, free: int) -> Path:
    """Fill a file system up to `free` bytes; the file that does it."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    with filler.open("r+b") as file:
        file.truncate(max(0, filler.stat().st_size - free))
    return filler
