"""What a backend of another language is built from: library, protocol, and the models' types.

A file of `clients/` whose name ends in `.j2` is a template of what the models decide; one with
`__model__` or `__Model__` in its name becomes one file a model, in snake_case or PascalCase. The
client of a model also asks `<model>_filtered` and `<model>_similar_items`, which have none.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from seqrec_export.clients.filters import (
    ALLOW,
    EXCLUDE,
    FILTERED,
    KEEP_SEEN,
    QUERY,
    SIMILAR,
    WHERE,
    is_filter,
)
from seqrec_export.clients.openapi import CONTRACT_FILE, GOLDEN_FILE, OPENAPI_FILE, write_openapi
from seqrec_export.clients.protocol import FILE as PROTO_FILE
from seqrec_export.clients.protocol import descriptor_set, proto_text
from seqrec_export.errors import SeqrecError
from seqrec_export.folders import remove, replace_content, replace_folder
from seqrec_export.repository.published import models, read_contract, versions

LANGUAGES = ("node", "go", "java", "cpp")
PROTOSET_FILE = "inference.protoset"
REPLAY_FILE = "REPLAY.md"  # how to replay what is in MODELS
MODELS = "models"
_TEMPLATE = ".j2"
_BUILT = shutil.ignore_patterns("bin", "build", "dist", "inference", "node_modules", "inference.*")
# Keywords of any of the languages that might be the name of an input.
_KEYWORDS = (
    "abstract auto bool boolean break byte case catch char class const continue default delete do"
    " double else enum explicit export extends extern false final float for friend function goto if"
    " implements import in inline int interface long mutable namespace native new null operator"
    " package private protected public record register return short signed sizeof static struct"
    " super switch template this throw true try type typedef union unsigned using var void volatile"
    " while with yield"
)
_RESERVED = frozenset(_KEYWORDS.split())


@dataclass(frozen=True)
class Field:
    """An input or output of a model, as in its contract."""

    name: str
    datatype: str  # BYTES, FP32 or INT32
    size: int | None  # how many values a row has, None for a list of any length
    meaning: str
    aligned_with: str = ""  # the history by which a client lays out a list of any length

    @property
    def scalar(self) -> bool:
        """Whether a row has one value."""
        return self.size == 1 and not self.aligned_with

    @property
    def given(self) -> str:
        """What a caller of a typed client gives: the client lays out the lists."""
        if not self.aligned_with:
            return self.meaning
        what, _, _ = self.meaning.partition(", of the last ")
        return f"{what}, parallel to {self.aligned_with}, in its order; NaN is unknown"

    @property
    def snake(self) -> str:
        """The name as an identifier of any language: `price (EUR)` -> `price_eur`."""
        return snake(self.name)

    @property
    def pascal(self) -> str:
        """`history_item_ids` -> `HistoryItemIds`."""
        return pascal(self.name)

    @property
    def camel(self) -> str:
        """`history_item_ids` -> `historyItemIds`."""
        if self.snake.endswith("_"):
            return self.snake
        return self.pascal[0].lower() + self.pascal[1:]


@dataclass(frozen=True)
class Narrowing:
    """The inputs of a graph that say what may come back."""

    inputs: tuple[Field, ...]

    @property
    def attributes(self) -> tuple[Field, ...]:
        """Those of attributes, by the names of these: `allow_colour` is `colour`."""
        return tuple(
            replace(field, name=field.name.removeprefix(WHERE))
            for field in self.inputs
            if field.name.startswith(WHERE) and field.name != ALLOW
        )

    @property
    def keeps_seen(self) -> bool:
        """Whether what the history holds may be let back in."""
        return any(field.name == KEEP_SEEN for field in self.inputs)


@dataclass(frozen=True)
class Served:
    """What a typed client needs to know about a model."""

    name: str
    meaning: str
    max_batch_size: int
    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    filtered: Served | None = None  # what is asked if a call has filters
    similar: Served | None = None  # what is asked for similar items

    @property
    def filters(self) -> Narrowing:
        """By what its `filtered` narrows answers down."""
        assert self.filtered is not None
        own = {field.name for field in self.inputs}
        return Narrowing(tuple(f for f in self.filtered.inputs if f.name not in own))

    @property
    def similar_filters(self) -> Narrowing:
        """By what its `similar` narrows answers down."""
        assert self.similar is not None
        return Narrowing(tuple(f for f in self.similar.inputs if f.name != QUERY))

    @property
    def pascal(self) -> str:
        """`two_tower_item_encoder` -> `TwoTowerItemEncoder`."""
        return pascal(self.name)

    @property
    def method(self) -> str:
        """The method of a client that calls it: `recommend`, `score` or `encode`."""
        given = {field.name for field in self.outputs}
        if {"item_ids", "scores"} <= given:
            return "recommend"
        return "score" if "scores" in given else "encode"

    @property
    def embedding(self) -> str:
        """The output that `encode` gives."""
        (name,) = (field.name for field in self.outputs if field.name.endswith("_embedding"))
        return name


def snake(name: str) -> str:
    """Any name -> an identifier in snake_case. Raises SeqrecError if nothing is left of it."""
    parts = [part.lower() for part in re.findall(r"[0-9A-Za-z]+", name)]
    if not parts:
        raise SeqrecError(
            f"{name!r} has no letter from A to Z; a typed client needs a name with one"
        )
    made = "_".join(parts)
    made = f"n{made}" if made[0].isdigit() else made
    return f"{made}_" if made in _RESERVED else made


def pascal(name: str) -> str:
    """Any name -> an identifier in PascalCase."""
    return "".join(part.capitalize() for part in snake(name).split("_"))


def write_clients(repository: Path, out: Path, languages: Sequence[str] = LANGUAGES) -> list[str]:
    """Write clients of what a repository holds; returns the names of the models.

    `out` is replaced as a whole, and left alone if anything fails. Raises SeqrecError if the
    repository is damaged, or if `out` holds something that this function did not write.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not _ours(out):
        raise SeqrecError(f"{out} holds something else; give a new folder with --out")
    names = models(repository)
    served = _joined([_served(repository, name) for name in names])
    _require_distinct(names, "models")
    sources = _sources()
    out = out.resolve()
    # A mount point cannot be renamed, and a shell in the folder would be left in a deleted one.
    fixed = out.is_dir() and (out.is_mount() or Path.cwd().is_relative_to(out))
    staged = out / ".writing" if fixed else out.with_name(f".{out.name}.writing")
    remove(staged)
    staged.mkdir(parents=True)
    try:
        protocol = descriptor_set().SerializeToString(deterministic=True)
        (staged / PROTOSET_FILE).write_bytes(protocol)
        (staged / PROTO_FILE).write_text(proto_text(), encoding="utf-8")
        write_openapi(repository, staged / OPENAPI_FILE)
        shutil.copyfile(sources / REPLAY_FILE, staged / REPLAY_FILE)
        for name in names:
            _record(repository / name, staged / MODELS / name)
        for language in languages:
            shutil.copytree(sources / language, staged / language, ignore=_BUILT)
            _render(staged / language, served)
        (replace_content if fixed else replace_folder)(staged, out)
    finally:
        remove(staged)
    return names


