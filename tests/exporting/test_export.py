"""Exported files: what stands in them, what is told of them, and that mistakes are caught."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto
from tritonclient.grpc import model_config_pb2

import seqrec_export
from seqrec_export.errors import SeqrecError
from seqrec_export.exporting.exported import Exported, export_run
from seqrec_export.exporting.onnx_export import export_graph
from seqrec_export.exporting.runtime import feeds
from seqrec_export.exporting.triton_config import parse_config
from seqrec_export.folders import read_json
from seqrec_export.nn.ragged import Ragged
from seqrec_export.repository.publish import publish
from seqrec_export.verification.gate import refused, verify
from support.copies import copy, own_graphs_only
from support.old_runtime import answers_of_1_19
from support.served import TOLERANCE, TOP_K, Served, golden_tensors, over

ONNX_TYPES = {
    TensorProto.STRING: ("BYTES", model_config_pb2.TYPE_STRING),
    TensorProto.FLOAT: ("FP32", model_config_pb2.TYPE_FP32),
    TensorProto.INT32: ("INT32", model_config_pb2.TYPE_INT32),
}
NEWER_OPERATORS = ("Pad", "Reshape", "Cast")  # kernels on CUDA came later than opset 19


def model(served: Served) -> onnx.ModelProto:
    return onnx.load(served.exported.model_file(served.graph.name))


def tensors(infos: object) -> dict[str, tuple[int, list[str | int]]]:
    """Name -> element type, axes (a name, or a fixed size)."""
    return {
        info.name: (
            info.type.tensor_type.elem_type,
            [d.dim_param or d.dim_value for d in info.type.tensor_type.shape.dim],
        )
        for info in infos
    }


@over()
def test_axes_are_symbolic_by_name_and_ids_are_strings(served: Served) -> None:
    graph = model(served).graph
    for kind in ("input", "output"):
        specs = served.inputs if kind == "input" else served.outputs
        found = tensors(getattr(graph, kind))
        lists = [name for name, spec in specs.items() if spec.ragged]
        of_rows = {}
        if lists and kind == "input":
            of_rows = {f"{name}_shape": (TensorProto.INT32, ["batch", 1]) for name in specs}
            of_rows[f"{lists[0]}_lengths"] = (TensorProto.INT32, ["rows"])
        assert found.keys() == specs.keys() | of_rows.keys()
        assert {name: found[name] for name in of_rows} == of_rows
        for name, spec in specs.items():
            elem_type, axes = found[name]
            # A list lies flat, the rows of the batch one behind the other.
            assert axes == ([f"total_{spec.shape[1]}"] if spec.ragged else list(spec.shape)), name
            is_id = name.endswith(("_id", "_ids", "_types", "_name", "_tags"))
            assert (elem_type == TensorProto.STRING) == is_id, name
        assert {n for n, spec in specs.items() if isinstance(spec.shape[1], str)} == set(lists)


@over()
def test_onnx_runtime_loads_the_file_without_a_warning(
    served: Served, capfd: pytest.CaptureFixture[str]
) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 2
    path = served.exported.model_file(served.graph.name)
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    assert capfd.readouterr().err == ""


@over()
def test_files_are_what_onnx_runtime_1_19_reads(served: Served) -> None:
    proto = model(served)
    onnx.checker.check_model(proto, full_check=True)
    assert proto.ir_version == 10
    opsets = {opset.domain: opset.version for opset in proto.opset_import}
    assert opsets == {"": 18, "ai.onnx.ml": 3}
    assert not proto.functions
    used = {(node.domain, node.op_type) for node in proto.graph.node}
    assert {domain for domain, _ in used} <= {"", "ai.onnx.ml"}
    assert {op for domain, op in used if domain} <= {"LabelEncoder"}


def published(repository: Path, name: str) -> tuple[onnx.ModelProto, object, dict]:
    folder = repository / name
    return (
        onnx.load(folder / "1" / "model.onnx"),
        parse_config((folder / "config.pbtxt").read_text()),
        read_json(folder / "contract.json"),
    )


@over()
def test_onnx_runtime_fuses_no_residual_with_its_norm(served: Served, tmp_path: Path) -> None:
    """SkipLayerNormalization takes four times as long as Add and LayerNormalization on a CPU."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3  # it warns that such a file is for this machine only
    path = served.exported.model_file(served.graph.name)
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    optimized = onnx.load(options.optimized_model_filepath).graph
    operators = {node.op_type for node in optimized.node}
    assert not operators & {"SkipLayerNormalization", "SkipSimplifiedLayerNormalization"}


