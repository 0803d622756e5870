"""A training that is not over: its folder next to the run, one process in it, no silent loss.

<runs>/.<name>.training/config.json   what is trained, as in the run folder
                        checkpoints/  the last epoch and the best
                        tensorboard/
                        finished.json the run is complete and about to be put in place
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from seqrec_export import locks
from seqrec_export.errors import SeqrecError
from seqrec_export.folders import read_json, recover, remove, write_json
from seqrec_export.training.checkpoints import LAST, epochs_done
from seqrec_export.training.run import (
    CONFIG_FILE,
    FILES_FILE,
    METRICS_FILE,
    WEIGHTS_FILE,
    DamagedRunError,
    finished_key,
)

_FINISHED_FILE = "finished.json"
_OURS = (CONFIG_FILE, WEIGHTS_FILE, METRICS_FILE, FILES_FILE)
_NOT_COMPARED = ("config", "versions", "key", "origin")
_SHOWN = 3  # differences of a training from what is asked for


def work_folder(path: Path) -> Path:
    """Where the run for `path` is trained."""
    return path.with_name(f".{path.name}.training")


def staging_folder(path: Path) -> Path:
    """Where the finished run is written before it is renamed to `path`."""
    return path.with_name(f".{path.name}.finished")


def checkpoints_folder(path: Path) -> Path:
    """Where the training of the run at `path` keeps its checkpoints."""
    return work_folder(path) / "checkpoints"


def alone(path: Path) -> AbstractContextManager[None]:
    """Hold the training of `path`. Raises SeqrecError with the process that has it."""
    file = path.with_name(f".{path.name}.training.lock")
    return locks.exclusive(file, f"{path} is being trained", wait=False)


def require_place(path: Path) -> None:
    """Raise SeqrecError if what is at `path` is not a run: a training would replace it."""
    if path.is_mount():
        raise SeqrecError(
            f"{path} is a mount point, which no run can replace; mount {path.parent} instead"
        )
    if path.exists() and not path.is_dir():
        raise SeqrecError(f"{path} is not a folder; move it away, or give another --runs")
    if path.is_dir():
        names = {file.name for file in path.iterdir()}
        if names and not names & set(_OURS):
            raise SeqrecError(
                f"{path} holds {min(names)} and is not a run; move it away, or give another --runs"
            )


def begin(path: Path, description: Mapping[str, Any], *, resume: bool, retrain: bool) -> Path:
    """The folder to train in, with or without checkpoints to go on from; hold the lock.

    Raises SeqrecError if an unfinished training would be lost, or `resume` finds another one.
    """
    work = work_folder(path)
    remove(staging_folder(path))
    if _is_over(path):
        remove(work)
    recover(checkpoints_folder(path) / LAST)
    begun = (checkpoints_folder(path) / LAST).exists()
    if resume and (begun or (work / CONFIG_FILE).exists()):
        _require_same(work, description)
        return work
    if begun and not retrain:
        raise SeqrecError(_unfinished(path, description))
    remove(work)
    write_json(work / CONFIG_FILE, description)
    return work


def is_complete(path: Path) -> None:
    """Note that the run of the training is complete in its staging folder."""
    write_json(work_folder(path) / _FINISHED_FILE, {})


def kept(path: Path) -> str:
    """What to add to an error; "" if there is no checkpoint to go on from."""
    if not (checkpoints_folder(path) / LAST).exists():
        return ""
    return f"; {work_folder(path)} keeps the training, go on with --resume"


def _is_over(path: Path) -> bool:
    """Whether the run of this training was put in place, and only the folder is left."""
    work = work_folder(path)
    if not (work / _FINISHED_FILE).exists():
        return False
    try:
        return bool(finished_key(path) == _read(work)["key"])
    except SeqrecError:
        return False


def _read(work: Path) -> dict[str, Any]:
    file = work / CONFIG_FILE
    try:
        found = read_json(file)
        if isinstance(found, dict) and isinstance(found.get("key"), str):
            return found
    except (ValueError, FileNotFoundError):
        pass
    raise DamagedRunError(
        f"{file} is damaged, so nobody knows what was trained there; start over with --retrain"
    )


def _require_same(work: Path, description: Mapping[str, Any]) -> None:
    found = _read(work)
    if found["key"] != description["key"]:
        raise SeqrecError(
            f"{work} was begun with other settings, data or versions"
            f"{_differences(found, description)}; repeat those, or drop it and start over with "
            "--retrain instead of --resume"
        )


def _unfinished(path: Path, description: Mapping[str, Any]) -> str:
    work = work_folder(path)
    found = _read(work)
    done = epochs_done(checkpoints_folder(path) / LAST)
    epochs = f"{done} epochs done" if done != 1 else "1 epoch done"
    if found["key"] == description["key"]:
        return (
            f"{work} holds this very training, unfinished ({epochs}); go on with --resume, or "
            "drop it and start over with --retrain"
        )
    return (
        f"{work} holds an unfinished training ({epochs}) that was begun with other settings, data "
        f"or versions{_differences(found, description)}; finish it with those and --resume, or "
        "drop it and start over with --retrain"
    )


def _differences(found: Mapping[str, Any], description: Mapping[str, Any]) -> str:
    """A few of them, for people: ` (dim 64, not 32)`."""
    said = []
    for before, now in (
        (found.get("config", {}), description["config"]),
        (found, {k: v for k, v in description.items() if k not in _NOT_COMPARED}),
        (found.get("versions", {}), description["versions"]),
    ):
        if isinstance(before, dict):
            said += [
                f"{name} {before[name]}, not {now[name]}"
                for name in now
                if name in before and before[name] != now[name] and name != "fingerprint"
            ]
    if not said and found.get("fingerprint") != description["fingerprint"]:
        said = ["the log has changed"]
    if not said and found.get("origin") != description.get("origin"):
        said = ["the model's code has changed"]
    return f" ({'; '.join(said[:_SHOWN])})" if said else ""
