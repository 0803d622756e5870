"""`seqrec-export recommend`: ask a running server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seqrec_cli import lists, options
from seqrec_cli.console import note, print_json, print_table
from seqrec_export.errors import SeqrecError
from seqrec_export.models.registry import TO_ASK

if TYPE_CHECKING:
    from seqrec_export.clients.packing import Tensor
    from seqrec_export.clients.rows import Signature

_SHOWN = 10  # items, if nobody asks for more


def recommend(
    model: Annotated[str, typer.Option("--model", "-m", help="Model to ask.")] = TO_ASK,
    history: Annotated[
        list[str] | None,
        typer.Option(
            help="Item ids, oldest first, as 1193,661,914. With commas in them as in CSV, "
            "'\"a,b\",c', or as a JSON list; may be repeated."
        ),
    ] = None,
    user: Annotated[str | None, typer.Option(help="User id: user_id of the request.")] = None,
    age: Annotated[float | None, typer.Option(help="Age in years: age.")] = None,
    month: Annotated[int | None, typer.Option(help="Month, 1 to 12: month.")] = None,
    event_types: Annotated[
        list[str] | None,
        typer.Option(help="What was done, parallel to --history: history_event_types."),
    ] = None,
    gap_days: Annotated[
        list[str] | None,
        typer.Option(help="Days ago, parallel to --history: history_gap_days."),
    ] = None,
    ratings: Annotated[
        list[str] | None,
        typer.Option(
            help="Stars, parallel to --history, as 5,,3 if one is unknown: history_ratings."
        ),
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            help="Any input of the model by its name, as device=phone; a list as for --history. "
            "Repeat for several; `inspect MODEL` names them.",
        ),
    ] = None,
    candidates: Annotated[
        list[str] | None, typer.Option(help="Item ids to score instead of the catalogue.")
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="Item ids that must not come back; a list as for --history."),
    ] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="Item ids of which alone some may come back.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="Values of an attribute, as garment_group_name=Knitwear,Jersey: only items with "
            "one of them come back. Repeat for several attributes."
        ),
    ] = None,
    keep_seen: Annotated[
        bool, typer.Option("--keep-seen", help="What the history holds may come back.")
    ] = False,
    similar_to: Annotated[
        list[str] | None,
        typer.Option(help="Item ids: print the items nearest to them instead of recommendations."),
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Items to print.")] = _SHOWN,
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
    from seqrec_export.clients.filters import QUERY, SIMILAR, narrowed
    from seqrec_export.clients.python import Client
    from seqrec_export.models.registry import find

    model = find(model).name if ":" in model else model
    given: dict[str, tuple[str, Any]] = {
        "history_item_ids": ("--history", lists.texts("--history", history)),
        "user_id": ("--user", user),
        "age": ("--age", age),
        "month": ("--month", month),
        "history_event_types": ("--event-types", lists.texts("--event-types", event_types)),
        "history_gap_days": ("--gap-days", lists.numbers("--gap-days", gap_days)),
        "history_ratings": ("--ratings", lists.numbers("--ratings", ratings)),
        "candidate_ids": ("--candidates", lists.texts("--candidates", candidates)),
        QUERY: ("--similar-to", lists.texts("--similar-to", similar_to)),
    }
    if similar_to is not None and not model.endswith(SIMILAR):
        model = f"{model}{SIMILAR}"
    filters = lists.filters(exclude, allow, where, keep_seen=keep_seen)
    request = {name: value for name, (_, value) in given.items() if value is not None}
    texts = _inputs(inputs or [], {name: given[name][0] for name in request})
    places = len(request.get("history_item_ids", []))
    for name, value in request.items():
        if name.startswith("history_") and len(value) > places:
            raise SeqrecError(
                f"{given[name][0]} has {len(value)} values for the {places} ids of --history; give"
                " one for each, or none for the last ones"
            )
    with Client(url, tls=options.client_tls(tls_ca, tls_cert, tls_key)) as client:
        signature = client.signature(model)
        request |= {
            name: _value(f"--input {name}", signature.inputs[name], parts)
            for name, parts in texts.items()
            if name in signature.inputs
        }
        said = {name: option for name, (option, _) in given.items()}
        _require_answerable(model, signature, request, said, texts)
        graph, rows = narrowed(model, [request], filters, client.signature)
        (result,) = client.call(graph, rows)
    ids: Any = result.get("item_ids", request.get("candidate_ids"))
    ranked = sorted(zip(ids, _floats(result["scores"]), strict=True), key=lambda pair: -pair[1])
    if "item_ids" in result and top_k > max(len(ids), _SHOWN):
        note(f"{model} gives {len(ids)} items, as it was exported; --top-k asks for {top_k}")
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
        fold=False,
    )
    if not ranked and "item_ids" in result:
        note("the model knows no item that may come back")
    if known == 0:
        note("nothing of the request was known to the model: this is its cold start")


def _inputs(given: Sequence[str], taken: Mapping[str, str]) -> dict[str, list[str]]:
    """The texts that --input gives to each input. `taken` are those with an option of their own."""
    texts: dict[str, list[str]] = {}
    for text in given:
        name, separator, value = text.partition("=")
        name = name.strip()
        if not separator or not name:
            raise SeqrecError(f"--input {text}: write an input and its value, as device=phone")
        if name in taken:
            raise SeqrecError(f"--input {name} and {taken[name]} are the same; give one of them")
        texts.setdefault(name, []).append(value)
    return texts


def _value(option: str, tensor: Tensor, given: Sequence[str]) -> Any:
    """What --input says for one input, as its type has it."""
    single = tensor.dims == (1,) and not tensor.aligned_with
    if single and len(given) > 1:
        raise SeqrecError(f"{option} is given {len(given)} times, and takes one value; give one")
    if tensor.datatype == "BYTES":
        return given[0] if single else lists.texts(option, given)
    numbers: list[Any] = lists.numbers(option, given) or []
    if not tensor.datatype.startswith("FP"):
        if any(number != number or number % 1 for number in numbers):
            raise SeqrecError(f"{option} takes whole numbers; found {','.join(given)}")
        numbers = [int(number) for number in numbers]
    if single and len(numbers) != 1:
        raise SeqrecError(f"{option} takes one number; found {','.join(given) or 'nothing'}")
    return numbers[0] if single else numbers


def _require_answerable(
    model: str,
    signature: Signature,
    request: Mapping[str, Any],
    options_of: Mapping[str, str],
    others: Iterable[str],
) -> None:
    """Raise SeqrecError for a model that does not rank items, or is asked with what it lacks."""
    from seqrec_export.clients.filters import is_filter

    outputs, inputs = signature.outputs, signature.inputs
    if "scores" not in outputs:
        raise SeqrecError(f"{model} gives {', '.join(outputs)}: it does not rank items")
    filters = [name for name in inputs if is_filter(name, inputs)]
    options_of = (
        {name: f"--input {name}" for name in (*inputs, *others)}
        | {name: lists.filter_option(name) for name in filters}
        | dict(options_of)
    )
    taken = ", ".join(options_of[name] for name in inputs)
    for name in (*request, *others):
        if name not in inputs:
            raise SeqrecError(f"{model} takes no {options_of[name]}; it takes {taken}")
    # A vector has no unknown value: what is left out of a request otherwise is.
    vectors = [
        n for n, of in inputs.items() if of.dims not in ((-1,), (1,)) and not of.aligned_with
    ]
    if lacking := [name for name in vectors if name not in request]:
        raise SeqrecError(
            f"{model} takes {', '.join(lacking)}; give it with --input {lacking[0]}=0.1,0.2,..., "
            f"or ask {model.removesuffix('_scorer')}"
        )
    if "candidate_ids" in inputs and not request.get("candidate_ids"):
        raise SeqrecError(f"{model} scores items that it is given: name them with --candidates")


def _floats(values: Any) -> list[float]:
    return [float(value) for value in values]


def _titles(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    from seqrec_export.data.readers.titles import titles

    return titles(path)
