"""MovieLens in each of the forms it is published in (Harper and Konstan 2015, GroupLens)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from seqrec_export.data.interactions import Interactions
from seqrec_export.data.readers.columns import Optional, load
from seqrec_export.data.readers.delimited import Layout, header_layout
from seqrec_export.data.readers.files import first_line, is_parquet, require_file
from seqrec_export.data.readers.indexing import as_ids, event_notes, factorise
from seqrec_export.data.readers.times import Times, read_times
from seqrec_export.errors import SeqrecError

RATINGS = ("userId", "movieId", "rating", "timestamp")
PAIRS = ("userId", "movieId")
MOVIES = ("movies.dat", "movies.csv")  # next to the ratings
DOUBLE_COLON = ("userId", "_1", "movieId", "_2", "rating", "_3", "timestamp")


def read(path: Path) -> Interactions:
    """Ratings as `ratings.dat`, `u.data` or `ratings.csv`, or re-indexed `user item` pairs.

    The first line tells which; the file's name does not matter. Event types are the ratings as
    text, lowest first. Pairs have no ratings, and their time is the row number. Raises SeqrecError.
    """
    layout = None if is_parquet(require_file(path)) else _layout(path)
    pairs = layout is not None and layout.names == PAIRS
    columns = load(path, layout, ids=PAIRS, others=() if pairs else RATINGS)
    users, user_rows = factorise(columns, "userId")
    items, item_rows = factorise(columns, "movieId")
    ratings, types = None, None
    type_ids: tuple[str, ...] = ()
    optional = Optional()
    if not pairs:
        times = read_times(columns, "timestamp")
        with optional.part("rating", "ratings", "event_types"):
            ratings = columns.numbers("rating")
            levels, types = np.unique(ratings, return_inverse=True)
            type_ids = tuple(f"{level:g}" for level in levels)
    else:
        note = (
            "The file has no times: each event's time is its row number, which orders a user's "
            "events but says nothing across users."
        )
        rows = np.arange(len(user_rows), dtype=np.int64)
        times = Times(seconds=rows, nanoseconds=None, notes=(note,))
    return Interactions(
        user_ids=as_ids(users),
        item_ids=as_ids(items),
        users=user_rows,
        items=item_rows,
        times=times.seconds,
        nanoseconds=times.nanoseconds,
        ratings=ratings,
        event_types=None if types is None else types.astype(np.int32),
        event_type_ids=type_ids,
        item_table=None if pairs else next(filter(Path.is_file, map(path.with_name, MOVIES)), None),
        source=f"movielens:{path}",
        notes=tuple(columns.notes)
        + times.notes
        + optional.notes
        + event_notes(user_rows, item_rows, times.seconds, times.nanoseconds),
        unreadable=optional.unreadable,
    )


def _layout(path: Path) -> Layout:
    line = first_line(path)
    if line.startswith("userId") or "," in line:
        return header_layout(path)
    if re.fullmatch(r"[^:]+::[^:]+::[^:]+::[^:]+", line):
        # Arrow wants a delimiter of one character: "::" is two, with an empty column between.
        return Layout(names=DOUBLE_COLON, delimiter=":", header=False, quoted=False)
    shapes: tuple[tuple[str, ...], ...] = (RATINGS, PAIRS)
    for names in shapes:
        for delimiter in ("\t", " "):
            if len(line.split(delimiter)) == len(names) and all(line.split(delimiter)):
                return Layout(names=names, delimiter=delimiter, header=False, quoted=False)
    raise SeqrecError(
        f"{path}, line 1: {line[:80]!r} is not MovieLens; expected user::movie::rating::time, "
        "user<tab>movie<tab>rating<tab>time, the header userId,movieId,rating,timestamp, or "
        "`user item`; read other logs with table:"
    )
