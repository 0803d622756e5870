"""Two models of other packages, from a log to an answer: nothing of this package knows them.

GRU4Rec is installed from examples/ and named by its entry point; the other one is named by its
module, and has inputs of its own: a device, which is a text, and a price.
"""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqrec_export.clients.generate import LANGUAGES, write_clients
from seqrec_export.folders import read_json
from seqrec_export.models.registry import MODELS
from support.commands import outcome, run
from support.served import serving

EXAMPLE = Path(__file__).parents[2] / "examples" / "gru4rec"
BY_DEVICE = "support.device_model:MODEL"
DEVICES = ("phone", "desktop", "tv")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("foreign")


@pytest.fixture(scope="module")
def site(place: Path) -> Path:
    """A folder of its own that the example is installed into."""
    source = place / "source"
    source.mkdir()
    for file in ("pyproject.toml", "seqrec_gru4rec.py"):
        (source / file).write_text((EXAMPLE / file).read_text())
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation"]
    target = ["--no-index", "--disable-pip-version-check", "--target", str(place / "site")]
    done = subprocess.run([*pip, *target, str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return place / "site"


def with_package(site: Path, *arguments: str) -> str:
    """What a Python module prints if the package is installed."""
    paths = os.pathsep.join(filter(None, [str(site), *sys.path]))
    command = [sys.executable, "-m", *arguments]
    environment = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def installed(site: Path, *arguments: str) -> Any:
    """What the command line prints with --json."""
    return json.loads(with_package(site, "seqrec_cli.main", *arguments, "--json"))


@pytest.fixture(scope="module")
def table(place: Path) -> Path:
    """Events of 60 users with 30 items, from three devices, some prices missing."""
    rng = np.random.default_rng(0)
    path = place / "log.csv"
    with path.open("w", newline="") as file:
        write = csv.writer(file).writerow
        write(["user", "item", "time", "hardware", "eur"])
        for event in range(900):
            price = "" if event % 7 == 0 else f"{rng.uniform(1, 90):.2f}"
            device = DEVICES[int(rng.integers(3))]
            write([f"u{event % 60}", f"i{rng.integers(30)}", 1_600_000_000 + event, device, price])
    return path


@pytest.fixture(scope="module")
def repository(place: Path, site: Path, table: Path) -> Path:
    """Both, built: what fails the gate would not be there."""
    folders = ("--repository", str(place / "repository"), "--runs", str(place / "runs"))
    folders += ("--accept-quality",)  # after one epoch
    small = ("--set", "epochs=1", "--set", "max_length=5", "--top-k", "5")
    built = installed(
        *(site, "build", "--model", "gru4rec", "--data", "synthetic:users=60,items=50,events=900"),
        *(*folders, *small, "--set", "gru4rec.dim=8"),
    )
    assert built["gru4rec"]["graphs"]["gru4rec"]["version"] == 1
    columns = ("--columns", "device=hardware,price=eur")
    built = outcome(
        *("build", "--model", BY_DEVICE, "--data", f"table:{table}", *columns),
        *(*folders, *small, "--set", "by_device.dim=8"),
    )
    assert built["by_device"]["graphs"]["by_device_encoder"]["version"] == 1
    return place / "repository"


@pytest.fixture(scope="module")
def url(repository: Path) -> Iterator[str]:
    with serving(repository) as address:
        yield address


def test_the_example_is_short_and_passes_its_own_test(site: Path) -> None:
    assert len((EXAMPLE / "seqrec_gru4rec.py").read_text().splitlines()) <= 120
    tests = str(EXAMPLE / "tests")
    said = with_package(site, "pytest", "-q", "-p", "no:cacheprovider", tests)
    assert "12 passed" in said


def test_an_installed_model_is_listed_with_its_settings(site: Path) -> None:
    listed = {row["model"] for row in installed(site, "models")}
    assert listed == {*MODELS, "gru4rec"}
    settings = {row["setting"] for row in installed(site, "models", "gru4rec")}
    assert {"dim", "max_length", "epochs"} <= settings


def test_a_run_of_another_package_needs_that_package(repository: Path, site: Path) -> None:
    runs = repository.parent / "runs"
    said = read_json(runs / "gru4rec" / "config.json")["origin"]
    assert said["model"] == "seqrec_gru4rec:MODEL"
    assert (said["distribution"], said["version"]) == ("seqrec-gru4rec", "0.1.0")
    told = run("export", "--model", "gru4rec", "--runs", str(runs))
    assert told.exit_code == 1
    assert "no model is called 'gru4rec'" in str(told.exception)
    folders = ("--runs", str(runs), "--repository", str(repository))
    as_built = ("--model", "seqrec_gru4rec:MODEL", "--accept-quality", *folders)
    again = installed(site, "export", *as_built)
    assert not again["gru4rec"]["exported_anew"], "it is the same model by both names"
    out = str(repository.parent / "vectors.npy")
    data = ("--data", f"table:{repository.parent / 'log.csv'}")
    columns = ("--columns", "device=hardware,price=eur", "--out", out)
    assert outcome("embed", "--model", BY_DEVICE, *folders, *data, *columns)["users"] == 60
    assert np.isfinite(np.load(out)).all()


def test_a_served_model_is_asked_by_its_own_inputs(url: str) -> None:
    def ask(*arguments: str) -> list[tuple[str, float]]:
        told = outcome("recommend", "--url", url, *arguments)
        return [(item["item_id"], item["score"]) for item in told["items"]]

    history = ("--model", "by_device", "--history", "i1,i2,i3")
    phone = ask(*history, "--input", "device=phone", "--input", "price=20")
    assert len(phone) == 5
    assert ask("--model", BY_DEVICE, *history[2:], "--input", "device=phone") != phone
    assert ask(*history, "--input", "device=tv", "--input", "price=20") != phone
    same = ("--input", "history_item_ids=i1,i2", "--input", "history_item_ids=i3")
    device = ("--input", "price=2e1", "--input", "device=phone")
    assert ask("--model", "by_device", *same, *device) == phone
    vector = ("--input", "user_embedding=" + ",".join(["0.5"] * 8))
    assert len(ask("--model", "by_device_scorer", *vector, "--candidates", "i1,i2")) == 2
    assert len(ask("--model", "gru4rec", "--history", "0")) == 5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--input", "device"], "--input device: write an input and its value"),
        (["--input", "device=a", "--input", "device=b"], "is given 2 times, and takes one value"),
        (["--input", "price=cheap"], "takes numbers"),
        (["--input", "price=1,2"], "takes one number; found 1,2"),
        (["--input", "colour=red"], "takes no --input colour; it takes --history, --input device"),
        (["--history", "a", "--input", "history_item_ids=b"], "and --history are the same"),
    ],
)
def test_an_input_that_is_wrong_is_said_by_name(url: str, given: list[str], message: str) -> None:
    told = run("recommend", "--url", url, "--model", "by_device", *given)
    assert told.exit_code == 1
    assert message in str(told.exception)


