"""Graph: what a model serves, and Model: what the rest of the package knows of one.

The tensors of the wire contract stand here once; ONNX axes, `config.pbtxt`, `contract.json`, golden
requests and the random requests of the parity check are derived from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from torch import Tensor, nn

from seqrec_export.errors import SeqrecError

if TYPE_CHECKING:
    import numpy as np

    from seqrec_export.histories import Dataset

Dtype = Literal["string", "float32", "int32"]
ItemPrecision = Literal["float32", "int8"]
ITEM_PRECISIONS: tuple[ItemPrecision, ...] = get_args(ItemPrecision)
Axis = str | int  # a name for a dynamic axis, a number for a fixed one


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One tensor on the wire. The first axis is always the batch.

    A `ragged` one is a list: requests of other lengths share a batch with it. In the ONNX file and
    for a graph's function it lies flat, row after row. A list that callers send holds strings:
    Triton's native backend stops collecting a batch at a request whose list of numbers is empty,
    and computes those behind it on memory that nobody has set.

    Numbers that go with a history are `aligned_with` it instead: of fixed width W, the value at
    place W - j belongs to the history's j-th last event, and is NaN if there is none.
    """

    name: str
    dtype: Dtype
    shape: tuple[Axis, ...]
    meaning: str
    ragged: bool = False
    vocabulary: str | None = None  # strings only: whose ids these are
    aligned_with: str | None = None  # float32 only: the list with whose last events these go
    usual: tuple[float, float] = (-3.0, 3.0)  # numbers only: what a caller would plausibly send


@dataclass(frozen=True)
class Tolerance:
    """How far a number may be from its reference: `atol + rtol * |reference|`."""

    atol: float
    rtol: float = 0.0


# Measured differences stand in docs/parity.md. A logit of 32 has steps of 4e-6 in float32, and two
# libraries add up its terms in other orders.
EMBEDDING_TOLERANCE = Tolerance(5e-6, 1e-4)
SCORE_TOLERANCE = Tolerance(2e-5)


@dataclass(frozen=True, kw_only=True)
class Graph:
    """One ONNX file and one Triton model.

    `function(net, *inputs)` returns the outputs in order. Where a Spec says `string` it takes or
    gives int64 indices: the lookup from and to strings is added to the ONNX graph around it. A
    ragged input is a `Ragged`, a ragged output (N,).
    """

    name: str
    meaning: str
    function: Callable[..., tuple[Tensor, ...]]
    inputs: tuple[Spec, ...]
    outputs: tuple[Spec, ...]
    tolerance: Tolerance  # of every float32 output that may be published
    catalogue: Callable[..., Tensor] | None = None  # a graph that ranks: (B, V) before its top-k
    int8_search: Callable[[Any], Any] | None = None  # of a network: `function` takes it as `search`
    item_precision: ItemPrecision = "float32"

    def __post_init__(self) -> None:
        for spec in self.inputs:
            if spec.ragged and spec.dtype != "string":
                raise SeqrecError(
                    f"{self.name} takes {spec.name}, a list of numbers of any length; Triton's "
                    "native backend mixes up the requests of a batch that has one: give it a fixed "
                    "width, aligned_with the list that it goes with"
                )

    def with_precision(self, precision: ItemPrecision) -> Graph:
        """The same graph from item vectors of another precision, if it searches any."""
        return replace(self, item_precision=precision) if self.int8_search else self

    def with_scale(self, factor: float) -> Graph:
        """The same graph with scores that may be `factor` times as far off, if it gives any."""
        if factor == 1 or not any(spec.name == SCORES.name for spec in self.outputs):
            return self
        tolerance = replace(self.tolerance, atol=self.tolerance.atol * factor)
        return replace(self, tolerance=tolerance)

    def search(self, net: Any) -> Any:
        """What `function` takes as `search` when it is exported; None where it has its own."""
        if self.item_precision == "float32":
            return None
        assert self.int8_search is not None
        return self.int8_search(net)

    @property
    def lists(self) -> tuple[Spec, ...]:
        """The inputs of any length."""
        return tuple(spec for spec in self.inputs if spec.ragged)

    def of_rows(self, spec: Spec) -> tuple[Spec, ...]:
        """What Triton tells the ONNX file of the rows of an input (`batch_input`).

        It makes this up from the requests; callers do not know of it.
        """
        if not self.lists:
            return ()
        return (row_shape(spec), row_lengths(spec))[: 1 + (spec == self.lists[0])]

    @property
    def onnx_inputs(self) -> tuple[Spec, ...]:
        """The inputs of the ONNX file: behind each what Triton tells of its rows."""
        return tuple(
            tensor
            for spec in self.inputs
            for tensor in (flat(spec) if spec.ragged else spec, *self.of_rows(spec))
        )

    @property
    def onnx_outputs(self) -> tuple[Spec, ...]:
        """The outputs of the ONNX file."""
        return tuple(flat(spec) if spec.ragged else spec for spec in self.outputs)

    def source(self, output: Spec) -> Spec:
        """The ragged input that has a value for each one of a ragged output."""
        return next(s for s in self.inputs if s.ragged and s.shape == output.shape)


def flat(spec: Spec) -> Spec:
    """The tensor of the ONNX file that holds a ragged one."""
    return replace(spec, shape=(f"total_{spec.shape[1]}",))


def row_shape(spec: Spec) -> Spec:
    """The tensor that tells how long each row of an input is."""
    meaning = f"the length of each row of {spec.name}"
    return Spec(name=f"{spec.name}_shape", dtype="int32", shape=("batch", 1), meaning=meaning)


