"""`seqrec-export inspect`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from seqrec_cli import options
from seqrec_cli.console import figures, print_json, print_table
from seqrec_export.errors import SeqrecError


def inspect(
    model: Annotated[str | None, typer.Argument(help="Model whose contract to show.")] = None,
    repository: options.Repository = None,
    json: options.Json = False,
) -> None:
    """Show what a repository holds: versions, metrics, parity; the contract of one model.

    Example: `seqrec-export inspect sasrec`
    """
    from seqrec_export.repository import describe

    folder = repository or options.DEFAULT_REPOSITORY
    described = describe(folder)
    if model is not None:
        described = [entry for entry in described if entry["model"] == model]
        if not described:
            raise SeqrecError(f"{folder} holds no model called {model!r}; see `inspect` for all")
    if json:
        print_json(described)
    elif model is None:
        print_table(
            str(folder),
            ("model", "versions", "size", "held-out test", "|ONNX - PyTorch|", "data"),
            [_row(entry) for entry in described],
        )
    else:
        contract = described[0]["contract"]
        typer.echo(
            f"{model}: {contract['meaning']}; up to {contract['max_batch_size']} rows a call"
        )
        for kind in ("inputs", "outputs"):
            print_table(
                kind,
                ("tensor", "type", "shape", "unknown", "meaning"),
                [
                    (t["name"], t["datatype"], t["shape"], repr(t.get("unknown", "")), t["meaning"])
                    for t in contract[kind]
                ],
            )


def _row(entry: dict[str, Any]) -> tuple[Any, ...]:
    test = entry["metrics"]["test"]
    shown = [name for name in ("hr@10", "ndcg@10", "rmse", "recall@12", "map@12") if name in test]
    return (
        entry["model"],
        ", ".join(map(str, entry["versions"])),
        f"{entry['bytes'] / 1e6:.2f} MB",
        figures(test, shown[:2]),
        f"{entry['parity']['max_abs_diff']:.1e}",
        entry["metrics"]["data"]["source"],
    )
