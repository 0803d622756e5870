"""Back to an older version of a model, and forward again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from seqrec_export.errors import SeqrecError
from seqrec_export.folders import move, read_json
from seqrec_export.repository.published import (
    VERDICT_FILE,
    models,
    problem,
    published_versions,
    read_manifest,
    rolled_back,
    versions,
    vouched,
    write_manifest,
)
from seqrec_export.repository.upkeep import tidy_writing


@dataclass(frozen=True, kw_only=True)
class RolledBack:
    """What `roll_back` did."""

    graphs: list[str]
    before: int
    version: int  # the newest now


def roll_back(repository: Path, model: str, to: int | None = None) -> RolledBack:
    """Make an older version of all graphs of a model the newest; without `to`, the one before.

    Newer versions are put aside, and only `to` finds them again: no rollback goes back by itself
    to a version that was once rolled back. Raises SeqrecError if the graphs have no such version
    that is as it was published.
    """
    models(repository)  # refuses a folder that is no repository before anything is written there
    with tidy_writing(repository):
        graphs = _graphs(repository, model)
        before = max(versions(repository / name)[-1] for name in graphs)
        target = _target(repository, graphs, before) if to is None else to
        if target is None or not _sound(repository, graphs, target):
            known = {v for n in graphs for v in (*_here(repository, n), *_aside(repository, n))}
            usable = [v for v in sorted(known) if _sound(repository, graphs, v)]
            wanted = f"older than {before}" if to is None else str(to)
            raise SeqrecError(
                f"{model} has no sound version {wanted} in {repository}; it has"
                f" {', '.join(map(str, usable)) or 'none'}"
                f"{'; --to brings back what was rolled back' if to is None and usable else ''}"
            )
        for name in graphs:
            aside = rolled_back(repository, name) / str(target)
            if aside.exists():
                move(aside, repository / name / str(target))
        # The manifest comes first: `serve` serves what it lists, so all graphs change at once.
        listed = published_versions(repository)
        write_manifest(
            repository,
            {name: {v for v in {*listed[name], target} if v <= target} for name in graphs},
        )
        for name in graphs:
            aside = rolled_back(repository, name)
            aside.mkdir(exist_ok=True)
            for version in versions(repository / name):
                if version > target:
                    move(repository / name / str(version), aside / str(version))
    return RolledBack(graphs=graphs, before=before, version=target)


def _graphs(repository: Path, model: str) -> list[str]:
    """The names in the repository that belong to one model, as their verdicts say."""
    found: dict[str, list[str]] = {}
    for name in models(repository):
        for version in reversed(versions(repository / name)):
            try:
                verdict = read_json(repository / name / str(version) / VERDICT_FILE)
                found.setdefault(str(verdict["model"]), []).append(name)
                break
            except (OSError, ValueError, KeyError, TypeError):  # the one before tells as well
                continue
    if model not in found:
        raise SeqrecError(f"{repository} holds no model {model!r}; it holds {', '.join(found)}")
    return found[model]


def _target(repository: Path, graphs: list[str], before: int) -> int | None:
    """The newest of the versions before this one, without those that a rollback took away."""
    older = set.intersection(*(_here(repository, name) for name in graphs))
    for version in sorted((v for v in older if v < before), reverse=True):
        if _sound(repository, graphs, version):
            return version
    return None


def _here(repository: Path, name: str) -> set[int]:
    return set(versions(repository / name))


def _aside(repository: Path, name: str) -> set[int]:
    return set(versions(rolled_back(repository, name)))


def _sound(repository: Path, graphs: list[str], version: int) -> bool:
    """Whether a version of all graphs is as it was published, here or where a rollback put it."""
    manifest = read_manifest(repository)
    for name in graphs:
        aside = rolled_back(repository, name) / str(version)
        if version in _here(repository, name):
            if problem(repository, name, version, manifest):
                return False
        elif not aside.is_dir() or not vouched(aside):
            return False
    return True
