"""What may come back: the filters of a call, as values of `<model>_filtered`'s inputs.

On the wire a list of nothing is no filter. A caller whose list of allowed items turns out empty
would get everything, so such a list is refused here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seqrec_export.clients.packing import Row, require, values
from seqrec_export.clients.rows import Signature, listed, require_rows
from seqrec_export.errors import SeqrecError

FILTERED, SIMILAR = "_filtered", "_similar_items"  # after a model's name: its graphs
EXCLUDE, KEEP_SEEN, QUERY = "exclude_item_ids", "keep_seen", "query_item_ids"
ALLOW, WHERE = "allow_item_ids", "allow_"  # the latter before an attribute's name

Values = Iterable[str] | None
Where = Mapping[str, Iterable[str] | None] | None


def said(name: str) -> str:
    """An input as the argument that gives it: `allow_colour` is `where={'colour': ...}`."""
    plain = {EXCLUDE: "exclude", ALLOW: "allow", KEEP_SEEN: "keep_seen"}
    return plain.get(name) or f"where={{{name.removeprefix(WHERE)!r}: ...}}"


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What holds for every row of a call; None is no filter."""

    exclude: Values = None
    allow: Values = None
    where: Where = None
    keep_seen: bool = False
    said: Callable[[str], str] = said  # an input, as whoever gave it would write it

    def inputs(self, model: str) -> dict[str, Any]:
        """Values by input, of what is given. Raises SeqrecError."""
        if not isinstance(self.keep_seen, bool):
            raise SeqrecError(f"{model}: keep_seen takes True or False, found {self.keep_seen!r}")
        where = {} if self.where is None else self.where
        if not isinstance(where, Mapping):
            raise SeqrecError(
                f"{model}: where takes lists of values by attribute, as "
                f"{{'garment_group_name': ['Knitwear']}}, found {type(where).__name__}"
            )
        if "item_ids" in where:
            raise SeqrecError(
                f"{model}: where takes attributes, found 'item_ids'; give it as allow"
            )
        given: dict[str, Any] = {EXCLUDE: self.exclude, ALLOW: self.allow}
        given |= {f"{WHERE}{attribute}": wanted for attribute, wanted in where.items()}
        given |= {KEEP_SEEN: True} if self.keep_seen else {}
        return _checked(model, {name: self.said(name) for name in given}, given)


def narrowed(
    model: str, rows: Sequence[Row], filters: Filters, signature_of: Callable[[str], Signature]
) -> tuple[str, list[Row]]:
    """The graph to ask, and the rows with the filters among their values.

    It is the model itself if nothing filters, else `<model>_filtered`. A row may have filters of
    its own, by the names of the inputs. Raises SeqrecError for a filter that the graph lacks, and
    for a list of what is allowed that is empty.
    """
    require_rows(model, rows)
    own = signature_of(model).inputs
    itself = EXCLUDE in own  # asked by the name of a graph that filters
    of_call = filters.inputs(model)
    made: list[Row] = []
    for i, row in enumerate(rows):
        places = {name: f"row {i}, {name!r}" for name in row if is_filter(name, own)}
        mine = _checked(model, places, {name: row[name] for name in places})
        for name in (mine.keys() & of_call.keys()) - {EXCLUDE}:
            raise SeqrecError(
                f"{model}, row {i} has {name!r} of its own, and {filters.said(name)} is given for "
                "all rows; give one of them"
            )
        excluded = of_call.get(EXCLUDE, []) + mine.get(EXCLUDE, [])
        both = of_call | mine | ({EXCLUDE: excluded} if excluded else {})
        if isinstance(both.get(KEEP_SEEN), int) and not both[KEEP_SEEN]:
            del both[KEEP_SEEN]
        made.append({name: row[name] for name in row if name not in places} | both)
    used = of_call.keys() | {name for row in made for name in row if is_filter(name, own)}
    if not used:
        return model, made
    graph = model if itself else f"{model}{FILTERED}"
    try:
        taken = signature_of(graph).inputs
    except SeqrecError as error:
        raise SeqrecError(
            f"{error}; {graph} answers {listed(map(filters.said, used))}: a model that scores "
            f"candidates has none, and {model} has to be exported again if it was exported before "
            "there were filters"
        ) from error
    if lacking := used - taken.keys():
        raise SeqrecError(
            f"{model} does not filter by {listed(map(filters.said, lacking))}; it takes "
            f"{taken_filters(taken, filters.said)}"
        )
    return graph, made


def queries(model: str, items: Sequence[Row | Iterable[str]]) -> list[Row]:
    """Each entry, an id or a few, as a row of `<model>_similar_items`; rows stay as they are."""
    if isinstance(items, str | Mapping) or not isinstance(items, Sequence):
        raise SeqrecError(
            f"{model}: similar() takes a list with an id, or a list of ids, for each answer, as "
            f"[['1193'], ['661', '914']], found {type(items).__name__}"
        )
    return [item if isinstance(item, Mapping) else {QUERY: _list(item)} for item in items]


def taken_filters(inputs: Iterable[str], said: Callable[[str], str] = said) -> str:
    """The filters among a graph's inputs, as a caller writes them."""
    names = [name for name in inputs if is_filter(name, {})]
    attributes = any(name.startswith(WHERE) and name != ALLOW for name in names)
    none = "" if attributes else ", and no attribute: --filter-by names some"
    return f"{', '.join(map(said, names))}{none}"


def is_filter(name: str, own: Mapping[str, object]) -> bool:
    """Whether an input is a filter. `own` are the inputs of the model that is asked.

    What a model takes that has no filters is never one, whatever its name is.
    """
    if name in own and EXCLUDE not in own:
        return False
    return name in {EXCLUDE, KEEP_SEEN} or name.startswith(WHERE)


def _checked(model: str, places: Mapping[str, str], given: Mapping[str, Any]) -> dict[str, Any]:
    """What is given, as lists; an exclusion of nothing is none. `places` name each in messages."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            continue
        if name == KEEP_SEEN:
            found[name] = int(value) if isinstance(value, bool) else value
            continue
        ids = _list(value)
        require(f"{model}, {places[name]}", "BYTES", ids)
        # Triton's native backend cuts a string at NUL, which may leave an empty one: padding.
        if any(text[:1] not in "\0" for text in ids):
            found[name] = ids
        elif name != EXCLUDE:
            raise SeqrecError(
                f"{model}, {places[name]}: found a list without a value, which the server would "
                "take for no filter; leave it out if everything is allowed, and do not ask if "
                "nothing is"
            )
    return found


def _list(value: object) -> list[Any]:
    """Any collection as a list: sets, keys and columns of a table are what callers have."""
    listed = values(value)
    if len(listed) == 1 and listed[0] is value and not isinstance(value, str | bytes | Mapping):
        return list(value) if isinstance(value, Iterable) else listed
    return listed
