"""What a repository holds, for people: `inspect`, report.html, and what is not served of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from seqrec_export.errors import SeqrecError
from seqrec_export.exporting.exported import PARITY_FILE, Exported, file_hashes
from seqrec_export.folders import damaged, read_json
from seqrec_export.models.registry import MODELS
from seqrec_export.report.page import REPORT_FILE, ModelReport, write_report
from seqrec_export.repository.published import (
    METRICS_FILE,
    difference,
    models,
    of_version,
    problems,
    read_contract,
    read_manifest,
    reading,
    rolled_back,
    served_version,
    versions,
    writing,
)


def describe(repository: Path) -> list[dict[str, Any]]:
    """What `seqrec-export inspect` shows: contract, versions, metrics and parity of each model.

    `problems` holds what is wrong with which version; `served` is the newest sound one, which the
    rest is of; it is None, and the rest is left out, if there is none. `damage` is what is wrong
    besides. Waits for who is publishing.
    """
    described = []
    with reading(repository, wait=True):
        read_manifest(repository)  # nothing can be said if that is damaged
        for name in models(repository):
            entry: dict[str, Any] = {"model": name, "versions": [], "problems": {}, "damage": []}
            described.append(entry | {"served": None, "rolled_back": []})
            entry = described[-1]
            try:
                found = problems(repository, name)
                sound = [version for version, problem in found.items() if not problem]
                entry["versions"] = list(found)
                entry["problems"] = {v: problem for v, problem in found.items() if problem}
                entry["rolled_back"] = versions(rolled_back(repository, name))
                if sound:
                    entry["served"] = sound[-1]
                    entry |= describe_version(repository, name, sound[-1])
                entry["contract"] = read_contract(repository, name)
            except (SeqrecError, OSError) as error:
                entry["damage"].append(str(error))
    return described


def describe_version(repository: Path, name: str, version: int) -> dict[str, Any]:
    """One published version of a model. Raises DamagedError if its files are not what they were."""
    folder = repository / name / str(version)
    found = {}
    for key, file, parts in (
        ("parity", PARITY_FILE, ("max_abs_diff",)),
        ("metrics", METRICS_FILE, ("test", "data")),
    ):
        found[key] = read_json(folder / file)
        if not isinstance(found[key], dict) or not all(part in found[key] for part in parts):
            raise damaged(folder / file, f"without {', '.join(parts)}")
    size = sum(file.stat().st_size for file in folder.iterdir())
    return {"version": version, "bytes": size, **found}


def not_served(exported: Exported, repository: Path) -> str:
    """How what a repository serves is not this export, for people.

    "" if it is, or if the repository has no such model.
    """
    try:
        there = set(models(repository))
        for name in exported.graphs:
            version = served_version(repository, name) if name in there else None
            if version is None:
                continue
            wanted = of_version(file_hashes(exported.folder / name))
            if difference(repository / name / str(version), wanted):
                aside = rolled_back(repository, name)
                same = [v for v in versions(aside) if not difference(aside / str(v), wanted)]
                which = (
                    f"this is version {same[-1]}, which was rolled back"
                    if same
                    else ("this is another training or export")
                )
                return f"{repository} serves version {version} of {name}; {which}"
    except SeqrecError:  # no repository, or a damaged one, which is not asked about here
        return ""
    return ""


def report_again(repository: Path) -> None:
    """Write report.html again, after another version has become the newest."""
    with writing(repository):
        report_newest(repository)


def report_newest(repository: Path) -> None:
    """report.html over the newest listed version of every model, also of other packages.

    A damaged one is left out: `inspect` says what is wrong with it.
    """
    manifest = read_manifest(repository) or {}
    entries: dict[str, list[dict[str, Any]]] = {}
    for name, listed in manifest.items():
        if listed:
            folder, files = repository / name / str(max(listed)), listed[max(listed)]["files"]
            read = {n: files[n] for n in (PARITY_FILE, METRICS_FILE) if n in files}
            if len(read) == 2 and not difference(folder, read):
                described = describe_version(repository, name, max(listed))
                entries.setdefault(described["parity"].get("model", ""), []).append(described)
    reports = []
    for name, parts in entries.items():
        metrics, graphs = parts[0]["metrics"], [part["parity"] for part in parts]
        if name in MODELS:  # what metrics.json of an earlier version does not say, the model does
            reports.append(ModelReport.of(MODELS[name], metrics, graphs))
        elif name:
            reports.append(ModelReport.read(name, metrics, graphs))
    title = f"{repository.resolve().name}: what is served"
    write_report(repository / REPORT_FILE, title, reports)
