"""A run folder: what one training left behind. safetensors, JSON and Parquet; no pickle.

config.json            model and where it came from, settings, seed, data, versions, key
weights.safetensors    parameters and buffers
vocabulary/*.parquet   ids in index order
held_out.json          raw requests before some held-out events, to verify exports with
tensorboard/           what metrics.json has, for `tensorboard --logdir`
metrics.json           test, baselines, validation curve
files.json             sha256 of the files above except the curves; written last

It is read as a whole or refused with the file that is wrong, and one process at a time uses it.
What it says about where its model came from is for people: no code that it names is imported.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from seqrec_export import locks
from seqrec_export.data.vocabulary import Vocabulary
from seqrec_export.errors import SeqrecError
from seqrec_export.folders import read_json, recover, sha256_file, write_json
from seqrec_export.models import registry
from seqrec_export.models.model import Model
from seqrec_export.training.checkpoints import save_tensors

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "weights.safetensors"
VOCABULARY_FOLDER = "vocabulary"
HELD_OUT_FILE = "held_out.json"
METRICS_FILE = "metrics.json"
FILES_FILE = "files.json"
_DESCRIBED = ("model", "config", "seed", "source", "fingerprint", "key")
_MEASURED = ("test", "baselines", "curve", "seconds")
_LIBRARIES = ("torch", "lightning", "numpy", "onnx", "onnxscript", "onnx-ir")


class DamagedRunError(SeqrecError):
    """A run folder whose training is lost: a file is damaged, missing, or of another version."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished training."""

    path: Path
    model: Model
    config: Any
    seed: int
    net: nn.Module
    vocabularies: Mapping[str, Vocabulary]
    source: str
    fingerprint: str
    metrics: Mapping[str, Any]
    held_out: tuple[dict[str, list[Any]], ...]  # raw values by input; None is unknown


def library_versions() -> dict[str, str]:
    """Versions of what decides about weights and graphs, this package included."""
    versions = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    return {"seqrec-export": importlib.metadata.version("seqrec-export"), **versions}


def alone(path: Path) -> AbstractContextManager[bool]:
    """Hold the run at `path` while it is read, exported or replaced; others wait.

    A process that may not write there shares it with other readers. Gives whether this one may.
    """
    return locks.reading(_lock_file(path), f"{path} is being read or written")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    with alone(path) as may_write:
        if may_write:
            recover(path)
        yield


