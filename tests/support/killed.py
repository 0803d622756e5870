"""Work that is killed at any change of a file, and what it may leave."""

import os
import signal
import sys
import traceback
from pathlib import Path

from seqrec_export.exporting.exported import Exported
from seqrec_export.folders import read_json, sha256_file
from seqrec_export.repository.published import models, problems, versions, vouched

GRAPHS = ("caser", "caser_encoder", "caser_scorer")


# What the interpreter tells a hook about changes of files, next to `open` for writing.
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir")


def killed_at(event: int, work: list) -> bool:
    """Do the work in a process that kills itself before its n-th change of a file."""
    pid = os.fork()
    if pid == 0:  # never returns into pytest
        left = event

        def count(name: str, arguments: tuple) -> None:
            nonlocal left
            written = name == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if written or name in CHANGES:
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        try:
            work[0](*work[1:])
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert status in (0, signal.SIGKILL)
    return status != 0


def assert_loads(folder: Path, trained: list[Exported]) -> None:
    """What Triton sees is whole versions, whatever lies in them; what `serve` serves is no mix."""
    seen = {f.name for f in folder.iterdir() if f.is_dir()}
    assert seen == set(GRAPHS)
    assert models(folder) == list(GRAPHS)
    for name in GRAPHS:
        others = [f for f in (folder / name).iterdir() if f.is_dir() and not f.name.isdigit()]
        assert all(f.name[0] == "." for f in others)  # which Triton ignores
        for version in versions(folder / name):
            assert vouched(folder / name / str(version)), (name, version)
    served = {name: [v for v, p in problems(folder, name).items() if not p][-1] for name in GRAPHS}
    hashes = [
        sha256_file(folder / name / str(version) / "model.onnx") for name, version in served.items()
    ]
    assert hashes in [
        [read_json(run.folder / name / "parity.json")["files"]["model.onnx"] for name in GRAPHS]
        for run in trained
    ]
