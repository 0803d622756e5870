"""Publishing into a model repository, a version at a time, and describing what lies there.

Every file is staged beside the repository, compared there with what was verified, and renamed in:
the versions of all graphs of a model in a row, then their configs, the manifest last. A crash
leaves the old version serving, and never a file that Triton might take for a model.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqrec_export.errors import SeqrecError
from seqrec_export.exported import PARITY_FILE, Exported, file_hashes
from seqrec_export.folders import read_json, remove, write_json, write_text
from seqrec_export.models import MODELS
from seqrec_export.published import (
    VERSION_FILES,
    difference,
    models,
    problems,
    published_versions,
    read_manifest,
    rolled_back,
    versions,
    write_manifest,
    writing,
)
from seqrec_export.report import REPORT_FILE, ModelReport, write_report
from seqrec_export.triton_config import (
    CONFIG_FILE,
    CONTRACT_FILE,
    changed_tensors,
    model_config,
    parse_config,
)

METRICS_FILE = "metrics.json"


@dataclass(frozen=True, kw_only=True)
class Published:
    """One model of the repository after `publish`."""

    name: str
    version: int
    new: bool  # False: the published version already is this very file


def publish(exported: Exported, repository: Path, *, keep: int = 3) -> list[Published]:
    """Publish every graph of a verified export as the next version; older ones stay for rollback.

    All graphs get the same number. `keep` is how many versions stay, the new one counted. Raises
    SeqrecError, before anything is written, where the graphs were not verified, are no longer what
    was verified, or would change a contract under its callers.
    """
    if keep < 1:
        raise SeqrecError(f"--keep is {keep}; the new version itself counts, so give at least 1")
    verified = {name: _require_verified(exported, name) for name in exported.graphs}
    repository.parent.mkdir(parents=True, exist_ok=True)
    with writing(repository):
        for name in verified:
            _require_same_contract(exported, name, repository)
        repository.mkdir(exist_ok=True)
        version = max((v for n in verified for v in _all_versions(repository, n)), default=0)
        new = not _lies_there(verified, repository, version)
        with _staging(repository) as staging:
            if new:
                version += 1
                for name, files in verified.items():
                    _stage(exported, name, staging / name, files)
                for name in verified:
                    _move_in(staging / name, repository / name, version)
            for name in verified:
                # The config comes last: without it Triton does not take the folder for a model.
                if new or not (repository / name / CONFIG_FILE).exists():
                    text = (exported.folder / name / CONFIG_FILE).read_text("utf-8")
                    write_text(repository / name / CONFIG_FILE, text)
            old = {name: _all_versions(repository, name)[:-keep] for name in verified}
            before = published_versions(repository)
            write_manifest(
                repository, {n: {*before.get(n, ()), version}.difference(old[n]) for n in verified}
            )
            for name in verified:
                _drop(repository, name, old[name], staging)
            _write_report(repository)
    return [Published(name=name, version=version, new=new) for name in verified]


def _require_verified(exported: Exported, name: str) -> dict[str, str]:
    """sha256 of the files that the graph's verdict was spoken on, which are the files there."""
    file = exported.folder / name / PARITY_FILE
    verdict = read_json(file) if file.exists() else {}
    verified, found = verdict.get("files", {}), file_hashes(file.parent)
    if wrong := {n for n in verified | found if verified.get(n) != found.get(n)}:
        raise SeqrecError(
            f"{file.parent} was not verified as it lies there ({', '.join(sorted(wrong))});"
            " run `seqrec-export export`, which verifies it"
        )
    if not verdict["ok"]:
        raise SeqrecError(f"{name} differs from PyTorch, see {file}; it is not published")
    return dict(verified)


def _require_same_contract(exported: Exported, name: str, repository: Path) -> None:
    file = repository / name / CONFIG_FILE
    if not file.exists():
        return
    old, new = parse_config(file.read_text()), model_config(exported.graphs[name])
    for kind in ("input", "output"):
        if changed := changed_tensors(old, new, kind):
            before, after = ([pair[i] for pair in changed.values()] for i in (0, 1))
            raise SeqrecError(
                f"{name} is published in {repository} with other {kind}s ({', '.join(changed)}: "
                f"{before} became {after}); "
                "its callers would break: publish into another repository, or keep dim and top-k"
            )


