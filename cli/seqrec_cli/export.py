"""`seqrec-export export`: from finished runs to the repository."""

from __future__ import annotations

from seqrec_cli import options
from seqrec_cli.console import note
from seqrec_cli.results import print_built


def export(
    model: options.ModelNames = None,
    runs: options.Runs = None,
    repository: options.Repository = None,
    config: options.ConfigFile = None,
    top_k: options.TopK = None,
    item_precision: options.ItemPrecision = None,
    keep: options.Keep = 3,
    json: options.Json = False,
) -> None:
    """Export finished runs to ONNX, verify them, and publish them for Triton.

    Without --top-k or --item-precision, the values of the run's last export are used.

    Example: `seqrec-export export --model sasrec --top-k 50`
    """
    from seqrec_export.pipeline import release
    from seqrec_export.repository.published import require_place
    from seqrec_export.training.train import load

    plan = options.make_plan(
        config=config,
        models=model,
        runs=runs,
        repository=repository,
        top_k=top_k,
        item_precision=item_precision,
    )
    # All runs are loaded before the first is published.
    found = [load(plan.runs / name, model) for name, model in plan.found.items()]
    require_place(plan.repository)
    built = [
        release(
            run,
            plan.repository,
            top_k=plan.top_k,
            item_precision=plan.item_precision,
            keep=keep,
            seed=plan.seed,
            report=note,
        )
        for run in found
    ]
    print_built(built, plan.repository, json=json)
