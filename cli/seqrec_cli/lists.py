"""Lists on the command line, as a line of CSV or as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from seqrec_export.errors import SeqrecError

if TYPE_CHECKING:
    from seqrec_export.clients.filters import Filters

# A part in quotes, which may hold commas, or one without quotes, up to the comma.
_PART = re.compile(r'\s*"(?P<quoted>(?:[^"]|"")*)"\s*,|(?P<plain>[^,]*),')
_NUMBER = re.compile(
    r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf|infinity)", re.IGNORECASE
)


def texts(option: str, given: Sequence[str] | None) -> list[str] | None:
    """The parts of an option's values, one value after the other: `1,"a, b",` is 1, `a, b`, "".

    Blanks around a part are dropped unless they are in its quotes; `""` in quotes is a quote. An
    empty part stays, so that parallel lists keep their places. A value may be a JSON list instead.
    Raises SeqrecError for a quote that has no end.
    """
    if given is None:
        return None
    return [part for text in given for part in _parts(option, text)]


def numbers(option: str, given: Sequence[str] | None) -> list[float] | None:
    """The same as numbers; an empty part is NaN, which is unknown. Raises SeqrecError."""
    parts = texts(option, given)
    if parts is None:
        return None
    for part in parts:
        if part and not _NUMBER.fullmatch(part):
            raise SeqrecError(
                f"{option}: takes numbers (5,4.5,3), and nothing in place of an unknown one"
                f" (5,,3); found {part!r}"
            )
    return [float(part or "nan") for part in parts]


def by_attribute(given: Sequence[str]) -> dict[str, list[str]]:
    """The values that --where gives to each attribute."""
    wanted: dict[str, list[str]] = {}
    for text in given:
        name, separator, values = text.partition("=")
        name = name.strip()
        if not separator or not name:
            raise SeqrecError(
                f"--where {text}: write an attribute and its values, as garment_group_name=Knitwear"
            )
        wanted.setdefault(name, []).extend(texts(f"--where {name}", [values]) or [])
    return wanted


def filters(
    exclude: Sequence[str] | None,
    allow: Sequence[str] | None,
    where: Sequence[str] | None,
    *,
    keep_seen: bool,
) -> Filters:
    """What --exclude, --allow, --where and --keep-seen say. Raises SeqrecError."""
    from seqrec_export.clients.filters import Filters

    return Filters(
        exclude=texts("--exclude", exclude),
        allow=texts("--allow", allow),
        where=by_attribute(where or []),
        keep_seen=keep_seen,
        said=filter_option,
    )


def filter_option(name: str) -> str:
    """A filter among a graph's inputs, as an option."""
    plain = {"exclude_item_ids": "--exclude", "allow_item_ids": "--allow"}
    if name == "keep_seen":
        return "--keep-seen"
    return plain.get(name) or f"--where {name.removeprefix('allow_')}=..."


def _parts(option: str, text: str) -> list[str]:
    if not text.strip():
        return []
    if (listed := _json(text)) is not None:
        return [_text(option, part) for part in listed]
    parts = []
    for found in _PART.finditer(f"{text},"):
        quoted, plain = found["quoted"], found["plain"]
        if quoted is None and plain.lstrip().startswith('"'):
            raise SeqrecError(
                f"{option}: {plain.strip()!r} begins with a quote that does not end it; write an id"
                ' with a comma as "a,b", and one with a quote as "say ""hi"""'
            )
        parts.append(plain.strip() if quoted is None else quoted.replace('""', '"'))
    return parts


def _text(option: str, part: object) -> str:
    if part is None:
        return ""
    if not isinstance(part, str):
        raise SeqrecError(f"{option}: takes a JSON list of texts or numbers, found {part!r} in it")
    return part


def _json(text: str) -> list[object] | None:
    """A text that is a JSON list, with numbers as they were written; None for any other."""
    if not text.lstrip().startswith("["):
        return None  # `[red]rose` begins like one as well
    try:
        found: list[object] = json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):
        return None
    return found
