"""`seqrec-export verify`."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from seqrec_cli import options
from seqrec_cli.console import note, print_json, print_table
from seqrec_cli.results import VERDICT_COLUMNS, stop_if_refused, verdict_cells

if TYPE_CHECKING:
    from seqrec_export.verification.verdict import Verdict


def verify(
    model: options.ModelNames = None,
    runs: options.Runs = None,
    config: options.ConfigFile = None,
    seed: options.Seed = None,
    url: Annotated[
        str | None,
        typer.Option(help="gRPC address of a Triton that serves these models, to compare too."),
    ] = None,
    repository: options.Repository = None,
    tls_ca: options.TlsCa = None,
    tls_cert: options.TlsCert = None,
    tls_key: options.TlsKey = None,
    json: options.Json = False,
) -> None:
    """Check that an exported model answers as PyTorch does; exit status 1 if it does not.

    `build` and `export` do this before they publish; run it alone to look closer, with another
    seed, on a machine with a GPU, or against a server.

    It compares some hundred raw requests a graph, answered by ONNX Runtime on the CPU, on CUDA if
    there is a device, and with --url by a live Triton. The reference is PyTorch in float64 on the
    same weights, so a difference shows which side is off.

    The requests have batches of 1 to 64, histories from empty to three times the window, padding
    anywhere, unknown and strange ids, unequal lists, NaN and infinities, 0 to 1,000 candidates,
    each known id, real held-out rows, and rows alone and among strangers. Numbers must agree within
    a tolerance (5e-6 for vectors, 2e-5 for scores), ids up to ties.

    The files are checked as well: axes, types, ids and weights, config.pbtxt and contract.json,
    what ONNX Runtime 1.19 can read, and what would not run on CUDA.

    It writes report.html into the run's folder, and after a failure repro/ with a request and a
    script of ten lines that shows it. Next to each ONNX file it writes parity.json (every check
    and class of requests: OK, FAIL or SKIPPED and why) and golden.json (64 requests with answers,
    for clients in any language to replay).

    Example: `seqrec-export verify --model sasrec --seed 7 --url 127.0.0.1:8001`
    """
    from seqrec_export.clients.python import Client
    from seqrec_export.exporting.exported import find_export
    from seqrec_export.pipeline import verify_run
    from seqrec_export.repository.describe import not_served
    from seqrec_export.training.train import load

    plan = options.make_plan(
        config=config, models=model, runs=runs, repository=repository, seed=seed
    )
    verdicts: dict[str, Verdict] = {}
    refusals = []
    tls = options.client_tls(tls_ca, tls_cert, tls_key)
    with Client(url, tls=tls) if url is not None else nullcontext() as client:
        # All runs are loaded before the first is verified for minutes.
        for exported in [find_export(load(plan.runs / n, m)) for n, m in plan.found.items()]:
            if other := not_served(exported, plan.repository):
                compared = "; --url compares answers of that one with this one" if url else ""
                note(f"note: {other}{compared}")
            found = verify_run(exported, seed=plan.seed, client=client, report=note)
            refusals.append(found.differs)
            verdicts |= found.verdicts
    if json:
        print_json({name: verdict.as_dict() for name, verdict in verdicts.items()})
    else:
        print_table(
            "ONNX Runtime against PyTorch",
            ("graph", *VERDICT_COLUMNS),
            [(name, *verdict_cells(verdict)) for name, verdict in verdicts.items()],
        )
        skipped = {v: None for verdict in verdicts.values() for v in verdict.skipped_providers()}
        for text in skipped:
            note(text)
    stop_if_refused(refusals)
