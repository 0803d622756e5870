"""The models that can be built: one file each, listed here, and those of other packages.

Another package offers a model by an entry point of the group `seqrec_export.models`; a model that
is being written is named as `package.module:MODEL`. Nothing is imported before it is asked for.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from hashlib import sha256
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqrec_export.errors import SeqrecError

if TYPE_CHECKING:
    from seqrec_export.models.model import Model

GROUP = "seqrec_export.models"
OWN = ("gru4att", "two_tower", "mlink", "caser", "sasrec")
# Networks that were trained elsewhere: their runs are found by these names; nobody builds them.
IMPORTED = {
    "rectools_sasrec": "seqrec_export.imports.rectools:MODEL",
    "recbole_sasrec": "seqrec_export.imports.recbole_nets:SASREC",
    "recbole_gru4rec": "seqrec_export.imports.recbole_nets:GRU4REC",
}
TO_ASK, TO_EMBED = "sasrec", "gru4att"  # if nobody names a model

# What a module of somebody else may raise while it is imported.
_IMPORT_ERRORS = (
    SeqrecError,
    ImportError,
    AttributeError,
    SyntaxError,
    NameError,
    TypeError,
    ValueError,
    LookupError,
    RuntimeError,
    OSError,
)


class _Own(Mapping[str, "Model"]):
    """Name -> model of this package, imported when it is taken."""

    def __getitem__(self, name: str) -> Model:
        if name not in OWN:
            raise KeyError(name)
        model: Model = importlib.import_module(f"seqrec_export.models.{name}").MODEL
        return model

    def __iter__(self) -> Iterator[str]:
        return iter(OWN)

    def __len__(self) -> int:
        return len(OWN)


MODELS: Mapping[str, Model] = _Own()


def names() -> list[str]:
    """The models of this package, and those that installed packages offer, broken ones too."""
    return [*OWN, *sorted({point.name for point in _offered()} - {*OWN})]


def find(asked: str) -> Model:
    """The model of a name, or of `package.module:MODEL`. Raises SeqrecError if there is none."""
    if ":" in asked:
        return _referred(asked)
    if asked in OWN:
        return MODELS[asked]
    if asked in IMPORTED:
        return _import(IMPORTED[asked], asked)
    points = [point for point in _offered() if point.name == asked]
    if not points:
        raise SeqrecError(
            f"no model is called {asked!r}; there are {', '.join(names())}, or give one of your "
            "own as package.module:MODEL"
        )
    if len(points) > 1:
        both = " and ".join(sorted(map(_of, points)))
        raise SeqrecError(
            f"{both} both offer a model called {asked!r}; "
            "uninstall one, or give package.module:MODEL"
        )
    return _opened(points[0])


def broken() -> dict[str, str]:
    """What is wrong with the models that installed packages offer, by name; imports them."""
    found = {}
    for point in _offered():
        try:
            if point.name in OWN:
                found[point.name] = (
                    f"{_of(point)} offers a model called {point.name!r}, like one of "
                    "seqrec-export, which is used instead"
                )
            else:
                find(point.name)
        except SeqrecError as error:
            found[point.name] = str(error)
    return found


def origin(model: Model) -> dict[str, str]:
    """Where a model came from, for people and for the key of a run: it is never used to import.

    `model` is `package.module:MODEL`; `distribution`, `version` and `entry_point` if it is of an
    entry point that was opened here; `source` is a hash of its files, if there are any.
    """
    module = model.config.__module__
    held = vars(sys.modules[module]) if module in sys.modules else {}
    name = next((name for name, value in held.items() if value is model), "")
    found = {"model": f"{module}:{name}" if name else module}
    if is_own(model):
        return found
    for point in _offered():
        if point.dist and (point.value == found["model"] or _OPENED.get(point) is model):
            found |= {"distribution": point.dist.name, "version": point.dist.version}
            found |= {"entry_point": point.name}
    if files := source_files(model):
        found["source"] = sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()
    return found


def is_own(model: Model) -> bool:
    """Whether a model's code is of this package."""
    return model.config.__module__.startswith("seqrec_export.")


def source_files(model: Model) -> list[Path]:
    """The files that hold a model's own code, as far as they can be found.

    For another package than this one, those in the same folder too.
    """
    parts: tuple[Any, ...] = (model.net, model.graphs, model.batches)
    modules = {str(getattr(part, "__module__", "")) for part in parts}
    files: set[Path] = set()
    for name in modules | {model.config.__module__}:
        if name.startswith("seqrec_export.") and name != model.config.__module__:
            continue  # shared by all models
        module = sys.modules.get(name)
        file = Path(getattr(module, "__file__", None) or "")
        if file.is_file():
            of_package = not is_own(model) and bool(getattr(module, "__package__", ""))
            files |= set(file.parent.glob("*.py")) if of_package else {file}
    return sorted(files)


_OPENED: dict[EntryPoint, Model] = {}


def _offered() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=GROUP))


def _of(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value


def _opened(point: EntryPoint) -> Model:
    if point not in _OPENED:
        what = f"{point.name}, which {_of(point)} offers as {point.value},"
        model = _import(point.value, what)
        if model.name != point.name:
            raise SeqrecError(
                f"{what} is a model called {model.name!r}; its entry point needs the same name"
            )
        _OPENED[point] = model
    return _OPENED[point]


def _referred(reference: str) -> Model:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # at the end: a file here cannot replace an installed module
    model = _import(reference, reference)
    if model.name in OWN and model is not MODELS[model.name]:
        raise SeqrecError(
            f"{reference} is a model called {model.name!r}, which is the name of a model of "
            "seqrec-export; give it another name"
        )
    return model


def _import(reference: str, what: str) -> Model:
    """The object of `package.module:NAME`. Raises SeqrecError if it is no Model, or fails."""
    from seqrec_export.models.model import Model

    module, _, attribute = reference.partition(":")
    if not module or not attribute:
        raise SeqrecError(f"{what} names no model; write package.module:MODEL")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except _IMPORT_ERRORS as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise SeqrecError(
            f"{what} cannot be imported: {type(error).__name__}: {said}; install or correct it"
        ) from error
    if not isinstance(found, Model):
        raise SeqrecError(f"{what} is of the type {type(found).__name__}; name a Model")
    return found
