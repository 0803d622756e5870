"""Keeps a Triton from outliving the process that started it.

This is a standalone file, run as a process of its own with only the standard library. It watches
its parent instead of asking the kernel for a signal at the parent's death, because that comes when
the starting *thread* ends. It also removes what is left, which Triton does not.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

SET_DEATH_SIGNAL, SET_CHILD_SUBREAPER = 1, 36  # of prctl(2)
STOPPING = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


def spawn(
    command: list[str],
    environment: dict[str, str],
    log: Path,
    *,
    name: str,
    work: Path,
    patience: float,
) -> subprocess.Popen[str]:
    """Run `command` under a guard, whose first line of output is the command's process id.

    At SIGTERM, or when this process is gone, the guard ends the command, giving it `patience`
    seconds, and removes `name` and `work`. A command that ends by itself leaves its log there.
    """
    arguments = [str(os.getpid()), str(patience), name, str(work), *command]
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            start_new_session=True,  # Ctrl-C at a terminal is for the parent to handle
        )


def clear(name: str, work: Path) -> None:
    """Remove a dead server's shared memory and temporary files."""
    for region in Path("/dev/shm").glob(f"{name}-*"):
        region.unlink(missing_ok=True)
    shutil.rmtree(work, ignore_errors=True)


def main() -> int:
    """Run Triton, and end it when asked, or when the process that started it is gone."""
    parent, patience, name, work = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3], sys.argv[4]
    prctl = ctypes.CDLL(None).prctl
    signals = STOPPING | {signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)

    def begin() -> None:
        prctl(SET_DEATH_SIGNAL, signal.SIGTERM)  # in case this guard is killed
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)

    prctl(SET_CHILD_SUBREAPER, 1)
    server = subprocess.Popen(sys.argv[5:], stdout=2, process_group=0, preexec_fn=begin)
    print(server.pid, flush=True)
    asked = False
    while not asked and server.poll() is None and os.getppid() == parent:
        received = signal.sigtimedwait(signals, 0.5)
        asked = received is not None and received.si_signo in STOPPING
    if server.poll() is None:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(patience)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    status = server.wait()
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    if asked or os.getppid() != parent:
        clear(name, Path(work))
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