def _lock_file(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def finished_key(path: Path) -> str | None:
    """The key of the finished run at `path`, or None. Raises DamagedRunError."""
    with _reading(path):
        if not (path / METRICS_FILE).exists():
            return None
        return str(_description(path)["key"])


def finished(
    path: Path, key: str, report: Callable[[str], None], model: Model | None = None
) -> Run | None:
    """The finished run of this key at `path`; None, and its damage reported, if it is not whole."""
    try:
        with _reading(path):
            return load(path, model) if finished_key(path) == key else None
    except DamagedRunError as error:
        report(f"{error}, as is done now")
        return None


def load(path: Path, model: Model | None = None) -> Run:
    """Read a run folder. Raises SeqrecError if it is not one, not finished, or damaged.

    Without `model` it is one of this package, or what an installed package offers by the run's
    name. Nothing that the folder names is imported.
    """
    with _reading(path):
        if not (path / METRICS_FILE).exists():
            lacking = f"{METRICS_FILE}, so it is no finished run"
            if (path / WEIGHTS_FILE).exists():
                raise DamagedRunError(f"{path} lacks {lacking}; run `seqrec-export train` again")
            raise SeqrecError(f"{path} holds no finished run; run `seqrec-export train` first")
        description = _description(path)
        model, config = _model(path, description, model)
        _compare_files(path)
        vocabularies = _vocabularies(path)
        net = _net(path, model, config, vocabularies)
        return Run(
            path=path,
            model=model,
            config=config,
            seed=description["seed"],
            net=net.eval(),
            vocabularies=vocabularies,
            source=description["source"],
            fingerprint=description["fingerprint"],
            metrics=_json(path / METRICS_FILE, _MEASURED),
            held_out=_held_out(path),
        )


def require_still(run: Run) -> None:
    """Raise SeqrecError if another run lies at the path of this one by now."""
    description = _description(run.path)
    # Settings are compared as they are read: a run of an older version lacks the new ones.
    same = run.model if description["model"] == run.model.name else None
    model, config = _model(run.path, description, same)
    now = (model.name, config, description["seed"], description["fingerprint"])
    if now != (run.model.name, run.config, run.seed, run.fingerprint):
        raise SeqrecError(f"{run.path} was trained again by another process; repeat the command")


def write_run(
    folder: Path,
    description: Mapping[str, Any],
    state: dict[str, Tensor],
    vocabularies: Mapping[str, Vocabulary],
    held_out: Iterable[Mapping[str, list[Any]]],
    metrics: Mapping[str, Any],
) -> None:
    """Write what `load` reads, into the folder of a run that is not in its place yet."""
    write_json(folder / CONFIG_FILE, description)
    save_tensors(state, folder / WEIGHTS_FILE)
    for name, vocabulary in vocabularies.items():
        file = folder / VOCABULARY_FOLDER / f"{name}.parquet"
        file.parent.mkdir(exist_ok=True)
        pq.write_table(pa.table({"id": pa.array(list(vocabulary.ids), pa.string())}), file)
    write_json(folder / HELD_OUT_FILE, list(held_out))
    write_json(folder / METRICS_FILE, metrics)
    write_files(folder)


def write_files(path: Path) -> None:
    """Write files.json for all files in the folder of a training that is over."""
    names = [CONFIG_FILE, WEIGHTS_FILE, HELD_OUT_FILE, METRICS_FILE]
    names += [str(file.relative_to(path)) for file in _vocabulary_files(path)]
    hashes = {name: sha256_file(path / name) for name in sorted(names)}
    write_json(path / FILES_FILE, hashes)


def _vocabulary_files(path: Path) -> list[Path]:
    return sorted((path / VOCABULARY_FOLDER).glob("*.parquet"))


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Raise DamagedRunError with the name of the file for any error of its reader."""
    try:
        yield
    except FileNotFoundError as error:
        raise _damaged(file, "it is missing") from error
    except OSError as error:
        if error.errno is not None:  # the machine says no; pyarrow's own have no number
            raise
        raise _damaged(file, str(error)) from error
    except (ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        cause = error.__cause__ if isinstance(error, SeqrecError) else None
        raise _damaged(file, str(cause or error) or type(error).__name__) from error


def _damaged(file: Path, reason: str) -> DamagedRunError:
    said = " ".join(reason.split())[:200]
    return DamagedRunError(f"{file} is damaged ({said}); run `seqrec-export train` again")


def _json(file: Path, keys: Iterable[str]) -> dict[str, Any]:
    with _readable(file):
        content = read_json(file)
        if not isinstance(content, dict):
            raise ValueError("it holds no object")
        if lacking := [key for key in keys if key not in content]:
            raise ValueError(f"{', '.join(lacking)} is not in it")
        return content


def _description(path: Path) -> dict[str, Any]:
    return _json(path / CONFIG_FILE, _DESCRIBED)


def _model(path: Path, description: Mapping[str, Any], given: Model | None) -> tuple[Model, Any]:
    """The model of a run with its settings. Raises SeqrecError if nobody has it.

    Raises DamagedRunError if this version of it lacks the settings.
    """
    name, settings = description["model"], description["config"]
    file = path / CONFIG_FILE
    if not isinstance(name, str):
        raise _damaged(file, "its model has no name")
    if given is not None and given.name != name:
        raise SeqrecError(f"{path} is a run of {name[:100]}, not of {given.name}; name that model")
    model = given or _known(path, name, description.get("origin"))
    if not isinstance(settings, dict):
        raise _damaged(file, "its settings are no object")
    known = {field.name for field in fields(model.config)}
    if unknown := sorted(settings.keys() - known):
        raise _other_version(file, description, f"sets {', '.join(unknown)}")
    try:
        return model, model.config(**settings)
    except (TypeError, ValueError, SeqrecError) as error:
        raise _other_version(file, description, f"cannot be taken ({error})") from error


def _known(path: Path, name: str, origin: Any) -> Model:
    """The model of that name in this installation: only its own list decides."""
    if name in registry.IMPORTED or name in registry.names():
        return registry.find(name)
    if isinstance(origin, dict) and origin.get("imported"):
        raise SeqrecError(
            f"{path} is a run of {name[:100]!r}, a module that another program imported; its code "
            "is not in the folder: call import_module again"
        )
    said = origin.get("model", "") if isinstance(origin, dict) else ""
    said = f" (it says: of {str(said)[:100]})" if said else ""
    raise SeqrecError(
        f"{path} is a run of {name[:100]!r}{said}, which neither this version of "
        f"seqrec-export nor an installed package offers; there are {', '.join(registry.names())}. "
        "A run's code is not imported because the run names it: install its package, or name a "
        "model that you trust with --model package.module:MODEL"
    )


def _other_version(file: Path, description: Mapping[str, Any], what: str) -> DamagedRunError:
    here = library_versions()["seqrec-export"]
    versions = description.get("versions")
    of = versions.get("seqrec-export", "?") if isinstance(versions, dict) else "?"
    return DamagedRunError(
        f"{file} is of another version of seqrec-export ({of}, this is {here}): it {what}; "
        "run `seqrec-export train` again"
    )


def _compare_files(path: Path) -> None:
    """Raise DamagedRunError for a file that is not the one that the training wrote."""
    if not (path / FILES_FILE).exists():
        return  # of a version that wrote none
    for name, sha256 in _json(path / FILES_FILE, [CONFIG_FILE, WEIGHTS_FILE]).items():
        file = path / name
        with _readable(file):
            if sha256_file(file) != sha256:
                raise ValueError(f"it is not what the training wrote, {file.stat().st_size} bytes")


def _vocabularies(path: Path) -> dict[str, Vocabulary]:
    found = {}
    for file in _vocabulary_files(path):
        with _readable(file):
            vocabulary = Vocabulary(pq.read_table(file)["id"].cast(pa.string()).to_pylist())
            if "" in vocabulary.ids or None in vocabulary.ids:
                raise ValueError("an id is empty")
            if len(set(vocabulary.ids)) != len(vocabulary.ids):
                raise ValueError("an id comes twice")
            found[file.stem] = vocabulary
    if "items" not in found:
        raise _damaged(path / VOCABULARY_FOLDER / "items.parquet", "it is missing")
    return found


def _net(
    path: Path, model: Model, config: Any, vocabularies: Mapping[str, Vocabulary]
) -> nn.Module:
    rows = {name: vocabulary.num_rows for name, vocabulary in vocabularies.items()}
    with _readable(path / VOCABULARY_FOLDER):
        net = model.net(config, rows)
    with _readable(path / WEIGHTS_FILE):
        state = load_file(path / WEIGHTS_FILE)
        if said := _difference(net.state_dict(), state):
            raise ValueError(said)
        net.load_state_dict(state)
    return net


def _difference(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            return f"{name} is not in it"
        if name not in expected:
            return f"it holds {name}, which the model does not have"
        if expected[name].shape != found[name].shape:
            shapes = tuple(found[name].shape), tuple(expected[name].shape)
            return f"{name} has the shape {shapes[0]} instead of {shapes[1]}"
    return ""


def _held_out(path: Path) -> tuple[dict[str, list[Any]], ...]:
    file = path / HELD_OUT_FILE
    with _readable(file):
        rows = read_json(file)
        lists = isinstance(rows, list) and all(
            isinstance(row, dict) and all(isinstance(values, list) for values in row.values())
            for row in rows
        )
        if not lists:
            raise ValueError("it holds no requests")
        return tuple(rows)
