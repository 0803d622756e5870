"""The model repository: versions, refusals, crashes, and several publishers at once."""

import hashlib
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import onnx
import pytest

from seqrec_export.errors import SeqrecError
from seqrec_export.exporting.exported import Exported, export_run, graphs_of
from seqrec_export.exporting.triton_config import parse_config
from seqrec_export.folders import read_json
from seqrec_export.models.filtered import VALUES_OF
from seqrec_export.models.registry import MODELS
from seqrec_export.repository.describe import describe
from seqrec_export.repository.publish import publish
from seqrec_export.repository.published import models, versions
from seqrec_export.training.tracking import TENSORBOARD_FOLDER
from seqrec_export.training.train import load
from seqrec_export.verification.gate import verify
from support.contents import content, leftovers
from support.copies import copy, own_graphs_only
from support.served import TOP_K, without_filters

PICKLED = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def weights_of(repository: Path, name: str, version: int) -> str:
    """The key of the run that a published file was made from."""
    proto = onnx.load(repository / name / str(version) / "model.onnx")
    return {p.key: p.value for p in proto.metadata_props}["run_key"]


def test_every_model_is_published_with_all_of_its_graphs(repository: Path) -> None:
    assert models(repository) == sorted(
        graph for m in MODELS.values() for graph in graphs_of(m, m.config(), TOP_K)
    )
    for name in models(repository):
        assert versions(repository / name) == [1]
        assert {f.name for f in (repository / name / "1").iterdir()} == {
            "model.onnx",
            "golden.json",
            "parity.json",
            "metrics.json",
        }
    assert {entry["model"] for entry in describe(repository)} == set(models(repository))


