"""Sessions of ONNX Runtime, on the CPU and on a CUDA device."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnxruntime.capi import onnxruntime_pybind11_state as bindings

from seqrec_export.contract import Graph
from seqrec_export.data.raw_requests import Request

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

# What a session raises if it cannot load a file or answer a request; none share a base class.
RUNTIME_ERRORS = (
    bindings.Fail,
    bindings.InvalidArgument,
    bindings.InvalidGraph,
    bindings.InvalidProtobuf,
    bindings.NoSuchFile,
    bindings.NotImplemented,
    bindings.RuntimeException,
)
_FATAL_ONLY = 4


def session(path: Path, threads: int = 0) -> onnxruntime.InferenceSession:
    """A session on the CPU; `threads` 0 takes all cores."""
    return onnxruntime.InferenceSession(path, _options(threads), providers=[CPU])


def cuda_session(path: Path, *, tf32: bool = False) -> onnxruntime.InferenceSession:
    """A session on the first CUDA device; `tf32` lets it round factors to 10 bits."""
    provider = (CUDA, {"use_tf32": str(int(tf32))})
    return onnxruntime.InferenceSession(path, _options(0), providers=[provider, CPU])


def feeds(graph: Graph, request: Request) -> Request:
    """A request as the ONNX file takes it: lists flat, and after each input its rows' lengths.

    Triton does the same to a batch of requests.
    """
    tensors: Request = {}
    for spec in graph.inputs:
        values = request[spec.name]
        tensors[spec.name] = values.reshape(-1) if spec.ragged else values
        lengths = np.full((len(values), 1), values.shape[1], np.int32)
        for tensor in graph.of_rows(spec):
            tensors[tensor.name] = lengths if len(tensor.shape) == 2 else lengths[:, 0]
    return tensors


def answer(
    runtime: onnxruntime.InferenceSession, graph: Graph, request: Request
) -> dict[str, NDArray[Any]]:
    """What a session gives to one request, by output, as a caller gets it from Triton."""
    names = [spec.name for spec in graph.outputs]
    outputs = dict(zip(names, runtime.run(names, feeds(graph, request)), strict=True))
    for spec in graph.outputs:
        if spec.ragged:
            shape = request[graph.source(spec).name].shape
            outputs[spec.name] = outputs[spec.name].reshape(shape)
    return outputs


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Threads that spin between two requests would take cores from PyTorch in the same process.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


@cache
def why_no_cuda() -> str:
    """Why ONNX Runtime cannot compute on CUDA here; empty if it can."""
    if CUDA not in onnxruntime.get_available_providers():
        return "this ONNX Runtime was built without CUDA; install onnxruntime-gpu"
    if not _cuda_devices():
        return "there is no CUDA device"
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # CUDA and cuDNN as pip packages, torch's among them
    onnxruntime.set_default_logger_severity(_FATAL_ONLY)
    try:
        found = onnxruntime.InferenceSession(_smallest(), _options(1), providers=[CUDA, CPU])
    except RUNTIME_ERRORS as error:
        return f"ONNX Runtime cannot use the CUDA device: {error}"
    finally:
        onnxruntime.set_default_logger_severity(2)
    if CUDA not in found.get_providers():
        return "ONNX Runtime cannot load CUDA's libraries; see `seqrec-export doctor`"
    return ""


def _smallest() -> bytes:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "smallest", [x], [y])
    opset = helper.make_opsetid("", 18)
    model: bytes = helper.make_model(
        graph, ir_version=10, opset_imports=[opset]
    ).SerializeToString()
    return model


def _cuda_devices() -> int:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value
