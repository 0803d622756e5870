"""`seqrec-export demo`: everything once, from a log to an answer."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seqrec_cli import filters, options
from seqrec_cli.console import note, print_table
from seqrec_cli.results import print_built, read_log
from seqrec_export.errors import SeqrecError

if TYPE_CHECKING:
    from seqrec_export.clients.python import Client
    from seqrec_export.data.histories import Dataset
    from seqrec_export.data.interactions import Interactions
    from seqrec_export.models.model import Model

_SHOWN = 5
_PAST = 20  # events of a history
_GROUP = "garment_group_name"
HISTORY, CANDIDATES = "history_item_ids", "candidate_ids"


def demo(
    repository: options.Repository = None,
    runs: options.Runs = None,
    grpc_port: Annotated[int, typer.Option(help="gRPC port; 0 takes a free one.")] = 0,
) -> None:
    """Build all models on generated data, serve them with Triton, and ask each over gRPC.

    One is also asked with filters, and for similar items.

    Example: `seqrec-export demo`
    """
    from seqrec_export.clients.python import Client
    from seqrec_export.data.histories import prepare
    from seqrec_export.pipeline import build_all
    from seqrec_export.serving import server

    started = time.perf_counter()
    plan = options.make_plan(data="synthetic", runs=runs, repository=repository, filter_by=[_GROUP])
    _spare_the_shop(plan)
    interactions = read_log(plan)
    built = build_all(
        [(plan.found[name], plan.config(name)) for name in plan.models],
        interactions,
        plan.runs,
        plan.repository,
        attributes=filters.asked_attributes(plan, interactions.item_ids, interactions),
        accept_quality=True,  # it shows the way; how good the models are, it says
        report=note,
    )
    print_built(built, plan.repository, json=False)
    dataset = prepare(interactions, "leave_one_out")
    note("starting Triton")
    with (
        server.start(plan.repository, grpc_port=grpc_port, metrics_port=0) as running,
        Client(running.grpc_url) as client,
    ):
        for model in plan.found.values():
            _ask(client, model, interactions, dataset)
        _narrow(client, interactions, dataset)
    typer.echo(
        f"done in {time.perf_counter() - started:.0f} s; serve it with: seqrec-export serve "
        f"--repository {plan.repository}"
    )


def _spare_the_shop(plan: options.Plan) -> None:
    """Raise SeqrecError if generated items would be served in the place of real ones."""
    from seqrec_export.folders import read_json
    from seqrec_export.repository.published import read_manifest

    holds = {
        str(plan.runs / name): read_json(plan.runs / name / "config.json").get("source", "")
        for name in plan.models
        if (plan.runs / name / "config.json").exists()
    }
    for name, versions in (read_manifest(plan.repository) or {}).items():
        for entry in versions.values():
            source = (entry.get("data") or {}).get("source", "")
            holds[str(plan.repository / name)] = source
    for place, source in holds.items():
        if source and not source.startswith("synthetic"):
            raise SeqrecError(
                f"{place} is of {source}, which the demo would replace by generated data; give it "
                "folders of its own, as --runs demo/runs --repository demo/model_repository"
            )


def _ask(client: Client, model: Model, interactions: Interactions, dataset: Dataset) -> None:
    """One readable question and answer: a user, asked about just before the held-out event."""
    request = _request(model, interactions, dataset)
    group = dict(zip(interactions.item_ids, _groups(interactions), strict=True))
    began = time.perf_counter()
    (answer,) = client.call(model.name, [request])
    milliseconds = (time.perf_counter() - began) * 1000
    ids = request.get(HISTORY)
    question = (
        ", ".join(f"{name} {values[0]}" for name, values in request.items())
        if ids is None
        else ", ".join(f"{i} ({group[i]})" for i in ids[-3:])
    )
    items: Any = answer.get("item_ids", request.get(CANDIDATES))
    scores: Any = answer["scores"]
    title = f"{model.name}, {milliseconds:.1f} ms over gRPC. Asked with: {question}"
    _show(title, list(zip(items, scores, strict=True))[:_SHOWN], group)


def _narrow(client: Client, interactions: Interactions, dataset: Dataset) -> None:
    """The best items of one group without two that are out of stock, and an item's neighbours."""
    from seqrec_export.models.registry import MODELS, TO_ASK

    group = dict(zip(interactions.item_ids, _groups(interactions), strict=True))
    request = _request(MODELS[TO_ASK], interactions, dataset)
    last = request[HISTORY][-1]
    wanted = {_GROUP: [group[last]]}
    (stock,) = client.recommend(TO_ASK, [request], 2, where=wanted)
    gone = [item for item, _ in stock]
    (found,) = client.recommend(TO_ASK, [request], _SHOWN, exclude=gone, where=wanted)
    title = f"{TO_ASK}, only {group[last]}, without {' and '.join(gone)}, which are out of stock"
    _show(title, found, group)
    (near,) = client.similar(TO_ASK, [[last]], _SHOWN)
    _show(f"{TO_ASK}, similar to {last} ({group[last]})", near, group)


def _request(model: Model, interactions: Interactions, dataset: Dataset) -> dict[str, Any]:
    from seqrec_export.data.raw_requests import RawLog

    target = dataset.test[len(dataset.test) // 2 :][:1]
    log = RawLog(interactions)
    inputs = model.graphs(model.config(), 1)[model.name].inputs
    tensors = log.requests(inputs, log.users[target], target, log.times[target], _PAST)
    request: dict[str, Any] = {name: values[0].tolist() for name, values in tensors.items()}
    for spec in inputs:  # a client lays out what is parallel to the history
        if spec.aligned_with:
            request[spec.name] = request[spec.name][-len(request[spec.aligned_with]) :]
    if any(spec.name == CANDIDATES for spec in inputs):
        request[CANDIDATES] = list(dataset.items.ids[:_SHOWN])
    return request


def _show(title: str, pairs: Sequence[tuple[str, float]], group: Mapping[str, str]) -> None:
    rows = [(item, f"{float(score):.3f}", group.get(item)) for item, score in pairs]
    print_table(title, ("item", "score", "garment group"), rows, fold=False)


def _groups(interactions: Interactions) -> list[str]:
    assert interactions.item_features is not None
    return [str(g) for g in interactions.item_features[_GROUP]]
