"""What string ids cost: files, loading and lookups of a large catalogue.

    python -m bench.scale.strings [--items 1000000] [--ids 50]

Exports an untrained sasrec over that many ids (20 bytes each), loads the fused graph in ONNX
Runtime and in the embedded Triton, and times the two lookups in it (profile of one thread,
median): ids to indices for a history, and indices to ids for as many answers.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from seqrec_export.data.vocabulary import Vocabulary
from seqrec_export.exporting.onnx_export import MODEL_FILE, export_graph
from seqrec_export.exporting.runtime import feeds, session
from seqrec_export.exporting.triton_config import CONFIG_FILE, config_text, model_config
from seqrec_export.models.registry import MODELS
from seqrec_export.serving import server

REPEATS = 300


def lookups(path: Path, requests: list[dict[str, np.ndarray]], folder: Path) -> dict[str, float]:
    """Median microseconds of the nodes that look up strings."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    profiled = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    for request in requests:
        profiled.run(None, request)
    events = json.loads(Path(profiled.end_profiling()).read_text())
    times: dict[str, list[float]] = {}
    for event in events:
        for kind in ("encode_history_item_ids", "decode_item_ids"):
            if event.get("name") == f"{kind}_kernel_time":
                times.setdefault(kind, []).append(event["dur"])
    return {kind: statistics.median(some) for kind, some in times.items()}


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--ids", type=int, default=50, help="of a history, and of an answer")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    model = MODELS["sasrec"]
    config = model.config(dim=64)
    vocabulary = Vocabulary(f"item-{i:015d}" for i in rng.permutation(arguments.items))
    torch.manual_seed(0)
    net = model.net(config, {"items": vocabulary.num_rows})
    graph = model.graphs(config, arguments.ids)["sasrec"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        repository = folder / "repository"
        began = time.perf_counter()
        path = export_graph(graph, net, {"items": vocabulary}, repository / "sasrec" / "1")
        exported = time.perf_counter() - began
        (repository / "sasrec" / CONFIG_FILE).write_text(config_text(model_config(graph)))
        weights = 4 * net.items.weight.numel()
        size = (path.parent / MODEL_FILE).stat().st_size
        print(f"{arguments.items:,} items of 64 numbers: exported in {exported:.1f} s, ", end="")
        print(f"{size / 1e6:.0f} MB, of which the matrix {weights / 1e6:.0f} MB")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.perf_counter()
        loaded = session(path, threads=1)
        seconds = time.perf_counter() - began
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3
        print(f"ONNX Runtime loads it in {seconds:.1f} s, peak {grown:+.0f} MB")
        del loaded
        ids = np.array(vocabulary.ids, dtype=object)
        requests = [
            feeds(graph, {"history_item_ids": ids[rng.integers(0, len(ids), (1, arguments.ids))]})
            for _ in range(REPEATS)
        ]
        for kind, microseconds in lookups(path, requests, folder).items():
            print(f"{kind}: {microseconds:.0f} microseconds for {arguments.ids} ids")
        began = time.perf_counter()
        with server.start(repository, grpc_port=0, http_port=0, metrics_port=0):
            print(f"Triton is ready in {time.perf_counter() - began:.1f} s, its own start included")


if __name__ == "__main__":
    main()
