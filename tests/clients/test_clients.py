"""What `seqrec-export clients` writes: the protocol, and clients that are built and run here."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from tritonclient.grpc import service_pb2
from typer.testing import CliRunner

from bench.harness.wire import message
from seqrec_cli.main import app
from seqrec_export.clients.generate import LANGUAGES, REPLAY_FILE, Field, pascal, write_clients
from seqrec_export.clients.openapi import OPENAPI_FILE
from seqrec_export.clients.protocol import CALLS, descriptor_set, proto_text
from seqrec_export.errors import SeqrecError
from seqrec_export.folders import read_json
from seqrec_export.repository.published import models
from support.conformance import make, newest
from support.served import golden_tensors

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def written(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("clients") / "out"
    assert write_clients(repository, out) == models(repository)
    return out


@pytest.fixture(scope="module")
def report(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `make clients` says of each client."""
    if not shutil.which("make"):
        pytest.skip("make is missing; apt-get install make")
    folder = tmp_path_factory.mktemp("made")
    file = folder / "report.json"
    told = {
        "BIN": Path(sys.executable).parent,
        "READY": "",
        "REPOSITORY": repository,
        "CLIENTS": folder / "clients",
        "CONFORMANCE": f"--report {file}",
    }
    variables = [f"{name}={value}" for name, value in told.items()]
    done = make("clients", "-C", str(ROOT), *variables, timeout_seconds=3600)
    assert file.exists(), done.stdout + done.stderr
    found: dict[str, Any] = read_json(file)
    assert bool(done.returncode) == any(result["failures"] for result in found.values())
    return found


