"""What is known about the ids of a model: titles, attributes, and which ids there are to suggest.

All of it is for people only: the page works without, and the server alone decides what is known.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from seqrec_export.errors import SeqrecError
from seqrec_export.exporting.kept_attributes import ATTRIBUTES_FILE
from seqrec_export.folders import read_json

SUGGESTED = 12
ALLOW, HISTORY = "allow_", "history_"  # what the names of inputs begin with
# An input, and the vocabulary whose name is another one.
_VOCABULARIES = {"user_id": "users"}
_ONE_LINE = {ord(c): " " for c in "\n\t\r"}


class Suggestions:
    """Texts, with a title or without, to be found by what somebody has typed so far."""

    def __init__(self, texts: Iterable[str], titles: Mapping[str, str] | None = None) -> None:
        self.texts = list(texts)
        self._titles = titles or {}

    @cached_property
    def _lines(self) -> tuple[str, list[int]]:
        """All in one text, a line each, which is searched fast, and where each line begins."""
        starts, lines, at = [], [], 0
        for text in self.texts:
            title = self._titles.get(text, "")
            line = f"\n{_plain(text)}\t{_plain(title)}"
            starts.append(at)
            lines.append(line)
            at += len(line)
        return "".join(lines) + "\n", starts

    def find(self, typed: str, most: int = SUGGESTED) -> list[str]:
        """Those whose id begins with it, whose title does, with a word that does, or with it in."""
        typed = _plain(typed).strip()
        if not typed:
            return self.texts[:most]
        found: dict[int, None] = {}
        lines, starts = self._lines
        # An id that is exactly this comes first.
        for before, after in (("\n", "\t"), ("\n", ""), ("\t", ""), (" ", ""), ("", "")):
            for at in _places(lines, f"{before}{typed}{after}"):
                found.setdefault(bisect_right(starts, at) - 1)
                if len(found) == most:
                    return [self.texts[i] for i in found]
        return [self.texts[i] for i in found]


@dataclass(frozen=True)
class Known:
    """What a run's folder tells about one model; all of it is empty if there is no such folder."""

    ids: Mapping[str, Sequence[str]] = field(default_factory=dict)  # by vocabulary
    attributes: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)  # by item
    meanings: Mapping[str, str] = field(default_factory=dict)  # of inputs

    @cached_property
    def values(self) -> dict[str, list[str]]:
        """The values of each attribute, in the order of the alphabet."""
        found: dict[str, set[str]] = {}
        for of_item in self.attributes.values():
            for name, values in of_item.items():
                found.setdefault(name, set()).update(values)
        return {name: sorted(values) for name, values in found.items()}

    def texts(self, name: str) -> Sequence[str]:
        """What an input that holds no item ids may be given; nothing if that is not known."""
        if name.startswith(ALLOW):
            return self.values.get(name.removeprefix(ALLOW), ())
        return self.ids.get(_VOCABULARIES.get(name, name.removeprefix(HISTORY)), ())


def read_run(run: Path, graphs: Sequence[str]) -> Known:
    """What lies in a run's folder. Raises SeqrecError if it is damaged."""
    try:
        return Known(
            ids={file.stem: _texts(file, "id") for file in run.glob("vocabulary/*.parquet")},
            attributes=_attributes(run / "onnx" / ATTRIBUTES_FILE),
            meanings={
                tensor["name"]: tensor["meaning"]
                for graph in graphs
                if (file := run / "onnx" / graph / "contract.json").is_file()
                for tensor in read_json(file)["inputs"]
            },
        )
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise SeqrecError(f"{run} is damaged ({error}); name another folder with --runs") from error


def _attributes(file: Path) -> dict[str, dict[str, list[str]]]:
    if not file.is_file():
        return {}
    table = pq.read_table(file)
    names = [name for name in table.column_names if name != "item_id"]
    columns = [table[name].to_pylist() for name in names]
    return {
        item: dict(zip(names, values, strict=True))
        for item, *values in zip(table["item_id"].to_pylist(), *columns, strict=True)
    }


def _texts(file: Path, column: str) -> list[Any]:
    return list(pq.read_table(file)[column].cast(pa.string()).to_pylist())


def _plain(text: str) -> str:
    """As it is searched: capitals do not count, and an id with a line break is still one line."""
    return text.lower().translate(_ONE_LINE)


def _places(text: str, wanted: str) -> Iterator[int]:
    """Where it stands, at most once a line."""
    at = text.find(wanted)
    while at >= 0:
        # What begins with the line break belongs to the line that it opens.
        yield at
        end = text.find("\n", at + 1)
        at = text.find(wanted, end) if end >= 0 else -1
