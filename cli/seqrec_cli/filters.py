"""What commands are told of the attributes that answers can be filtered by."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seqrec_cli.console import note
from seqrec_export.errors import SeqrecError

if TYPE_CHECKING:
    from seqrec_cli.options import Plan
    from seqrec_export.data.attributes import ItemAttributes
    from seqrec_export.data.interactions import Interactions

FilterBy = Annotated[
    list[str] | None,
    typer.Option(
        help="Attribute of items that requests can ask for, such as colour; genres:| if a text "
        "holds several, with | between. Repeat it, or write commas between. Default: none; for "
        '`export`, as the last time, and "" for none.'
    ),
]
ItemsFile = Annotated[
    str | None,
    typer.Option(
        "--items",
        help="Table of the items with their attributes, for --filter-by: CSV or Parquet.",
    ),
]
ItemsOrFile = Annotated[
    list[str] | None,
    typer.Option(
        "--items",
        help="Table of the items with their attributes, for --filter-by: CSV or Parquet. A whole "
        "number is how many items the synthetic shop has.",
    ),
]
ItemsId = Annotated[
    str | None,
    typer.Option(
        help="Column of --items that holds the ids. Default: the one that is called item_id, or "
        "article_id, movieId, product_id, sku, id."
    ),
]


def count_and_table(items: Sequence[str] | None) -> tuple[int | None, str | None]:
    """What --items says: how many items the synthetic shop has, or which table knows items."""
    if not items:
        return None, None
    if len(items) > 1:
        raise SeqrecError(
            f"--items is given twice ({', '.join(items)}); give the table, and the size of the "
            "shop as --data synthetic:items=2000"
        )
    (text,) = items
    return (int(text), None) if re.fullmatch(r"[+-]?\d+", text.strip()) else (None, text)


def require(plan: Plan) -> None:
    """Raise SeqrecError for what can be found wrong before a log is read."""
    from seqrec_export.data.readers.item_tables import require_named

    require_named(plan.filter_by, plan.items)


def asked_attributes(
    plan: Plan, ids: Any, log: Interactions | None = None
) -> ItemAttributes | None:
    """The attributes of these items that the plan names, and what was noticed about them."""
    from seqrec_export.data.readers import item_tables

    if plan.items is not None:
        note(f"reading {plan.items}")
    found = item_tables.asked_attributes(
        plan.filter_by, ids, log=log, items=plan.items, items_id=plan.items_id
    )
    for text in found.notes if found else ():
        note(f"note: {text}")
    return found
