"""The Python client: what it refuses, in a sentence, and what it says to write instead."""

import math
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import triton_to_np_dtype

from seqrec_export.clients.packing import Tensor, align, pack
from seqrec_export.clients.python import Client
from seqrec_export.errors import SeqrecError
from seqrec_export.serving.server import Server
from support import layouts
from support.conformance import scripted
from support.served import EMBEDDED

NAN = float("nan")
LARGEST = float(np.finfo(np.float32).max)


@pytest.fixture(scope="module")
def client(tritons: Callable[[str], Server]) -> Iterator[Client]:
    with Client(tritons(EMBEDDED).grpc_url) as connected:
        yield connected


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        ("FP32", 1e39),
        ("FP32", -1e39),
        ("FP32", 3.4028236e38),
        ("FP32", 10**39),
        ("FP32", 10**400),  # which float() does not take
        ("FP32", Fraction(10**400)),
        ("FP32", np.float64(1e39)),
        ("FP16", 65520.0),
        ("FP64", 10**400),
        ("INT32", 2**31),
        ("INT32", -(2**31) - 1),
        ("INT32", np.int64(2**31)),
        ("INT64", 2**63),
        ("INT8", 128),
        ("UINT8", -1),
        ("UINT64", 2**64),
    ],
)
def test_a_number_that_a_type_cannot_hold_is_refused(datatype: str, value: object) -> None:
    with pytest.raises(SeqrecError, match=rf"m, row 1, 'x': {datatype} goes to .*, found "):
        pack("m", Tensor("x", datatype, (1,)), [{}, {"x": value}])


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        ("FP32", LARGEST),
        ("FP32", -3.4028235e38),  # as people write it; it rounds to the largest
        ("FP32", math.inf),
        ("FP32", -math.inf),
        ("FP32", NAN),
        ("FP32", Fraction(1, 3)),
        ("FP16", 65519.0),
        ("FP64", 1e308),
        ("INT32", -(2**31)),
        ("INT32", 2**31 - 1),
        ("UINT64", 2**64 - 1),
        ("BOOL", True),
    ],
)
def test_what_a_type_can_hold_arrives(datatype: str, value: Any) -> None:
    dtype = triton_to_np_dtype(datatype)
    packed = pack("m", Tensor("x", datatype, (1,)), [{"x": value}])
    assert packed.dtype == dtype
    np.testing.assert_array_equal(packed, np.array([[dtype(value)]]))


@pytest.mark.parametrize(
    ("datatype", "value", "said"),
    [
        ("FP32", "5", "takes numbers, found '5'"),
        ("FP32", True, "takes numbers, found True"),
        ("FP32", Decimal(5), "takes numbers, found Decimal"),
        ("INT32", 1.0, "takes whole numbers, found 1.0"),
        ("INT32", False, "takes whole numbers, found False"),
        ("BOOL", 1, "takes True or False, found 1"),
        ("BYTES", 5, "takes strings, found 5"),
        ("BYTES", [None], "takes strings, found None"),
        ("BYTES", "\ud800", r"UTF-8, found '\ud800'"),
        ("FP32", [1, 2], "takes 1 values, found 2"),
        ("FP32", "9" * 1000, "9..."),
    ],
)
def test_a_value_of_another_kind_is_refused(datatype: str, value: object, said: str) -> None:
    with pytest.raises(SeqrecError) as refused:
        pack("m", Tensor("x", datatype, (1,)), [{"x": value}])
    assert said in str(refused.value)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize(
    ("model", "name", "array", "said"),
    [
        ("sasrec", "history_item_ids", np.array([[1.0]]), "takes an array of str, found float64"),
        ("sasrec", "history_item_ids", [["a"]], "takes a numpy array, found list"),
        ("sasrec", "history_item_ids", np.array([["a", None]], object), "found None"),
        ("sasrec", "history_item_ids", np.array([["\ud800"]], object), "UTF-8"),
        ("sasrec", "history_item_ids", np.empty((0, 0), object), "no rows, found shape [0, 0]"),
        ("sasrec", "history_item_ids", np.array("a", object), "no rows, found shape []"),
        ("sasrec", "histroy", np.empty((1, 0), object), "it takes history_item_ids"),
        ("two_tower", "age", np.array([[1.0]]), "takes an array of float32, found float64"),
        ("two_tower", "month", np.array([[1]]), "takes an array of int32, found int64"),
        ("two_tower", "user_id", np.array([[1]]), "takes an array of str, found int64"),
    ],
)
def test_a_tensor_of_another_kind_is_refused(
    client: Client, model: str, name: str, array: Any, said: str
) -> None:
    with pytest.raises(SeqrecError) as refused:
        client.infer(model, {name: array})
    assert said in str(refused.value)


