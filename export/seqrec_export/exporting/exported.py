"""A run's graphs on disk: exported once, verified, and ready to be published.

<run>/onnx/<graph>/model.onnx  config.pbtxt  contract.json
                   parity.json  golden.json     after verification
<run>/onnx/export.json         what they were made from; an equal key exports nothing again
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from seqrec_export.contract import ITEM_PRECISIONS, Graph, ItemPrecision
from seqrec_export.data.attributes import Attribute
from seqrec_export.errors import SeqrecError
from seqrec_export.exporting.kept_attributes import (
    read_attributes,
    write_attributes,
)
from seqrec_export.exporting.onnx_export import MODEL_FILE, export_graph, weight_files
from seqrec_export.exporting.triton_config import (
    CONFIG_FILE,
    CONTRACT_FILE,
    config_text,
    contract,
    model_config,
)
from seqrec_export.folders import (
    naming,
    read_json,
    recover,
    remove,
    replace_folder,
    sha256_file,
    sha256_json,
    write_json,
    write_text,
)
from seqrec_export.models.filtered import vocabularies_of
from seqrec_export.models.model import Model
from seqrec_export.models.registry import source_files
from seqrec_export.models.settings import ITEM_PRECISION, TOP_K
from seqrec_export.training.train import Run, alone, library_versions

DEFAULT_TOP_K = 100
DEFAULT_ITEM_PRECISION: ItemPrecision = "float32"
EXPORT_FILE = "export.json"
PARITY_FILE = "parity.json"
_SOURCES = (
    "nn/layers.py",
    "nn/ragged.py",
    "exporting/row_checks.py",
    "contract.py",
    "nn/item_search.py",
    "nn/filtered_search.py",
    "nn/own_operators.py",
    "exporting/own_operators.py",
    "models/filtered.py",
    "models/wire.py",
    "models/retrieval.py",
    "exporting/onnx_export.py",
    "exporting/string_lookup.py",
    "exporting/triton_config.py",
)

Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """One run's graphs as ONNX files.

    The vocabularies of `run` are also those of the attributes.
    """

    run: Run = field(repr=False)
    attributes: tuple[Attribute, ...] = field(repr=False)
    top_k: int
    item_precision: ItemPrecision
    folder: Path
    graphs: dict[str, Graph] = field(repr=False)
    fresh: bool  # False if an earlier export was still right

    def model_file(self, name: str) -> Path:
        """The ONNX file of one graph."""
        return self.folder / name / MODEL_FILE

    def size(self, name: str) -> int:
        """Bytes of one graph's ONNX file and its weights."""
        files = [self.model_file(name), *weight_files(self.folder / name)]
        return sum(file.stat().st_size for file in files if file.exists())


def export_run(
    run: Run,
    top_k: int | None = None,
    item_precision: ItemPrecision | None = None,
    report: Report = lambda _: None,
    *,
    attributes: Sequence[Attribute] | None = None,
) -> Exported:
    """Export every graph of a run, unless an export of the same weights and code is there.

    `attributes` are those that callers can filter by. Without them, or `top_k` or `item_precision`,
    they are those of the last export of the run.
    """
    with alone(run.path):
        return _export_run(run, top_k, item_precision, attributes, report)


def _export_run(
    run: Run,
    top_k: int | None,
    item_precision: ItemPrecision | None,
    attributes: Sequence[Attribute] | None,
    report: Report,
) -> Exported:
    folder = run.path / "onnx"
    last = _last_export(folder, needed=top_k is None or item_precision is None)
    if top_k is None:
        top_k = last.get("asked_top_k", last.get("top_k", DEFAULT_TOP_K))
    top_k = TOP_K.checked(top_k)
    if item_precision is None:
        item_precision = last.get("item_precision", DEFAULT_ITEM_PRECISION)
    item_precision = ITEM_PRECISION.checked(item_precision)
    if last and item_precision != last["item_precision"]:
        report(f"{run.model.name}: item vectors in {item_precision}, not {last['item_precision']}")
    if attributes is None:
        attributes = read_attributes(folder, run.vocabularies["items"])
    attributes = tuple(attributes)
    key = _export_key(run, top_k, item_precision, attributes)
    run = _with_attributes(run, attributes)
    graphs = _graphs(run, top_k, item_precision, attributes)
    files = {name: file_hashes(folder / name) for name in graphs}
    fresh = last.get("key") != key or last.get("files") != files
    if fresh:
        made = {"top_k": top_k, "item_precision": item_precision}
        beside = run.path / ".onnx.part"
        remove(beside)
        try:
            _write(run, graphs, {"key": key, **made}, beside, report)
            write_attributes(beside, attributes, run.vocabularies["items"])
            replace_folder(beside, folder)
        finally:
            remove(beside)  # after a full disk, a part of an export would only fill it
    return Exported(
        run=run,
        attributes=attributes,
        top_k=top_k,
        item_precision=item_precision,
        folder=folder,
        graphs=graphs,
        fresh=fresh,
    )


