"""Tables go to stdout, progress to stderr; text is printed as it is."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer

_WIDTH, _WIDEST = 140, 1_000_000  # of what is no terminal
# Control characters, which a terminal may obey; line breaks that a log does not treat as such; what
# turns the direction of writing; and halves of characters, which no encoding can write.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def note(text: str) -> None:
    """One line of progress, on stderr."""
    typer.secho(message(text), err=True, dim=True)


def message(text: str) -> str:
    """A text of one or more lines, each of them printable."""
    return "\n".join(map(printable, text.split("\n")))


def printable(text: str) -> str:
    r"""The text in one line: an id may hold what a terminal obeys, which is shown as `\x1b`."""
    return _UNPRINTABLE.sub(lambda found: repr(found[0])[1:-1], text)


def print_json(content: Any) -> None:
    """For programs: one JSON document on stdout."""
    escaped = not sys.stdout.encoding.lower().startswith("utf")
    typer.echo(json.dumps(content, indent=2, ensure_ascii=escaped, allow_nan=False, default=str))


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, fold: bool = True
) -> None:
    """A table on stdout; without `fold` its cells are whole lines if stdout is no terminal.

    Cells are text and not Rich's markup: ids and titles may be `[red]rose` or `a:heart:b`.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(header_style="bold")
    for i, column in enumerate(columns):
        # On a terminal that is too narrow a name goes on in the next line; none is cut off.
        table.add_column(Text(printable(column)), overflow="fold", no_wrap=i == 0)
    for row in rows:
        table.add_row(*(Text("" if cell is None else printable(str(cell))) for cell in row))
    terminal = sys.stdout.isatty()
    width = None if terminal else _WIDTH
    if not (terminal or fold):
        width = max(_WIDTH, Console(width=_WIDEST).measure(table).maximum)
    console = Console(width=width)
    console.print(Text(printable(title), style="italic"), soft_wrap=True)
    console.print(table)


def figures(metrics: Mapping[str, float], names: Iterable[str]) -> str:
    """`hr@10 0.312  ndcg@10 0.171`, as far as the metrics exist."""
    return "  ".join(f"{name} {metrics[name]:.4f}" for name in names if name in metrics)
