"""Item titles, for people: MovieLens movies, H&M articles, or a table of a shop's own."""

from __future__ import annotations

from pathlib import Path

from seqrec_export.data.readers.columns import column_names, load
from seqrec_export.data.readers.delimited import header_layout
from seqrec_export.data.readers.files import first_line, is_parquet, lines, require_file
from seqrec_export.data.readers.hm import article_ids
from seqrec_export.data.readers.indexing import as_ids, factorise
from seqrec_export.errors import SeqrecError

# Header names: (the id's column, the title's).
TABLES = (("movieId", "title"), ("article_id", "prod_name"), ("item_id", "title"))


def titles(path: Path) -> dict[str, str]:
    """Item id -> title, of movies.dat, u.item, movies.csv, articles, or item_id and title.

    Items without a title are left out. Raises SeqrecError.
    """
    if not is_parquet(require_file(path)):
        line = first_line(path, "latin-1")
        for delimiter in ("::", "|"):
            parts = line.split(delimiter)
            if len(parts) >= 3 and parts[0].isdigit():
                return _without_header(path, delimiter)
    layout = None if is_parquet(path) else header_layout(path)
    names = column_names(path, layout)
    for id_name, title_name in TABLES:
        if id_name in names:
            table = load(path, layout, ids=(id_name,), others=(title_name,))
            ids, rows = article_ids(table) if id_name == "article_id" else factorise(table, id_name)
            found = zip(as_ids(ids)[rows], table.texts(title_name), strict=True)
            return {item: title for item, title in found if title is not None}
    raise SeqrecError(
        f"{path} holds no titles: expected movieId and title, article_id and prod_name, or "
        f"item_id and title, among its columns; found {', '.join(names)}"
    )


def _without_header(path: Path, delimiter: str) -> dict[str, str]:
    """movies.dat and u.item, which are in latin-1."""
    found = {}
    for number, line in enumerate(lines(path, "latin-1"), start=1):
        parts = line.rstrip("\r\n").split(delimiter)
        if len(parts) < 3:
            raise SeqrecError(
                f"{path}, line {number}: expected id{delimiter}title{delimiter}..., found "
                f"{line[:80]!r}"
            )
        found[parts[0]] = parts[1]
    return found
