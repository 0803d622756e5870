"""`seqrec-export demo`: everything once, from a log to an answer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seqrec_cli import options
from seqrec_cli.console import note, print_table
from seqrec_cli.results import print_built, read_log
from seqrec_export.errors import SeqrecError

if TYPE_CHECKING:
    from seqrec_export.clients.python import Client
    from seqrec_export.data.histories import Dataset
    from seqrec_export.data.interactions import Interactions

_SHOWN = 5


def demo(
    repository: options.Repository = None,
    runs: options.Runs = None,
    grpc_port: Annotated[int, typer.Option(help="gRPC port; 0 takes a free one.")] = 0,
) -> None:
    """Build all models on generated data, serve them with Triton, and ask each over gRPC.

    Example: `seqrec-export demo`
    """
    from seqrec_export.clients.python import Client
    from seqrec_export.data.histories import prepare
    from seqrec_export.pipeline import build_all
    from seqrec_export.serving import server

    started = time.perf_counter()
    plan = options.make_plan(data="synthetic", runs=runs, repository=repository)
    _spare_the_shop(plan)
    interactions = read_log(plan)
    built = build_all(
        [(plan.found[name], plan.config(name)) for name in plan.models],
        interactions,
        plan.runs,
        plan.repository,
        report=note,
    )
    print_built(built, plan.repository, json=False)
    dataset = prepare(interactions, "leave_one_out")
    note("starting Triton")
    with (
        server.start(plan.repository, grpc_port=grpc_port, metrics_port=0) as running,
        Client(running.grpc_url) as client,
    ):
        for name in plan.models:
            _ask(client, name, interactions, dataset)
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


def _ask(client: Client, name: str, interactions: Interactions, dataset: Dataset) -> None:
    """One readable question and answer: a user with a history, asked about the held-out event."""
    histories = dataset.histories
    target = int(dataset.test[len(dataset.test) // 2])
    user = int(histories.users[target])
    past = slice(max(int(histories.offsets[user]), target - 20), target)
    ids = [str(i) for i in dataset.items.decode(histories.items[past]) if i]
    group = dict(zip(interactions.item_ids, _groups(interactions), strict=True))
    request: dict[str, Any] = {"history_item_ids": ids}
    if name in {"caser", "two_tower"}:
        request["user_id"] = str(interactions.user_ids[user])
    if name == "two_tower":
        del request["history_item_ids"]
        request |= {"age": 34.0, "month": 11}
    if name == "mlink" and histories.ratings is not None:
        request["history_ratings"] = [float(r) for r in histories.ratings[past]][: len(ids)]
        request["candidate_ids"] = list(dataset.items.ids[:_SHOWN])
    began = time.perf_counter()
    (answer,) = client.call(name, [request])
    milliseconds = (time.perf_counter() - began) * 1000
    question = ", ".join(f"{i} ({group[i]})" for i in ids[-3:])
    if name == "two_tower":
        question = ", ".join(f"{key} {value}" for key, value in request.items())
    items: Any = answer.get("item_ids", request.get("candidate_ids"))
    scores: Any = answer["scores"]
    print_table(
        f"{name}, {milliseconds:.1f} ms over gRPC. Asked with: {question}",
        ("item", "score", "garment group"),
        [
            (item, f"{float(score):.3f}", group.get(item))
            for item, score in list(zip(items, scores, strict=True))[:_SHOWN]
        ],
        fold=False,
    )


def _groups(interactions: Interactions) -> list[str]:
    assert interactions.item_features is not None
    return [str(g) for g in interactions.item_features["garment_group_name"]]
