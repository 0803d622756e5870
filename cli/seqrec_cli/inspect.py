"""`seqrec-export inspect`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from seqrec_cli import options
from seqrec_cli.console import figures, note, print_json, print_table
from seqrec_export.errors import SeqrecError


def inspect(
    model: Annotated[str | None, typer.Argument(help="Model whose contract to show.")] = None,
    repository: options.Repository = None,
    url: Annotated[
        str | None, typer.Option(help="gRPC address of a server, to show what it serves.")
    ] = None,
    tls_ca: options.TlsCa = None,
    tls_cert: options.TlsCert = None,
    tls_key: options.TlsKey = None,
    json: options.Json = False,
) -> None:
    """Show what a repository holds: versions, damage, metrics, parity; the contract of one model.

    Every file is compared with the sha256 that it was published with. "To serve" is the newest
    version that is sound and was not rolled back: `serve` serves that one.

    Example: `seqrec-export inspect sasrec`
    """
    from seqrec_export.clients.python import Client
    from seqrec_export.repository.describe import describe

    tls = options.client_tls(tls_ca, tls_cert, tls_key)
    asked = None if url is None else Client(url, tls=tls)
    folder = repository or options.DEFAULT_REPOSITORY
    described = describe(folder)
    if model is not None:
        described = [entry for entry in described if entry["model"] == model]
        if not described:
            raise SeqrecError(f"{folder} holds no model called {model!r}; see `inspect` for all")
    if asked:
        with asked as client:
            serving = client.serving()
        for entry in described:
            entry["serving"] = serving.get(entry["model"], [])
    if json:
        print_json(described)
        return
    if model is None:
        columns = ("size", "held-out test", "|ONNX - PyTorch|", "data")
        shown = ("model", "versions", "to serve", *(("serving",) if asked else ()), *columns)
        print_table(str(folder), shown, [_row(entry) for entry in described])
    elif "contract" in described[0]:
        _print_contract(described[0]["contract"])
    for entry in described:
        for text in _warnings(entry):
            note(f"{entry['model']}: {text}")


def _row(entry: dict[str, Any]) -> tuple[Any, ...]:
    served = "nothing" if entry["served"] is None else entry["served"]
    row: list[Any] = [entry["model"], ", ".join(map(str, entry["versions"])), served]
    if "serving" in entry:
        row.append(", ".join(map(str, entry["serving"])) or "nothing")
    if "metrics" in entry:
        test = entry["metrics"]["test"]
        said = entry["metrics"].get("figures", {}).get("headline", ())
        names = [*(said or (name for name in test if "@" in name)), *test]
        row += [
            f"{entry['bytes'] / 1e6:.2f} MB",
            figures(test, [name for name in dict.fromkeys(names) if name in test][:2]),
            f"{entry['parity']['max_abs_diff']:.1e}",
            entry["metrics"]["data"]["source"],
        ]
    return tuple(row)


def _warnings(entry: dict[str, Any]) -> list[str]:
    """What is wrong, and what differs from the folder."""
    said = [f"version {version}: {problem}" for version, problem in entry["problems"].items()]
    said += entry["damage"]
    accepted = entry.get("metrics", {}).get("accepted_quality")
    if accepted and entry["parity"].get("model") == entry["model"]:  # once, not for each graph
        said.append(f"version {entry['served']} was published although {accepted}")
    if entry["rolled_back"]:
        said.append(f"rolled back: {', '.join(map(str, entry['rolled_back']))}")
    newest = entry["served"]
    if newest is None:
        said.append("no version is as it was published; build it again")
    elif entry.get("serving", [newest]) != [newest]:
        served = ", ".join(map(str, entry["serving"])) or "no version"
        said.append(f"the server serves {served}, the newest sound version is {newest}")
    return said


def _print_contract(contract: dict[str, Any]) -> None:
    typer.echo(
        f"{contract['model']}: {contract['meaning']};"
        f" up to {contract['max_batch_size']} rows a call"
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