def test_publishing_the_same_again_changes_nothing(trained: list[Exported], tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    first = publish(trained[0], repository)
    assert {(p.version, p.new) for p in first} == {(1, True)}
    before = content(repository)
    again = publish(trained[0], repository)
    assert {(p.version, p.new) for p in again} == {(1, False)}
    assert content(repository) == before


def test_versions_count_up_and_keep_is_how_many_stay(
    trained: list[Exported], tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    for run in trained:
        published = publish(run, repository, keep=2)
    by_name = {p.name: p.version for p in published}
    # The bias is no part of the encoder, but its file says which run it belongs to.
    assert by_name == {"caser": 3, "caser_encoder": 3, "caser_scorer": 3}
    for name in by_name:
        assert versions(repository / name) == [2, 3]
    manifest = read_json(repository / "manifest.json")["models"]
    assert {name: sorted(entry) for name, entry in manifest.items()} == {
        name: ["2", "3"] for name in by_name
    }
    publish(trained[0], repository, keep=1)  # the first weights once more: a version of their own
    assert versions(repository / "caser") == [4]
    with pytest.raises(SeqrecError, match="--keep is 0"):
        publish(trained[0], repository, keep=0)


def test_the_manifest_has_the_sha256_of_every_file_of_every_version(
    trained: list[Exported], tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    for run in trained[:2]:
        publish(run, repository)
    manifest = read_json(repository / "manifest.json")["models"]
    listed = {
        f"{name}/{version}/{file}": sha256
        for name, entry in manifest.items()
        for version, details in entry.items()
        for file, sha256 in details["files"].items()
    }
    assert listed == {
        path: hashlib.sha256(data).hexdigest()
        for path, data in content(repository).items()
        if path.count("/") == 2
    }
    assert {d["data"]["fingerprint"] for e in manifest.values() for d in e.values()} == {
        trained[0].run.fingerprint
    }


def test_other_dims_are_refused_before_anything_is_written(
    trained: list[Exported], tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    publish(trained[0], repository)
    before = content(repository)
    # --top-k is a dim of the fused graph's outputs.
    copied = copy(trained[0], tmp_path / "run")
    with own_graphs_only():
        shorter = export_run(copied.run, TOP_K - 1)
    verify(shorter)
    with pytest.raises(SeqrecError, match=rf"caser is published .*item_ids.*{TOP_K - 1}") as said:
        publish(shorter, repository)
    # As a version of a small catalogue was before K was K: the way to keep its contract.
    assert str(said.value).endswith(f"or export with --top-k {TOP_K}, which it has")
    assert content(repository) == before
    assert publish(shorter, tmp_path / "elsewhere")[0].new


def test_a_publish_that_fails_half_way_leaves_the_old_version_and_no_half(
    trained: list[Exported], tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    publish(trained[0], repository)
    before = content(repository)
    folder = tmp_path / "runs" / "broken"
    copied = without_filters(copy(trained[1], folder))
    golden = copied.folder / "caser" / "golden.json"
    golden.unlink()
    golden.symlink_to("missing")  # reading it fails, as a disk may
    with pytest.raises(OSError, match=r"golden\.json"):
        publish(copied, repository)
    shutil.rmtree(folder.parent)
    assert content(repository) == before
    assert not leftovers(repository)
    assert {p.version for p in publish(trained[1], repository)} == {2}


def test_a_model_that_a_crash_left_without_config_is_completed(
    trained: list[Exported], tmp_path: Path
) -> None:
    """The config is written last: killed just before, the next publish has to write it."""
    repository = tmp_path / "repository"
    publish(trained[0], repository)
    whole = content(repository)
    (repository / "caser" / "config.pbtxt").unlink()
    (repository / "manifest.json").unlink()
    assert "caser" not in models(repository)
    publish(trained[0], repository)
    assert content(repository) == whole


def test_a_reader_never_sees_half_of_a_version(trained: list[Exported], tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    done = threading.Event()
    problems: list[str] = []
    seen = 0

    def watch() -> None:
        nonlocal seen
        while not done.is_set():
            for config in repository.glob("*/config.pbtxt"):
                if parse_config(config.read_text()).name != config.parent.name:
                    problems.append(f"{config} is another model's")
                latest = config.parent / str(versions(config.parent)[-1])
                for file in ("model.onnx", "golden.json", "parity.json", "metrics.json"):
                    if not (latest / file).stat().st_size:
                        problems.append(f"{latest / file} is empty")
                read_json(config.parent / "contract.json")
                onnx.load(latest / "model.onnx")
                seen += 1

    with ThreadPoolExecutor() as pool:
        watcher = pool.submit(watch)
        for number in range(12):
            publish(trained[number % len(trained)], repository, keep=20)
        done.set()
        watcher.result()
    assert not problems
    assert seen > 3


PUBLISH = """
import sys
from pathlib import Path
from seqrec_export.exporting.exported import export_run
from seqrec_export.repository.publish import publish
from seqrec_export.training.run import load
exported = export_run(load(Path(sys.argv[1])), int(sys.argv[3]))
assert not exported.fresh
for name in ("caser_filtered", "caser_similar_items"):  # which are not verified
    exported.graphs.pop(name, None)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(3):
    publish(exported, Path(sys.argv[2]), keep=50)
"""


def test_publishers_at_once_do_not_mix_their_versions(
    trained: list[Exported], tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PUBLISH, str(run.run.path), str(repository), str(TOP_K)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for run in trained[:2]
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    names = models(repository)
    published = versions(repository / names[0])
    assert published == list(range(1, len(published) + 1))
    assert len(published) >= 2
    for version in published:  # every version is one run's, in all of its graphs
        assert len({weights_of(repository, name, version) for name in names}) == 1
    assert {weights_of(repository, names[0], version) for version in published} == {
        read_json(run.folder / "export.json")["key"] for run in trained[:2]
    }
    for name in names:
        assert parse_config((repository / name / "config.pbtxt").read_text()).name == name
    assert not leftovers(repository)


def test_no_run_folder_and_no_repository_holds_a_pickle(
    exported: Exported, repository: Path
) -> None:
    files = [f for root in (exported.run.path, repository) for f in root.rglob("*") if f.is_file()]
    # TensorBoard's files are called after time and machine.
    suffixes = {f.suffix for f in files if f.parent.name != TENSORBOARD_FOLDER}
    assert suffixes - {".lock"} == {".json", ".safetensors", ".parquet", ".onnx", ".pbtxt", ".html"}
    for file in files:
        assert not file.read_bytes().startswith(PICKLED), file


def test_a_run_reads_back_as_it_was(exported: Exported) -> None:
    again = load(exported.run.path)
    assert again.config == exported.run.config
    assert again.seed == exported.run.seed
    for name, tensor in exported.run.net.state_dict().items():
        assert (again.net.state_dict()[name] == tensor).all(), name
    for name, vocabulary in again.vocabularies.items():
        assert exported.run.vocabularies[name].ids == vocabulary.ids
    more = {f"{VALUES_OF}{attribute.name}" for attribute in exported.attributes}
    assert exported.run.vocabularies.keys() - again.vocabularies.keys() == more


def test_folders_that_are_no_repository_or_run_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SeqrecError, match="seqrec-export build"):
        models(tmp_path)
    with pytest.raises(SeqrecError, match="seqrec-export build"):
        models(tmp_path / "missing")
    with pytest.raises(SeqrecError, match="seqrec-export train"):
        load(tmp_path)
