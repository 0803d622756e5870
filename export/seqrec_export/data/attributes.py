"""Attributes of items: what answers can be narrowed down by, such as a garment's group."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seqrec_export.data.vocabulary import Vocabulary


@dataclass(frozen=True, eq=False)
class Attribute:
    """The values that each item has of one attribute; an item may have none, or several."""

    name: str  # an identifier; callers send `allow_<name>`
    vocabulary: Vocabulary  # its values
    values: NDArray[np.int32]  # (rows of items, M) their indices, PAD after the last one
