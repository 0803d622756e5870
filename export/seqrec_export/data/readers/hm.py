"""H&M-shaped purchase logs: transactions, customers and articles (H&M, Kaggle 2022)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from seqrec_export.data.interactions import Interactions
from seqrec_export.data.readers.columns import Columns, Optional, load
from seqrec_export.data.readers.delimited import header_layout
from seqrec_export.data.readers.files import is_parquet, listing, require_file
from seqrec_export.data.readers.indexing import as_ids, event_notes, factorise, merge
from seqrec_export.data.readers.times import Times, read_times
from seqrec_export.errors import SeqrecError

SUFFIXES = (".parquet", ".csv", ".csv.gz")  # the first is preferred
ARTICLE_ID_DIGITS = 10
EARLIEST = 631_152_000  # 1990-01-01: a date before it is a number that was read as seconds


def read(path: Path) -> Interactions:
    """A folder with transactions_train*, and customers* and articles* if it has them.

    `path` may be the transactions file itself. Days become midnight UTC; the rows of a day keep
    their order. Article ids are padded to 10 digits, as leading zeros get lost when ids are read
    as numbers. Customers and articles without a transaction are included; a table of them that
    cannot be read is left out. Raises SeqrecError.
    """
    transactions, notes = _pick(path, "transactions_train")
    if transactions is None:
        raise SeqrecError(
            f"{path} holds no transactions_train file (.parquet, .csv or .csv.gz); it holds "
            f"{listing(path)}"
        )
    log = _load(transactions, ("t_dat", "customer_id", "article_id"), ())
    users, user_rows = factorise(log, "customer_id")
    items, item_rows = article_ids(log)
    times = _times(log)
    notes += tuple(log.notes)
    del log
    user_features, item_features, item_table = None, None, None
    optional = Optional()
    with optional.part("customers", "user_features"):
        customers, more = _pick(transactions.parent, "customers")
        notes += more
        if customers is not None:
            users, user_features, more = _customers(customers, users)
            notes += more
    with optional.part("articles", "item_features"):
        articles, more = _pick(transactions.parent, "articles")
        notes += more
        if articles is not None:
            items, item_features, more = _article_features(articles, items)
            item_table = articles
            notes += more
    return Interactions(
        user_ids=as_ids(users),
        item_ids=as_ids(items),
        users=user_rows,
        items=item_rows,
        times=times.seconds,
        nanoseconds=times.nanoseconds,
        user_features=user_features,
        item_features=item_features,
        item_table=item_table,
        source=f"hm:{path}",
        notes=notes
        + times.notes
        + optional.notes
        + event_notes(user_rows, item_rows, times.seconds, times.nanoseconds),
        unreadable=optional.unreadable,
    )


def _pick(path: Path, table: str) -> tuple[Path | None, tuple[str, ...]]:
    """The file that holds a table: Parquet first, then the table's plain name."""
    if not path.is_dir():
        return require_file(path), ()
    found = [
        (SUFFIXES.index(suffix), entry.name != table + suffix, entry.name)
        for entry in path.iterdir()
        for suffix in SUFFIXES
        if entry.is_file() and entry.name.startswith(table) and entry.name.endswith(suffix)
    ]
    if not found:
        return None, ()
    (*_, picked), *others = sorted(found)
    passed = ", ".join(name for *_, name in others)
    note = f"{table} were read from {picked}" + (f", not {passed}." if passed else ".")
    return require_file(path / picked), (note,)


def _load(path: Path, ids: tuple[str, ...], others: tuple[str, ...]) -> Columns:
    layout = None if is_parquet(path) else header_layout(path)
    return load(path, layout, ids=ids, others=others)


def article_ids(columns: Columns) -> tuple[pa.Array, NDArray[np.int32]]:
    """(distinct article ids of 10 digits, (N,) rows of them)."""
    ids, rows = factorise(columns, "article_id")
    digits = pc.match_substring_regex(ids, r"^\d+$")
    return merge(pc.if_else(digits, pc.utf8_lpad(ids, ARTICLE_ID_DIGITS, "0"), ids), rows)


def _times(log: Columns) -> Times:
    times = read_times(log, "t_dat")
    if (early := times.seconds < EARLIEST).any():
        row = int(early.argmax())
        date = np.datetime64(int(times.seconds[row]), "s")
        raise SeqrecError(f"{log.place(row)}: t_dat is {date}, before 1990; write it as 2020-09-22")
    return times


def _customers(path: Path, users: pa.Array) -> tuple[pa.Array, pd.DataFrame, tuple[str, ...]]:
    table = _load(path, ("customer_id", "club_member_status"), ("age",))
    ids, rows = factorise(table, "customer_id")
    users, at, notes = _joined(path, users, ids, rows)
    notes += tuple(table.notes)
    age = np.full(len(users), np.nan, np.float32)
    age[at] = table.numbers("age", optional=True)
    status = np.full(len(users), None, object)
    status[at] = table.texts("club_member_status")
    frame = pd.DataFrame({"age": age, "club_member_status": pd.Series(status, dtype=object)})
    return users, frame, notes


def _article_features(
    path: Path, items: pa.Array
) -> tuple[pa.Array, pd.DataFrame, tuple[str, ...]]:
    names = ("garment_group_name", "index_group_name")
    table = _load(path, ("article_id", *names), ())
    ids, rows = article_ids(table)
    items, at, notes = _joined(path, items, ids, rows)
    notes += tuple(table.notes)
    features = {}
    for name in names:
        values = np.full(len(items), "", object)
        values[at] = table.texts(name)
        features[name] = pd.Series(values, dtype=object).fillna("")
    return items, pd.DataFrame(features), notes


def _joined(
    path: Path, seen: pa.Array, ids: pa.Array, rows: NDArray[np.int32]
) -> tuple[pa.Array, NDArray[np.int32], tuple[str, ...]]:
    """(ids of the log, then those only in the table; (N,) where each table row goes; notes)."""
    joined = pa.concat_arrays([seen, ids]).dictionary_encode()
    at = joined.indices.to_numpy()[len(seen) :][rows]
    notes = []
    if repeated := len(rows) - len(ids):
        notes.append(f"{path.name} repeats {repeated:,} ids; the last row of each was taken.")
    if unknown := len(joined.dictionary) - len(ids):
        notes.append(f"{unknown:,} ids of the log are not in {path.name}; they have no features.")
    return joined.dictionary, at, tuple(notes)
