"""Graph: what a model takes and gives.

The tensors of the wire contract are written here once. ONNX axes, `config.pbtxt`, `contract.json`,
golden requests and the random requests of the parity check are derived from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from seqrec_export.errors import SeqrecError

if TYPE_CHECKING:
    from torch import Tensor

Dtype = Literal["string", "float32", "int32"]
ItemPrecision = Literal["float32", "int8"]
ITEM_PRECISIONS: tuple[ItemPrecision, ...] = get_args(ItemPrecision)
Axis = str | int  # a name for a dynamic axis, a number for a fixed one

# In a model's configuration, this comes before the name of a history that an input follows.
ALIGNED_WITH = "aligned_with."

# Outputs that mean the same in every graph.
USER_EMBEDDING = "user_embedding"
SCORES = "scores"


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One tensor on the wire. The first axis is always the batch.

    A `ragged` one is a list: requests of other lengths share a batch with it. In the ONNX file and
    for a graph's function it is flat, row after row. A list that callers send holds strings:
    Triton's native backend stops collecting a batch at a request whose list of numbers is empty,
    and computes those after it on memory that nobody has set.

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
    narrows: bool = False  # whether it says what may come back, and nothing of the user


@dataclass(frozen=True)
class Tolerance:
    """How far a number may be from its reference: `atol + rtol * |reference|`."""

    atol: float
    rtol: float = 0.0


# docs/parity.md has the measured differences. A logit of 32 has steps of 4e-6 in float32, and two
# libraries add up its terms in different orders.
EMBEDDING_TOLERANCE = Tolerance(5e-6, 1e-4)
SCORE_TOLERANCE = Tolerance(2e-5)


@dataclass(frozen=True, kw_only=True)
class Graph:
    """One ONNX file and one Triton model.

    `function(net, *inputs)` returns the outputs in order. If a Spec says `string`, it takes or
    gives int64 indices: the lookup from and to strings is added to the ONNX graph around it. A
    ragged input is a `Ragged`, a ragged output (N,).
    """

    name: str
    meaning: str
    function: Callable[..., tuple[Tensor, ...]]
    inputs: tuple[Spec, ...]
    outputs: tuple[Spec, ...]
    tolerance: Tolerance  # of every float32 output that may be published
    # Of a graph that ranks: (B, V) scores before its top-k, with which the gate compares.
    reference_scores: Callable[..., Tensor] | None = None
    int8_search: Callable[[Any], Any] | None = None  # of a network: `function` takes it as `search`
    # Of data.attributes.Attribute: the graphs that search the same items, but only among some.
    filtered: Callable[[Sequence[Any]], dict[str, Graph]] | None = None
    tables: Mapping[str, Tensor] = field(default_factory=dict)  # of `function`, and no network's
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

    def with_tolerance_scale(self, factor: float) -> Graph:
        """The same graph with scores that may be `factor` times as far off, if it gives any."""
        if factor == 1 or not any(spec.name == SCORES for spec in self.outputs):
            return self
        tolerance = replace(self.tolerance, atol=self.tolerance.atol * factor)
        return replace(self, tolerance=tolerance)

    def search(self, net: Any) -> Any:
        """What `function` takes as `search` when it is exported; None if it has its own."""
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
        """The inputs of the ONNX file, each followed by what Triton tells about its rows."""
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
