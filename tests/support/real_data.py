"""The real logs, if they lie next to the repository; they are never part of it."""

import os
from pathlib import Path

import pytest

BESIDE = Path(__file__).parents[2] / ".." / "shared" / "data"


def real_data(relative: str) -> Path:
    """A file or folder of the real logs (in SEQREC_DATA, or next to the repository); or a skip."""
    folder = Path(os.environ.get("SEQREC_DATA", BESIDE))
    if not (folder / relative).exists():
        pytest.skip(f"{folder} has no {relative}; set SEQREC_DATA to the folder with the real logs")
    return (folder / relative).resolve()
