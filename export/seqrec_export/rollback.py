"""Back to an older version of a model, and forward again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from seqrec_export.errors import SeqrecError
from seqrec_export.folders import read_json
from seqrec_export.published import (
    VERDICT_FILE,
    models,
    problems,
    rolled_back,
    versions,
    vouched,
    write_manifest,
    writing,
)


@dataclass(frozen=True, kw_only=True)
class RolledBack:
    """What `roll_back` did."""

    graphs: list[str]
    before: int
    version: int  # the newest now


def roll_back(repository: Path, model: str, to: int | None = None) -> RolledBack:
    """Make an older version of all graphs of a model the newest; without `to`, the one before.

    What is newer is moved beside the repository, where `to` finds it again. Raises SeqrecError
    where the graphs have no such version that is as it was published.
    """
    with writing(repository):
        graphs = _graphs(repository, model)
        before = max(versions(repository / name)[-1] for name in graphs)
        usable_of = {name: _usable(repository, name) for name in graphs}
        usable = set.intersection(*usable_of.values())
        target = max((v for v in usable if v < before), default=None) if to is None else to
        if target not in usable:
            wanted = f"version {to}" if to else f"version older than {before}"
            raise SeqrecError(
                f"{model} has no sound {wanted} in {repository}; it has"
                f" {', '.join(map(str, sorted(usable))) or 'none'}"
            )
        for name in graphs:
            aside = rolled_back(repository, name) / str(target)
            if aside.exists():
                aside.rename(repository / name / str(target))
        # The manifest first: `serve` serves what it lists, so all graphs change at once.
        listed = {name: {v for v in usable_of[name] if v <= target} for name in graphs}
        write_manifest(repository, listed)
        for name in graphs:
            aside = rolled_back(repository, name)
            aside.mkdir(parents=True, exist_ok=True)
            for version in versions(repository / name):
                if version > target:
                    (repository / name / str(version)).rename(aside / str(version))
    return RolledBack(graphs=graphs, before=before, version=target)


def _graphs(repository: Path, model: str) -> list[str]:
    """The names in the repository that belong to one model, as their verdicts have it."""
    found: dict[str, list[str]] = {}
    for name in models(repository):
        sound = [version for version, problem in problems(repository, name).items() if not problem]
        if sound:
            verdict = read_json(repository / name / str(sound[-1]) / VERDICT_FILE)
            found.setdefault(str(verdict.get("model")), []).append(name)
    if model not in found:
        raise SeqrecError(f"{repository} holds no model {model!r}; it holds {', '.join(found)}")
    return found[model]


def _usable(repository: Path, name: str) -> set[int]:
    """The versions that are as they were published, here or where a rollback put them."""
    here = {version for version, problem in problems(repository, name).items() if not problem}
    aside = rolled_back(repository, name)
    return here | {version for version in versions(aside) if vouched(aside / str(version))}
