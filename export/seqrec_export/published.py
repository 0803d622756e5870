"""What lies in a model repository, and whether it is what was published.

manifest.json is written last: a version that it does not list was not published to the end, or was
copied there by hand. Versions that a rollback took away lie beside the repository, not in it.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from seqrec_export.errors import SeqrecError
from seqrec_export.folders import inside, read_json, sha256_file, write_json

MANIFEST_FILE = "manifest.json"
# Named again here, because what writes them imports PyTorch, for which `serve` has no use.
CONFIG_FILE = "config.pbtxt"
VERDICT_FILE = "parity.json"
VERSION_FILES = ("model.onnx", "model.onnx.data")  # what a verdict vouches for in a version
Manifest = dict[str, dict[int, dict[str, Any]]]  # model -> version -> "files" and more


def models(repository: Path) -> list[str]:
    """The names of the models in a repository. Raises SeqrecError where it is none.

    A config without a version is a model that was never built here: no model of it, and no fault.
    """
    if not repository.is_dir():
        raise SeqrecError(f"{repository} is not a folder; run `seqrec-export build` first")
    names = sorted(
        f.name for f in repository.iterdir() if (f / CONFIG_FILE).exists() and versions(f)
    )
    if not names:
        raise SeqrecError(f"{repository} holds no model; run `seqrec-export build` first")
    return names


def versions(model_folder: Path) -> list[int]:
    """The versions of a model that lie there, ascending."""
    if not model_folder.is_dir():
        return []
    names = [f.name for f in model_folder.iterdir() if f.is_dir()]
    return sorted(int(n) for n in names if n.isdecimal() and n.isascii() and n[0] != "0")


def model_config(repository: Path, model: str) -> Any:
    """A model's ModelConfig. Raises SeqrecError where config.pbtxt is missing or damaged."""
    file = repository / model / CONFIG_FILE
    try:
        return text_format.Parse(file.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise SeqrecError(f"{file} cannot be read: {error}") from error


@contextmanager
def writing(repository: Path) -> Iterator[None]:
    """One publisher at a time; a second one waits."""
    with _lock_file(repository).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def reading(repository: Path) -> Iterator[bool]:
    """Whether nobody is `writing`, and then nobody will while it is held."""
    with ExitStack() as held:
        alone = True
        with suppress(FileNotFoundError):  # nobody has ever published here
            file = held.enter_context(_lock_file(repository).open())
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                alone = False
        yield alone


def rolled_back(repository: Path, model: str) -> Path:
    """Where the versions of a model lie that a rollback took away."""
    return repository.with_name(f".{repository.name}.rolled_back") / model


def _lock_file(repository: Path) -> Path:
    return repository.with_name(f".{repository.name}.lock")


def read_manifest(repository: Path) -> Manifest | None:
    """What was published; None in a repository that was put together by hand.

    Raises SeqrecError where it is damaged, or names a file outside of the repository.
    """
    file = repository / MANIFEST_FILE
    if not file.exists():
        return None
    manifest: Manifest = {}
    try:
        for model, entries in read_json(file)["models"].items():
            manifest[model] = {int(version): dict(entry) for version, entry in entries.items()}
            for version, entry in manifest[model].items():
                for names in ((), *((name,) for name in entry["files"])):
                    inside(repository, model, str(version), *names)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SeqrecError(
            f"{file} is damaged ({error}); remove it and publish again, which writes it anew"
        ) from error
    return manifest


def problems(repository: Path, model: str) -> dict[int, str]:
    """Every version of a model, ascending, and what is wrong with its files, "" where nothing is.

    Reads them whole. Without a manifest there is nothing to compare with.
    """
    manifest = read_manifest(repository)
    found = {}
    for version in versions(repository / model):
        if manifest is None:
            found[version] = ""
        elif version not in manifest.get(model, {}):
            found[version] = f"not in {MANIFEST_FILE}: not published to the end, or copied by hand"
        else:
            files = manifest[model][version]["files"]
            found[version] = difference(inside(repository, model, str(version)), files)
    return found


def difference(folder: Path, files: Mapping[str, str]) -> str:
    """How the files of a folder are not those with these sha256; "" where they are."""
    said = []
    for name, sha256 in files.items():
        file = inside(folder, name)
        if not file.is_file():
            said.append(f"{name} is missing")
        elif sha256_file(file) != sha256:
            said.append(f"{name} is not what was published ({file.stat().st_size} bytes)")
    return ", ".join(said)


def vouched(folder: Path) -> bool:
    """Whether a version's model is the one that the verdict beside it was spoken on."""
    try:
        files = read_json(folder / VERDICT_FILE)["files"]
        return not difference(folder, {n: files[n] for n in VERSION_FILES if n in files})
    except (OSError, ValueError, KeyError, TypeError):
        return False


def published_versions(repository: Path) -> dict[str, set[int]]:
    """Those that the manifest lists; where there is none, those that a verdict vouches for."""
    manifest = read_manifest(repository)
    if manifest is not None:
        return {model: set(entries) for model, entries in manifest.items()}
    found = {}
    for folder in (repository / model for model in models(repository)):
        found[folder.name] = {v for v in versions(folder) if vouched(folder / str(v))}
    return found


def write_manifest(repository: Path, changed: Mapping[str, set[int]]) -> None:
    """List these versions of these models, and of the others those that were published."""
    known = read_manifest(repository) or {}
    listed = {**published_versions(repository), **changed}
    entries: dict[str, Any] = {}
    for model in models(repository):
        there = listed.get(model, set()) & set(versions(repository / model))
        entries[model] = {
            # A version never changes: it is hashed once.
            str(v): known.get(model, {}).get(v) or _entry(repository / model / str(v))
            for v in sorted(there)
        }
    written = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(repository / MANIFEST_FILE, {"written": written, "models": entries})


def _entry(folder: Path) -> dict[str, Any]:
    metrics = read_json(folder / "metrics.json")
    return {
        "files": {file.name: sha256_file(file) for file in sorted(folder.iterdir())},
        "data": metrics.get("data"),
        "versions": metrics.get("versions"),
        "test": metrics["test"],
    }
