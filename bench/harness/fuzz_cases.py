"""Requests of every kind that a server meets, good and bad, and how each of them may end.

CASES is the table. A case builds a request for any graph that it fits. Where OK is among its ends,
the answer has to be right.

Some requests are no part of it, because Triton 2.51 itself cannot stand them, whatever it serves;
test_fuzz_server.py shows three of them: `classification` of an output of strings (it divides by the
size of their type, 0 bytes), a batch of 0 without a single element (both backends return from it
without an answer), and a last string that ends too early (the server lets it in, and its Python
backend, which finds it, fails the whole batch; the ONNX Runtime backend fails that one request).
docs/security.md has the others.

Callers that leave before the answer are a group of their own: 2.51 has a race there in which it
dies (triton-inference-server/server issue 7368, fixed in 24.12 and, by pull request 8078, 25.04).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from grpc import StatusCode

from bench.harness.fuzz_requests import (
    Build,
    a_long_id,
    a_long_name,
    a_region_that_nobody_shared,
    a_thousand_extra,
    all_missing,
    an_output_a_thousand_times,
    changed,
    contents,
    cut,
    dims,
    drop_all,
    drop_last,
    duplicate,
    extra,
    field,
    filled,
    length_of_first,
    many_parameters,
    missing,
    odd_input_parameter,
    odd_output_parameter,
    odd_parameter,
    one_less,
    other_datatype,
    other_type_of_the_same_size,
    other_width,
    rank,
    ranks,
    raw_beside_typed,
    raw_for_more,
    raw_for_some,
    renamed,
    repeat_first,
    second_field,
    shuffled,
    sized,
    some_outputs,
    strings,
    typed,
    typed_otherwise,
    unequal_batches,
    unknown_output,
    usual,
    wrong_field,
)
from bench.harness.hostile import not_utf8, nul_inside, overflowing
from bench.harness.served import Served
from bench.harness.wire import framed

OK = StatusCode.OK
INVALID = StatusCode.INVALID_ARGUMENT
NOT_FOUND = StatusCode.NOT_FOUND
MAX_BATCH = 64
MILLION = 1_000_000


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    name: str
    build: Build
    ends: frozenset[StatusCode]
    fits: Callable[[Served], bool] = lambda _: True
    send: str = "whole"  # one of the senders in fuzzing.py
    heavy: bool = False  # seconds of work, megabytes of memory
    share: int = 1  # of the requests that are drawn at random
    alone: bool = True  # on the native backend, too, it fails none but itself


# What fits which graph


def takes_lists(served: Served) -> bool:
    return any(isinstance(spec.shape[1], str) for spec in served.inputs.values())


def takes(dtype: str) -> Callable[[Served], bool]:
    return lambda served: any(spec.dtype == dtype for spec in served.inputs.values())


def takes_numbers(served: Served) -> bool:
    return any(spec.dtype != "string" for spec in served.inputs.values())


def takes_candidates(served: Served) -> bool:
    return "candidate_ids" in served.inputs


def takes_history(served: Served) -> bool:
    return served.reads_history


def takes_filters(served: Served) -> bool:
    return any(spec.narrows for spec in served.inputs.values())


def takes_a_history_alone(served: Served) -> bool:
    return takes_history(served) and not takes_filters(served)


def takes_parallel_lists(served: Served) -> bool:
    return len(served.parallel) > 1


def takes_fixed(served: Served) -> bool:
    return any(isinstance(spec.shape[1], int) for spec in served.inputs.values())


LEAVING = frozenset({"hurried", "cancelled", "closed", "half", "noise"})

ANSWERED = frozenset({OK})
REFUSED = frozenset({INVALID})
# A refusal that names all of it is more than a gRPC client takes.
REFUSED_AT_LENGTH = frozenset({INVALID, StatusCode.RESOURCE_EXHAUSTED})
UNKNOWN = frozenset({NOT_FOUND})
WHATEVER = frozenset({OK, INVALID, NOT_FOUND, StatusCode.UNIMPLEMENTED, StatusCode.INTERNAL})

CASES: tuple[Case, ...] = (
    Case("a good request", usual, ANSWERED, share=60),
    Case("a full batch", sized(batch=MAX_BATCH, length=12), ANSWERED),
    Case("lists of length 0", sized(length=0, candidates=0), ANSWERED, takes_lists),
    Case("nothing but padding", filled("string", ""), ANSWERED, takes("string")),
    Case("unequal lists", sized(length=20, unequal=True), ANSWERED, takes_parallel_lists, share=5),
    Case(
        "NaN and infinity", filled("float32", np.nan, np.inf, -np.inf), ANSWERED, takes("float32")
    ),
    Case("the ends of int32", filled("int32", -(2**31), 2**31 - 1), ANSWERED, takes("int32")),
    Case("NUL inside ids", changed(nul_inside), ANSWERED, takes("string"), share=5),
    Case("not UTF-8", changed(not_utf8), ANSWERED, takes("string"), share=5),
    Case("an id of 1 MB", changed(a_long_id), ANSWERED, takes("string")),
    Case(
        "64 users of 2,000 steps", sized(batch=64, length=2000), ANSWERED, takes_history, heavy=True
    ),
    Case(
        "a million steps",
        sized(batch=1, length=MILLION),
        ANSWERED,
        takes_a_history_alone,
        heavy=True,
    ),
    Case(
        "100,000 of each filter",
        sized(batch=1, length=100_000),
        ANSWERED,
        takes_filters,
        heavy=True,
    ),
    Case("only unknown filters", sized(known=0, padding=0), ANSWERED, takes_filters),
    Case(
        "100,000 candidates",
        sized(batch=1, candidates=100_000),
        ANSWERED,
        takes_candidates,
        heavy=True,
    ),
    Case("typed fields", typed, ANSWERED, share=5),
    Case("inputs in another order", changed(shuffled), ANSWERED),
    Case("some of the outputs", changed(some_outputs), ANSWERED),
    Case("one output a thousand times", changed(an_output_a_thousand_times), ANSWERED),
    Case("a thousand parameters", changed(many_parameters), ANSWERED),
    Case("the version by its number", field("model_version", "1"), ANSWERED),
    Case("raw bytes that no input has", changed(raw_for_more), ANSWERED),
    Case("compressed", usual, ANSWERED, send="compressed"),
    Case("a stream, with a bad request between good ones", usual, ANSWERED, send="stream"),
    Case("a wrong type", changed(other_datatype), REFUSED),
    Case("a type of the same size", changed(other_type_of_the_same_size), REFUSED, takes_numbers),
    Case("one axis too few", rank(lambda shape: [int(np.prod(shape))]), REFUSED),
    Case("one axis too many", rank(lambda shape: [*shape, 1]), REFUSED),
    Case("no axis", rank(lambda _: []), REFUSED),
    Case("a thousand axes", rank(lambda shape: [*shape, *[1] * 1000]), REFUSED),
    Case("one axis too few in all", ranks(lambda shape: [int(np.prod(shape))]), REFUSED),
    Case("one axis too many in all", ranks(lambda shape: [*shape, 1]), REFUSED),
    Case("no axis in all", ranks(lambda _: []), REFUSED),
    Case("a fixed width overrun", changed(other_width), REFUSED, takes_fixed),
    Case("an input missing", changed(missing), REFUSED),
    Case("all inputs missing", changed(all_missing), REFUSED),
    Case("an input too many", changed(extra), REFUSED),
    Case("a thousand inputs too many", changed(a_thousand_extra), REFUSED_AT_LENGTH),
    Case("an input of a long name", changed(a_long_name), REFUSED_AT_LENGTH),
    Case("an input renamed", changed(renamed), REFUSED),
    Case("an input twice", changed(duplicate), REFUSED),
    Case("batch 0", sized(batch=0), REFUSED),
    Case("batch 65", sized(batch=MAX_BATCH + 1), REFUSED),
    Case("batch 1,000", sized(batch=1000), REFUSED),
    Case("inputs of other batches", changed(unequal_batches), REFUSED, lambda s: len(s.inputs) > 1),
    Case("negative dims", dims((2, -1), (-2, -5), (-1, 5)), REFUSED),
    Case("dims past int64", dims((2, 2**62), (2, 2**63 - 1), (4, 2**62), (2, 2**61)), REFUSED),
    Case("dims that overflow to the data", overflowing, REFUSED, takes_lists, share=5, alone=False),
    Case("dims past the data", dims((2, 6), (2, 4), (2, 2**31), (2, 2**40)), REFUSED),
    Case("bytes cut off", changed(cut), REFUSED),
    Case("no bytes", contents(lambda data, _: b""), REFUSED),
    Case("a byte too many", contents(lambda data, _: data + b"\0"), REFUSED),
    Case("four bytes too many", contents(lambda data, _: data + bytes(4)), REFUSED),
    Case(
        "one string too many",
        strings(lambda data, _: data + framed([b"a"])),
        REFUSED,
        takes("string"),
    ),
    Case("one string too few", strings(one_less), REFUSED, takes("string")),
    Case("a length past the end", strings(length_of_first(1000)), REFUSED, takes("string")),
    Case("a length of 4 GB", strings(length_of_first(2**32 - 1)), REFUSED, takes("string")),
    Case("a negative length", strings(length_of_first(2**31)), REFUSED, takes("string")),
    Case("typed, one too few", typed_otherwise(drop_last), REFUSED),
    Case("typed, none", typed_otherwise(drop_all), REFUSED),
    Case("typed, one too many", typed_otherwise(repeat_first), REFUSED),
    Case("typed, in another field", typed_otherwise(wrong_field), REFUSED),
    Case("typed, in two fields", typed_otherwise(second_field), REFUSED),
    Case("raw and typed", changed(raw_beside_typed, typed), REFUSED),
    Case("raw bytes for some", changed(raw_for_some), REFUSED),
    Case(
        "an unknown model",
        field("model_name", "no such model", "", "../sasrec", "a" * 5000),
        UNKNOWN,
    ),
    Case("an unknown version", field("model_version", "9", str(2**62)), UNKNOWN),
    Case("no version number", field("model_version", "x", "-1", "9" * 30), REFUSED),
    Case("an unknown output", changed(unknown_output), REFUSED),
    Case("an odd parameter", changed(odd_parameter), REFUSED),
    Case("an odd parameter of an input", changed(odd_input_parameter), REFUSED),
    Case("an odd parameter of an output", changed(odd_output_parameter), REFUSED),
    Case(
        "memory that nobody shared",
        changed(a_region_that_nobody_shared),
        frozenset({INVALID, NOT_FOUND}),
    ),
    Case("flipped bytes", usual, WHATEVER, send="flipped", share=20),
    Case(
        "a deadline of 1 ms",
        usual,
        ANSWERED | {StatusCode.DEADLINE_EXCEEDED},
        send="hurried",
        share=3,
    ),
    Case("cancelled", usual, ANSWERED | {StatusCode.CANCELLED}, send="cancelled", share=3),
    Case(
        "a connection closed under it", usual, frozenset({StatusCode.CANCELLED, OK}), send="closed"
    ),
    Case("gone in the middle of a message", usual, frozenset(), send="half"),
    Case("no gRPC at all", usual, frozenset(), send="noise"),
)

STAYING_CASES = tuple(case for case in CASES if case.send not in LEAVING)
LEAVING_CASES = tuple(case for case in CASES if case.send in LEAVING)
