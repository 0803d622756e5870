"""Run folders: damage is named, nothing foreign is replaced, readers undo nothing."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from seqrec_export.errors import SeqrecError
from seqrec_export.exporting.exported import EXPORT_FILE, Exported, export_run, find_export
from seqrec_export.models.registry import MODELS
from seqrec_export.training import unfinished
from seqrec_export.training.run import (
    CONFIG_FILE,
    FILES_FILE,
    HELD_OUT_FILE,
    METRICS_FILE,
    WEIGHTS_FILE,
    DamagedRunError,
)
from seqrec_export.training.train import alone, finished, finished_key, load, train
from support.commands import outcome, run
from support.copies import own_graphs_only
from support.toys import cyclic

ITEMS_FILE = "vocabulary/items.parquet"
FILES = (CONFIG_FILE, WEIGHTS_FILE, ITEMS_FILE, HELD_OUT_FILE, METRICS_FILE, FILES_FILE)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:40])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def zero(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def foreign(file: Path) -> None:
    """What another program may have put there: sound, and not ours."""
    if file.suffix == ".json":
        file.write_text('["something", 7]')
    elif file.suffix == ".parquet":
        pq.write_table(pa.table({"name": ["a", "b"]}), file)
    else:
        save_file({"w": torch.zeros(3)}, file)


def one_bit(file: Path) -> None:
    """Only its hash can tell."""
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(content)


@pytest.fixture
def sound(exports: Callable[[str], Exported], tmp_path: Path) -> Path:
    """A copy of a run without its export."""
    path = tmp_path / "runs" / "caser"
    ignored = shutil.ignore_patterns("onnx")
    shutil.copytree(exports("caser").run.path, path, ignore=ignored)
    return path


@pytest.mark.parametrize("damage", [cut, empty, zero, foreign, Path.unlink])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_and_the_run_is_no_finished_one(
    name: str, damage: Callable[[Path], None], sound: Path
) -> None:
    key = finished_key(sound)
    assert key is not None
    damage(sound / name)
    if name == FILES_FILE and damage is Path.unlink:
        assert load(sound), "runs of before had none"
        return
    with pytest.raises(DamagedRunError, match=r"run `seqrec-export train` again$") as raised:
        load(sound)
    assert name in str(raised.value)
    assert "\n" not in str(raised.value)
    said: list[str] = []
    assert finished(sound, key, said.append) is None
    assert all(name in text for text in said)
    assert said or (name, damage) == (METRICS_FILE, Path.unlink)


@pytest.mark.parametrize("name", [WEIGHTS_FILE, ITEMS_FILE])
def test_one_bit_is_damage(name: str, sound: Path) -> None:
    one_bit(sound / name)
    with pytest.raises(DamagedRunError, match="is not what the training wrote"):
        load(sound)


@pytest.mark.parametrize(
    ("change", "said"), [(("dim", "width"), DamagedRunError), (("caser", "nextitnet"), SeqrecError)]
)
def test_a_run_of_another_version_is_said_to_be_one(
    change: tuple[str, str], said: type[SeqrecError], sound: Path
) -> None:
    file = sound / CONFIG_FILE
    file.write_text(file.read_text().replace(f'"{change[0]}"', f'"{change[1]}"'))
    with pytest.raises(said, match=f"version.*{change[1]}|{change[1]}.*version"):
        load(sound)


def test_train_replaces_a_damaged_run_and_says_so(sound: Path) -> None:
    key = finished_key(sound)
    cut(sound / WEIGHTS_FILE)
    log = cyclic(users=30)
    train(MODELS["caser"], log, MODELS["caser"].config(epochs=1), sound, progress=False)
    assert load(sound).fingerprint == log.fingerprint
    assert finished_key(sound) != key


@pytest.mark.parametrize("what", ["a file", "a folder of something else"])
def test_what_is_no_run_is_not_replaced(what: str, tmp_path: Path) -> None:
    path = tmp_path / "caser"
    if what == "a file":
        path.write_text("mine")
    else:
        path.mkdir()
        (path / "model.py").write_text("mine")
    with pytest.raises(SeqrecError, match="give another --runs"):
        train(MODELS["caser"], cyclic(users=30), MODELS["caser"].config(epochs=1), path)
    mine = path if what == "a file" else path / "model.py"
    assert mine.read_text() == "mine"


def test_a_reader_does_not_undo_a_writer_between_its_renames(sound: Path) -> None:
    found: list[Any] = []
    aside = sound.with_name(f".{sound.name}.old")
    reader = threading.Thread(target=lambda: found.append(load(sound)))
    with alone(sound):
        sound.rename(aside)
        reader.start()
        reader.join(0.5)
        assert aside.exists()
        assert not sound.exists()
        aside.rename(sound)
    reader.join()
    assert found[0].path == sound


def test_a_reader_brings_back_what_a_killed_writer_set_aside(sound: Path) -> None:
    sound.rename(sound.with_name(f".{sound.name}.old"))
    assert load(sound).path == sound


def test_a_run_in_a_folder_that_nobody_may_write_is_read(
    sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seqrec_export.locks.os.O_CREAT", 0)  # then open says it is not there
    monkeypatch.setattr("seqrec_export.locks._MAY_NOT_WRITE", {2})
    assert load(sound).path == sound
    assert not [f for f in sound.parent.iterdir() if "lock" in f.name]


@pytest.fixture
def own_graphs() -> Iterator[None]:
    with own_graphs_only():
        yield


def test_a_run_of_a_version_that_lacked_a_setting_is_exported(sound: Path) -> None:
    """By the default that the setting has now; such a run has no list of its files either."""
    description = json.loads((sound / "config.json").read_text())
    del description["config"]["precision"]
    (sound / "config.json").write_text(json.dumps(description))
    (sound / "files.json").unlink()
    with own_graphs_only():
        assert export_run(load(sound)).graphs


@pytest.mark.usefixtures("own_graphs")
def test_export_takes_what_the_run_was_exported_with(
    sound: Path, own_graphs: None, tmp_path: Path
) -> None:
    where = ["-m", "caser", "--runs", str(sound.parent), "-r", str(tmp_path / "models")]
    where += ["--accept-quality"]
    first = outcome("export", *where, "--item-precision", "int8", "--top-k", "7")
    assert first["caser"]["exported_anew"]
    again = outcome("export", *where)
    assert not again["caser"]["exported_anew"]
    assert {graph["version"] for graph in again["caser"]["graphs"].values()} == {1}
    exported = find_export(load(sound))
    assert (exported.item_precision, exported.top_k) == ("int8", 7)
    made = sound / "onnx" / EXPORT_FILE
    cut(made)
    for command in (["export", *where], ["verify", "-m", "caser", "--runs", str(sound.parent)]):
        said = run(*command).exception
        assert isinstance(said, SeqrecError)
        assert str(made) in str(said)
        assert "--item-precision" in str(said)
    said = []
    exported = export_run(load(sound), 7, "int8", said.append)
    assert json.loads(made.read_text())["item_precision"] == "int8"
    export_run(load(sound), item_precision="float32", report=said.append)
    assert any("in float32, not int8" in text for text in said)


def test_a_finished_training_leaves_no_folder_that_could_be_gone_on_with(
    sound: Path, exports: Callable[[str], Exported]
) -> None:
    """Killed after the run was put in place, and before its training was deleted."""
    work = unfinished.work_folder(sound)
    (unfinished.checkpoints_folder(sound) / "last").mkdir(parents=True)
    shutil.copy(sound / CONFIG_FILE, work)
    description = json.loads((sound / CONFIG_FILE).read_text())
    with pytest.raises(SeqrecError, match="this very training, unfinished"):
        unfinished.begin(sound, description, resume=False, retrain=False)
    unfinished.is_complete(sound)
    other = description | {"key": "another", "seed": 5}
    unfinished.begin(sound, other, resume=False, retrain=False)
    assert not unfinished.checkpoints_folder(sound).exists()
