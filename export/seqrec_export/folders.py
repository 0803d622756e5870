"""Writing so that a crash leaves the old or the new, never a half."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from seqrec_export.errors import SeqrecError


def write_json(path: Path, content: Any) -> None:
    """Write beside `path`, then rename."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write beside `path`, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def read_json(path: Path) -> Any:
    """The parsed content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def replace_folder(new: Path, path: Path) -> None:
    """Put the folder `new` at `path`; what was there goes away only after."""
    recover(path)
    old = _set_aside(path)
    remove(old)
    if path.exists():
        path.rename(old)
    new.rename(path)
    remove(old)


def recover(path: Path) -> None:
    """Bring back what a `replace_folder` that was killed between its two renames set aside."""
    if not path.exists() and _set_aside(path).exists():
        _set_aside(path).rename(path)


def _set_aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def remove(path: Path) -> None:
    """Delete a folder, a file, or nothing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def inside(root: Path, *names: str) -> Path:
    """`root/name/name`. Raises SeqrecError for names that lead out: "..", absolute, or a link."""
    path = root.joinpath(*names)
    plain = all(name not in ("", ".", "..") and not set("/\0") & set(name) for name in names)
    if not plain or not path.resolve().is_relative_to(root.resolve()):
        shown = "/".join(names)
        raise SeqrecError(f"{shown!r} leads out of {root}; give plain names of what lies in it")
    return path


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(content: Any) -> str:
    """Hex sha256 of anything that JSON can hold, independent of the order of keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
