"""The tensors that models have in common on the wire, each with how it is read from a log.

An input of a model's own is an Input too; those of a column that a log brings are made below.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seqrec_export.contract import SCORES as SCORES_NAME
from seqrec_export.contract import USER_EMBEDDING, Spec
from seqrec_export.data.interactions import SECONDS_PER_DAY, months
from seqrec_export.data.raw_requests import Asked, Input, last_columns

HISTORY = Input(
    name="history_item_ids",
    dtype="string",
    shape=("batch", "length"),
    ragged=True,
    vocabulary="items",
    meaning="item ids, oldest first, any length from 0; the empty string is padding",
    read=lambda asked, _: asked.of_history(asked.log.items, ""),
)
EVENT_TYPES = Input(
    name="history_event_types",
    dtype="string",
    shape=("batch", "event_types_length"),
    ragged=True,
    vocabulary="event_types",
    meaning="what was done with each item of the history, parallel to history_item_ids",
    read=lambda asked, _: asked.of_history(asked.log.event_types, ""),
    column="event_types",
    leave_out="--columns event_type=",
)
USER_ID = Input(
    name="user_id",
    dtype="string",
    shape=("batch", 1),
    vocabulary="users",
    meaning="the user's id; one that the model does not know is fine",
    read=lambda asked, _: asked.of_user(asked.log.user_ids, ""),
)
AGE = Input(
    name="age",
    dtype="float32",
    shape=("batch", 1),
    meaning="the user's age in years; NaN or 0 is unknown",
    usual=(16.0, 99.0),
    read=lambda asked, _: asked.of_user(asked.log.user_numbers("age"), np.float32("nan")),
    column="user_features",
)
MONTH = Input(
    name="month",
    dtype="int32",
    shape=("batch", 1),
    meaning="month of the request, 1 to 12; 0 is unknown",
    usual=(1, 12),
    read=lambda asked, _: months(asked.now)[:, None],
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
    name=SCORES_NAME,
    dtype="float32",
    shape=("batch", "candidates"),
    ragged=True,
    meaning="one score a candidate, higher is better; an unknown candidate has the lowest float32",
)
EXCLUDED = Spec(
    name="exclude_item_ids",
    dtype="string",
    shape=("batch", "excluded"),
    ragged=True,
    vocabulary="items",
    narrows=True,
    meaning="items that must not come back, such as what is out of stock; any number",
)
ALLOWED = Spec(
    name="allow_item_ids",
    dtype="string",
    shape=("batch", "allowed"),
    ragged=True,
    vocabulary="items",
    narrows=True,
    meaning="if there are any, only these may come back; if the model knows none of them, nothing",
)
KEEP_SEEN = Spec(
    name="keep_seen",
    dtype="int32",
    shape=("batch", 1),
    narrows=True,
    meaning="1: what the history holds may come back; 0: it may not",
    usual=(0, 1),
)
QUERY = Spec(
    name="query_item_ids",
    dtype="string",
    shape=("batch", "length"),
    ragged=True,
    vocabulary="items",
    meaning="the item that others are compared with, or a few: the mean of their directions",
)
KNOWN_QUERY = Spec(
    name=KNOWN_ITEMS.name,
    dtype="int32",
    shape=("batch", 1),
    meaning="how many of the query's ids the model knew; 0: the answer is what is popular",
)


def allowed_values(attribute: str, vocabulary: str) -> Spec:
    """`allow_<attribute>`: which values of an attribute an item may have."""
    return Spec(
        name=f"allow_{attribute}",
        dtype="string",
        shape=("batch", f"allowed_{attribute}"),
        ragged=True,
        vocabulary=vocabulary,
        narrows=True,
        meaning=f"values of {attribute}; if there are any, only items with one of them come back",
    )


def gap_days(window: int) -> Input:
    """How long ago the last `window` events of the history were."""

    def read(asked: Asked, spec: Spec) -> NDArray[np.float32]:
        days = np.maximum(asked.now[:, None] - asked.log.times[asked.at], 0) / SECONDS_PER_DAY
        return last_columns(np.where(asked.real, days, np.nan), spec)

    meaning = _of_last_events("days between an event and this request", window)
    return Input(
        name="history_gap_days",
        dtype="float32",
        shape=("batch", window),
        aligned_with=HISTORY.name,
        meaning=meaning,
        usual=(0.0, 1200.0),
        read=read,
    )


def ratings(window: int) -> Input:
    """What the last `window` items of the history were given."""
    return Input(
        name="history_ratings",
        dtype="float32",
        shape=("batch", window),
        aligned_with=HISTORY.name,
        meaning=_of_last_events("stars given to an item", window),
        usual=(0.5, 5.0),
        read=lambda asked, spec: last_columns(
            asked.of_history(asked.log.ratings, np.float32("nan")), spec
        ),
        column="ratings",
        required=True,
    )


def _of_last_events(meaning: str, window: int) -> str:
    return (
        f"{meaning}, of the last {window} events that are no padding: the newest one's stands "
        "last; NaN where there is no event or it is unknown"
    )


def text_of_request(column: str, meaning: str, *, required: bool = False) -> Input:
    """A text of the request itself, such as its device: a column of the log, at its event.

    Its vocabulary has the column's name and holds the texts that training saw. "" is unknown.
    """
    return Input(
        name=column,
        dtype="string",
        shape=("batch", 1),
        vocabulary=column,
        meaning=meaning,
        read=lambda asked, _: asked.of_event(asked.log.texts(column), ""),
        column=column,
        required=required,
    )


def number_of_request(
    column: str,
    meaning: str,
    *,
    usual: tuple[float, float] = (-3.0, 3.0),
    required: bool = False,
) -> Input:
    """A number of the request itself: a column of the log, at the event it led to. NaN: unknown."""
    return Input(
        name=column,
        dtype="float32",
        shape=("batch", 1),
        meaning=meaning,
        usual=usual,
        read=lambda asked, _: asked.of_event(asked.log.numbers(column), np.float32("nan")),
        column=column,
        required=required,
    )


def texts_of_history(column: str, meaning: str, *, required: bool = False) -> Input:
    """`history_<column>`: a column of the log, parallel to the history. "" is unknown."""
    return Input(
        name=f"history_{column}",
        dtype="string",
        shape=("batch", f"{column}_length"),
        ragged=True,
        vocabulary=column,
        meaning=meaning,
        read=lambda asked, _: asked.of_history(asked.log.texts(column), ""),
        column=column,
        required=required,
    )


def numbers_of_history(
    column: str,
    meaning: str,
    window: int,
    *,
    usual: tuple[float, float] = (-3.0, 3.0),
    required: bool = False,
) -> Input:
    """`history_<column>`: a column of the log, of the last `window` events of the history."""
    return Input(
        name=f"history_{column}",
        dtype="float32",
        shape=("batch", window),
        aligned_with=HISTORY.name,
        meaning=_of_last_events(meaning, window),
        usual=usual,
        read=lambda asked, spec: last_columns(
            asked.of_history(asked.log.numbers(column), np.float32("nan")), spec
        ),
        column=column,
        required=required,
    )


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
            name=SCORES_NAME,
            dtype="float32",
            shape=("batch", top_k),
            meaning="the items' scores, descending; the lowest float32 beside an empty id",
        ),
    )
