"""`seqrec-export doctor`."""

from __future__ import annotations

import platform
import socket
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

import seqrec_export
from seqrec_cli import options
from seqrec_cli.console import print_json, print_table
from seqrec_export.errors import SeqrecError

_PACKAGES = (
    "torch",
    "lightning",
    "onnx",
    "onnxscript",
    "numpy",
    "pandas",
    "pyarrow",
    "tritonclient",
)
_PORTS = (8000, 8001, 8002)


def doctor(
    constraints: Annotated[
        bool,
        typer.Option("--constraints", help="Print the versions that were tested, for pip's -c."),
    ] = False,
    json: options.Json = False,
) -> None:
    """Check Python, PyTorch, ONNX Runtime, GPU, Triton and ports; exit status 1 if something fails.

    Example: `seqrec-export doctor`
    """
    if constraints:
        typer.echo(_constraints(), nl=False)
        return
    rows = [_python(), *map(_package, _PACKAGES), _onnx_runtime(), _gpu(), _triton()]
    rows += [_port(port) for port in _PORTS]
    if json:
        print_json([{"what": what, "ok": ok, "found": found} for what, ok, found in rows])
    else:
        table = [(what, "ok" if ok else "PROBLEM", found) for what, ok, found in rows]
        print_table("seqrec-export doctor", ("what", "", "found"), table)
    if not all(ok for _, ok, _ in rows):
        raise typer.Exit(1)


Row = tuple[str, bool, str]


def _constraints() -> str:
    """constraints.txt, as it lies in an installed package or in a checkout."""
    here = Path(seqrec_export.__file__).parent
    for folder in (here, here.parents[1]):
        if (file := folder / "constraints.txt").exists():
            return file.read_text(encoding="utf-8")
    raise SeqrecError(f"{here} holds no constraints.txt; install seqrec-export again")


def _python() -> Row:
    return "Python", sys.version_info >= (3, 11), f"{platform.python_version()} {sys.executable}"


def _package(name: str) -> Row:
    try:
        return name, True, metadata.version(name)
    except metadata.PackageNotFoundError:
        return name, False, f"not installed; pip install {name}"


def _onnx_runtime() -> Row:
    try:
        import onnxruntime
    except ImportError as error:
        return "ONNX Runtime", False, f"{error}; pip install onnxruntime-gpu"
    from seqrec_export.exporting.runtime import why_no_cuda

    reason = why_no_cuda()
    return "ONNX Runtime", True, f"{onnxruntime.__version__}, CUDA: {reason or 'yes'}"


def _gpu() -> Row:
    import torch

    if not torch.cuda.is_available():
        return "GPU", True, "none that PyTorch can use: training and parity run on the CPU"
    return "GPU", True, torch.cuda.get_device_name()


def _triton() -> Row:
    from seqrec_export.serving.server import find_triton

    try:
        return "Triton", True, str(find_triton())
    except SeqrecError as error:
        return "Triton", False, str(error)


def _port(port: int) -> Row:
    with socket.socket() as probe:
        busy = probe.connect_ex(("127.0.0.1", port)) == 0
    # A busy port is no fault: it may well be our own server.
    return f"port {port}", True, "something listens there" if busy else "free"
