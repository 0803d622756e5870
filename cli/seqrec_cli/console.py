"""Tables on stdout, progress on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer


def note(text: str) -> None:
    """One line of progress, on stderr."""
    typer.secho(text, err=True, dim=True)


def print_json(content: Any) -> None:
    """For programs: one JSON document on stdout."""
    typer.echo(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False, default=str))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table on stdout, whole lines also where stdout is no terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", header_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left", no_wrap=i == 0)
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def figures(metrics: Mapping[str, float], names: Iterable[str]) -> str:
    """`hr@10 0.312  ndcg@10 0.171`, as far as the metrics are there."""
    return "  ".join(f"{name} {metrics[name]:.4f}" for name in names if name in metrics)
