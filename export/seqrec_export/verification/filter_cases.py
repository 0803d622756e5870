"""The filters of the requests that an export is tried on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqrec_export.contract import Spec
from seqrec_export.data.vocabulary import Vocabulary

FEW = "a few allowed"
CLASSES: Mapping[str, str] = {
    "no filter": "nothing narrows the answer down",
    FEW: "short lists of items, some of them known, some the same one again",
    "nothing allowed": "only ids and values that the model does not know are allowed",
    "contradiction": "what is allowed is excluded as well",
    "everything allowed": "every item and every value is allowed, 1,000 at most",
    "everything excluded": "every item is excluded, 1,000 at most",
}
_MOST = 1_000
_POPULAR = 200  # items that answers are likely to hold
_UNKNOWN = ("\N{SNOWMAN} no such id", "")
_ODD_INTEGERS = np.array([-(2**31), 2**31 - 1, -1, 0, 1, 2], np.int32)


class Filters:
    """The filters of one request; a row has each of them or not, at random."""

    def __init__(
        self,
        name: str,
        batch: int,
        vocabularies: Mapping[str, Vocabulary],
        rng: np.random.Generator,
    ) -> None:
        self.name, self.batch, self.vocabularies, self.rng = name, batch, vocabularies, rng
        self._contradicted = self._known("items", int(rng.integers(1, 6)))

    def draw(self, spec: Spec) -> NDArray[Any]:
        """(B, L) strings, or (B, 1) int32."""
        rng, batch = self.rng, self.batch
        if spec.dtype == "int32":
            return self._switch()
        assert spec.vocabulary is not None
        excludes = spec.name.startswith("exclude")
        nothing = np.full((batch, 0), "", object)
        everything = np.array(self.vocabularies[spec.vocabulary].ids[:_MOST], object)
        if self.name == "no filter":
            return nothing
        if self.name == FEW:
            if spec.vocabulary != "items" or excludes:
                return nothing
            few = self._some(spec.vocabulary, int(rng.integers(1, 4)), given=1.0)
            few[::3] = self._known(spec.vocabulary, 1)[::3]  # the same item again and again
            return few
        if self.name == "nothing allowed":
            return nothing if excludes else np.full((batch, 2), _UNKNOWN, object)
        if self.name == "contradiction":
            return self._contradicted if spec.vocabulary == "items" else nothing
        if self.name == "everything allowed":
            return nothing if excludes else np.tile(everything, (batch, 1))
        if self.name == "everything excluded":
            return np.tile(everything, (batch, 1)) if excludes else nothing
        most = 21 if spec.vocabulary == "items" else 4
        return self._some(spec.vocabulary, int(rng.integers(0, most)), given=0.4)

    def _switch(self) -> NDArray[np.int32]:
        shape = (self.batch, 1)
        if self.name == "no filter":
            return np.zeros(shape, np.int32)
        if self.name == "extreme numbers":
            return self.rng.choice(_ODD_INTEGERS, shape)
        return self.rng.integers(0, 2, shape).astype(np.int32)

    def _some(self, vocabulary: str, width: int, *, given: float) -> NDArray[np.object_]:
        """(B, width) known ids, unknown ones and padding; a share of rows has nothing."""
        rng = self.rng
        values = self._known(vocabulary, width)
        chance = rng.random(values.shape)
        values = np.where(chance < 0.1, _UNKNOWN[0], np.where(chance < 0.2, "", values))
        if self.name == "unknown ids only":
            values = np.full(values.shape, _UNKNOWN[0], object)
        elif self.name == "padding only":
            values = np.full(values.shape, "", object)
        rows = rng.random((self.batch, 1)) < given
        return np.asarray(np.where(rows, values, ""), object)

    def _known(self, vocabulary: str, width: int) -> NDArray[np.object_]:
        """(B, width) ids, each second row's from the popular ones."""
        ids = np.array(self.vocabularies[vocabulary].ids or _UNKNOWN[:1], object)
        places = self.rng.integers(0, len(ids), (self.batch, width))
        places[::2] %= _POPULAR
        return np.asarray(ids[places], object)
