"""The wheel, installed away from the checkout: it builds, serves and answers for a plain user.

It takes a minute, most of it training and verification: what is missing in a wheel shows when
the code that needs it runs.
"""

import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

import pytest

import seqrec_export as sx
from seqrec_export.serving.server import find_triton

ROOT = Path(__file__).parents[2]
NOBODY = 65534  # a user who owns nothing
KEPT = ("PATH", "OMP_NUM_THREADS", "GOMP_SPINCOUNT")
LOG = "user,item,time\n" + "".join(
    f"u{user},i{(user * 7 + step) % 30},{1_700_000_000 + 60 * step}\n"
    for user in range(40)
    for step in range(8)
)
ASK = """
import json, sys
import seqrec_export as sx
run = sx.load("runs/sasrec")
rows = [{"history_item_ids": ["i1", "i8"]}, {}]
with (
    sx.serve("model_repository", grpc_port=0, metrics_port=0) as server,
    sx.Client(server.grpc_url) as client,
):
    served = client.recommend("sasrec", rows, 5)
here = [answer["item_ids"] for answer in run.recommend(rows, 5)]
print(json.dumps([sx.__file__, [[item for item, _ in pairs] for pairs in served], here]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling, which builds the wheel, is not installed; it is in the extra dev")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("seqrec_export-*.whl")
    return built


def interpreter(**of: Any) -> str | None:
    """A Python that such a user may run; this one may lie in a folder of root's."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for found in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        try:
            done = subprocess.run([found, "-c", ""], cwd="/", capture_output=True, **of)
        except OSError:
            continue
        if done.returncode == 0:
            return found
    return None


class Stranger:
    """Somebody with a folder of their own, and the wheel instead of the checkout."""

    def __init__(self, wheel: Path, folder: Path) -> None:
        self.home, environment = folder / "home", folder / "venv"
        self.home.mkdir()
        python, self.of = sys.executable, {}
        nobody = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        if os.geteuid() == 0 and (found := interpreter(**nobody)) is not None:
            python, self.of = found, nobody
            os.chown(self.home, NOBODY, NOBODY)
            for place in (folder, *folder.parents):  # of pytest's, which are for their owner alone
                if place.stat().st_mode & 0o005 != 0o005:
                    place.chmod(place.stat().st_mode | 0o005)
        subprocess.run([python, "-m", "venv", "--without-pip", str(environment)], check=True)
        (self.site,) = environment.glob("lib/python*/site-packages")
        install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
        target = ["--disable-pip-version-check", "--target", str(self.site), str(wheel)]
        subprocess.run([*install, *target], check=True)
        # What the wheel needs comes from this environment, the package itself does not.
        (self.site / "needed.pth").write_text(sysconfig.get_path("purelib"))
        self.python = environment / "bin" / "python"

    def run(self, *arguments: str) -> str:
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        done = subprocess.run(
            [str(self.python), *arguments],
            cwd=self.home,
            env=kept | {"HOME": str(self.home)},
            capture_output=True,
            text=True,
            **self.of,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def command(self, *arguments: str) -> str:
        return self.run(str(self.site / "bin" / "seqrec-export"), *arguments)


@pytest.fixture(scope="module")
def stranger(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Stranger:
    return Stranger(wheel, tmp_path_factory.mktemp("elsewhere"))


def test_the_wheel_holds_every_file_that_the_package_has(wheel: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "export", "cli", "clients", "constraints.txt"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("this is not a git checkout, whose files could be compared")
    held = set(zipfile.ZipFile(wheel).namelist())
    places = {
        "export/": "",
        "cli/": "",
        "clients/": "seqrec_export/clients/sources/",
        "constraints.txt": "seqrec_export/constraints.txt",
    }
    for name in listed.stdout.split():
        start = next(start for start in places if name.startswith(start))
        assert places[start] + name.removeprefix(start) in held, name


def test_a_stranger_builds_serves_asks_and_writes_clients(stranger: Stranger) -> None:
    try:
        find_triton()
    except sx.SeqrecError as error:
        pytest.skip(str(error))
    (stranger.home / "log.csv").write_text(LOG)
    few = [f"--set={setting}" for setting in ("epochs=1", "dim=8", "max_length=10")]
    few.append("--accept-quality")
    stranger.command("build", "--model", "sasrec", "--data", "table:log.csv", *few)
    used, served, here = json.loads(stranger.run("-c", ASK))
    assert Path(used).is_relative_to(stranger.site)
    assert served == here
    assert len(set(served[0])) == 5
    assert (stranger.home / "runs" / "sasrec" / "report.html").stat().st_size > 10_000
    stranger.command("clients", "--out", "backend")
    for file in ("go/client.go", "node/src/client.ts", "java/pom.xml", "cpp/seqrec/client.h"):
        assert (stranger.home / "backend" / file).exists()
    if stranger.of:
        assert (stranger.home / "model_repository").stat().st_uid == NOBODY


def test_the_wheel_carries_the_versions_that_were_tested(stranger: Stranger) -> None:
    told = stranger.command("doctor", "--constraints")
    assert told == (ROOT / "constraints.txt").read_text(encoding="utf-8")
