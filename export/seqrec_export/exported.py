"""A run's graphs on disk: exported once, verified, and ready to be published.

<run>/onnx/<graph>/model.onnx  parity.json  golden.json
<run>/onnx/export.json         what they were made from; an equal key exports nothing again
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from seqrec_export import parity
from seqrec_export.errors import SeqrecError
from seqrec_export.folders import (
    read_json,
    remove,
    replace_folder,
    sha256_file,
    sha256_json,
    write_json,
)
from seqrec_export.graph import Graph
from seqrec_export.onnx_export import MODEL_FILE, export_graph
from seqrec_export.parity import GraphParity
from seqrec_export.run import Run, library_versions

DEFAULT_TOP_K = 100
_WIDE_ROWS = 200_000  # catalogues up to here are ranked whole when ids are compared
_GOLDEN_REQUESTS = 16
_SOURCES = ("layers.py", "graph.py", "retrieval.py", "onnx_export.py", "string_lookup.py")

Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """One run's graphs as ONNX files."""

    run: Run
    top_k: int
    folder: Path
    graphs: dict[str, Graph]
    fresh: bool  # False where an earlier export was still right

    def model_file(self, name: str) -> Path:
        """The ONNX file of one graph."""
        return self.folder / name / MODEL_FILE


def export_run(run: Run, top_k: int = DEFAULT_TOP_K, report: Report = lambda _: None) -> Exported:
    """Export every graph of a run, unless that was done before from the same weights and code."""
    if top_k < 1:
        raise SeqrecError(f"--top-k is {top_k}; give at least 1")
    top_k = min(top_k, run.vocabularies["items"].num_rows)
    graphs = run.model.graphs(run.config, top_k)
    key = _export_key(run, top_k)
    folder = run.path / "onnx"
    fresh = not (
        (folder / "export.json").exists() and read_json(folder / "export.json")["key"] == key
    )
    if fresh:
        beside = run.path / ".onnx.part"
        remove(beside)
        for name, graph in graphs.items():
            report(f"exporting {name}")
            metadata = {"run_key": key, "model": run.model.name}
            export_graph(graph, run.net, run.vocabularies, beside / name, metadata)
        write_json(beside / "export.json", {"key": key, "top_k": top_k})
        replace_folder(beside, folder)
    return Exported(run=run, top_k=top_k, folder=folder, graphs=graphs, fresh=fresh)


@cache
def _source_hash(model_name: str) -> str:
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for file in (*(here / name for name in _SOURCES), here / "models" / f"{model_name}.py"):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _export_key(run: Run, top_k: int) -> str:
    vocabularies = sorted((run.path / "vocabulary").glob("*.parquet"))
    return sha256_json(
        {
            "weights": sha256_file(run.path / "weights.safetensors"),
            "config": sha256_file(run.path / "config.json"),
            "vocabularies": [sha256_file(file) for file in vocabularies],
            "top_k": top_k,
            "source": _source_hash(run.model.name),
            "versions": library_versions(),
        }
    )


def verify_exported(
    exported: Exported, *, seed: int = 0, report: Report = lambda _: None
) -> dict[str, GraphParity]:
    """Compare every graph with PyTorch and write parity.json and golden.json beside it.

    Raises SeqrecError, after all graphs were compared, naming those that differ.
    """
    results: dict[str, GraphParity] = {}
    run = exported.run
    rows = run.vocabularies["items"].num_rows
    wide_k = rows if rows <= _WIDE_ROWS else min(rows, 4 * exported.top_k + 1000)
    wide = run.model.graphs(run.config, wide_k)
    for name, graph in exported.graphs.items():
        report(f"verifying {name}")
        path = exported.model_file(name)
        results[name] = parity.check(
            graph,
            wide[name],
            run.net,
            run.vocabularies,
            path,
            window=getattr(run.config, "max_length", 1),
            seed=seed,
        )
        entry = results[name].as_dict() | {"seed": seed, "model_sha256": sha256_file(path)}
        write_json(path.with_name("parity.json"), entry)
        if results[name].ok:
            write_json(path.with_name("golden.json"), _golden(exported, graph, seed))
    failed = [result for result in results.values() if not result.ok]
    if failed:
        details = "; ".join(f"{r.graph}: {r.failures[0]}" for r in failed)
        raise SeqrecError(
            f"ONNX Runtime and PyTorch differ, nothing was published: {details}; all cases are in "
            f"{exported.folder}/*/parity.json"
        )
    return results


def _golden(exported: Exported, graph: Graph, seed: int) -> dict[str, Any]:
    """Requests with the answers of ONNX Runtime, for any language to replay.

    Numbers that JSON lacks are the strings "NaN", "Infinity" and "-Infinity".
    """
    rng = np.random.default_rng([seed, 1])
    runtime = parity.session(exported.model_file(graph.name))
    window = getattr(exported.run.config, "max_length", 1)
    requests = []
    for case in list(parity.cases(window))[:: max(1, 144 // _GOLDEN_REQUESTS)][:_GOLDEN_REQUESTS]:
        small = case | {"batch": min(case["batch"], 2)}
        request = parity.random_request(graph, exported.run.vocabularies, rng, **small)
        answer = parity.answer(runtime, graph, request)
        requests.append({"inputs": _plain_tensors(request), "outputs": _plain_tensors(answer)})
    return {"model": graph.name, "atol": graph.atol, "requests": requests}


def _plain_tensors(tensors: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {"shape": list(values.shape), "data": [_plain(v) for v in values.ravel().tolist()]}
        for name, values in tensors.items()
    }


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not np.isfinite(value):
        return "NaN" if np.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