def stray(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_client_conforms(language: str, report: dict[str, Any]) -> None:
    result = report[language]
    if result["skipped"] and not os.environ.get("REQUIRE_CLIENTS"):
        pytest.skip(f"the client for {language} was not built: {result['skipped']}")
    assert not result["skipped"]
    assert not result["failures"]
    assert result["passed"] > 0


def test_the_protocol_is_what_the_server_speaks(repository: Path) -> None:
    pool = descriptor_pool.DescriptorPool()
    data = descriptor_set().SerializeToString()
    (file,) = descriptor_pb2.FileDescriptorSet.FromString(data).file
    pool.Add(file)
    assert [call.name for call in file.service[0].method] == list(CALLS)
    assert len(data) < 4000
    whole = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    ours = pool.FindServiceByName("inference.GRPCInferenceService")
    for call in CALLS:
        for side in ("input_type", "output_type"):
            kinds = [getattr(s.methods_by_name[call], side) for s in (ours, whole)]
            fields = [[(f.name, f.number, f.type) for f in kind.fields] for kind in kinds]
            assert fields[0] == fields[1]
    golden = read_json(newest(repository / "mlink"))["requests"][0]
    sent = message("mlink", golden_tensors(golden["inputs"]))
    sent.parameters["priority"].int64_param = 1
    kind = message_factory.GetMessageClass(
        pool.FindMessageTypeByName("inference.ModelInferRequest")
    )
    read = kind.FromString(sent.SerializeToString())
    assert str(read) == str(sent)  # which would show unknown fields as well


@pytest.mark.skipif(not shutil.which("protoc"), reason="protoc is absent (protobuf-compiler)")
def test_the_proto_file_says_what_the_descriptors_say(tmp_path: Path) -> None:
    (tmp_path / "inference.proto").write_text(proto_text())
    command = ["protoc", "-I", tmp_path, f"--descriptor_set_out={tmp_path}/out", "inference.proto"]
    subprocess.run(command, check=True)
    compiled = descriptor_pb2.FileDescriptorSet.FromString((tmp_path / "out").read_bytes())
    ours = descriptor_set()

    def without_json_names(messages: Any) -> None:
        for found in messages:
            for each in found.field:
                each.ClearField("json_name")
            without_json_names(found.nested_type)

    for made in (compiled, ours):
        without_json_names(made.file[0].message_type)
    assert compiled == ours


def test_every_model_has_a_typed_client_in_every_language(written: Path) -> None:
    for language in LANGUAGES:
        files = [path for path in (written / language).rglob("*") if path.is_file()]
        assert not [path for path in files if path.suffix == ".j2"]
        text = "".join(path.read_text(errors="replace") for path in files)
        for name in ("sasrec", "mlink_scorer", "two_tower_item_encoder"):
            assert f"{pascal(name)}Client" in text, (language, name)


def model_files(written: Path, language: str, model: str) -> str:
    """What a language has of one model."""
    named = {model, f"{model}_client", f"{pascal(model)}Client"}
    files = [path for path in (written / language).rglob("*") if path.stem in named]
    return "".join(path.read_text() for path in files)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_client_of_a_model_asks_its_graphs_with_filters(written: Path, language: str) -> None:
    for graph in ("sasrec_filtered", "sasrec_similar_items"):
        assert not model_files(written, language, graph)
        assert graph in model_files(written, language, "sasrec")
        assert (written / "models" / graph / "contract.json").exists()
    assert "two_tower_filtered" in model_files(written, language, "two_tower")


def test_a_repository_without_these_graphs_has_clients_without_filters(
    repository: Path, tmp_path: Path
) -> None:
    shutil.copytree(repository / "sasrec", tmp_path / "older" / "sasrec")
    write_clients(tmp_path / "older", tmp_path / "out")
    for language in LANGUAGES:
        made = model_files(tmp_path / "out", language, "sasrec")
        assert made
        assert "ilter" not in made
        assert "imilar" not in made


def test_a_model_that_is_only_called_like_one_has_its_own_client(
    repository: Path, tmp_path: Path
) -> None:
    """`sasrec_filtered` of somebody else, which takes something more."""
    some = tmp_path / "some"
    for name in ("sasrec", "sasrec_filtered"):
        shutil.copytree(repository / name, some / name)
    path = some / "sasrec_filtered" / "contract.json"
    contract = read_json(path)
    contract["inputs"].append({**contract["inputs"][0], "name": "colour"})
    path.write_text(json.dumps(contract))
    newest(some / "sasrec_filtered").unlink()
    write_clients(some, tmp_path / "out", ["go"])
    assert "SasrecFilteredClient" in model_files(tmp_path / "out", "go", "sasrec_filtered")
    assert "sasrec_filtered" not in model_files(tmp_path / "out", "go", "sasrec")


def test_typed_clients_lay_out_what_follows_a_history(written: Path) -> None:
    """The conformance programs read contracts from files; here they stand in the code."""
    follows = {
        "node": ("src/models/mlink.ts", 'alignedWith: "history_item_ids"'),
        "go": ("models/mlink_client.go", 'AlignedWith: "history_item_ids"'),
        "java": ("src/main/java/seqrec/MlinkClient.java", ', "history_item_ids")'),
        "cpp": ("models/mlink.h", ', "history_item_ids"}'),
    }
    for language, (path, said) in follows.items():
        lines = (written / language / path).read_text().splitlines()
        found = [line for line in lines if said in line]
        assert len(found) == 1, language
        assert '"history_ratings"' in found[0], language


@pytest.mark.parametrize(
    ("name", "snake", "camel", "pascal"),
    [
        ("history_item_ids", "history_item_ids", "historyItemIds", "HistoryItemIds"),
        ("price (EUR)", "price_eur", "priceEur", "PriceEur"),
        ("2nd", "n2nd", "n2nd", "N2nd"),
        ("class", "class_", "class_", "Class"),
        ("Größe", "gr_e", "grE", "GrE"),
    ],
)
def test_names_become_identifiers(name: str, snake: str, camel: str, pascal: str) -> None:
    field = Field(name, "BYTES", 1, "")
    assert (field.snake, field.camel, field.pascal) == (snake, camel, pascal)


@pytest.mark.parametrize(
    ("names", "said"),
    [(["a b", "a_b"], "both be called 'a_b'"), (["寿司"], "no letter from A to Z")],
)
def test_names_that_no_identifier_tells_apart_are_refused(
    repository: Path, tmp_path: Path, names: list[str], said: str
) -> None:
    some = tmp_path / "some"
    shutil.copytree(repository / "sasrec", some / "sasrec")
    contract = read_json(some / "sasrec" / "contract.json")
    contract["inputs"] = [contract["inputs"][0] | {"name": name} for name in names]
    (some / "sasrec" / "contract.json").write_text(json.dumps(contract))
    with pytest.raises(SeqrecError, match=said):
        write_clients(some, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_language_and_the_models_that_are_there(repository: Path, tmp_path: Path) -> None:
    some = tmp_path / "some"
    shutil.copytree(repository / "caser", some / "caser")
    out = tmp_path / "out"
    arguments = ["clients", "--out", out, "-r", some, "--language", "go", "--json"]
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert json.loads(result.stdout) == {"out": str(out), "languages": ["go"], "models": ["caser"]}
    assert {path.name for path in out.iterdir()} == {
        "go",
        "inference.proto",
        "inference.protoset",
        "models",
        OPENAPI_FILE,
        REPLAY_FILE,
    }
    assert not any("Sasrec" in path.read_text() for path in out.rglob("*.go"))
    assert write_clients(some, out, ["cpp"]) == ["caser"]
    assert not (out / "go").exists()


def test_what_is_not_ours_is_not_replaced(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    for out in (tmp_path, tmp_path / "precious"):
        with pytest.raises(SeqrecError, match="holds something else"):
            write_clients(repository, out)
    assert (tmp_path / "precious").read_text() == "mine"
    result = CliRunner().invoke(app, ["clients", "--out", str(tmp_path), "--language", "perl"])
    assert "no client for 'perl'; there are node, go, java, cpp" in str(result.exception)


@pytest.mark.parametrize(
    "damage", ["", "{}", '{"model": "caser", "inputs": 3}', '{"model": "caser", "inputs": [{}]}']
)
def test_a_damaged_contract_is_named_and_what_was_written_stays(
    repository: Path, tmp_path: Path, damage: str
) -> None:
    some = tmp_path / "some"
    shutil.copytree(repository / "caser", some / "caser")
    out = tmp_path / "out"
    write_clients(some, out, ["go"])
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    (some / "caser" / "contract.json").write_text(damage)
    with pytest.raises(SeqrecError, match=r"contract\.json is damaged"):
        write_clients(some, out, ["go"])
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert not stray(tmp_path)
