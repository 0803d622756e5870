"""Long work on a file that goes on from where it was stopped: rows are added at its end.

`.<name>.part` holds the rows, `.<name>.json` what they depend on and how far they are whole, and
`.<name>.lock` keeps a second process away.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from seqrec_export import locks
from seqrec_export.errors import SeqrecError
from seqrec_export.folders import move, naming, read_json, write_json

_SAVE_EVERY = 20  # additions between two records of the progress
Report = Callable[[str], None]


def alone_with(out: Path) -> AbstractContextManager[None]:
    """Keep other processes from writing `out`. Raises HeldError if one does."""
    return locks.exclusive(hidden(out, "lock"), f"{out} is being written", wait=False, keep=False)


class Growing:
    """The rows of `total` users, of whom the first `done` have theirs in the file `path`."""

    def __init__(self, out: Path, key: Mapping[str, Any], total: int, done: int) -> None:
        self.path, self.done = hidden(out, "part"), done
        self._out, self._key, self._total = out, key, total
        self._file: BinaryIO | None = None
        self._unsaved = 0

    def add(self, rows: Any, done: int) -> None:
        """Write the bytes of more rows; with them, `done` users have theirs."""
        assert self._file is not None, "within `growing`"
        # Not through a mapping of the file: on a full disk that kills the process.
        self._file.write(rows)
        self.done = done
        self._unsaved += 1
        if self._unsaved == _SAVE_EVERY or done == self._total:
            self._unsaved = 0
            self._file.flush()
            os.fsync(self._file.fileno())
            made = {"done": done, "bytes": self._file.tell()}
            write_json(hidden(self._out, "json"), {**self._key, **made})

    def finish(self, *, keep: bool = True) -> None:
        """Forget the progress; the rows get the name `out`, or go if they were not to `keep`."""
        if keep:
            move(self.path, self._out)
        hidden(self._out, "json").unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


@contextmanager
def growing(
    out: Path, key: Mapping[str, Any], total: int, head: bytes, *, resume: bool, report: Report
) -> Iterator[Growing]:
    """What `add` puts behind `head`, by who is `alone_with(out)`.

    Rows that depend on the same `key` stay, and are to be added to. Others go, or with `resume`
    raise SeqrecError.
    """
    state = hidden(out, "json")
    for half in state.parent.glob(f".{glob.escape(state.name)}.*.part"):
        half.unlink()  # of a process that was killed
    done, size = _found(hidden(out, "part"), state, key, resume, report)
    grown = Growing(out, key, total, done)
    if not done:
        state.unlink(missing_ok=True)  # it says nothing about what is written from here on
    with naming(grown.path), grown.path.open("r+b" if done else "wb") as file:
        if done:
            file.seek(size)
            file.truncate()
        else:
            file.write(head)
        grown._file = file
        yield grown
        grown._file = None


def _found(
    part: Path, state: Path, key: Mapping[str, Any], resume: bool, report: Report
) -> tuple[int, int]:
    """How many users are done, in how many bytes. Raises SeqrecError if `resume` finds others."""
    if not (part.exists() and state.exists()):
        return 0, 0
    try:
        found = dict(read_json(state))
        done, size = int(found.pop("done")), int(found.pop("bytes"))
    except (ValueError, KeyError, TypeError):
        found, done, size = {}, 0, 0
    if found == dict(key) and part.stat().st_size >= size:
        report(f"going on after the {done:,} users that {part} holds")
        return done, size
    what = f"{part} was begun with another model, log or settings"
    if resume:
        raise SeqrecError(f"{what}; repeat without --resume to start over")
    report(f"{what}, and starts over")
    return 0, 0


@contextmanager
def whole(part: Path) -> Iterator[None]:
    """Leave nothing of a file that could not be written to its end."""
    try:
        with naming(part):
            yield
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def hidden(file: Path, suffix: str) -> Path:
    """A file next to `file` that no listing shows: `.<name>.<suffix>`."""
    return file.with_name(f".{file.name}.{suffix}")
