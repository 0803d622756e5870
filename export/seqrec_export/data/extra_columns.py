"""Columns of a log that only some models know: as text or as numbers, whichever a model takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seqrec_export.data.vocabulary import NUM_RESERVED, PAD, UNKNOWN, Vocabulary
from seqrec_export.errors import SeqrecError


def as_texts(values: NDArray[Any]) -> NDArray[np.object_]:
    """(N,) text or numbers -> (N,) str, "" if missing; whole numbers without a point."""
    if values.dtype == object:
        missing = np.asarray(pd.isna(values))
        return np.where(missing, "", values).astype(object) if missing.any() else values
    codes, distinct = pd.factorize(values)  # -1 is NaN
    numbers = np.asarray(distinct)
    if numbers.dtype.kind == "f" and (np.floor(numbers) == numbers).all():
        numbers = numbers.astype(np.int64)
    texts = np.array([*(str(number) for number in numbers.tolist()), ""], dtype=object)
    found: NDArray[np.object_] = texts[codes]
    return found


def as_numbers(name: str, values: NDArray[Any], source: str) -> NDArray[np.float32]:
    """(N,) text or numbers -> (N,) float32, NaN if missing. Raises SeqrecError for a word."""
    if values.dtype != object:
        if np.isinf(values).any():
            raise SeqrecError(f"{name} is infinite in {source}; correct the column")
        return values.astype(np.float32)
    codes, distinct = pd.factorize(as_texts(values))
    texts = pd.Series(np.asarray(distinct), dtype=object)
    numbers = pd.to_numeric(texts.where(texts != "", "nan"), errors="coerce").to_numpy(np.float32)
    wrong = ~np.isfinite(numbers) & ~texts.str.lower().isin(["", "nan"]).to_numpy()
    if wrong.any():
        raise SeqrecError(
            f"{name} is {texts[int(wrong.argmax())]!r} in {source}, and a model takes it as a "
            "number; correct the column"
        )
    found: NDArray[np.float32] = numbers[codes]
    return found


def indexed(
    texts: NDArray[np.object_], is_train: NDArray[np.bool_]
) -> tuple[Vocabulary, NDArray[np.int64]]:
    """(N,) str -> the vocabulary of those that training sees, and (N,) indices."""
    codes, distinct = pd.factorize(texts)
    names = np.asarray(distinct, dtype=object)
    seen = np.zeros(len(names), bool)
    seen[codes[is_train]] = True
    order = sorted(np.flatnonzero(seen & (names != "")).tolist(), key=lambda row: names[row])
    index = np.full(len(names), UNKNOWN, np.int64)
    index[order] = np.arange(len(order)) + NUM_RESERVED
    index[names == ""] = PAD
    return Vocabulary(names[order]), index[codes]
