"""Any torch module that scores a catalogue for a list of items, as a run that can be served.

The module stays as it is. What is put around it is the wire: raw ids in and out, lists of any
length, what a user has seen left out, the best items first.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from seqrec_export.contract import Graph, Tolerance
from seqrec_export.data.vocabulary import NUM_RESERVED, PAD, UNKNOWN
from seqrec_export.errors import SeqrecError
from seqrec_export.imports.run import (
    IMPORT_TOLERANCE,
    Row,
    untrained_model,
    vocabulary_of,
    write_import,
)
from seqrec_export.models import registry, wire
from seqrec_export.models.settings import WINDOW, Range, Setting
from seqrec_export.nn import layers
from seqrec_export.nn.item_search import best_of
from seqrec_export.nn.ragged import Ragged, compact
from seqrec_export.training.run import Run

Padding = Literal["left", "right"]
# What a module of somebody else may raise when it is called.
_CALL_ERRORS = (
    RuntimeError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
)
_WINDOW = Setting(name="window", kind=int, range=WINDOW)
_PADDING = Setting(name="padding", kind=Padding)
_ROW = Setting(name="row", kind=int, range=Range(low=0, high=2**40))
Graphs = Callable[[int], Mapping[str, Graph]]  # by name, for a number of items in an answer


@dataclass(frozen=True, kw_only=True)
class ImportedConfig:
    """What the rest of the package knows about somebody else's module."""

    max_length: int  # events that it looks at


class NextItem(nn.Module):
    """A module that scores its catalogue for the last events of a history, behind item indices.

    The module is called with (B, W) int64 rows of its own numbering, `padding` on one side, W
    always the whole window, and if `lengths` with (B,) how many of each row are real, at least 1.
    It gives (B, V) scores, or (B, W, V), of which those of the last real event count.
    """

    rows: Tensor  # (V,) the module's row of each item; the padding row for what is no item
    popularity: Tensor  # (V,)

    def __init__(
        self,
        net: nn.Module,
        num_items: int,
        *,
        window: int,
        padding: Padding,
        padding_row: int,
        first_row: int,
        lengths: bool,
    ) -> None:
        super().__init__()
        self.net = net
        self.window, self.padding, self.first_row = window, padding, first_row
        self.takes_lengths = lengths
        rows = torch.arange(num_items + NUM_RESERVED) - NUM_RESERVED + first_row
        rows[:NUM_RESERVED] = padding_row
        self.register_buffer("rows", rows)
        popularity = torch.zeros(num_items + NUM_RESERVED)
        popularity[:NUM_RESERVED] = layers.LOWEST
        self.register_buffer("popularity", popularity)

    def scores(self, history: Ragged) -> Tensor:
        """Item indices -> (B, V) scores; popularity if nothing of a history is known."""
        # The module has never met an unknown item: for it that event did not happen.
        values = torch.where(history.values == UNKNOWN, PAD, history.values)
        known = Ragged(values, history.lengths, history.steps)
        first = self.padding == "right"
        (items,) = compact(known, window=self.window, oldest_first_column=first, fixed_width=True)
        count = (items != PAD).sum(dim=1).clamp(min=1)
        lengths = (count,) if self.takes_lengths else ()
        scores: Tensor = self.net(self.rows[items], *lengths)
        if scores.dim() == 3:
            last = count - 1 if first else torch.full_like(count, self.window - 1)
            scores = scores.gather(1, last[:, None, None].expand(-1, 1, scores.shape[2]))[:, 0]
        scores = scores[:, self.first_row : self.first_row + len(self.rows) - NUM_RESERVED]
        reserved = scores.new_full((1, NUM_RESERVED), layers.LOWEST).expand(scores.shape[0], -1)
        scores = torch.cat([reserved, scores], dim=1)
        return layers.cold_start(scores, layers.known_items(history), self.popularity)