def _all_versions(repository: Path, name: str) -> list[int]:
    """Ascending, with those that a rollback took away: their numbers are not given again."""
    return sorted({*versions(repository / name), *versions(rolled_back(repository, name))})


def _lies_there(verified: Mapping[str, Mapping[str, str]], repository: Path, version: int) -> bool:
    """Whether every graph has this version already, made of the same files, and undamaged."""
    manifest = read_manifest(repository) or {}
    for name, files in verified.items():
        folder = repository / name / str(version)
        expected = {n: sha256 for n, sha256 in files.items() if n in VERSION_FILES}
        listed = manifest.get(name, {}).get(version, {}).get("files", {})
        if not folder.is_dir() or difference(folder, expected) or difference(folder, listed):
            return False
    return True


@contextmanager
def _staging(repository: Path) -> Iterator[Path]:
    """A folder beside the repository; what a publisher that was killed left is cleared away."""
    folder = repository.with_name(f".{repository.name}.staging")
    remove(folder)
    for half in (*repository.glob(".*.part"), *repository.glob("*/.*.part")):
        remove(half)
    folder.mkdir()
    try:
        yield folder
    finally:
        remove(folder)


def _stage(exported: Exported, name: str, folder: Path, verified: Mapping[str, str]) -> None:
    """Copy a graph's files; raise SeqrecError where the copy is not what was verified."""
    shutil.copytree(exported.folder / name, folder)
    if wrong := difference(folder, verified):
        raise SeqrecError(f"{exported.folder / name} was not copied well: {wrong}; publish again")
    write_json(folder / METRICS_FILE, dict(exported.run.metrics))


def _move_in(staged: Path, folder: Path, version: int) -> None:
    (staged / CONFIG_FILE).unlink()
    folder.mkdir(exist_ok=True)
    (staged / CONTRACT_FILE).replace(folder / CONTRACT_FILE)
    staged.rename(folder / str(version))


def _drop(repository: Path, name: str, old: list[int], trash: Path) -> None:
    """Move versions to where they are deleted: half a version must not stand there as one."""
    for version in old:
        for folder in (repository / name, rolled_back(repository, name)):
            if (folder / str(version)).exists():
                (folder / str(version)).rename(trash / f"{name}.{version}")


def report_again(repository: Path) -> None:
    """Write report.html anew, after another version has become the newest."""
    with writing(repository):
        _write_report(repository)


def _write_report(repository: Path) -> None:
    """report.html over the newest listed version of every model that this version knows."""
    manifest = read_manifest(repository) or {}
    entries: dict[str, list[dict[str, Any]]] = {}
    for name, listed in manifest.items():
        if not listed:
            continue
        described = describe_version(repository, name, max(listed))
        entries.setdefault(described["parity"].get("model", ""), []).append(described)
    reports = [
        ModelReport.of(MODELS[name], parts[0]["metrics"], [part["parity"] for part in parts])
        for name, parts in entries.items()
        if name in MODELS
    ]
    write_report(repository / REPORT_FILE, f"{repository.name}: what is served", reports)


def describe(repository: Path) -> list[dict[str, Any]]:
    """What `seqrec-export inspect` shows: contract, versions, metrics and parity of each model.

    `problems` holds what is wrong with which version; the rest is of the newest sound one, and is
    left out where there is none.
    """
    described = []
    for name in models(repository):
        found = problems(repository, name)
        sound = [version for version, problem in found.items() if not problem]
        described.append(
            {
                "model": name,
                "versions": list(found),
                "problems": {version: problem for version, problem in found.items() if problem},
                "rolled_back": versions(rolled_back(repository, name)),
                **(describe_version(repository, name, sound[-1]) if sound else {}),
            }
        )
    return described


def describe_version(repository: Path, name: str, version: int) -> dict[str, Any]:
    """One published version of a model."""
    folder = repository / name / str(version)
    return {
        "version": version,
        "contract": read_json(folder.parent / CONTRACT_FILE),
        "bytes": sum(file.stat().st_size for file in folder.iterdir()),
        "parity": read_json(folder / PARITY_FILE),
        "metrics": read_json(folder / METRICS_FILE),
    }
