"""`seqrec-export serve` as a process."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.harness.processes import alive, called, descendants
from seqrec_export.clients.python import Client
from seqrec_export.errors import SeqrecError


class Served:
    """A `seqrec-export serve` in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], said: Path) -> None:
        self.process = process
        self._said = said
        assert process.stdout
        line = process.stdout.readline()
        assert line.startswith("gRPC "), self.said()
        self.url = line.split()[1]

    def said(self) -> str:
        return self._said.read_text()

    def the(self, name: str) -> int:
        (pid,) = called(self.process.pid, name)
        return pid

    def version(self) -> int | None:
        try:
            with Client(self.url, timeout_seconds=2) as client:
                client.call("echo", [{"text": "a"}])
                return max(client.serving()["echo"])
        except (SeqrecError, KeyError):
            return None


@contextmanager
def serve(repository: Path) -> Iterator[Served]:
    command = [sys.executable, "-m", "seqrec_cli.main", "serve", "--repository", str(repository)]
    command += ["--grpc-port", "0", "--metrics-port", "0", "--poll", "0.2"]
    said = repository.parent / "said"
    with (
        said.open("w") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as process,
    ):
        try:
            yield Served(process, said)
            processes = [process.pid, *descendants(process.pid)]
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)
    assert process.returncode == 0
    assert not any(map(alive, processes))
