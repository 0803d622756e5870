"""A run and its export in another folder."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from seqrec_export.exporting import exported as exporting
from seqrec_export.exporting.exported import Exported, export_run
from seqrec_export.training.run import write_files
from seqrec_export.training.train import load
from support.served import TOP_K


def copy(exported: Exported, path: Path, change: Callable[[dict], None] | None = None) -> Exported:
    """The same run in another folder, perhaps with other weights, and its export."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(exported.run.path, path)
    if change is not None:
        weights = load_file(path / "weights.safetensors")
        change(weights)
        save_file(weights, path / "weights.safetensors")
        write_files(path)
    return export_run(load(path), TOP_K)


@contextmanager
def own_graphs_only() -> Iterator[None]:
    """Export a model's own graphs only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            exporting, "graphs_of", lambda model, config, top_k, _=(): model.graphs(config, top_k)
        )
        yield
