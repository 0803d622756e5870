"""What only the owner of a server may do: load and unload models, and see whether they are ready.

It uses Triton's HTTP, which `start` puts on a socket in a folder that nobody else may open.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from math import prod
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from seqrec_export.errors import SeqrecError

LOAD_SECONDS = 600.0  # ten million ids take ten seconds to load, on a slow disk longer


class NoAnswerError(SeqrecError):
    """The server did not answer in time, or is not there; it may be busy."""


@dataclass(frozen=True)
class Control:
    """A server's HTTP, at a socket's path or at (host, port). May be shared by threads.

    Every method raises SeqrecError with the server's reason if it refuses, NoAnswerError if it does
    not answer.
    """

    address: Path | tuple[str, int]
    headers: Mapping[str, str] = field(default_factory=dict)

    def server_id(self) -> str:
        """The name that the server was started under."""
        return str(self._call("GET", "v2")["name"])

    def load(self, model: str, config: Any, version: int) -> None:
        """Serve this version of a model in place of the current one; wait until it is ready.

        `config` is the model's ModelConfig; its version policy is ignored. If a version does not
        load, the current one stays. A version that is served already is not loaded again.
        """
        chosen = type(config)()
        chosen.CopyFrom(config)
        chosen.version_policy.Clear()
        chosen.version_policy.specific.versions.append(version)
        text = json_format.MessageToJson(chosen, preserving_proto_field_name=True)
        body = {"parameters": {"config": text}}
        self._call("POST", f"v2/repository/models/{model}/load", body, LOAD_SECONDS)

    def unload(self, model: str) -> None:
        """Unload a model; requests that wait for it are still answered."""
        self._call("POST", f"v2/repository/models/{model}/unload", {})

    def states(self) -> dict[str, dict[int, str]]:
        """Model -> version -> why it is not ready, "" if it is; without what was unloaded."""
        found: dict[str, dict[int, str]] = {}
        for entry in self._call("POST", "v2/repository/index", {}):
            state, reason = entry.get("state", ""), entry.get("reason", "")
            if state and reason != "unloaded":
                why = "" if state == "READY" else reason.partition("\n\nAt:")[0] or state
                found.setdefault(entry["name"], {})[int(entry.get("version", 0))] = why
        return found

    def ready(self, model: str) -> int | None:
        """The version of a model that is ready, if one is."""
        versions = self.states().get(model, {})
        return max((version for version, why in versions.items() if not why), default=None)

    def successes(self, model: str) -> int:
        """How many requests the model has answered since it was loaded."""
        found = self._call("GET", f"v2/models/{model}/stats")["model_stats"]
        return sum(int(entry["inference_stats"]["success"]["count"]) for entry in found)

    def probe(self, model: str, timeout_seconds: float = 5.0) -> None:
        """One real inference on each instance, of one unknown value an input.

        Readiness is not enough: a model stays ready when the process behind it has died.
        """
        config = self._call("GET", f"v2/models/{model}/config")
        inputs = []
        for entry in config["input"]:
            shape = [max(1, int(dim)) for dim in entry["dims"]]
            text = entry["data_type"] == "TYPE_STRING"
            datatype = "BYTES" if text else entry["data_type"].removeprefix("TYPE_")
            data: list[object] = ["" if text else 0] * prod(shape)
            if config["max_batch_size"] > 0:
                shape.insert(0, 1)
            tensor = {"name": entry["name"], "shape": shape, "datatype": datatype, "data": data}
            inputs.append(tensor)
        groups = config["instance_group"]
        instances = sum(int(g["count"]) * max(1, len(g.get("gpus", []))) for g in groups)
        for _ in range(instances or 1):
            self._call("POST", f"v2/models/{model}/infer", {"inputs": inputs}, timeout_seconds)

    def _call(self, method: str, path: str, body: Any = None, timeout_seconds: float = 5.0) -> Any:
        connection = _Connection(self.address, timeout_seconds)
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, f"/{path}", content, dict(self.headers))
            response = connection.getresponse()
            status, text = response.status, response.read().decode(errors="replace")
        except (OSError, HTTPException) as error:
            raise NoAnswerError(f"Triton does not answer ({error!r})") from error
        finally:
            connection.close()
        try:
            answer = json.loads(text) if text else {}
        except ValueError:
            answer = {"error": text}
        if status != 200:
            raise SeqrecError(str(answer.get("error", f"status {status}")).partition("\n\nAt:")[0])
        return answer


class _Connection(HTTPConnection):
    """HTTP over a socket of the file system, or over TCP."""

    def __init__(self, address: Path | tuple[str, int], timeout: float) -> None:
        self.path = address if isinstance(address, Path) else None
        host, port = ("localhost", None) if isinstance(address, Path) else address
        super().__init__(host, port, timeout=timeout)

    def connect(self) -> None:
        if self.path is None:
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))
