"""The vectors of all users or items in a file: its name, who writes it, what a full disk costs."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from seqrec_export import locks
from seqrec_export.data.interactions import Interactions
from seqrec_export.errors import SeqrecError
from seqrec_export.exporting.embed import embed_items, embed_users, vector_files
from seqrec_export.exporting.exported import Exported
from seqrec_export.folders import read_json, write_json
from seqrec_export.in_process import Run as Answering
from seqrec_export.training.train import Run, load
from support.commands import run as command
from support.disks import fill, small_disk


@pytest.fixture
def run(exports: Callable[[str], Exported]) -> Run:
    return exports("caser").run


class Stopped(BaseException):
    """What ends an encoding here."""


def stop_at(users: int) -> Callable[[int], None]:
    def progress(done: int) -> None:
        if done >= users:
            raise Stopped

    return progress


@pytest.mark.parametrize(
    ("out", "stem"),
    [
        ("users.npy", "users"),
        ("users.parquet", "users"),
        ("users.NPY", "users"),
        ("users", "users"),
        ("users.2024-01-01", "users.2024-01-01"),
        ("users.v1.5", "users.v1.5"),
        ("v1.5.npy", "v1.5"),
        (".users", ".users"),
    ],
)
def test_the_files_are_called_what_was_asked_for(out: str, stem: str, tmp_path: Path) -> None:
    expected = tmp_path / f"{stem}.npy", tmp_path / f"{stem}.parquet"
    assert vector_files(tmp_path / out) == expected


@pytest.mark.parametrize("out", ["", ".", "..", "folder", "folder/", "new/", "taken.npy", "taken"])
def test_a_folder_is_refused_before_a_log_is_read(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "taken.npy").mkdir()
    said = command("embed", "-m", "caser", "--data", "table:nowhere.csv", "--out", out).exception
    assert isinstance(said, SeqrecError)
    assert "is a folder" in str(said)


def test_vectors_that_were_stopped_go_on_and_are_the_same(
    run: Run, interactions: Interactions, tmp_path: Path
) -> None:
    whole, table = embed_users(run, interactions, tmp_path / "whole", batch_size=7)
    with pytest.raises(Stopped):
        embed_users(run, interactions, tmp_path / "a.1", batch_size=7, progress=stop_at(150))
    state = tmp_path / ".a.1.npy.json"
    assert read_json(state)["done"] == 140
    said: list[str] = []
    seen: list[int] = []
    found, other = embed_users(
        run, interactions, tmp_path / "a.1", batch_size=7, progress=seen.append, report=said.append
    )
    assert seen[0] == 147
    assert said == [f"going on after the 140 users that {tmp_path}/.a.1.npy.part holds"]
    assert found.read_bytes() == whole.read_bytes()
    assert pq.read_table(other) == pq.read_table(table)
    np.testing.assert_array_equal(
        np.stack(pq.read_table(other)["embedding"].to_pylist()), np.load(found)
    )
    assert {f.name for f in tmp_path.iterdir() if f.name.startswith(".")} == set()


def test_vectors_of_another_log_are_not_gone_on_with(
    run: Run, interactions: Interactions, tmp_path: Path
) -> None:
    out = tmp_path / "a.npy"
    with pytest.raises(Stopped):
        embed_users(run, interactions, out, batch_size=7, progress=stop_at(150))
    state = tmp_path / ".a.npy.json"
    write_json(state, read_json(state) | {"data": "another"})
    with pytest.raises(SeqrecError, match="begun with another model, log"):
        embed_users(run, interactions, out, resume=True)
    said: list[str] = []
    with pytest.raises(Stopped):
        embed_users(run, interactions, out, batch_size=7, progress=stop_at(1), report=said.append)
    assert "starts over" in said[0]
    assert not state.exists(), "or the other log would go on from vectors that are not its own"


def test_a_second_process_is_refused(run: Run, interactions: Interactions, tmp_path: Path) -> None:
    refused: list[str] = []

    def meanwhile(done: int) -> None:
        locks._held.__dict__["files"].clear()  # as in another process
        with pytest.raises(SeqrecError, match="is being written by process") as said:
            embed_users(run, interactions, tmp_path / "a")
        refused.append(str(said.value))
        raise Stopped

    with pytest.raises(Stopped):
        embed_users(run, interactions, tmp_path / "a", progress=meanwhile)
    assert refused


def test_a_run_that_is_mounted_read_only_can_be_embedded_with(
    run: Run, interactions: Interactions, tmp_path: Path
) -> None:
    whole, _ = embed_users(run, interactions, tmp_path / "whole")
    with small_disk(tmp_path / "disk", 20_000) as disk:
        shutil.copytree(run.path, disk / "caser")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        found, _ = embed_users(load(disk / "caser"), interactions, tmp_path / "found")
    assert found.read_bytes() == whole.read_bytes()


def test_a_full_disk_is_named_and_what_was_written_stays(
    run: Run, interactions: Interactions, tmp_path: Path
) -> None:
    whole, _ = embed_users(run, interactions, tmp_path / "whole")
    size = whole.stat().st_size
    files = set()
    with small_disk(tmp_path / "disk", 400) as disk:
        for i, free in enumerate(range(0, 3 * size, size // 2)):
            out = disk / f"{i}.npy"
            filler = fill(disk, free)
            try:
                embed_users(run, interactions, out, batch_size=10)
            except OSError as error:
                files.add(Path(error.filename).name.replace(str(i), "", 1))
            filler.unlink()
            found, table = embed_users(run, interactions, out)
            np.testing.assert_allclose(np.load(found), np.load(whole), atol=1e-5)
            assert not [f for f in disk.iterdir() if f.name.startswith(".")]
            for file in (found, table):
                file.unlink()
    assert {"..npy.part", "..parquet.part"} <= files


@pytest.mark.parametrize("name", ["sasrec", "caser", "two_tower"])
def test_an_items_vector_and_a_users_make_the_score_that_the_model_gives(
    name: str, exports: Callable[[str], Exported], tmp_path: Path
) -> None:
    run = exports(name).run
    file, table = embed_items(run, tmp_path / "items")
    rows = pq.read_table(table)
    assert rows["item_id"].to_pylist() == list(run.vocabularies["items"].ids)
    vectors = np.load(file)
    np.testing.assert_array_equal(np.stack(rows["embedding"].to_pylist()), vectors)
    # As a vector store would have it: the bias is one more component, and 1 in a user's vector.
    ones = [] if name == "two_tower" else [rows["bias"].to_numpy()[:, None]]
    assert ("bias" in rows.column_names) == bool(ones)
    stored = np.hstack([vectors, *ones])
    seen = list(run.vocabularies["items"].ids[:2])
    request = {"user_id": "u0"} if name == "two_tower" else {"history_item_ids": seen}
    asked = Answering.of(run)
    (user,) = asked.call([request], f"{name}_encoder")
    (answer,) = asked.call([request])
    scores = stored @ np.append(user["user_embedding"], [1.0] * len(ones))
    known = rows["item_id"].to_pylist()
    at = [known.index(item) for item in answer["item_ids"]]
    np.testing.assert_allclose(scores[at], answer["scores"], atol=2e-5)
    free = [
        score
        for item, score in zip(known, scores, strict=True)
        if name == "two_tower" or item not in seen
    ]
    np.testing.assert_allclose(sorted(free)[::-1][: len(at)], answer["scores"], atol=2e-5)


def test_a_model_without_item_vectors_says_so(
    exports: Callable[[str], Exported], tmp_path: Path
) -> None:
    with pytest.raises(SeqrecError, match="mlink has no item vectors"):
        embed_items(exports("mlink").run, tmp_path / "items")
    assert not list(tmp_path.iterdir())
