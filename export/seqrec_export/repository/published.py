"""What is in a model repository, and whether it is what was published.

manifest.json is written last: a version that it does not list was not fully published, or was
copied there by hand.

Everything is within the repository, which may be a mount point or a link to another disk. Triton
ends at its start if a folder of the repository is not a model, whatever its name; it ignores files,
and within a model's folder it ignores folders whose name is not a number:

    .seqrec.lock               held by the writer
    <model>/.rolled_back/3/    a version that a rollback took away
    .<...>.part                what is being written: a file here, or anything in a model's folder
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from seqrec_export import locks
from seqrec_export.errors import SeqrecError
from seqrec_export.folders import DamagedError, damaged, inside, read_json, sha256_file, write_json

MANIFEST_FILE = "manifest.json"
# The modules that write these import PyTorch, which `serve` does not need: so they repeat here.
CONFIG_FILE = "config.pbtxt"
CONTRACT_FILE = "contract.json"
VERDICT_FILE = "parity.json"
METRICS_FILE = "metrics.json"
MODEL_FILE = "model.onnx"
WEIGHTS_SUFFIX = ".data"
ACCEPTED = "accepted_quality"  # in metrics.json and the manifest: the shortfall, if it has one
Manifest = dict[str, dict[int, dict[str, Any]]]  # model -> version -> "files" and more


def models(repository: Path) -> list[str]:
    """The names of the models in a repository. Raises SeqrecError if it is not one.

    A config without a version is a model that was never built here: it is neither listed nor wrong.
    """
    if not repository.is_dir():
        raise SeqrecError(f"{repository} is not a folder; run `seqrec-export build` first")
    names = sorted(folder.name for folder in repository.iterdir() if _is_model(folder))
    if not names:
        raise SeqrecError(f"{repository} holds no model; run `seqrec-export build` first")
    return names


def _is_model(folder: Path) -> bool:
    try:
        return (folder / CONFIG_FILE).exists() and bool(versions(folder))
    except (PermissionError, SeqrecError):
        # The next reader reports that it cannot be read; a mounted disk's own folder is no model.
        return folder.name != "lost+found"


def versions(model_folder: Path) -> list[int]:
    """The versions in a model's folder, ascending."""
    try:
        names = [f.name for f in model_folder.iterdir() if f.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise SeqrecError(f"{model_folder} cannot be read: {error.strerror}") from error
    return sorted(int(n) for n in names if n.isdecimal() and n.isascii() and n[0] != "0")


def model_config(repository: Path, model: str) -> Any:
    """A model's ModelConfig. Raises SeqrecError if config.pbtxt is missing or damaged."""
    file = repository / model / CONFIG_FILE
    try:
        return text_format.Parse(file.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise SeqrecError(
            f"{file} cannot be read: {error}; put it back, or remove it and publish again"
        ) from error


def require_place(repository: Path) -> None:
    """Raise what would stop `writing` to a repository, before the work whose result goes there."""
    place = repository.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise SeqrecError(f"{place} is not a folder; give another one with --repository")
    if not os.access(place, os.W_OK | os.X_OK):
        read_only = os.statvfs(place).f_flag & os.ST_RDONLY
        why = errno.EROFS if read_only else errno.EACCES
        raise OSError(why, os.strerror(why), str(place))


@contextmanager
def writing(repository: Path) -> Iterator[None]:
    """Let one writer at a time into a repository, made if it is missing; a second one waits."""
    require_place(repository)
    with locks.exclusive(_lock_file(repository), f"{repository} is being written to"):
        yield


@contextmanager
def reading(repository: Path, *, wait: bool = False) -> Iterator[bool]:
    """Whether nobody is `writing`; if so, nobody will while this is held. Waits for it if asked."""
    what = f"{repository} is being written to"
    with locks.shared(_lock_file(repository), what, wait=wait) as undisturbed:
        yield undisturbed


def rolled_back(repository: Path, model: str) -> Path:
    """The folder of the versions of a model that a rollback took away."""
    return repository / model / ".rolled_back"


def _lock_file(repository: Path) -> Path:
    return repository / ".seqrec.lock"


def read_manifest(repository: Path) -> Manifest | None:
    """What was published; None in a repository that was put together by hand.

    Raises SeqrecError if it is damaged, or names a file outside of the repository.
    """
    file = repository / MANIFEST_FILE
    if not file.exists():
        return None
    manifest: Manifest = {}
    try:
        for model, entries in read_json(file)["models"].items():
            manifest[model] = {int(version): dict(entry) for version, entry in entries.items()}
            for version, entry in manifest[model].items():
                entry["bytes"] = {name: int(n) for name, n in entry.get("bytes", {}).items()}
                for names in ((), *((name,) for name in {**entry["files"]})):
                    inside(repository, model, str(version), *names)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        said = error.__cause__ if isinstance(error, DamagedError) else repr(error)
        raise SeqrecError(
            f"{file} is damaged ({said}); remove it and publish again, which writes a new one"
        ) from error
    return manifest


class Hashes:
    """sha256 of files, which are read once, and again only if they have changed since."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, ...], str]] = {}

    def __call__(self, path: Path) -> str:
        """Hex sha256 of a file."""
        stat = path.stat()
        seen = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        if self._known.get(path, (None, ""))[0] != seen:
            self._known[path] = seen, sha256_file(path)
        return self._known[path][1]


HashOf = Callable[[Path], str]


def problems(repository: Path, model: str) -> dict[int, str]:
    """Every version of a model, ascending, and what is wrong with its files, "" if nothing is.

    Reads them whole. Without a manifest there is nothing to compare with.
    """
    manifest = read_manifest(repository)
    found = versions(repository / model)
    return {version: problem(repository, model, version, manifest) for version in found}


def problem(
    repository: Path,
    model: str,
    version: int,
    manifest: Manifest | None,
    hash_of: HashOf = sha256_file,
) -> str:
    """What is wrong with the files of one version; "" if nothing is."""
    if manifest is None:
        return ""
    if version not in manifest.get(model, {}):
        return f"not in {MANIFEST_FILE}: not published to the end, or copied by hand"
    files = manifest[model][version]["files"]
    return difference(inside(repository, model, str(version)), files, hash_of)


def difference(folder: Path, files: Mapping[str, str], hash_of: HashOf = sha256_file) -> str:
    """How the files of a folder are not those with these sha256; "" if they are."""
    said = []
    for name, sha256 in files.items():
        file = inside(folder, name)
        try:
            if not file.is_file():
                said.append(f"{name} is missing")
            elif hash_of(file) != sha256:
                said.append(f"{name} is not what was published ({file.stat().st_size} bytes)")
        except OSError as error:
            said.append(f"{name} cannot be read ({error.strerror})")
    return ", ".join(said)


def looks_whole(folder: Path, entry: Mapping[str, Any]) -> bool:
    """Whether the files of a manifest's entry exist with their sizes; does not read them."""
    sizes = entry["bytes"]
    files = {name: inside(folder, name) for name in entry["files"]}
    return all(
        file.is_file() and file.stat().st_size == sizes.get(name, file.stat().st_size)
        for name, file in files.items()
    )


def of_version(files: Mapping[str, str]) -> dict[str, str]:
    """Those of a graph's files that lie in its version: model.onnx and its large weights."""
    return {n: files[n] for n in files if n == MODEL_FILE or n.endswith(WEIGHTS_SUFFIX)}


def vouched(folder: Path) -> bool:
    """Whether a version's model is the one that the verdict next to it is about."""
    try:
        files = read_json(folder / VERDICT_FILE)["files"]
        return not difference(folder, of_version(files))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def published_versions(repository: Path) -> dict[str, set[int]]:
    """Those that the manifest lists; if there is none, those that a verdict vouches for."""
    manifest = read_manifest(repository)
    if manifest is not None:
        return {model: set(entries) for model, entries in manifest.items()}
    found = {}
    for folder in (repository / model for model in models(repository)):
        found[folder.name] = {v for v in versions(folder) if vouched(folder / str(v))}
    return found


def write_manifest(repository: Path, changed: Mapping[str, set[int]]) -> None:
    """List these versions of these models, and the published versions of the others."""
    known = read_manifest(repository) or {}
    listed = {**published_versions(repository), **changed}
    entries: dict[str, Any] = {}
    for model in models(repository):
        there = listed.get(model, set()) & set(versions(repository / model))
        entries[model] = {}
        for version in sorted(there):
            # A version never changes, so it is hashed once.
            entry = known.get(model, {}).get(version) or _entry(repository / model / str(version))
            if entry is not None:
                entries[model][str(version)] = entry
    written = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(repository / MANIFEST_FILE, {"written": written, "models": entries})


def _entry(folder: Path) -> dict[str, Any] | None:
    """What the manifest says of a version; None if its metrics are damaged."""
    try:
        metrics = dict(read_json(folder / "metrics.json"))
        about = {"data": metrics.get("data"), "versions": metrics.get("versions")}
        about["test"] = dict(metrics["test"])
        about |= {ACCEPTED: metrics[ACCEPTED]} if ACCEPTED in metrics else {}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    files = sorted(folder.iterdir())
    return {
        "files": {file.name: sha256_file(file) for file in files},
        "bytes": {file.name: file.stat().st_size for file in files},
        **about,
    }


def served_version(repository: Path, model: str) -> int | None:
    """The version of a model that is served: the newest one that is as it was published."""
    manifest = read_manifest(repository)
    for version in reversed(versions(repository / model)):
        if not problem(repository, model, version, manifest):
            return version
    return None


def read_contract(repository: Path, model: str) -> dict[str, Any]:
    """A model's contract.json. Raises DamagedError if it is not what `publish` writes there."""
    file = repository / model / CONTRACT_FILE
    contract = read_json(file)
    try:
        tensors = [t for kind in ("inputs", "outputs") for t in contract[kind]]
        whole = (
            isinstance(contract["model"], str)
            and isinstance(contract["meaning"], str)
            and isinstance(contract["max_batch_size"], int)
            and all(isinstance(t[k], str) for t in tensors for k in ("name", "datatype", "meaning"))
            and all(isinstance(t["shape"], list) and t["shape"] for t in tensors)
        )
    except (KeyError, TypeError) as error:
        raise damaged(file, error) from error
    if not whole:
        raise damaged(file, "not the types that belong there")
    return dict(contract)