@over()
def test_config_and_contract_agree_with_the_onnx_file(served: Served, repository: Path) -> None:
    name = served.graph.name
    proto, config, contract = published(repository, name)
    assert config.name == contract["model"] == name
    assert config.backend == "onnxruntime"
    assert config.HasField("dynamic_batching")
    assert not config.dynamic_batching.ListFields()  # a limit of the queue costs 500 ms at times
    assert config.max_batch_size == contract["max_batch_size"] > 1
    ends = (
        (proto.graph.input, config.input, contract["inputs"], served.inputs),
        (proto.graph.output, config.output, contract["outputs"], served.outputs),
    )
    for infos, declared, told, specs in ends:
        truth = tensors(infos)
        assert [t.name for t in declared] == [t["name"] for t in told] == list(specs)
        for tensor, entry in zip(declared, told, strict=True):
            elem_type, axes = truth[tensor.name]
            datatype, data_type = ONNX_TYPES[elem_type]
            assert tensor.data_type == data_type
            assert entry["datatype"] == datatype
            shape = entry["shape"]
            assert shape[0] == "batch"
            assert shape == axes or axes == [f"total_{shape[1]}"]
            # Triton leaves out the batch, and has -1 for an axis of any size.
            assert list(tensor.dims) == [-1 if isinstance(a, str) else a for a in shape[1:]]
            assert entry["meaning"]


@over()
def test_triton_is_told_how_to_join_lists_and_to_take_scores_apart(
    served: Served, repository: Path
) -> None:
    proto, config, _ = published(repository, served.graph.name)
    lists = {name for name, spec in served.inputs.items() if spec.ragged}
    assert {entry.name for entry in config.input if entry.allow_ragged_batch} == lists
    kinds = model_config_pb2.BatchInput
    axes = {kinds.BATCH_ITEM_SHAPE: ["batch", 1], kinds.BATCH_ITEM_SHAPE_FLATTEN: ["rows"]}
    made_by_triton = {}
    for entry in config.batch_input:
        (made,), (source,) = entry.target_name, entry.source_input
        made_by_triton[made] = (source, entry.kind)
        assert entry.data_type == model_config_pb2.TYPE_INT32
        assert tensors(proto.graph.input)[made][1] == axes[entry.kind]
    each = {(name, kinds.BATCH_ITEM_SHAPE) for name in served.inputs if lists}
    flat = {(name, kind) for name, kind in made_by_triton.values()} - each
    assert len(made_by_triton) == len(each) + len(flat)
    assert [kind for _, kind in flat] == [kinds.BATCH_ITEM_SHAPE_FLATTEN][: len(lists)]
    assert served.inputs.keys() | made_by_triton.keys() == {i.name for i in proto.graph.input}
    scattered = {e.target_name[0]: e.source_input[0] for e in config.batch_output}
    assert scattered == {n: "candidate_ids" for n, spec in served.outputs.items() if spec.ragged}


@over()
def test_golden_requests_are_answered_as_they_say(served: Served) -> None:
    path = served.exported.model_file(served.graph.name).with_name("golden.json")
    golden = json.loads(path.read_text(), parse_constant=lambda c: pytest.fail(f"JSON has no {c}"))
    assert golden["model"] == served.graph.name
    assert len(golden["requests"]) == 64
    dtypes = {"string": object, "float32": np.float32, "int32": np.int32}

    def arrays(entries: dict, specs: dict) -> dict[str, np.ndarray]:
        assert entries.keys() == specs.keys()
        tensors = golden_tensors(entries)
        assert {n: v.dtype for n, v in tensors.items()} == {
            n: dtypes[spec.dtype] for n, spec in specs.items()
        }
        return tensors

    for request in golden["requests"]:
        answer = served.onnx(arrays(request["inputs"], served.inputs))
        for name, values in arrays(request["outputs"], served.outputs).items():
            if values.dtype == np.float32:
                allowed = (request["rtol"], request["atol"])
                np.testing.assert_allclose(answer[name], values, *allowed)
            else:
                np.testing.assert_array_equal(answer[name], values)


def test_every_file_gives_the_same_answers_in_onnx_runtime_1_19(
    exported: Exported,
) -> None:
    rng = np.random.default_rng(0)
    asked, expected, served_outputs = {}, {}, {}
    for graph in exported.graphs.values():
        served = Served(exported, graph)
        path = str(exported.model_file(graph.name))
        request = served.request(rng, batch=5, length=2 * served.window, unequal=True)
        asked[path] = feeds(graph, request)
        expected[path] = served.onnx(request)
        served_outputs[path] = served.outputs
    answers = answers_of_1_19(asked)
    for path, outputs in expected.items():
        for name, values in outputs.items():
            shape, data = answers[path][name]
            flat = served_outputs[path][name].ragged
            assert shape == ((values.size,) if flat else values.shape)
            if values.dtype == np.float32:
                # The newest runtime's ranking may differ among equal scores only; scores may not.
                np.testing.assert_allclose(data, values.ravel(), rtol=0, atol=TOLERANCE)
            elif name != "item_ids":
                assert data == values.ravel().tolist()


