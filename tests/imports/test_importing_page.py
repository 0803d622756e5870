"""docs/importing.md: its code runs as it stands there, in a folder with checkpoints."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from support.foreign import (
    ITEMS,
    RecBoleGRU4Rec,
    RecTools,
    random_weights,
    recbole_checkpoint,
    rectools_checkpoint,
    saved_by_rectools,
    write,
)

PAGE = (Path(__file__).parents[2] / "docs" / "importing.md").read_text(encoding="utf-8")


def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = ["1193", "661", *ITEMS[2:]]
    rows = [f"{user},{item},{n}" for user in "ab" for n, item in enumerate(ids[:9])]
    (tmp_path / "events.csv").write_text("\n".join(["user,item,time", *rows, ""]))
    saved = saved_by_rectools(rectools_checkpoint(random_weights(RecTools()), ids=ids))
    write(tmp_path, "model.pkl", saved)
    write(tmp_path, "GRU4Rec.pth", recbole_checkpoint(random_weights(RecBoleGRU4Rec())))
    write(tmp_path, "ids.json", json.dumps(ids).encode())
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)

    for block in blocks:
        exec(compile(block, "importing.md", "exec"), found)

    assert len(blocks) == 2
    assert len(found["answer"]["item_ids"]) == 2
    assert found["other"].config.keep_seen
    assert {folder.name for folder in Path("runs").glob("[a-z]*")} == {
        "rectools_sasrec",
        "recbole_gru4rec",
        "last",
    }
