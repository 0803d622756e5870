"""Training checkpoints without pickle: tensors as safetensors, everything else as JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from lightning.fabric.plugins import CheckpointIO
from safetensors.torch import load_file, save_file
from torch import Tensor

from seqrec_export.folders import recover, remove, replace_folder

_JSON = "state.json"
_TENSORS = "tensors.safetensors"


class PlainCheckpoints(CheckpointIO):
    """A checkpoint is a folder, written beside its place and then renamed."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write `checkpoint` at `path`; a crash leaves the previous one."""
        path = Path(path)
        beside = path.with_name(path.name + ".part")
        remove(beside)
        beside.mkdir(parents=True)
        tensors: dict[str, Tensor] = {}
        (beside / _JSON).write_text(json.dumps(_encode(checkpoint, tensors)))
        save_file(tensors, beside / _TENSORS)
        replace_folder(beside, path)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read back what `save_checkpoint` wrote."""
        recover(Path(path))
        tensors = load_file(Path(path) / _TENSORS)
        loaded: dict[str, Any] = _decode(json.loads((Path(path) / _JSON).read_text()), tensors)
        return loaded

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete the checkpoint at `path`, if there is one."""
        remove(Path(path))


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