def row_lengths(spec: Spec) -> Spec:
    """The same lengths, but of nothing that is no row; see row_checks.py."""
    meaning = f"the length of each row of {spec.name}, and of nothing that is no row"
    return Spec(name=f"{spec.name}_lengths", dtype="int32", shape=("rows",), meaning=meaning)


Batch = dict[str, Tensor]
Metrics = dict[str, float]


class Net(Protocol):
    """What training needs of a network besides being an nn.Module."""

    def observe(self, dataset: Dataset) -> None:
        """Copy what the data says (popularity, features) into buffers, before training."""

    def loss(self, batch: Batch) -> Tensor:
        """One training batch -> a scalar."""

    def finish(self) -> None:
        """Derive what serving needs (mean vectors, item index), after training."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """One recommender: its config, network, graphs, training batches and evaluation."""

    name: str
    summary: str
    config: type[Any]
    net: Callable[[Any, Mapping[str, int]], nn.Module]  # (config, rows per vocabulary)
    graphs: Callable[[Any, int], dict[str, Graph]]  # (config, top_k)
    needs: tuple[str, ...]  # columns of the interactions, besides user, item and time
    split: Literal["leave_one_out", "time", "last_rating"]
    batches: Callable[[Dataset, Any, np.random.Generator], Iterator[Batch]]
    num_batches: Callable[[Dataset, Any], int]
    evaluate: Callable[[nn.Module, Dataset, Any, Literal["validation", "test"]], Metrics]
    baselines: Callable[[Dataset, Any, Literal["validation", "test"]], dict[str, Metrics]]
    monitor: str  # the validation metric that chooses the epoch
    # How many targets it has in a log: with none, no epoch can be chosen.
    choosing: Callable[[Dataset], int] = lambda dataset: len(dataset.validation)
    mode: Literal["min", "max"] = "max"
    headline: tuple[str, ...]  # the test figures that stand in tables
    baseline: str = "popularity"  # the one that stands beside them
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # settings by name
    scale: Callable[[Any], float] = lambda net: 1.0  # of a network's scores, beside the usual ones
    ranks_new_items: bool = False  # items that training never saw, by their features
    cpu_bfloat16: bool = False  # whether a CPU that has bfloat16 trains wide ones faster with it


HISTORY = Spec(
    name="history_item_ids",
    dtype="string",
    shape=("batch", "length"),
    ragged=True,
    vocabulary="items",
    meaning="item ids, oldest first, any length from 0; the empty string is padding",
)
EVENT_TYPES = Spec(
    name="history_event_types",
    dtype="string",
    shape=("batch", "event_types_length"),
    ragged=True,
    vocabulary="event_types",
    meaning="what was done with each item of the history, parallel to history_item_ids",
)
USER_ID = Spec(
    name="user_id",
    dtype="string",
    shape=("batch", 1),
    vocabulary="users",
    meaning="the user's id; one that the model does not know is fine",
)
AGE = Spec(
    name="age",
    dtype="float32",
    shape=("batch", 1),
    meaning="the user's age in years; NaN or 0 is unknown",
    usual=(16.0, 99.0),
)
MONTH = Spec(
    name="month",
    dtype="int32",
    shape=("batch", 1),
    meaning="month of the request, 1 to 12; 0 is unknown",
    usual=(1, 12),
)
CANDIDATES = Spec(
    name="candidate_ids",
    dtype="string",
    shape=("batch", "candidates"),
    ragged=True,
    vocabulary="items",
    meaning="the items to score; the empty string is padding",
)
KNOWN_ITEMS = Spec(
    name="known_items",
    dtype="int32",
    shape=("batch", 1),
    meaning="how many ids of the history the model knew; 0: the answer is the cold start",
)
SCORES = Spec(
    name="scores",
    dtype="float32",
    shape=("batch", "candidates"),
    ragged=True,
    meaning="one score a candidate, higher is better; an unknown candidate has the lowest float32",
)


def gap_days(window: int) -> Spec:
    """How long ago the last `window` events of the history were."""
    return _of_last_events(
        "history_gap_days", window, "days between an event and this request", (0.0, 1200.0)
    )


def ratings(window: int) -> Spec:
    """What the last `window` items of the history were given."""
    return _of_last_events("history_ratings", window, "stars given to an item", (0.5, 5.0))


def _of_last_events(name: str, window: int, meaning: str, usual: tuple[float, float]) -> Spec:
    return Spec(
        name=name,
        dtype="float32",
        shape=("batch", window),
        aligned_with=HISTORY.name,
        meaning=f"{meaning}, of the last {window} events that are no padding: the newest one's "
        "stands last; NaN where there is no event or it is unknown",
        usual=usual,
    )


USER_EMBEDDING = "user_embedding"


def user_embedding(dim: int) -> Spec:
    """The vector that an encoder gives and a scorer takes."""
    return Spec(
        name=USER_EMBEDDING,
        dtype="float32",
        shape=("batch", dim),
        meaning="the user's state as a vector",
    )


def ranked_items(top_k: int) -> tuple[Spec, Spec]:
    """`item_ids` and `scores` of a retrieval graph, best first."""
    return (
        Spec(
            name="item_ids",
            dtype="string",
            shape=("batch", top_k),
            vocabulary="items",
            meaning="the best items of the catalogue, best first; empty where it has no more",
        ),
        Spec(
            name="scores",
            dtype="float32",
            shape=("batch", top_k),
            meaning="the items' scores, descending; the lowest float32 beside an empty id",
        ),
    )
