"""Training checkpoints without pickle: tensors as safetensors, everything else as JSON."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from seqrec_export.errors import SeqrecError
from seqrec_export.folders import read_json, recover, remove, replace_folder, write_text

LAST = "last"  # the checkpoint that `--resume` goes on from
BEST = "best"
_JSON = "state.json"
_TENSORS = "tensors.safetensors"
CURVE = "curve"  # metrics of every epoch that is done


class PlainCheckpoints(CheckpointIO):
    """A checkpoint is a folder, written next to its place and then renamed."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write `checkpoint` at `path`; a crash or a full disk leaves the previous one."""
        path = Path(path)
        part = path.with_name(path.name + ".part")
        remove(part)
        try:
            part.mkdir(parents=True)
            tensors: dict[str, Tensor] = {}
            write_text(part / _JSON, json.dumps(_encode(checkpoint, tensors)))
            save_tensors(tensors, part / _TENSORS)
            replace_folder(part, path)
        except BaseException:
            remove(part)  # half a checkpoint would fill the disk even more
            raise

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read back what `save_checkpoint` wrote; the caller holds the lock of the training.

        Raises SeqrecError if it is damaged.
        """
        recover(Path(path))
        with _readable(Path(path)):
            tensors = load_file(Path(path) / _TENSORS)
            loaded: dict[str, Any] = _decode(read_json(Path(path) / _JSON), tensors)
            return loaded

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete the checkpoint at `path`, if there is one."""
        remove(Path(path))


def epochs_done(path: Path) -> int:
    """How many epochs the checkpoint at `path` has finished; 0 if that cannot be read."""
    try:
        state = _decode(read_json(path / _JSON), defaultdict(lambda: torch.empty(0)))
        return len(state.get(CURVE, ()))
    except (OSError, ValueError, TypeError, AttributeError):
        return 0


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a safetensors file. Raises OSError with its path if the system refuses that."""
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        said = re.search(r"os error (\d+)", str(error))
        if said is None:
            raise
        number = int(said[1])
        raise OSError(number, os.strerror(number), str(path)) from error


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise SeqrecError(
            f"the checkpoint {path} is damaged ({error}); start over with --retrain"
        ) from error


def _encode(value: Any, tensors: dict[str, Tensor]) -> Any:
    """JSON has no tensors, tuples or integer keys: each becomes a tagged object."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().clone().contiguous().cpu()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[_encode(k, tensors), _encode(v, tensors)] for k, v in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_encode(v, tensors) for v in value]}
    if isinstance(value, list):
        return [_encode(v, tensors) for v in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a checkpoint cannot hold a {type(value).__name__}")


def _decode(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(v, tensors) for v in value]
    if isinstance(value, dict):
        ((tag, content),) = value.items()
        if tag == "tensor":
            return tensors[content]
        if tag == "tuple":
            return tuple(_decode(v, tensors) for v in content)
        return {_decode(k, tensors): _decode(v, tensors) for k, v in content}
    return value
