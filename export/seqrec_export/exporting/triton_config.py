"""Graph -> config.pbtxt and contract.json: what Triton and the callers are told.

Built as protobuf messages (tritonclient's model_config_pb2), never as text.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from seqrec_export.contract import ALIGNED_WITH, Axis, Graph, Spec

CONFIG_FILE = "config.pbtxt"
CONTRACT_FILE = "contract.json"
MAX_BATCH_SIZE = 64
_WARMUP_LENGTH = 50
TRITON_DTYPES = {"string": "BYTES", "float32": "FP32", "int32": "INT32"}
_CONFIG_DTYPES = {
    "string": model_config_pb2.TYPE_STRING,
    "float32": model_config_pb2.TYPE_FP32,
    "int32": model_config_pb2.TYPE_INT32,
}
_ROWS = {  # by how many axes the tensor has
    1: model_config_pb2.BatchInput.BATCH_ITEM_SHAPE_FLATTEN,
    2: model_config_pb2.BatchInput.BATCH_ITEM_SHAPE,
}
_UNKNOWN_VALUES: dict[str, Any] = {"string": "", "float32": "NaN", "int32": 0}


def model_config(graph: Graph, max_batch_size: int = MAX_BATCH_SIZE) -> Any:
    """The ModelConfig of one graph; dims leave out the batch axis, as Triton wants it."""
    config = model_config_pb2.ModelConfig(
        name=graph.name, backend="onnxruntime", max_batch_size=max_batch_size
    )
    for spec in graph.inputs:
        config.input.add(
            name=spec.name,
            data_type=_CONFIG_DTYPES[spec.dtype],
            dims=_dims(spec.shape),
            allow_ragged_batch=spec.ragged,
        )
        # Each input has them, so that one malformed request cannot shift its neighbours' data.
        for tensor in graph.of_rows(spec):
            config.batch_input.add(
                kind=_ROWS[len(tensor.shape)],
                target_name=[tensor.name],
                data_type=_CONFIG_DTYPES[tensor.dtype],
                source_input=[spec.name],
            )
        if spec.aligned_with:
            # Clients take lists of any length and lay them out by this.
            parameter = config.parameters[ALIGNED_WITH + spec.name]
            parameter.string_value = spec.aligned_with
    for spec in graph.outputs:
        config.output.add(
            name=spec.name, data_type=_CONFIG_DTYPES[spec.dtype], dims=_dims(spec.shape)
        )
        if spec.ragged:
            config.batch_output.add(
                kind=model_config_pb2.BatchOutput.BATCH_SCATTER_WITH_INPUT_SHAPE,
                target_name=[spec.name],
                source_input=[graph.source(spec).name],
            )
    # There is no queue delay: requests that wait for a running batch are the next one anyway. There
    # is no queue policy either: with one, Triton hands over no batch ahead, and a request that
    # comes at the wrong moment of the batch before waits for 500 ms (bench/LOG.md).
    config.dynamic_batching.SetInParent()
    config.version_policy.latest.num_versions = 1
    config.instance_group.add(count=1)  # no kind: a GPU if there is one
    _add_warmup(config, graph)
    # One thread an instance: more of them serve concurrent requests slower, not faster.
    for name in ("intra_op_thread_count", "inter_op_thread_count"):
        config.parameters[name].string_value = "1"
    return config


def _add_warmup(config: Any, graph: Graph) -> None:
    """A request of unknown values before the first real one, so memory is allocated by then."""
    for batch_size in (1, config.max_batch_size):
        sample = config.model_warmup.add(name=f"batch {batch_size}", batch_size=batch_size)
        for spec in graph.inputs:
            tensor = sample.inputs[spec.name]
            tensor.data_type = _CONFIG_DTYPES[spec.dtype]
            tensor.dims.extend(_WARMUP_LENGTH if dim < 0 else dim for dim in _dims(spec.shape))
            tensor.zero_data = True


def config_text(config: Any) -> str:
    """ModelConfig -> the text of config.pbtxt."""
    return str(text_format.MessageToString(config))


def parse_config(text: str) -> Any:
    """The text of config.pbtxt -> ModelConfig."""
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def changed_tensors(old: Any, new: Any, kind: str) -> dict[str, tuple[Any, Any]]:
    """What differs between the `input` or `output` of two ModelConfigs, by name.

    It is (type, dims) in the old one and in the new one; None if there is no such tensor.
    """
    before, after = (
        {t.name: (t.data_type, list(t.dims)) for t in getattr(config, kind)}
        for config in (old, new)
    )
    return {
        name: (before.get(name), after.get(name))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    }


def contract(graph: Graph, max_batch_size: int = MAX_BATCH_SIZE) -> dict[str, Any]:
    """contract.json: the same for people and for generators of clients."""
    return {
        "model": graph.name,
        "meaning": graph.meaning,
        "max_batch_size": max_batch_size,
        "inputs": [_tensor(spec) | _of_input(spec) for spec in graph.inputs],
        "outputs": [_tensor(spec) for spec in graph.outputs],
    }


def _dims(shape: tuple[Axis, ...]) -> list[int]:
    return [-1 if isinstance(axis, str) else axis for axis in shape[1:]]


def _tensor(spec: Spec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "datatype": TRITON_DTYPES[spec.dtype],
        "shape": list(spec.shape),
        "meaning": spec.meaning,
    }


def _of_input(spec: Spec) -> dict[str, Any]:
    aligned = {"aligned_with": spec.aligned_with} if spec.aligned_with else {}
    return {"unknown": _UNKNOWN_VALUES[spec.dtype], **aligned}
