"""`seqrec-export recommend`: ask a running server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from seqrec_cli import options
from seqrec_cli.console import note, print_json, print_table
from seqrec_export.errors import SeqrecError


def recommend(
    model: Annotated[str, typer.Option("--model", "-m", help="Model to ask.")] = "sasrec",
    history: Annotated[
        str | None, typer.Option(help="Item ids, oldest first, as 1193,661,914.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="User id (caser, two_tower).")] = None,
    age: Annotated[float | None, typer.Option(help="Age in years (two_tower).")] = None,
    month: Annotated[int | None, typer.Option(help="Month, 1 to 12 (two_tower).")] = None,
    event_types: Annotated[
        str | None, typer.Option(help="Parallel to --history (gru4att).")
    ] = None,
    gap_days: Annotated[
        str | None, typer.Option(help="Days ago, parallel to --history (gru4att).")
    ] = None,
    ratings: Annotated[
        str | None, typer.Option(help="Stars, parallel to --history (mlink).")
    ] = None,
    candidates: Annotated[
        str | None, typer.Option(help="Item ids to score instead of the catalogue.")
    ] = None,
    top_k: Annotated[int, typer.Option(help="Items to print.")] = 10,
    titles: Annotated[
        Path | None, typer.Option(help="movies.dat, u.item, movies.csv or articles, for titles.")
    ] = None,
    url: options.Url = options.DEFAULT_URL,
    tls_ca: options.TlsCa = None,
    tls_cert: options.TlsCert = None,
    tls_key: options.TlsKey = None,
    json: options.Json = False,
) -> None:
    """Ask a running server for recommendations, over gRPC, with raw ids.

    Example: `seqrec-export recommend --model sasrec --history 1193,661,914`
    """
    from seqrec_export.client import Client

    row: dict[str, Any] = {
        "history_item_ids": _ids(history),
        "user_id": user,
        "age": age,
        "month": month,
        "history_event_types": _ids(event_types),
        "history_gap_days": _numbers("--gap-days", gap_days),
        "history_ratings": _numbers("--ratings", ratings),
        "candidate_ids": _ids(candidates),
    }
    request = {name: value for name, value in row.items() if value is not None}
    with Client(url, tls=options.client_tls(tls_ca, tls_cert, tls_key)) as client:
        (result,) = client.call(model, [request])
    ids: Any = result.get("item_ids", request.get("candidate_ids"))
    if ids is None:
        raise SeqrecError(f"{model} gives {', '.join(result)}: it does not rank items")
    ranked = sorted(zip(ids, _floats(result["scores"]), strict=True), key=lambda pair: -pair[1])
    ranked = [pair for pair in ranked if pair[0]][:top_k]
    names = _titles(titles)
    known = int(_floats(result["known_items"])[0]) if "known_items" in result else None
    if json:
        items = [
            {"item_id": item, "score": score} | ({"title": names.get(item)} if titles else {})
            for item, score in ranked
        ]
        print_json({"model": model, "known_items": known, "items": items})
        return
    columns = ("", "item", "score", *(("title",) if titles else ()))
    print_table(
        f"{model}: {known} ids of the request known",
        columns,
        [
            (i + 1, item, f"{score:.4f}", *((names.get(item),) if titles else ()))
            for i, (item, score) in enumerate(ranked)
        ],
    )
    if known == 0:
        note("nothing of the request was known to the model: this is its cold start")


def _ids(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def _numbers(option: str, text: str | None) -> list[float] | None:
    try:
        return None if text is None else [float(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise SeqrecError(f"{option} {text}: write numbers, as 5,4.5,3") from error


def _floats(values: Any) -> list[float]:
    return [float(value) for value in values]


def _titles(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    from seqrec_export.readers.titles import titles

    return titles(path)
