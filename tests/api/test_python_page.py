"""docs/python.md: its code runs as it stands there, in a folder with a log."""

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

import seqrec_export as sx
from seqrec_export.serving.server import find_triton

PAGE = (Path(__file__).parents[2] / "docs" / "python.md").read_text(encoding="utf-8")
README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module", autouse=True)
def _triton() -> None:
    try:
        find_triton()
    except sx.SeqrecError as error:
        pytest.skip(str(error))


def write_log(path: Path) -> None:
    """A MovieLens file of some users who go around a small catalogue."""
    path.parent.mkdir()
    items = [1193, 661, 914, *range(1, 28)]
    rows = [
        f"{user}::{items[(user * 7 + step) % len(items)]}::{1 + step % 5}::{978300000 + step * 60}"
        for user in range(1, 61)
        for step in range(12)
    ]
    path.write_text("\n".join(rows) + "\n")


def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_log(tmp_path / "ml-1m" / "ratings.dat")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 9
    found: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "python.md", "exec"), found)
    assert len(found["best"][0]["item_ids"]) == 10
    assert found["answer"].keys() == {"user_embedding", "known_items"}
    assert sorted(p.name for p in Path("model_repository").glob("sasrec*/1")) == ["1"] * 5


def test_the_readme_shows_the_first_lines_of_the_page() -> None:
    first = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]
    assert textwrap.dedent(first) in README


@pytest.mark.parametrize("name", sx.__all__)
def test_the_page_says_what_is_promised(name: str) -> None:
    assert re.search(rf"\b{name}\b", PAGE)
