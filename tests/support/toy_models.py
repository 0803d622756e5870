"""Models of a few nodes for Triton."""

from pathlib import Path

import onnx
from google.protobuf import text_format
from onnx import TensorProto, helper
from tritonclient.grpc import model_config_pb2

TYPES = {
    "BYTES": (TensorProto.STRING, model_config_pb2.TYPE_STRING),
    "FP32": (TensorProto.FLOAT, model_config_pb2.TYPE_FP32),
    "INT32": (TensorProto.INT32, model_config_pb2.TYPE_INT32),
}


Declared = dict[str, tuple[str, int]]  # name -> datatype, length


def add_model(
    root: Path,
    name: str,
    inputs: Declared,
    outputs: Declared,
    nodes: list[onnx.NodeProto],
    constants: list[onnx.TensorProto] | None = None,
    max_batch_size: int = 8,
    declared: Declared | None = None,
    instances: int = 1,
) -> None:
    """`declared` is what the configuration says the inputs are, if not the truth."""

    def infos(tensors: Declared) -> list[onnx.ValueInfoProto]:
        batch = ["batch"] if max_batch_size else []
        return [
            helper.make_tensor_value_info(n, TYPES[t][0], [*batch, f"{n}_length" if d < 0 else d])
            for n, (t, d) in tensors.items()
        ]

    graph = helper.make_graph(nodes, name, infos(inputs), infos(outputs), constants or [])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.checker.check_model(model)
    config = model_config_pb2.ModelConfig(
        name=name, backend="onnxruntime", max_batch_size=max_batch_size
    )
    for n, (t, d) in (declared or inputs).items():
        config.input.add(name=n, data_type=TYPES[t][1], dims=[d])
    for n, (t, d) in outputs.items():
        config.output.add(name=n, data_type=TYPES[t][1], dims=[d])
    config.instance_group.add(count=instances, kind=model_config_pb2.ModelInstanceGroup.KIND_CPU)
    if max_batch_size:
        config.dynamic_batching.max_queue_delay_microseconds = 20_000
    (root / name / "1").mkdir(parents=True)
    onnx.save(model, root / name / "1" / "model.onnx")
    (root / name / "config.pbtxt").write_text(text_format.MessageToString(config))


def add_echo(root: Path, name: str = "echo", **options: object) -> None:
    nodes = [helper.make_node("Identity", ["text"], ["same"])]
    add_model(root, name, {"text": ("BYTES", -1)}, {"same": ("BYTES", -1)}, nodes, **options)