def test_clients_openapi_golden_files_and_the_report_know_foreign_models(
    repository: Path, place: Path
) -> None:
    out = place / "clients"
    names = write_clients(repository, out)
    assert {"gru4rec", "by_device", "by_device_encoder", "by_device_scorer"} <= {*names}
    for language in LANGUAGES:
        written = "".join(
            file.read_text(errors="replace")
            for file in (out / language).rglob("*")
            if file.is_file() and file.suffix in {".ts", ".go", ".java", ".h", ".hpp", ".cc"}
        )
        assert "where the request comes from, as phone" in written, language
    paths = json.dumps(read_json(out / "openapi.json")["paths"])
    assert "/v2/models/by_device/infer" in paths
    assert '"device"' in paths
    golden = read_json(out / "models" / "by_device" / "1" / "golden.json")
    sent = {text for entry in golden["requests"] for text in entry["inputs"]["device"]["data"]}
    assert {"", *DEVICES} < sent, "each device, none, and unknown ones"
    page = (repository / "report.html").read_text()
    assert all(text in page for text in ("gru4rec", "by_device"))
    shown = {entry["model"]: entry for entry in outcome("inspect", "-r", str(repository))}
    assert shown["by_device"]["metrics"]["figures"]["headline"] == ["hr@10", "ndcg@10"]
