"""The small models of the tests for a bench, and the tests' helpers on its path."""

from pathlib import Path

from bench.harness.served import TOP_K, small_config
from seqrec_export.data.readers.synthetic import generate
from seqrec_export.exporting.exported import Exported, export_run
from seqrec_export.models.registry import MODELS
from seqrec_export.training.train import load, train
from seqrec_export.verification.gate import refused, verify


def small_models(folder: Path, *names: str) -> dict[str, Exported]:
    """Trained, exported and verified; what lies in `folder` from an earlier call is used again."""
    interactions = generate(users=300, items=120, events=6000, sessions=300, seed=1)
    exports = {}
    for name in names or MODELS:
        path = folder / name
        config = small_config(name)
        run = (
            load(path)
            if path.exists()
            else train(MODELS[name], interactions, config, path, progress=False)
        )
        exports[name] = export_run(run, TOP_K)
        assert not refused(exports[name], verify(exports[name]))
        print(f"{name} is ready", flush=True)
    return exports