def _ours(out: Path) -> bool:
    return (out / PROTOSET_FILE).is_file() or (out / ".writing" / PROTOSET_FILE).is_file()


def _record(model: Path, to: Path) -> None:
    """Copy what proves a client of any language: the contract, and requests with answers."""
    to.mkdir(parents=True)
    shutil.copyfile(model / CONTRACT_FILE, to / CONTRACT_FILE)
    newest = str(versions(model)[-1])
    if (model / newest / GOLDEN_FILE).exists():
        (to / newest).mkdir()
        shutil.copyfile(model / newest / GOLDEN_FILE, to / newest / GOLDEN_FILE)


def _sources() -> Path:
    """`clients/`, in an installed package or next to it in the project."""
    here = Path(__file__).parent
    for folder in (here / "sources", here.parents[2] / "clients"):
        if folder.is_dir():
            return folder
    raise SeqrecError("this installation has no clients/; install seqrec-export again")


def _served(repository: Path, name: str) -> Served:
    contract = read_contract(repository, name)
    model = Served(
        name=contract["model"],
        meaning=contract["meaning"],
        max_batch_size=contract["max_batch_size"],
        inputs=tuple(map(_field, contract["inputs"])),
        outputs=tuple(map(_field, contract["outputs"])),
    )
    _require_distinct([field.name for field in model.inputs], f"inputs of {model.name}")
    return model


