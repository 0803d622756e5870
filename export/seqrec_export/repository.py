"""The model repository: what Triton loads, published a version at a time.

A version is written beside the repository and renamed in, its files before the config; a crash
leaves the old version serving, and never a file that Triton might take for a model.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from seqrec_export.errors import SeqrecError
from seqrec_export.exported import PARITY_FILE, Exported, file_hashes
from seqrec_export.folders import (
    read_json,
    remove,
    sha256_file,
    write_json,
    write_text,
)
from seqrec_export.models import MODELS
from seqrec_export.onnx_export import MODEL_FILE
from seqrec_export.report import REPORT_FILE, ModelReport, write_report
from seqrec_export.triton_config import (
    CONFIG_FILE,
    CONTRACT_FILE,
    changed_tensors,
    model_config,
    parse_config,
)

MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class Published:
    """One model of the repository after `publish`."""

    name: str
    version: int
    new: bool  # False: the published version already is this very file


def publish(exported: Exported, repository: Path, *, keep: int = 3) -> list[Published]:
    """Publish every graph of a verified export as the next version; older ones stay for rollback.

    `keep` is how many versions stay, the new one counted. Raises SeqrecError, before anything is
    written, where the graphs were not verified or a contract would change under its callers.
    """
    if keep < 1:
        raise SeqrecError(f"--keep is {keep}; the new version itself counts, so give at least 1")
    for name in exported.graphs:
        _require_verified(exported, name)
    repository.parent.mkdir(parents=True, exist_ok=True)
    with _locked(repository):
        for name in exported.graphs:
            _require_same_contract(exported, name, repository)
        repository.mkdir(exist_ok=True)
        published = [_publish_one(exported, name, repository) for name in exported.graphs]
        for model in published:
            for old in versions(repository / model.name)[:-keep]:
                remove(repository / model.name / str(old))
        _write_manifest(repository)
        _write_report(repository)
    return published


def versions(model_folder: Path) -> list[int]:
    """The published versions of a model, ascending."""
    if not model_folder.is_dir():
        return []
    return sorted(int(f.name) for f in model_folder.iterdir() if f.is_dir() and f.name.isdigit())


def models(repository: Path) -> list[str]:
    """The names of the models in a repository. Raises SeqrecError where it is none."""
    if not repository.is_dir():
        raise SeqrecError(f"{repository} is not a folder; run `seqrec-export build` first")
    names = sorted(
        f.name for f in repository.iterdir() if (f / CONFIG_FILE).exists() and versions(f)
    )
    if not names:
        raise SeqrecError(f"{repository} holds no model; run `seqrec-export build` first")
    return names


@contextlib.contextmanager
def _locked(repository: Path) -> Iterator[None]:
    """One publisher at a time; a second one waits."""
    lock = repository.with_name(f".{repository.name}.lock")
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _require_verified(exported: Exported, name: str) -> None:
    file = exported.folder / name / PARITY_FILE
    model = exported.model_file(name)
    verdict = read_json(file) if file.exists() else {}
    if verdict.get("files") != file_hashes(model.parent):
        raise SeqrecError(f"{model} was not verified; run `seqrec-export verify` first")
    if not verdict["ok"]:
        raise SeqrecError(f"{name} differs from PyTorch, see {file}; it is not published")


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


def _publish_one(exported: Exported, name: str, repository: Path) -> Published:
    folder = repository / name
    source = exported.folder / name
    existing = versions(folder)
    if existing:
        latest = folder / str(existing[-1]) / MODEL_FILE
        if latest.exists() and sha256_file(latest) == sha256_file(source / MODEL_FILE):
            if not (folder / CONFIG_FILE).exists():  # a publisher was killed just before it
                write_text(folder / CONFIG_FILE, (source / CONFIG_FILE).read_text("utf-8"))
            return Published(name=name, version=existing[-1], new=False)
    version = existing[-1] + 1 if existing else 1
    staging = repository.with_name(f".{repository.name}.staging")
    remove(staging)
    try:
        not_of_a_version = shutil.ignore_patterns(CONFIG_FILE, CONTRACT_FILE)
        shutil.copytree(source, staging / str(version), ignore=not_of_a_version)
        write_json(staging / str(version) / "metrics.json", dict(exported.run.metrics))
        folder.mkdir(exist_ok=True)
        write_text(folder / CONTRACT_FILE, (source / CONTRACT_FILE).read_text("utf-8"))
        (staging / str(version)).rename(folder / str(version))
    finally:
        remove(staging)
    # The config comes last: without it Triton does not take the folder for a model.
    write_text(folder / CONFIG_FILE, (source / CONFIG_FILE).read_text("utf-8"))
    return Published(name=name, version=version, new=True)


def _write_manifest(repository: Path) -> None:
    file = repository / MANIFEST_FILE
    before = read_json(file)["models"] if file.exists() else {}
    entries: dict[str, Any] = {}
    for name in models(repository):
        known = before.get(name, {})  # a version never changes: it is hashed once
        entries[name] = {
            str(version): known.get(str(version))
            or _version_entry(repository / name / str(version))
            for version in versions(repository / name)
        }
    manifest = {"written": datetime.now(UTC).isoformat(timespec="seconds"), "models": entries}
    write_json(file, manifest)


def _write_report(repository: Path) -> None:
    """report.html over the newest version of every model that this version knows."""
    entries: dict[str, list[dict[str, Any]]] = {}
    for described in describe(repository):
        entries.setdefault(described["parity"].get("model", ""), []).append(described)
    reports = [
        ModelReport.of(MODELS[name], parts[0]["metrics"], [part["parity"] for part in parts])
        for name, parts in entries.items()
        if name in MODELS
    ]
    write_report(repository / REPORT_FILE, f"{repository.name}: what is served", reports)


def _version_entry(folder: Path) -> dict[str, Any]:
    metrics = read_json(folder / "metrics.json")
    return {
        "files": {file.name: sha256_file(file) for file in sorted(folder.iterdir())},
        "data": metrics.get("data"),
        "versions": metrics.get("versions"),
        "test": metrics["test"],
    }


def describe(repository: Path) -> list[dict[str, Any]]:
    """What `seqrec-export inspect` shows: contract, versions, metrics and parity of each model."""
    described = []
    for name in models(repository):
        folder = repository / name
        latest = folder / str(versions(folder)[-1])
        described.append(
            {
                "model": name,
                "versions": versions(folder),
                "contract": read_json(folder / CONTRACT_FILE),
                "bytes": sum(f.stat().st_size for f in latest.iterdir()),
                "parity": read_json(latest / "parity.json"),
                "metrics": read_json(latest / "metrics.json"),
            }
        )
    return described
