"""The tensors that models have in common on the wire."""

from __future__ import annotations

from seqrec_export.contract import SCORES as SCORES_NAME
from seqrec_export.contract import USER_EMBEDDING, Spec

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
    name=SCORES_NAME,
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