def _joined(served: Sequence[Served]) -> list[Served]:
    """The models that have a client of their own, with the graphs that it asks as well."""
    by_name = {model.name: model for model in served}
    made, covered = [], set()
    for model in served:
        own, gives = model.inputs, {field.name for field in model.outputs}
        filtered = by_name.get(f"{model.name}{FILTERED}")
        similar = by_name.get(f"{model.name}{SIMILAR}")
        if model.method != "recommend":
            filtered = similar = None
        if filtered and not _narrows(filtered, own, gives):
            filtered = None
        if similar and not (
            similar.inputs[0].name == QUERY and _narrows(similar, similar.inputs[:1], gives)
        ):
            similar = None
        model = replace(model, filtered=filtered, similar=similar)
        for found, what in ((filtered, "filters"), (similar, "similar_filters")):
            if found:
                covered.add(found.name)
                attributes = getattr(model, what).attributes
                _require_distinct([f.name for f in attributes], f"attributes of {found.name}")
        made.append(model)
    return [model for model in made if model.name not in covered]


def _narrows(graph: Served, own: Sequence[Field], gives: set[str]) -> bool:
    """Whether a graph takes these inputs, and then nothing but filters."""
    more = {field.name for field in graph.inputs[len(own) :]}
    return (
        [field.name for field in graph.inputs[: len(own)]] == [field.name for field in own]
        and {EXCLUDE, ALLOW} <= more
        and all(is_filter(name, {}) for name in more)
        and {field.name for field in graph.outputs} == gives
    )


def _require_distinct(names: Sequence[str], what: str) -> None:
    found: dict[str, str] = {}
    for name in names:
        other = found.setdefault(snake(name), name)
        if other != name:
            raise SeqrecError(
                f"{what}: {other!r} and {name!r} would both be called {snake(name)!r}"
            )


def _field(entry: dict[str, Any]) -> Field:
    _, size = entry["shape"]
    size = size if isinstance(size, int) else None
    aligned_with = entry.get("aligned_with", "")
    return Field(entry["name"], entry["datatype"], size, entry["meaning"], aligned_with)


def _render(folder: Path, served: Sequence[Served]) -> None:
    environment = Environment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # source code
    )
    environment.filters["comment"] = _comment
    environment.filters["quoted"] = partial(json.dumps, ensure_ascii=False)
    for template in sorted(folder.rglob(f"*{_TEMPLATE}")):
        compiled = environment.from_string(template.read_text(encoding="utf-8"))
        for path, context in _targets(template, served):
            path.write_text(compiled.render(context), encoding="utf-8")
        template.unlink()


def _comment(text: str) -> str:
    """A meaning as one line of a comment in any of the languages."""
    return " ".join(text.replace("*/", "* /").split()).rstrip("\\")


def _targets(template: Path, served: Sequence[Served]) -> Iterator[tuple[Path, dict[str, Any]]]:
    name = template.name.removesuffix(_TEMPLATE)
    if "__model__" not in name and "__Model__" not in name:
        yield template.with_name(name), {"models": served}
        return
    for model in served:
        own = name.replace("__model__", model.name).replace("__Model__", model.pascal)
        yield template.with_name(own), {"models": served, "model": model}
