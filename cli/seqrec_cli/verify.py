"""`seqrec-export verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seqrec_cli import options
from seqrec_cli.console import note, print_json, print_table

if TYPE_CHECKING:
    from seqrec_export.parity import GraphParity


def verify(
    model: options.ModelNames = None,
    runs: options.Runs = None,
    config: options.ConfigFile = None,
    seed: options.Seed = None,
    top_k: options.TopK = None,
    json: options.Json = False,
) -> None:
    """Compare ONNX Runtime with PyTorch on raw requests; exit status 1 where they differ.

    The requests cover batches of 1 to 64, histories from empty to three times the window, padding
    anywhere, unknown ids, unequal parallel lists, NaN and infinite numbers. Every graph of a run is
    compared; parity.json beside each ONNX file says what was found.

    Example: `seqrec-export verify --model sasrec --seed 7`
    """
    from seqrec_export.exported import export_run, verify_exported
    from seqrec_export.run import load

    plan = options.make_plan(config=config, models=model, runs=runs, seed=seed, top_k=top_k)
    results: dict[str, GraphParity] = {}
    for name in plan.models:
        exported = export_run(load(plan.runs / name), plan.top_k, report=note)
        results |= verify_exported(exported, seed=plan.seed, report=note)
    if json:
        print_json({name: result.as_dict() for name, result in results.items()})
        return
    print_table(
        "ONNX Runtime against PyTorch",
        ("graph", "cases", "largest |difference|", "allowed", ""),
        [
            (name, r.cases, f"{r.max_abs_diff:.1e}", f"{r.atol:.0e}", "OK" if r.ok else "FAIL")
            for name, r in results.items()
        ],
    )