def next_item_graphs(name: str, tolerance: Tolerance, top_k: int) -> dict[str, Graph]:
    """`<name>` gives the best items, `<name>_scorer` rates the candidates that it is given."""

    def reference_scores(net: NextItem, history: Ragged) -> Tensor:
        return layers.mask_seen(net.scores(history), history)

    def recommend(net: NextItem, history: Ragged) -> tuple[Tensor, ...]:
        best = best_of(reference_scores(net, history), top_k)
        return (*best, layers.known_items(history))

    def score(net: NextItem, history: Ragged, candidates: Ragged) -> tuple[Tensor, ...]:
        scores = net.scores(history)[candidates.rows, candidates.values]
        return layers.mask_unknown(scores, candidates.values), layers.known_items(history)

    return {
        name: Graph(
            name=name,
            meaning="the next items for a history, what it already holds left out",
            function=recommend,
            inputs=(wire.HISTORY,),
            outputs=(*wire.ranked_items(top_k), wire.KNOWN_ITEMS),
            tolerance=tolerance,
            reference_scores=reference_scores,
        ),
        f"{name}_scorer": Graph(
            name=f"{name}_scorer",
            meaning="scores of given candidates for a history",
            function=score,
            inputs=(wire.HISTORY, wire.CANDIDATES),
            outputs=(wire.SCORES, wire.KNOWN_ITEMS),
            tolerance=tolerance,
        ),
    }


def import_module(
    net: nn.Module,
    path: Path | str,
    *,
    name: str,
    items: Sequence[str],
    window: int = 50,
    padding: Padding = "left",
    padding_row: int = 0,
    first_row: int = 1,
    lengths: bool = False,
    popularity: Sequence[float] | None = None,
    held_out: Sequence[Row] = (),
    vocabularies: Mapping[str, Sequence[str]] | None = None,
    graphs: Graphs | None = None,
    tolerance: Tolerance = IMPORT_TOLERANCE,
    source: str = "a module of the caller",
) -> Run:
    """A module that was trained elsewhere, as a run at `path` that can be exported and published.

    Without `graphs`, the module is called with (B, window) int64 rows of its own numbering, the
    newest event last, padded on the `padding` side with `padding_row`; if `lengths`, also with (B,)
    how many of each row are real. It gives (B, V) scores, or (B, window, V), of which those of the
    last real event count. `items[i]` is the id of its row `first_row + i`. `popularity`, a number
    for each item, ranks for users without a known item.

    With `graphs`, everything is up to the caller: from a number of items in an answer it makes the
    `Graph`s by name, one of them called `name`; their functions get `net` and item indices, 0
    padding, 1 unknown, `items[i]` the index i + 2. `vocabularies` are further ids by name.

    `held_out` are real requests that the gate asks as well, each the raw values by input, as
    {"history_item_ids": ["1193"]}. `tolerance` is how far a score may be from the module's own in
    float64. The module is copied, to the CPU and in eval mode.

    The run can be exported in this process only: its folder does not hold the module's code.

    Raises SeqrecError if ids are not distinct texts, if the module cannot be called like that, or
    if it gives something else, in float32 or in float64.
    """
    path = Path(path)
    if not isinstance(net, nn.Module):
        raise SeqrecError(
            f"import_module takes a torch module, found {getattr(net, '__name__', type(net))}; "
            "give an nn.Module that is made already, with its weights"
        )
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise SeqrecError(
            f"the name {name!r} cannot be a folder's name; take letters, digits, _ and -"
        )
    if name in registry.OWN or name in registry.IMPORTED:
        raise SeqrecError(f"{name} is a model of seqrec-export; give yours another name")
    if not isinstance(tolerance, Tolerance):
        raise SeqrecError(f"tolerance is {tolerance!r}; give a Tolerance, as Tolerance(2e-5, 1e-6)")
    if isinstance(items, str):
        raise SeqrecError(f"items is one text, {items[:60]!r}; give a list of ids")
    if isinstance(held_out, Mapping):
        raise SeqrecError("held_out is one request; give a list of requests")
    _WINDOW.checked(window)
    _PADDING.checked(padding)
    _ROW.checked(padding_row, "padding_row")
    _ROW.checked(first_row, "first_row")
    ids = {"items": vocabulary_of("items", items)}
    ids |= {key: vocabulary_of(key, value) for key, value in (vocabularies or {}).items()}
    module = copy.deepcopy(net).cpu().float().eval()
    if graphs is None:
        wrapped = NextItem(
            module,
            len(items),
            window=window,
            padding=padding,
            padding_row=padding_row,
            first_row=first_row,
            lengths=lengths,
        )
        if popularity is not None:
            wrapped.popularity[NUM_RESERVED:] = _popularity(popularity, len(items))
        _try(wrapped, name)
        module, graphs = wrapped, partial(next_item_graphs, name, tolerance)
    elif name not in graphs(1):
        raise SeqrecError(
            f"graphs makes {', '.join(graphs(1)) or 'nothing'}; one has to be called {name}"
        )
    made = graphs

    def nowhere(*_: Any) -> nn.Module:
        raise SeqrecError(f"{name} is a module of another program, which has to import it again")

    model = untrained_model(
        name,
        "a module that was trained elsewhere",
        ImportedConfig,
        nowhere,
        lambda config, top_k: dict(made(top_k)),
    )
    return write_import(
        path,
        model,
        ImportedConfig(max_length=window),
        module,
        ids,
        source=source,
        held_out=_requests(held_out, graphs(1)),
    )


