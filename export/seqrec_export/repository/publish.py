"""Publishing into a model repository, a version at a time.

Every file is copied next to the models, compared there with what was verified, and renamed in: the
versions of all graphs of a model in a row, then their configs, the manifest last. All of it is on
the disk before the next step. A crash or a loss of power leaves the old version serving, and never
a file that Triton might take for a model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqrec_export.errors import SeqrecError
from seqrec_export.exporting.exported import PARITY_FILE, Exported, file_hashes
from seqrec_export.exporting.triton_config import (
    CONFIG_FILE,
    CONTRACT_FILE,
    changed_tensors,
    model_config,
)
from seqrec_export.folders import (
    copy_file,
    damaged,
    link_or_copy,
    move,
    read_json,
    remove,
    sha256_file,
    sync,
    write_json,
    write_text,
)
from seqrec_export.models import wire
from seqrec_export.repository.describe import report_newest
from seqrec_export.repository.published import (
    ACCEPTED,
    METRICS_FILE,
    WEIGHTS_SUFFIX,
    difference,
    looks_whole,
    of_version,
    published_versions,
    read_manifest,
    rolled_back,
    versions,
    write_manifest,
)
from seqrec_export.repository.published import model_config as published_config
from seqrec_export.repository.upkeep import tidy_writing

_RANKED = {spec.name for spec in wire.ranked_items(1)}


@dataclass(frozen=True, kw_only=True)
class Published:
    """One model of the repository after `publish`."""

    name: str
    version: int
    new: bool  # False: the published version already is this very file


def publish(
    exported: Exported, repository: Path, *, keep: int = 3, accepted: str = ""
) -> list[Published]:
    """Publish every graph of a verified export as the next version; older ones stay for rollback.

    All graphs get the same number. `keep` is how many versions stay, the new one counted.
    `accepted` is what somebody accepted about the model's quality, which stays with a new version.
    Raises SeqrecError, before anything is written, if the graphs were not verified, are no longer
    what was verified, or would change a contract under its callers.
    """
    if keep < 1:
        raise SeqrecError(f"--keep is {keep}; the new version itself counts, so give at least 1")
    verified = {name: _require_verified(exported, name) for name in exported.graphs}
    with tidy_writing(repository):
        for name in verified:
            _require_same_contract(exported, name, repository)
        version = max((v for n in verified for v in versions(repository / n)), default=0)
        new = not _lies_there(verified, repository, version)
        if new:
            version = 1 + max((v for n in verified for v in _numbers(repository, n)), default=0)
        try:
            metrics = dict(exported.run.metrics) | ({ACCEPTED: accepted} if accepted else {})
            _put_in(exported, verified, metrics, repository, version, new=new, keep=keep)
        except OSError:
            if new:
                _take_out(repository, verified, version)
            raise
        report_newest(repository)
    return [Published(name=name, version=version, new=new) for name in verified]


def _put_in(
    exported: Exported,
    verified: Mapping[str, Mapping[str, str]],
    metrics: Mapping[str, Any],
    repository: Path,
    version: int,
    *,
    new: bool,
    keep: int,
) -> None:
    if new:
        copies: dict[str, Path] = {}
        staged = {
            n: _stage(exported, n, metrics, repository, files, copies)
            for n, files in verified.items()
        }
        for name, files in staged.items():
            _move_in(files, repository / name, version)
    for name in verified:
        # The config comes last: without it Triton does not take the folder for a model.
        if new or not (repository / name / CONFIG_FILE).exists():
            text = (exported.folder / name / CONFIG_FILE).read_text("utf-8")
            write_text(repository / name / CONFIG_FILE, text)
    sync(repository)
    before = published_versions(repository)
    listed = {name: {*before.get(name, ()), version} for name in verified}
    stay = {name: _to_keep(repository, name, listed[name], keep) for name in verified}
    write_manifest(repository, {name: listed[name] & stay[name] for name in verified})
    for name in verified:
        _drop(repository, name, stay[name])


def _take_out(repository: Path, names: Iterable[str], version: int) -> None:
    """Leave nothing of a version that could not be fully published, as on a full disk."""
    for name in names:
        folder = repository / name
        if version not in (read_manifest(repository) or {}).get(name, {}):
            _drop(repository, name, {*_numbers(repository, name)} - {version})
            if (
                folder.is_dir()
                and not versions(folder)
                and not rolled_back(repository, name).exists()
            ):
                remove(folder)


def _require_verified(exported: Exported, name: str) -> dict[str, str]:
    """sha256 of the files that the graph's verdict is about, which are the files there."""
    file = exported.folder / name / PARITY_FILE
    verdict = read_json(file) if file.exists() else {"files": {}}
    found = file_hashes(file.parent)
    try:
        ok, verified = bool(verdict.get("ok")), dict(verdict["files"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise damaged(file, error) from error
    if wrong := {n for n in verified | found if verified.get(n) != found.get(n)}:
        raise SeqrecError(
            f"{file.parent} is not as it was verified ({', '.join(sorted(wrong))});"
            " run `seqrec-export export`, which verifies it"
        )
    if not ok:
        raise SeqrecError(f"{name} differs from PyTorch, see {file}; it is not published")
    return verified


def _require_same_contract(exported: Exported, name: str, repository: Path) -> None:
    if not (repository / name / CONFIG_FILE).exists() or not _numbers(repository, name):
        return  # a config without a version, as a clone of the project has it, has no callers
    old, new = published_config(repository, name), model_config(exported.graphs[name])
    for kind in ("input", "output"):
        if changed := changed_tensors(old, new, kind):
            before, after = ([pair[i] for pair in changed.values()] for i in (0, 1))
            keep = "keep dim, top-k and --filter-by"
            if changed.keys() == _RANKED and None not in (*before, *after):
                # Perhaps of a catalogue that was smaller than K, which once made K smaller.
                keep = f"export with --top-k {before[0][1][0]}, which it has"
            raise SeqrecError(
                f"{name} is published in {repository} with other {kind}s ({', '.join(changed)}: "
                f"{before} became {after}); "
                f"its callers would break: publish into another repository, or {keep}"
            )


def _numbers(repository: Path, name: str) -> set[int]:
    """Every number that was given to a version of a model, as far as files show."""
    listed = (read_manifest(repository) or {}).get(name, {})
    return {*versions(repository / name), *versions(rolled_back(repository, name)), *listed}


def _lies_there(verified: Mapping[str, Mapping[str, str]], repository: Path, version: int) -> bool:
    """Whether every graph has this version already, made from the same files, and undamaged."""
    manifest = read_manifest(repository) or {}
    for name, files in verified.items():
        folder = repository / name / str(version)
        expected = of_version(files)
        listed = manifest.get(name, {}).get(version, {}).get("files", {})
        if not folder.is_dir() or difference(folder, expected) or difference(folder, listed):
            return False
    return True


def _stage(
    exported: Exported,
    name: str,
    metrics: Mapping[str, Any],
    repository: Path,
    verified: Mapping[str, str],
    copies: dict[str, Path],
) -> dict[str, Path]:
    """Copy a graph's files into the repository; returns the path of each, by name.

    They are files in the repository's folder, which Triton ignores. Large weights that another
    graph has as well are one file of two names, so that their pages are in memory once (`onnx.load`
    refuses such a file, so an export has none); `copies` has those that were copied so far, by
    sha256. Raises SeqrecError if a copy is not what was verified.
    """
    staged = {}
    for source in sorted((exported.folder / name).iterdir()):
        staged[source.name] = repository / f".{name}.{source.name}.part"
        if (same := copies.get(verified.get(source.name, ""))) is not None:
            link_or_copy(same, staged[source.name])
        else:
            copy_file(source, staged[source.name])
    for file, sha256 in verified.items():
        if sha256 in copies and staged[file].samefile(copies[sha256]):
            continue  # it was read before, under its other name
        if sha256_file(staged[file]) == sha256:
            if file.endswith(WEIGHTS_SUFFIX):
                copies[sha256] = staged[file]
        else:
            size = staged[file].stat().st_size
            raise SeqrecError(
                f"{exported.folder / name / file} was not copied well: it has {size} bytes now;"
                " publish again"
            )
    staged[METRICS_FILE] = repository / f".{name}.{METRICS_FILE}.part"
    write_json(staged[METRICS_FILE], metrics)
    return staged


def _move_in(staged: Mapping[str, Path], folder: Path, version: int) -> None:
    folder.mkdir(exist_ok=True)
    half = folder / f".{version}.part"
    half.mkdir()
    for name, path in staged.items():
        if name not in (CONFIG_FILE, CONTRACT_FILE):
            path.rename(half / name)
    sync(half)
    staged[CONTRACT_FILE].replace(folder / CONTRACT_FILE)
    staged[CONFIG_FILE].unlink()
    move(half, folder / str(version))


def _to_keep(repository: Path, name: str, listed: set[int], keep: int) -> set[int]:
    """The versions of a model that stay: the newest `keep` of those that can be served.

    Others (rolled back, damaged, not fully published) do not count. They go first: all of them as
    soon as one goes that could be served, and until then at most `keep` of them stay.
    """
    manifest = read_manifest(repository) or {}
    entries, newest = manifest.get(name, {}), max(listed)
    good = sorted(
        v
        for v in listed & {*versions(repository / name)}
        if v == newest or v not in entries or looks_whole(repository / name / str(v), entries[v])
    )
    others = sorted(_numbers(repository, name) - {*good})
    return {*good[-keep:], *(others[-keep:] if len(good) <= keep else ())}


def _drop(repository: Path, name: str, stay: set[int]) -> None:
    """Rename, then delete: half a version must not look like a version."""
    for folder in (repository / name, rolled_back(repository, name)):
        for version in set(versions(folder)) - stay:
            trash = repository / name / f".{version}.part"
            move(folder / str(version), trash)
            remove(trash)
