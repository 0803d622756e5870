"""What a writer does first in a model repository: it removes or takes over what was left."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from seqrec_export.folders import move, remove, sync_tree
from seqrec_export.repository.published import rolled_back, versions, writing


@contextmanager
def tidy_writing(repository: Path) -> Iterator[None]:
    """`writing`, without what a killed writer left, and in the layout of this version."""
    with writing(repository):
        _clear(repository)
        for path in {repository.absolute(), repository.resolve()}:
            _take_over(repository, path.parent, path.name)
        try:
            yield
        finally:
            _clear(repository)


def _clear(repository: Path) -> None:
    for half in (*repository.glob(".*.part"), *repository.glob("*/.*.part")):
        remove(half)


def _take_over(repository: Path, place: Path, name: str) -> None:
    """Take over what used to be next to a repository: rolled back versions, staging, and lock."""
    old = place / f".{name}.rolled_back"
    for folder in old.iterdir() if old.is_dir() else ():
        target = rolled_back(repository, folder.name)
        for version in versions(folder) if target.parent.is_dir() else ():
            if not (target / str(version)).exists():
                half = target.with_name(f".{version}.part")
                shutil.copytree(folder / str(version), half)  # it may be another disk
                sync_tree(half)
                target.mkdir(exist_ok=True)
                move(half, target / str(version))
            remove(folder / str(version))
    with suppress(OSError):  # what cannot be removed does no harm
        for path in (*old.glob("*"), old):
            if path.is_dir():
                path.rmdir()
        for path in (place / f".{name}.staging", place / f".{name}.lock"):
            remove(path)