def _requests(rows: Sequence[Row], graphs: Mapping[str, Graph]) -> list[Row]:
    """Rows that the gate can ask with. Raises SeqrecError for one that no caller could send."""
    taken = {spec.name: spec for graph in graphs.values() for spec in graph.inputs}
    for i, row in enumerate(rows):
        if row.keys() != rows[0].keys() or not row.keys() <= taken.keys():
            raise SeqrecError(
                f"held_out[{i}] gives {', '.join(row) or 'nothing'}; every row gives the same of "
                f"{', '.join(taken)}"
            )
        for name, values in row.items():
            kinds = (str,) if taken[name].dtype == "string" else (int, float, type(None))
            if isinstance(values, str) or not all(isinstance(value, kinds) for value in values):
                raise SeqrecError(
                    f"held_out[{i}] gives {values!r} as {name}; give a list of "
                    f"{'texts' if kinds == (str,) else 'numbers'}"
                )
    return list(rows)


def _popularity(popularity: Sequence[float], num_items: int) -> Tensor:
    try:
        found = torch.as_tensor(popularity, dtype=torch.float32)
    except (TypeError, ValueError) as error:
        raise SeqrecError(f"popularity is not a list of numbers: {error}") from error
    if found.shape != (num_items,) or not found.isfinite().all():
        raise SeqrecError(
            f"popularity has the shape {tuple(found.shape)}; give a finite number for each of the "
            f"{num_items:,} items"
        )
    return found


def _try(net: NextItem, name: str) -> None:
    """Call the module as the gate will. Raises SeqrecError with what goes wrong."""
    num_items = len(net.rows) - NUM_RESERVED
    history = Ragged.of(torch.tensor([[PAD, NUM_RESERVED], [PAD, PAD]]))
    with torch.inference_mode():
        for kind, one in (("float32", net), ("float64", copy.deepcopy(net).double())):
            try:
                raw = _raw(one, history)
            except _CALL_ERRORS as error:
                said = " ".join(str(error).split()) or type(error).__name__
                raise SeqrecError(
                    f"{name}: the module cannot be called with (2, {net.window}) rows"
                    f"{' and (2,) lengths' * net.takes_lengths} in {kind}: {said}"
                ) from error
            needed = net.first_row + num_items
            shape = tuple(raw.shape) if isinstance(raw, Tensor) else type(raw).__name__
            right = isinstance(raw, Tensor) and (
                (raw.dim() == 2 or (raw.dim() == 3 and raw.shape[1] == net.window))
                and raw.shape[0] == 2
                and raw.shape[-1] >= needed
                and raw.is_floating_point()
            )
            if not right:
                raise SeqrecError(
                    f"{name}: the module gives {shape}; it has to give scores, floats, "
                    f"of {needed:,} rows or more ({num_items:,} items from row {net.first_row}), "
                    f"as (2, V) or (2, {net.window}, V)"
                )
            if not one.scores(history).isfinite().all():
                raise SeqrecError(
                    f"{name}: the module's scores are not finite for a history of one item"
                )


def _raw(net: NextItem, history: Ragged) -> Any:
    items = history.values.view(len(history.lengths), -1)
    rows = torch.full((len(items), net.window), int(net.rows[PAD]))
    place = 0 if net.padding == "right" else net.window - 1
    rows[:, place] = net.rows[items[:, -1]]
    lengths = (torch.ones(len(items), dtype=torch.int64),) if net.takes_lengths else ()
    return net.net(rows, *lengths)