def test_arrays_of_text_are_sent_in_any_of_numpys_ways(client: Client) -> None:
    ids = [["a", "寿司"]]
    for array in (np.array(ids), np.array(ids, object), np.char.encode(np.array(ids))):
        assert client.infer("sasrec", {"history_item_ids": array})["known_items"].tolist() == [[0]]


def test_a_model_is_asked_by_its_own_name_or_by_that_of_its_graph(client: Client) -> None:
    rows = [{"history_item_ids": ["a"]}, {}]
    np.testing.assert_array_equal(
        client.encode("sasrec_encoder", rows), client.encode("sasrec", rows)
    )
    vectors = client.encode("sasrec", rows)
    asked = [{"user_embedding": vector, "candidate_ids": ["a", "b"]} for vector in vectors]
    by_graph, by_name = client.score("sasrec_scorer", asked), client.score("sasrec", asked)
    np.testing.assert_array_equal(by_graph, by_name)
    assert client.encode("two_tower_item_encoder", [{"item_id": "a"}]).ndim == 2
    assert client.encode("sasrec_encoder", []).shape == (0, vectors.shape[1])
    assert [len(scores) for scores in client.score("mlink", [{"candidate_ids": ["a"]}])] == [1]


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda c: c.encode("sasrec_scorer", [{}]), "encode('sasrec', ...)"),
        (lambda c: c.score("sasrec_encoder", [{}]), "score('sasrec', ...)"),
        (lambda c: c.score("sasrec", [{"history_item_ids": ["a"]}]), "encode('sasrec', ...)"),
        (lambda c: c.recommend("sasrec_encoder", [{}]), "write encode('sasrec_encoder', ...)"),
        (lambda c: c.recommend("sasrec_scorer", []), "or recommend('sasrec', ...)"),
        (lambda c: c.recommend("mlink", [{}]), "write score('mlink', ...)"),
        (lambda c: c.recommend("nmf", [{}]), "unknown model: 'nmf'"),
        (lambda c: c.call("sasrec", [{"age": 3}]), "takes no 'age'; it takes history_item_ids"),
    ],
)
def test_who_asks_for_something_else_is_told_what_to_write(
    client: Client, ask: Callable[[Client], object], said: str
) -> None:
    with pytest.raises(SeqrecError) as refused:
        ask(client)
    assert said in str(refused.value)


def test_a_closed_connection_is_said(repository: Path) -> None:
    closed = Client("127.0.0.1:1")
    closed.close()
    with pytest.raises(SeqrecError, match="closed"):
        closed.recommend("sasrec", [{}])


def test_a_malformed_answer_is_said() -> None:
    with scripted() as (url, _), Client(url) as client:
        with pytest.raises(SeqrecError, match="malformed answer"):
            client.recommend("torn", [{}])
        with pytest.raises(SeqrecError, match="as the script says"):
            client.recommend("internal", [{}])


@pytest.mark.parametrize(("history", "items", "expected"), layouts.LAYOUTS)
def test_a_list_is_laid_out_by_its_history(
    history: list[str], items: list[float], expected: list[float]
) -> None:
    assert np.array_equal(align(items, history, layouts.WIDTH, NAN), expected, equal_nan=True)
    assert align(items, history, 0, NAN) == []


def test_lists_of_any_length_are_laid_out_on_the_wire() -> None:
    rows = [{layouts.HISTORY: history, layouts.NUMBERS: n} for history, n, _ in layouts.LAYOUTS]
    with scripted() as (url, script), Client(url) as client:
        answers = client.call(layouts.MODEL, rows)
        assert [int(row["known_items"][0]) for row in answers] == list(range(len(rows)))
        assert script.calls[layouts.MODEL] == layouts.CALLS


def test_raw_tensors_stay_raw(client: Client) -> None:
    width = client.signature("mlink").inputs["history_ratings"].dims[0]
    ids = [["0251136780", "", "0239708308"]]
    laid_out = np.full((1, width), NAN, np.float32)
    laid_out[0, -2:] = 1, 5
    candidates = np.array([["0298397997"]])
    raw = {"history_item_ids": np.array(ids), "history_ratings": laid_out}
    row = {"history_item_ids": ids[0], "history_ratings": [1, 3, 5]}
    (scores,) = client.score("mlink", [row | {"candidate_ids": candidates[0]}])
    answer = client.infer("mlink", raw | {"candidate_ids": candidates})
    np.testing.assert_array_equal(answer["scores"][0], scores)
    with pytest.raises(SeqrecError):
        client.infer("mlink", raw | {"history_ratings": laid_out[:, 1:]})
