"""Vocabularies: the caller's ids on one side, rows of an embedding on the other."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

PAD = 0  # the empty string, at any place
UNKNOWN = 1  # an id that the model was not trained on
NUM_RESERVED = 2  # the first real id has this index


class Vocabulary:
    """Ids in index order: `ids[i]` has the index `i + NUM_RESERVED`.

    Padding, unknown and real ids never share an index.
    """

    def __init__(self, ids: Iterable[str]) -> None:
        self.ids: tuple[str, ...] = tuple(ids)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_rows(self) -> int:
        """Rows of an embedding over this vocabulary, the reserved ones included."""
        return len(self.ids) + NUM_RESERVED

    @cached_property
    def indices(self) -> dict[str, int]:
        """The index of every known id, and of the empty string; any other id is UNKNOWN."""
        indices = {identifier: i + NUM_RESERVED for i, identifier in enumerate(self.ids)}
        assert len(indices) == len(self.ids), "ids are distinct"
        assert "" not in indices, "the empty string is padding"
        return {"": PAD} | indices

    def encode(self, ids: NDArray[np.object_]) -> NDArray[np.int64]:
        """(...) strings -> (...) indices."""
        lookup = self.indices
        flat = [lookup.get(identifier, UNKNOWN) for identifier in ids.ravel().tolist()]
        return np.array(flat, dtype=np.int64).reshape(ids.shape)

    @cached_property
    def strings(self) -> NDArray[np.object_]:
        """(num_rows,) the string of every index; padding and unknown are the empty string."""
        return np.array(["", "", *self.ids], dtype=object)

    def decode(self, indices: NDArray[np.int64]) -> NDArray[np.object_]:
        """(...) indices -> (...) strings."""
        return self.strings[indices]