def _write(
    run: Run, graphs: Mapping[str, Graph], made: Mapping[str, Any], folder: Path, report: Report
) -> None:
    for name, graph in graphs.items():
        report(f"exporting {name}")
        metadata = {
            "run_key": made["key"],
            "model": run.model.name,
            "item_precision": graph.item_precision,
        }
        with naming(folder / name):  # onnx does not say which disk is full
            export_graph(graph, run.net, run.vocabularies, folder / name, metadata)
        write_text(folder / name / CONFIG_FILE, config_text(model_config(graph)))
        write_json(folder / name / CONTRACT_FILE, contract(graph))
    files = {name: file_hashes(folder / name) for name in graphs}
    write_json(folder / EXPORT_FILE, {**made, "files": files})


def find_export(run: Run) -> Exported:
    """The last export of a run, as it is on the disk. Raises SeqrecError if there is none."""
    folder = run.path / "onnx"
    with alone(run.path):
        last = _last_export(folder, needed=True)
        if not last:
            raise SeqrecError(f"{run.path} holds no export; run `seqrec-export export` first")
        attributes = read_attributes(folder, run.vocabularies["items"])
    top_k, item_precision = last["top_k"], last["item_precision"]
    run = _with_attributes(run, attributes)
    return Exported(
        run=run,
        attributes=attributes,
        top_k=top_k,
        item_precision=item_precision,
        folder=folder,
        graphs=_graphs(run, top_k, item_precision, attributes),
        fresh=False,
    )


def _with_attributes(run: Run, attributes: Sequence[Attribute]) -> Run:
    if not attributes:
        return run
    return replace(run, vocabularies={**run.vocabularies, **vocabularies_of(attributes)})


def graphs_of(
    model: Model, config: Any, top_k: int, attributes: Sequence[Attribute] = ()
) -> dict[str, Graph]:
    """The graphs that a model has, and those that are derived from them."""
    own = model.graphs(config, top_k)
    more = (graph.filtered(attributes) for graph in own.values() if graph.filtered is not None)
    return {name: graph for graphs in (own, *more) for name, graph in graphs.items()}


def _graphs(
    run: Run, top_k: int, item_precision: ItemPrecision, attributes: Sequence[Attribute]
) -> dict[str, Graph]:
    graphs = graphs_of(run.model, run.config, top_k, attributes)
    scale = run.model.tolerance_scale(run.net)
    return {
        name: graph.with_precision(item_precision).with_tolerance_scale(scale)
        for name, graph in graphs.items()
    }


def _last_export(folder: Path, *, needed: bool) -> dict[str, Any]:
    """What export.json says, by who is alone there; empty if there is none.

    Raises SeqrecError if it is damaged and `needed`: nobody knows then what was exported.
    """
    recover(folder)
    file = folder / EXPORT_FILE
    if not file.exists():
        return {}
    try:
        last = {"item_precision": DEFAULT_ITEM_PRECISION, **read_json(file)}
        # Earlier exports held no more items in an answer than the catalogue had rows.
        last["asked_top_k"] = int(last.get("asked_top_k", last["top_k"]))
        last["top_k"] = int(last["top_k"])
        if last["item_precision"] not in ITEM_PRECISIONS:
            raise ValueError(f"item_precision is {last['item_precision']!r}")
    except (ValueError, KeyError, TypeError) as error:
        if not needed:
            return {}
        raise SeqrecError(
            f"{file} is damaged ({error}), so nobody knows what the run was exported with; "
            "run `seqrec-export export` with --top-k and --item-precision, which writes a new one"
        ) from error
    return last


def file_hashes(folder: Path) -> dict[str, str]:
    """sha256 of what is served of a graph, by file; a missing one is left out."""
    files = [folder / name for name in (MODEL_FILE, CONFIG_FILE, CONTRACT_FILE)]
    files += weight_files(folder)
    return {file.name: sha256_file(file) for file in files if file.exists()}


def _source_hash(model: Model) -> str:
    """A hash of the code that makes graphs; for a model without a file it is never the same."""
    here = Path(__file__).parents[1]
    digest = hashlib.sha256()
    own = source_files(model)
    for file in (*(here / name for name in _SOURCES), *own):
        digest.update(file.read_bytes())
    if not own:
        digest.update(secrets.token_bytes(16))
    return digest.hexdigest()


def _export_key(
    run: Run, top_k: int, item_precision: ItemPrecision, attributes: Sequence[Attribute]
) -> str:
    vocabularies = sorted((run.path / "vocabulary").glob("*.parquet"))
    return sha256_json(
        {
            "weights": sha256_file(run.path / "weights.safetensors"),
            "config": sha256_file(run.path / "config.json"),
            "vocabularies": [sha256_file(file) for file in vocabularies],
            "top_k": top_k,
            "item_precision": item_precision,
            "attributes": [
                [of.name, of.vocabulary.ids, hashlib.sha256(of.values.tobytes()).hexdigest()]
                for of in attributes
            ],
            "source": _source_hash(run.model),
            "versions": library_versions(),
        }
    )
