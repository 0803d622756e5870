"""Lists that are parallel to a history, and how a client of any language has to lay them out.

A repository of one model for the conformance programs, and what a server finds in their requests.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MODEL, HISTORY, NUMBERS = "laid_out", "history_item_ids", "history_ratings"
WIDTH, MAX_BATCH_SIZE = 4, 3
NAN = float("nan")
# A history, the list parallel to it, and what goes over the wire.
LAYOUTS: tuple[tuple[Sequence[str], Sequence[float], Sequence[float]], ...] = (
    (["a", "b", "c", "d"], [1, 2, 3, 4], [1, 2, 3, 4]),
    (["a", "b"], [1, 2], [NAN, NAN, 1, 2]),
    # Padding in the middle, in front and behind counts as nothing, whatever number it has.
    (["a", "", "b", "", "", "c"], [1, 9, 2, 9, 9, 3], [NAN, 1, 2, 3]),
    (["", "", "a", ""], [9, 9, 1, 9], [NAN, NAN, NAN, 1]),
    # Longer than the window: the last events count, wherever padding stands.
    (["a", "b", "c", "d", "e", "f"], [1, 2, 3, 4, 5, 6], [3, 4, 5, 6]),
    (["a", "b", "", "c", "d", "", "e"], [1, 2, 9, 3, 4, 9, 5], [2, 3, 4, 5]),
    # Unequal lengths: nothing is known of the end, or nothing is there for the rest.
    (["a", "b", "c"], [1], [NAN, 1, NAN, NAN]),
    (["a", "b", "c", "d", "e", "f"], [1, 2, 3], [3, NAN, NAN, NAN]),
    (["a", "", "b"], [1, 9], [NAN, NAN, 1, NAN]),
    (["a"], [1, 9, 9, 9, 9, 9], [NAN, NAN, NAN, 1]),
    (["a", "b"], [], [NAN] * WIDTH),
    ([], [9, 9], [NAN] * WIDTH),
    (["", ""], [9, 9], [NAN] * WIDTH),
    ([], [], [NAN] * WIDTH),
    (["a", "b"], [NAN, float("inf")], [NAN, NAN, NAN, float("inf")]),
    (["\0a", "b\0"], [9, 1], [NAN, NAN, NAN, 1]),  # the server cuts ids at NUL
    (["寿", "司"], [1, 2], [NAN, NAN, 1, 2]),
)
CALLS = -(-len(LAYOUTS) // MAX_BATCH_SIZE)


def write_layouts(repository: Path) -> None:
    """The contract and the rows, as golden.json has them; the answer to a row is its number."""
    folder = repository / MODEL
    (folder / "1").mkdir(parents=True)
    inputs = [
        {"name": HISTORY, "datatype": "BYTES", "shape": ["batch", "length"]},
        {
            "name": NUMBERS,
            "datatype": "FP32",
            "shape": ["batch", WIDTH],
            "aligned_with": HISTORY,
        },
    ]
    outputs = [{"name": "known_items", "datatype": "INT32", "shape": ["batch", 1]}]
    contract = {
        "model": MODEL,
        "max_batch_size": MAX_BATCH_SIZE,
        "inputs": inputs,
        "outputs": outputs,
    }
    (folder / "contract.json").write_text(json.dumps(contract))
    requests = []
    for number, (history, values, _) in enumerate(LAYOUTS):
        names = {"nan": "NaN", "inf": "Infinity"}  # which JSON has not
        shown = [names.get(str(value), value) for value in values]
        request = {
            HISTORY: {"datatype": "BYTES", "shape": [1, len(history)], "data": history},
            NUMBERS: {"datatype": "FP32", "shape": [1, len(values)], "data": shown},
        }
        answer = {"known_items": {"datatype": "INT32", "shape": [1, 1], "data": [number]}}
        requests.append(
            {"case": "list", "atol": 0, "rtol": 0, "inputs": request, "outputs": answer}
        )
    (folder / "1" / "golden.json").write_text(json.dumps({"requests": requests}))


def complaint(call: int, tensors: Mapping[str, NDArray[Any]] | None) -> str:
    """What is wrong with the rows of a call, counted from 0, or ""."""
    expected = LAYOUTS[call * MAX_BATCH_SIZE :][:MAX_BATCH_SIZE]
    if tensors is None or set(tensors) != {HISTORY, NUMBERS}:
        return "a malformed request"
    if tensors[NUMBERS].shape != (len(expected), WIDTH):
        return f"{NUMBERS} has shape {tensors[NUMBERS].shape}"
    for row, (history, _, laid_out) in enumerate(expected):
        sent = tensors[HISTORY][row].tolist()
        read = [item.partition("\0")[0] for item in history]  # as any server does
        if sent != [*read, *[""] * (len(sent) - len(read))]:
            return f"{history} went out as {sent}"
        if not np.array_equal(tensors[NUMBERS][row], np.float32(laid_out), equal_nan=True):
            return f"for {history}: {tensors[NUMBERS][row].tolist()}, not {list(laid_out)}"
    return ""
