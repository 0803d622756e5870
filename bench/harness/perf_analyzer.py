"""NVIDIA's load generator, and how many requests a server ran at once.

perf_analyzer comes with the wheel tritonclient 2.50.0 and is fetched by pip into a temporary
folder. pytriton's wheel holds the two libraries that it wants.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import tritonclient.grpc as grpc

from seqrec_export.data.raw_requests import Request
from seqrec_export.serving import server

Figures = dict[str, float]  # requests a second, and latencies in ms
WHEEL = "tritonclient==2.50.0"
LIBRARIES = {"libb64": "libb64.so.0d", "libcudart": "libcudart.so.12"}


class PerfAnalyzer:
    """NVIDIA's load generator, and the requests that it sends."""

    def __init__(self, binary: Path | None, folder: Path) -> None:
        self.binary = binary or fetched(folder)
        self.folder = folder
        libraries = folder / "libraries"
        libraries.mkdir()
        for found in (server.find_triton().parent.parent / "nvidia_pytriton.libs").iterdir():
            if alias := LIBRARIES.get(found.name.partition("-")[0]):
                (libraries / alias).symlink_to(found)
        self.environment = os.environ | {"LD_LIBRARY_PATH": str(libraries)}

    def write(self, requests: list[Request]) -> None:
        data = [
            {
                name: {"content": values[0].tolist(), "shape": list(values.shape[1:])}
                for name, values in request.items()
            }
            for request in requests
        ]
        (self.folder / "requests.json").write_text(json.dumps({"data": data}))

    def run(self, url: str, model: str, concurrency: int, seconds: float) -> Figures:
        table = self.folder / "figures.csv"
        command = [
            str(self.binary),
            *("-m", model, "-u", url, "-i", "grpc", "-b", "1", "--percentile", "50"),
            *(
                "--concurrency-range",
                str(concurrency),
                "--measurement-interval",
                str(int(1000 * seconds / 3)),
            ),
            *("--stability-percentage", "999", "--max-trials", "3"),
            *("--input-data", str(self.folder / "requests.json"), "-f", str(table)),
        ]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        if done.returncode or not table.exists():
            raise SystemExit(f"perf_analyzer failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        with table.open() as file:
            (row,) = csv.DictReader(file)
        table.unlink()
        return {
            "requests/s": float(row["Inferences/Second"]),
            "p50": float(row["p50 latency"]) / 1000,
            "p99": float(row["p99 latency"]) / 1000,
        }


def fetched(folder: Path) -> Path:
    """Download the wheel, and take the binary out of it."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), WHEEL]
    subprocess.run(command, check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith("/perf_analyzer"))
        binary = Path(archive.extract(name, folder))
    binary.chmod(0o755)
    return binary


def batching(url: str, model: str) -> tuple[int, int]:
    """(rows answered, executions) since the server's start."""
    client = grpc.InferenceServerClient(url)
    stats = client.get_inference_statistics(model).model_stats[0]
    client.close()
    return stats.inference_count, stats.execution_count
