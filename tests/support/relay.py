"""A server that can be down: what passes connections on to one that has to stay up."""

import socket
import threading
from contextlib import suppress
from typing import Self


class Relay:
    """Listens on a port of its own, and passes on what comes there, until `stop`."""

    def __init__(self, url: str) -> None:
        host, _, port = url.rpartition(":")
        self._to = (host, int(port))
        with socket.create_server(("127.0.0.1", 0)) as found:
            self.port = found.getsockname()[1]
        self._open: list[socket.socket] = []

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        listener = socket.create_server(("127.0.0.1", self.port))
        self._open.append(listener)
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def stop(self) -> None:
        for each in self._open:
            with suppress(OSError):  # of a listener, or one that the other side has closed
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._open.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                caller, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._to)
            self._open += [caller, server]
            for ends in ((caller, server), (server, caller)):
                threading.Thread(target=_pass_on, args=ends, daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return
