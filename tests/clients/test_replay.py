"""The page on how to replay recorded requests, followed to the letter against a real server."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seqrec_export.clients.generate import REPLAY_FILE, write_clients
from seqrec_export.folders import read_json
from seqrec_export.repository.published import models
from seqrec_export.serving.server import Server
from support.conformance import newest
from support.served import EMBEDDED


@pytest.fixture(scope="module")
def written(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("replay") / "out"
    write_clients(repository, out, ["go"])
    return out


@pytest.fixture(scope="module")
def url(tritons: Callable[[str], Server]) -> str:
    return tritons(EMBEDDED).grpc_url


def replay(written: Path, url: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """What the page's program says, saved and started as the page says."""
    page = (written / REPLAY_FILE).read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "replay.py").write_text(program, encoding="utf-8")
    command = [sys.executable, tmp_path / "replay.py", written, url]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_every_model_has_its_contract_and_its_newest_requests(
    repository: Path, written: Path
) -> None:
    for name in models(repository):
        for path in (repository / name / "contract.json", newest(repository / name)):
            copied = written / "models" / path.relative_to(repository)
            assert copied.read_bytes() == path.read_bytes()


def test_the_page_passes_every_recorded_request(
    repository: Path, written: Path, url: str, tmp_path: Path
) -> None:
    done = replay(written, url, tmp_path)
    recorded = sum(len(read_json(newest(repository / m))["requests"]) for m in models(repository))
    assert done.stdout == f"{recorded} passed, 0 failed\n", done.stdout + done.stderr
    assert done.returncode == 0


def swap_first_ids(outputs: Any) -> None:
    ids = outputs["item_ids"]["data"]
    ids[0], ids[-1] = ids[-1], ids[0]


def change(name: str) -> Callable[[Any], None]:
    def apply(outputs: Any) -> None:
        outputs[name]["data"][0] += 1

    return apply


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (swap_first_ids, "item_ids[0] is "),
        (change("scores"), "scores[0] is "),
        (change("known_items"), "known_items[0] is "),
        (lambda outputs: outputs["scores"].update(shape=[1, 1]), "scores is FP32 [1, "),
    ],
)
def test_the_page_sees_a_wrong_answer(
    repository: Path,
    url: str,
    tmp_path: Path,
    wrong: Callable[[Any], None],
    said: str,
) -> None:
    out = tmp_path / "out"
    write_clients(repository, out, ["go"])
    for path in out.glob("models/*/*/golden.json"):
        golden = read_json(path)
        asked = [r for r in golden["requests"] if r["case"].startswith("known ids, batch 1")]
        if golden["model"] != "sasrec":
            path.unlink()
            continue
        wrong(asked[0]["outputs"])
        path.write_text(json.dumps(golden | {"requests": asked[:2]}))
    done = replay(out, url, tmp_path)
    assert done.returncode == 1
    assert said in done.stdout
    assert done.stdout.endswith("1 passed, 1 failed\n")
