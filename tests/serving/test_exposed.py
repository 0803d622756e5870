"""What a caller may not do: load models, ask without a certificate, listen in."""

import importlib.util
import ipaddress
import os
import shutil
import socket
import stat
import struct
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import tritonclient.grpc as grpc
from tritonclient.utils import InferenceServerException
from typer.testing import CliRunner

from seqrec_cli.main import app
from seqrec_export.clients.python import TLS, Client
from seqrec_export.errors import SeqrecError
from seqrec_export.serving.endpoints import Endpoints, ServerTLS
from seqrec_export.serving.server import Server, launch, start
from support.certificates import make_certificates
from support.toy_models import add_echo

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("pytriton") is None, reason="the nvidia-pytriton wheel is absent"
)
OWNERS = {
    "index": lambda c: c.get_model_repository_index(),
    "load": lambda c: c.load_model("echo"),
    "unload": lambda c: c.unload_model("echo"),
    "shared memory": lambda c: c.register_system_shared_memory("x", "/x", 8),
    "shared memory status": lambda c: c.get_system_shared_memory_status(),
    "trace": lambda c: c.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]}),
    "logging": lambda c: c.update_log_settings({"log_verbose_level": 9}),
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    add_echo(tmp_path_factory.mktemp("exposed"))
    return tmp_path_factory.getbasetemp() / "exposed0"


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[Server]:
    with start(repository, grpc_port=0, metrics_port=0, http_port=0) as running:
        yield running


def frame(kind: int, flags: int, payload: bytes, stream: int = 1) -> bytes:
    """One frame of HTTP/2 (RFC 9113, section 4.1)."""
    length = struct.pack(">I", len(payload))[1:]
    return length + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def raw_grpc(url: str, method: str, headers: dict[bytes, bytes]) -> bytes:
    """What the server sends back for a gRPC call whose headers no gRPC library would send."""
    host, _, port = url.rpartition(":")
    fields = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": f"/inference.GRPCInferenceService/{method}".encode(),
        b":authority": b"test",
        b"content-type": b"application/grpc",
        b"te": b"trailers",
    } | headers
    literal = b"".join(  # RFC 7541, section 6.2.2
        b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value
        for name, value in fields.items()
    )
    answer = b""
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, b"", stream=0))
        connection.sendall(frame(1, 4, literal) + frame(0, 1, bytes(5)))
        while b"grpc-status" not in answer and (part := connection.recv(65536)):
            answer += part
    return answer


def restriction(server: Server) -> tuple[bytes, bytes]:
    """The header that would open gRPC's model control, from the list of processes."""
    command = Path(f"/proc/{server.pid}/cmdline").read_text().split("\0")
    (option,) = [part for part in command if part.startswith("--grpc-restricted-protocol")]
    name, _, value = option.rpartition(":")[2].partition("=")
    return b"triton-grpc-protocol-" + name.encode(), value.encode()


@pytest.mark.parametrize("name", OWNERS)
def test_callers_cannot_do_over_grpc_what_is_the_owners(server: Server, name: str) -> None:
    with grpc.InferenceServerClient(server.grpc_url) as client:
        with pytest.raises(InferenceServerException, match="This protocol is restricted"):
            OWNERS[name](client)
        header, value = restriction(server)
        for sent in (header, header.lower()):
            with pytest.raises(InferenceServerException):
                client.unload_model("echo", headers={sent.decode(): value.decode()})
    with Client(server.grpc_url) as caller:
        assert caller.serving() == {"echo": [1]}


def test_what_stands_in_the_list_of_processes_opens_nothing(server: Server) -> None:
    """HTTP/2 has no capitals in header names, and the server holds everybody to it."""
    assert b"grpc-status\x010" in raw_grpc(server.grpc_url, "ServerLive", {})
    header, value = restriction(server)
    assert header != header.lower()
    for sent in (header, header.lower()):
        answer = raw_grpc(server.grpc_url, "RepositoryIndex", {sent: value})
        assert b"grpc-status" in answer
        assert b"grpc-status\x010" not in answer
        assert b"echo" not in answer


@pytest.mark.parametrize(
    "path",
    [
        "repository/index",
        "repository/models/echo/load",
        "repository/models/echo/unload",
        "systemsharedmemory/region/x/register",
        "trace/setting",
        "logging",
    ],
)
def test_callers_cannot_do_over_http_what_is_the_owners(server: Server, path: str) -> None:
    request = urllib.request.Request(f"{server.http_url}/v2/{path}", data=b"{}")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with pytest.raises(urllib.error.HTTPError) as refused:
        opener.open(request, timeout=10)
    assert refused.value.code == 403
    assert server.control.states() == {"echo": {1: ""}}


