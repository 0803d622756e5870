"""What lies in a repository's folder."""

import json
from pathlib import Path


def content(folder: Path) -> dict[str, bytes]:
    """Every file of the repository, but for the lock and the time in the manifest."""
    files = {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}
    files.pop(".seqrec.lock", None)
    if "manifest.json" in files:
        files["manifest.json"] = json.dumps(json.loads(files["manifest.json"])["models"]).encode()
    return files


def leftovers(repository: Path) -> list[str]:
    """What is only there while somebody writes."""
    return [str(f.relative_to(repository)) for f in repository.rglob("*.part")]
