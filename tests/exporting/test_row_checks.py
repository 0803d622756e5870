"""A run fails if the rows of a batch are not those that Triton counts; see row_checks.py."""

from collections.abc import Callable

import numpy as np
import pytest

from seqrec_export.exporting.runtime import RUNTIME_ERRORS, feeds
from support.served import GRAPHS, Served, Tensors

WITH_LISTS = [name for name, (_, graph) in GRAPHS.items() if graph.lists]
Change = Callable[[Served, Tensors], None]


def first(served: Served) -> str:
    return served.graph.lists[0].name


def more_counted(served: Served, given: Tensors) -> None:
    """What the native backend makes of `[0, 1]`: one row more than it has lengths for."""
    for name in served.inputs:
        given[f"{name}_shape"] = np.concatenate([given[f"{name}_shape"], [[0]]]).astype(np.int32)


def more_of_one_list(served: Served, given: Tensors) -> None:
    name = f"{served.graph.lists[-1].name}_shape"
    given[name] = np.concatenate([given[name], [[0]]]).astype(np.int32)


def fewer_lengths(served: Served, given: Tensors) -> None:
    given[f"{first(served)}_lengths"] = given[f"{first(served)}_lengths"][:-1]


def lengths_past_the_values(served: Served, given: Tensors) -> None:
    given[f"{first(served)}_shape"][-1] += 1


def lengths_short_of_the_values(served: Served, given: Tensors) -> None:
    given[f"{first(served)}_shape"][0] -= 1


def lengths_of_both_signs(served: Served, given: Tensors) -> None:
    given[f"{first(served)}_shape"][0] -= 2**20
    given[f"{first(served)}_shape"][1] += 2**20


@pytest.mark.parametrize(
    "change",
    [
        more_counted,
        more_of_one_list,
        fewer_lengths,
        lengths_past_the_values,
        lengths_short_of_the_values,
        lengths_of_both_signs,
    ],
)
@pytest.mark.parametrize("served", WITH_LISTS, indirect=True)
def test_lists_that_are_not_what_is_counted_fail_the_run(served: Served, change: Change) -> None:
    given = asked(served)
    change(served, given)
    with pytest.raises(RUNTIME_ERRORS):
        served.runtime.run(None, given)


@pytest.mark.parametrize("served", WITH_LISTS, indirect=True)
def test_other_inputs_that_are_not_what_is_counted_fail_the_run(served: Served) -> None:
    """Among them more numbers than rows: they reach the file cut to the rows that are counted."""
    for spec in served.graph.inputs:
        if not spec.ragged:
            given = asked(served)
            name = f"{spec.name}_shape"
            given[name] = np.concatenate([given[name], given[name][:1]])
            with pytest.raises(RUNTIME_ERRORS):
                served.runtime.run(None, given)
            given = asked(served)
            given[spec.name] = np.concatenate([given[spec.name], given[spec.name][:1]])
            with pytest.raises(RUNTIME_ERRORS):
                served.runtime.run(None, given)


@pytest.mark.parametrize("served", WITH_LISTS, indirect=True)
def test_one_row_is_not_spread_over_two(served: Served) -> None:
    """One row next to two of something else would be broadcast, if nothing looked at it."""
    for spec in served.graph.inputs:
        request = served.request(np.random.default_rng(0), batch=1, length=5, candidates=5)
        other = served.request(np.random.default_rng(1), batch=2, length=5, candidates=5)
        given, wider = (feeds(served.graph, tensors) for tensors in (request, other))
        for name in (spec.name, f"{spec.name}_shape"):
            given[name] = wider[name]
        if len(served.graph.inputs) > 1 or spec.ragged:
            with pytest.raises(RUNTIME_ERRORS):
                served.runtime.run(None, given)


def asked(served: Served) -> Tensors:
    """A request of three users as the file takes it, which it answers."""
    request = served.request(np.random.default_rng(0), batch=3, length=5, candidates=5)
    given = feeds(served.graph, request)
    served.runtime.run(None, given)
    return {name: values.copy() for name, values in given.items()}