def test_the_owners_socket_is_open_to_nobody_else(repository: Path) -> None:
    with start(repository, grpc_port=0, metrics_port=0) as running:
        assert running.http_url is None
        assert isinstance(running.control.address, Path)
        folder = running.control.address.parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert folder.stat().st_uid == os.getuid()
        ports = {running.endpoints.grpc_port, running.endpoints.metrics_port}
        assert listening(running.pid) == {("127.0.0.1", port) for port in ports}


def listening(pid: int) -> set[tuple[str, int]]:
    """The addresses of TCP over IPv4 and IPv6 at which a process listens."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # connections come and go
            inodes.add(str(descriptor.readlink()))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:  # LISTEN
                words, _, port = fields[1].partition(":")
                # Words of 4 bytes each, in the order of the machine.
                parts = [bytes.fromhex(words[i : i + 8])[::-1] for i in range(0, len(words), 8)]
                address = ipaddress.ip_address(b"".join(parts))
                mapped = address.ipv4_mapped if address.version == 6 else None
                found.add((str(mapped or address), int(port, 16)))
    return found


def test_model_control_is_open_where_it_is_asked_for(repository: Path) -> None:
    endpoints = Endpoints(grpc_port=0, metrics_port=0, http_port=0, model_control=True)
    with launch(repository, ["echo"], endpoints) as running, Client(running.grpc_url) as client:
        assert client.models() == {"echo": ""}
        with grpc.InferenceServerClient(running.grpc_url) as connection:
            connection.unload_model("echo")


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ca.pem, and server, client, stranger: .pem and .key; ca vouches for two."""
    if not shutil.which("openssl"):
        pytest.skip("openssl, which makes the certificates, is absent")
    folder = tmp_path_factory.mktemp("pem")
    make_certificates(folder)
    return folder


def refused(url: str, tls: TLS | None) -> bool:
    with Client(url, timeout_seconds=5, tls=tls) as client:
        try:
            return client.call("echo", [{"text": "a"}]) != [{"same": ["a"]}]
        except SeqrecError as error:
            return "no server answers there" in str(error)


@pytest.mark.parametrize("mutual", [False, True])
def test_tls_answers_and_what_is_not_tls_is_refused(
    repository: Path, pem: Path, mutual: bool
) -> None:
    tls = ServerTLS(
        cert=pem / "server.pem",
        key=pem / "server.key",
        client_ca=pem / "ca.pem" if mutual else None,
    )
    endpoints = Endpoints(grpc_port=0, metrics_port=0, tls=tls)
    ca = pem / "ca.pem"
    with launch(repository, ["echo"], endpoints) as running:
        running.control.probe("echo")  # the owner needs no certificate
        url = running.grpc_url
        own = TLS(ca=ca, cert=pem / "client.pem", key=pem / "client.key")
        with Client(url, tls=own) as client:
            assert client.call("echo", [{"text": "é"}]) == [{"same": ["é"]}]
        options = ["--tls-ca", ca, "--tls-cert", own.cert, "--tls-key", own.key]
        asked = ["recommend", "-m", "echo", "--url", url, *map(str, options)]
        assert "echo gives same" in str(CliRunner().invoke(app, asked).exception)
        assert refused(url, None)
        assert refused(url, TLS(ca=pem / "stranger.pem"))  # it is not who it says it is
        assert refused(url, TLS(ca=ca)) == mutual
        strange = TLS(ca=ca, cert=pem / "stranger.pem", key=pem / "stranger.key")
        assert refused(url, strange) == mutual


def test_files_that_are_no_certificates_are_named(repository: Path, tmp_path: Path) -> None:
    absent = tmp_path / "absent.pem"
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("rubbish")
    endpoints = Endpoints(grpc_port=0, metrics_port=0, tls=ServerTLS(cert=absent, key=absent))
    with pytest.raises(SeqrecError, match=r"absent\.pem cannot be read"):
        launch(repository, ["echo"], endpoints)
    with pytest.raises(SeqrecError, match=r"absent\.pem cannot be read"):
        Client("127.0.0.1:1", tls=TLS(ca=absent))
    with pytest.raises(SeqrecError, match="give both or neither"):
        Client("127.0.0.1:1", tls=TLS(cert=rubbish))
    endpoints = Endpoints(grpc_port=0, metrics_port=0, tls=ServerTLS(cert=rubbish, key=rubbish))
    with pytest.raises(SeqrecError, match=r"rubbish\.pem .* not a PEM certificate and its key"):
        launch(repository, ["echo"], endpoints)
    result = CliRunner().invoke(app, ["serve", "--tls-cert", str(rubbish)])
    assert "TLS needs --tls-cert and --tls-key" in str(result.exception)