def nudge(weights: dict[str, torch.Tensor]) -> None:
    weights["out_bias"][3] += 1e-2


def test_an_export_is_made_again_only_when_weights_or_top_k_change(
    exports: Callable[[str], Exported], tmp_path: Path
) -> None:
    caser = exports("caser")
    assert not export_run(caser.run, TOP_K).fresh
    same = copy(caser, tmp_path / "same")
    assert not same.fresh
    before = same.model_file("caser").stat().st_mtime_ns
    with own_graphs_only():
        assert export_run(same.run, TOP_K - 1).fresh
    assert same.model_file("caser").stat().st_mtime_ns != before
    assert copy(caser, tmp_path / "other", nudge).fresh
    with pytest.raises(SeqrecError, match="top_k is 0; give"):
        export_run(caser.run, 0)


def test_the_same_weights_give_the_same_file(
    exports: Callable[[str], Exported], tmp_path: Path
) -> None:
    caser = exports("caser")
    graph = caser.graphs["caser_scorer"]
    one, other = (
        export_graph(graph, caser.run.net, caser.run.vocabularies, tmp_path / folder)
        for folder in ("one", "other")
    )
    assert one.read_bytes() == other.read_bytes()


def test_the_file_says_nothing_of_the_machine_that_made_it(served: Served) -> None:
    file = served.exported.model_file(served.graph.name).read_bytes()
    for path in (Path(seqrec_export.__file__).parents[1], Path(torch.__file__).parents[1], ".py"):
        assert str(path).encode() not in file, path


def test_a_weight_that_changed_after_the_export_is_found_and_not_published(
    exports: Callable[[str], Exported], tmp_path: Path
) -> None:
    exported = copy(exports("caser"), tmp_path / "run")
    with torch.no_grad():
        exported.run.net.out_bias[3] += 1e-2
    said = refused(exported, verify(exported))
    assert re.search(r"caser: .*repro/caser-.*; caser_scorer: values: .*repro/caser_sc", said)
    failed = {
        n for n in exported.graphs if read_json(exported.folder / n / "parity.json")["failures"]
    }
    assert failed == {"caser", "caser_scorer", "caser_filtered"}
    parity = {n: read_json(exported.folder / n / "parity.json") for n in exported.graphs}
    assert {n: p["ok"] for n, p in parity.items()} == {
        "caser": False,
        "caser_encoder": True,
        "caser_scorer": False,
        "caser_filtered": False,
        "caser_similar_items": True,
    }
    assert parity["caser_scorer"]["max_abs_diff"] == pytest.approx(1e-2, rel=1e-3)
    with pytest.raises(SeqrecError, match="differs from PyTorch"):
        publish(exported, tmp_path / "repository")
    assert not list((tmp_path / "repository").glob("*"))


def test_a_file_that_was_not_verified_is_not_published(
    exports: Callable[[str], Exported], tmp_path: Path
) -> None:
    exported = copy(exports("caser"), tmp_path / "run")
    with exported.model_file("caser_scorer").open("ab") as file:
        file.write(b"\n")
    with pytest.raises(SeqrecError, match=r"caser_scorer is not as it was verified"):
        publish(exported, tmp_path / "repository")
    assert not list((tmp_path / "repository").glob("*"))


def test_an_axis_that_the_network_freezes_is_refused(
    exports: Callable[[str], Exported], tmp_path: Path
) -> None:
    """A graph whose code holds for the example's sizes only must not get out."""
    caser = exports("caser")
    whole = caser.graphs["caser_scorer"]

    def frozen_output(net: torch.nn.Module, user: torch.Tensor, items: Ragged) -> tuple:
        return (whole.function(net, user, items)[0].sum(dim=0, keepdim=True),)

    def dropped_axis(net: torch.nn.Module, user: torch.Tensor, items: Ragged) -> tuple:
        return (whole.function(net, user, items)[0].sum(),)

    for function in (frozen_output, dropped_axis):
        graph = dataclasses.replace(whole, function=function)
        with pytest.raises(SeqrecError, match=r"caser_scorer: scores was exported with the axes"):
            export_graph(graph, caser.run.net, caser.run.vocabularies, tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_input_axis_that_the_network_freezes_is_refused(
    exports: Callable[[str], Exported], tmp_path: Path
) -> None:
    caser = exports("caser")
    whole = caser.graphs["caser_scorer"]

    def frozen_input(net: torch.nn.Module, user: torch.Tensor, items: Ragged) -> tuple:
        return (whole.function(net, user, items)[0] + torch.arange(len(items.values)).view(4),)

    graph = dataclasses.replace(whole, function=frozen_input)
    with pytest.raises(SeqrecError, match=r"caser_scorer holds for some sizes .*candidates.* only"):
        export_graph(graph, caser.run.net, caser.run.vocabularies, tmp_path)
