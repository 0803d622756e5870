"""Keeps a repository served: starts Triton, follows what is published, and restarts what dies."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from seqrec_export.errors import SeqrecError
from seqrec_export.repository.published import (
    CONFIG_FILE,
    MANIFEST_FILE,
    Hashes,
    Manifest,
    model_config,
    models,
    problem,
    read_manifest,
    reading,
    versions,
)
from seqrec_export.serving.control import NoAnswerError
from seqrec_export.serving.endpoints import Endpoints
from seqrec_export.serving.server import Server, launch, tail

PROBE_SECONDS = 2.0
# A model without any answer for this long counts as hanging. A dead one is noticed at once.
SILENT_SECONDS = 30.0
# Its first answer may take longer: memory is allocated, and a GPU's kernels are loaded.
FIRST_SECONDS = 60.0
HEALTHY_SECONDS = 60.0
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0

Say = Callable[[str], None]


class Backoff:
    """How long to wait before each new attempt."""

    def __init__(self) -> None:
        self._wait = FIRST_WAIT
        self._last = time.monotonic()

    def next(self) -> float:
        """Seconds to wait; the first again if all went well for a minute."""
        now = time.monotonic()
        if now - self._last > HEALTHY_SECONDS + self._wait:
            self._wait = FIRST_WAIT
        self._last = now
        wait, self._wait = self._wait, min(LONGEST_WAIT, 2 * self._wait)
        return wait


class Supervisor:
    """A repository being served. Stops at the end of a `with` block.

    It serves the newest version of each model that is as it was published; a damaged one, or one
    that does not load or cannot be read, is reported and left out. It looks every `look_seconds`
    for dead processes, for what was published, and for what a rollback took away. What happens
    goes to `say`.
    """

    def __init__(
        self,
        repository: Path,
        endpoints: Endpoints,
        *,
        say: Say,
        look_seconds: float = 1.0,
        log: Path | None = None,
    ) -> None:
        self.repository = repository.resolve()
        self.say = say
        self._look_seconds = look_seconds
        self._log = log
        self._backoff = Backoff()
        self._stopping = threading.Event()
        self._keepers: dict[str, Keeper] = {}
        self._hashes = Hashes()  # outlives a server: what is unchanged is not read again
        self.server = self._start(endpoints)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop()

    def run(self) -> None:
        """Watch until interrupted."""
        while True:
            status = self.server.wait(self._look_seconds)
            if status is not None:
                self._restart(status)
            self._look_for_models()

    def serving(self) -> dict[str, int]:
        """The models that are served, and which version of each."""
        return {n: k.serving for n, k in self._keepers.items() if k.serving is not None}

    def _start(self, endpoints: Endpoints) -> Server:
        """Triton with the newest sound version of each model. Raises SeqrecError if none loads."""
        names = models(self.repository)
        # These can be left to Triton, which loads several at a time; the keepers do the rest.
        manifest = read_manifest(self.repository)
        plain = [name for name in names if self._newest_is_sound(name, manifest)]
        server = launch(self.repository, plain, endpoints, log=self._log)
        self._stopping.clear()
        self._keepers = {name: self._keeper(server, name) for name in names}
        reasons = []
        try:
            for keeper in self._keepers.values():
                try:
                    keeper.settle()
                except (SeqrecError, OSError) as error:
                    reasons.append(str(error))
            if len(reasons) == len(names):
                raise SeqrecError("\n".join(["Triton could not load any model:", *reasons]))
        except BaseException:
            server.stop()
            raise
        for reason in reasons:
            self.say(reason)
        for keeper in self._keepers.values():
            keeper.start()
        return server

    def _newest_is_sound(self, model: str, manifest: Manifest | None) -> bool:
        try:
            newest = versions(self.repository / model)[-1]
            return not problem(self.repository, model, newest, manifest, self._hashes)
        except SeqrecError:
            return False

    def _keeper(self, server: Server, model: str) -> Keeper:
        return Keeper(
            server,
            self.repository,
            model,
            self.say,
            self._stopping,
            self._look_seconds,
            self._hashes,
        )

    def _look_for_models(self) -> None:
        with suppress(SeqrecError, OSError):  # none is left, and the keepers say so
            for name in models(self.repository):
                if name not in self._keepers or not self._keepers[name].watching():
                    self._keepers[name] = self._keeper(self.server, name)
                    self._keepers[name].start()

    def _restart(self, status: int) -> None:
        said = f"Triton ended with status {status}; the end of its log:\n{tail(self.server.log, 5)}"
        endpoints = self.server.endpoints
        self._stop()
        while True:
            wait = self._backoff.next()
            self.say(f"{said}\nstarting Triton again in {wait:g} s")
            time.sleep(wait)
            began = time.monotonic()
            try:
                self.server = self._start(endpoints)
            except (SeqrecError, OSError) as error:
                said = str(error)
            else:
                self.say(f"Triton serves again, {time.monotonic() - began:.1f} s after its start")
                return

    def _stop(self) -> None:
        self._stopping.set()
        self.server.stop()  # a keeper that waits for an answer gets none, and ends
        for keeper in self._keepers.values():
            keeper.join()


@dataclass
class Keeper:
    """Keeps one model of a running server served, in a thread of its own."""

    server: Server
    repository: Path
    model: str
    say: Say
    stopping: threading.Event
    look_seconds: float
    hashes: Hashes = field(default_factory=Hashes)
    serving: int | None = None
    _seen: object = None  # what the model's files looked like when it was settled
    _processes: set[int] = field(default_factory=set)
    _answers: int = 0
    _answered: float | None = None  # when it last did; None if it never did
    _taken: float = field(default_factory=time.monotonic)  # when it was loaded, or found so
    _backoff: Backoff = field(default_factory=Backoff)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._thread = threading.Thread(target=self._watch, name=self.model, daemon=True)
        self._thread.start()

    def watching(self) -> bool:
        """Whether it still watches; it ends when its model has left the repository."""
        return self._thread is not None and self._thread.is_alive()

    def join(self) -> None:
        """Wait until it has ended."""
        if self._thread:
            self._thread.join()

    def settle(self) -> int | None:
        """Serve the newest version that is sound and loads; returns it.

        Raises SeqrecError if there is none and the model has not left the repository.
        """
        with reading(self.repository) as undisturbed:
            if not undisturbed:  # somebody is publishing; what is there is not complete
                return self.serving
            seen, manifest = self._look(), read_manifest(self.repository)
            found = versions(self.repository / self.model)
        self._seen = None  # until it is settled
        if found:
            if not self._choose(found, manifest, seen):
                return self.serving
        elif self.serving is not None:
            self.server.control.unload(self.model)
            self.serving = None
            self._say("is gone from the repository and no longer served")
        self._seen = seen
        return self.serving

    def _choose(self, found: list[int], manifest: Manifest | None, seen: object) -> bool:
        """Serve one of these versions; False if they changed while they were looked at.

        It starts with the newest and reads no more of them than needed, each one whole and once.
        Nobody who publishes waits for that.
        """
        control = self.server.control
        ready = control.ready(self.model)
        reasons = []
        for version in reversed(found):
            why = problem(self.repository, self.model, version, manifest, self.hashes)
            if why and seen != self._look():
                return False
            if not why and version != ready:
                try:
                    control.load(self.model, model_config(self.repository, self.model), version)
                except NoAnswerError:
                    raise
                except SeqrecError as error:
                    why = str(error)
            if not why:
                if version != ready:
                    self._say(f"serves version {version}")
                self._took(version, version != ready)
                return True
            reasons.append(f"version {version} is left out: {why}")
            self._say(reasons[-1])
            if version == ready:  # its files were damaged since it was loaded
                self._say(f"what was loaded of version {version} is still served")
                self._took(version, False)
                return True
        raise SeqrecError(f"{self.model}: no version can be served: {'; '.join(reasons)}")

    def _took(self, version: int, loaded: bool) -> None:
        if loaded or self.serving != version:
            self._answers, self._answered, self._taken = 0, None, time.monotonic()
        self.serving = version
        self._processes = self.server.processes(self.model, version)

    def _watch(self) -> None:
        while not self.stopping.wait(self.look_seconds):
            try:
                if self._seen != self._look():
                    self.settle()
                    if not versions(self.repository / self.model):
                        return
                elif why := self.lost():
                    self.reload(why)
            except (SeqrecError, OSError) as error:
                self.stopping.wait(self._backoff.next())
                # If Triton itself has ended, its supervisor says so.
                if not self.stopping.is_set() and self.server.running():
                    self._say(f"{error}; trying again")

    def _look(self) -> object:
        """What changes when anything is published for the model, or removed."""
        folder = self.repository / self.model
        files = [self.repository / MANIFEST_FILE, folder / CONFIG_FILE]
        files += [file for v in versions(folder) for file in (folder / str(v)).glob("*")]
        stats = {}
        for file in sorted(files):
            with suppress(OSError):  # while it is replaced, or if it cannot be read
                stat = file.stat()
                stats[file] = (stat.st_mtime_ns, stat.st_size)
        return stats

    def lost(self) -> str:
        """Why the model has to be loaded again; "" if it has not."""
        control = self.server.control
        if self.serving is None:
            return ""
        if gone := [pid for pid in self._processes if not _lives(pid)]:
            return f"its process {gone[0]} has died"
        try:
            answers = control.successes(self.model)
            if answers == self._answers:  # callers' requests are as good as ours
                control.probe(self.model, PROBE_SECONDS)
                answers = control.successes(self.model)
        except SeqrecError as error:
            # Not at once: under more load than it can bear, a server is late, or refuses.
            since, patience = self._answered, SILENT_SECONDS
            if since is None:
                if not isinstance(error, NoAnswerError):
                    return ""  # it refuses our request, which says nothing about callers' requests
                since, patience = self._taken, FIRST_SECONDS
            silent = time.monotonic() - since
            return f"no answer for {silent:.0f} s ({error})" if silent > patience else ""
        self._answers, self._answered = answers, time.monotonic()
        return ""

    def reload(self, why: str) -> None:
        """Unload and load: Triton believes that a model is loaded even if its process has died."""
        self._say(f"{why}; loading it again")
        began = time.monotonic()
        self.stopping.wait(self._backoff.next())
        self.server.control.unload(self.model)  # if it fails, the model stays lost
        self.serving = self._seen = None
        if (version := self.settle()) is not None:
            self._say(f"version {version} is back after {time.monotonic() - began:.1f} s")

    def _say(self, text: str) -> None:
        self.say(f"{self.model}: {text}")


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
