"""`seqrec-export clients`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seqrec_cli import options
from seqrec_cli.console import note, print_json
from seqrec_export.errors import SeqrecError


def clients(
    out: Annotated[Path, typer.Option(help="Folder to write, replaced as a whole.")],
    language: Annotated[
        list[str] | None, typer.Option(help="node, go, java or cpp; may be repeated. Default: all.")
    ] = None,
    repository: options.Repository = None,
    json: options.Json = False,
) -> None:
    """Write clients with which a backend in Node, Go, Java or C++ calls the models of a repository.

    They are a small library for each language, a typed client for each model, the gRPC protocol as
    descriptors and as .proto, an OpenAPI description of the JSON endpoint, and for each model its
    contract and recorded requests, to test a client in another language with.

    Example: `seqrec-export clients --out backend/seqrec --language java`
    """
    from seqrec_export.clients.generate import LANGUAGES, REPLAY_FILE, write_clients

    chosen = tuple(dict.fromkeys(language or LANGUAGES))
    for name in chosen:
        if name not in LANGUAGES:
            raise SeqrecError(f"no client for {name!r}; there are {', '.join(LANGUAGES)}")
    written = write_clients(repository or options.DEFAULT_REPOSITORY, out, chosen)
    if json:
        print_json({"out": str(out), "languages": chosen, "models": written})
    else:
        typer.echo(f"{out}: {', '.join(chosen)}; typed clients of {', '.join(written)}")
        note(f"how to build and call them: {out}/<language>/README.md")
        note(f"how to prove a client of your own: {out}/{REPLAY_FILE}")
