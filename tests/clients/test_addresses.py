"""Addresses in every form that people write: asked, or refused with what to write."""

import importlib.util
import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from seqrec_cli.main import app
from seqrec_export.clients.addresses import (
    grpc_address,
    in_url,
    is_local,
    listening_host,
    reached_at,
)
from seqrec_export.clients.python import TLS, Client
from seqrec_export.errors import SeqrecError
from seqrec_export.serving.endpoints import Endpoints
from seqrec_export.serving.server import Server, launch
from support.served import EMBEDDED


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("recommender:8001", "recommender:8001"),
        ("recommender", "recommender:8001"),
        (" recommender:9000/ ", "recommender:9000"),
        ("grpc://recommender:9000", "recommender:9000"),
        ("GRPC://recommender/", "recommender:8001"),
        ("10.0.0.7", "10.0.0.7:8001"),
        ("[::1]:9000", "[::1]:9000"),
        ("[2001:db8::7]", "[2001:db8::7]:8001"),
        ("dns:///recommender:9000", "dns:///recommender:9000"),
        ("dns:///recommender", "dns:///recommender:8001"),
        ("DNS://8.8.8.8/recommender:1", "dns://8.8.8.8/recommender:1"),
        ("dns:recommender:9000", "dns:recommender:9000"),
        ("ipv4:127.0.0.1:9000", "ipv4:127.0.0.1:9000"),
        ("ipv6:[::1]", "ipv6:[::1]:8001"),
        ("unix:///run/triton.sock", "unix:///run/triton.sock"),
        ("unix:8001", "dns:///unix:8001"),  # a host that is called so
    ],
)
def test_an_address_is_asked_in_the_form_that_grpc_takes(written: str, asked: str) -> None:
    assert grpc_address(written) == asked


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("http://recommender:8000", "as recommender:8001"),
        ("http://recommender:9000/", "as recommender:9000"),
        ("HTTPS://recommender", "as recommender:8001, with --tls-ca"),
        ("grpcs://recommender", "--tls-ca"),
        ("tcp://recommender:1", "tcp:// is not gRPC"),
        ("::1", "[::1]:8001"),
        ("::1:8001", "[::1]:8001"),
        ("[nonsense]:1", "HOST:PORT"),
        ("", "HOST:PORT"),
        (":8001", "HOST:PORT"),
        ("recommender:", "HOST:PORT"),
        ("recommender:0", "HOST:PORT"),
        ("recommender:65536", "HOST:PORT"),
        ("recommender:grpc", "HOST:PORT"),
        ("recommender:8001/v2", "HOST:PORT"),
        ("me@recommender:8001", "HOST:PORT"),
        ("a b:1", "HOST:PORT"),
        ("grpc://", "HOST:PORT"),
        ("dns:///", "dns:///recommender:8001"),
        ("ipv4:", "ipv4:127.0.0.1:8001"),
        ("unix:", "unix:/path"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_what_to_write(written: str, said: str) -> None:
    with pytest.raises(SeqrecError, match=r"write|give") as refused:
        Client(written)
    assert said in str(refused.value)
    for command in (["recommend"], ["verify", "-m", "sasrec"], ["inspect"]):
        # Before anything is read: neither runs nor a repository are there.
        result = CliRunner().invoke(app, [*command, "--url", written])
        assert isinstance(result.exception, SeqrecError), command
        assert str(result.exception) == str(refused.value), command


def test_grpcs_is_tls(tmp_path: Path) -> None:
    with Client("grpcs://recommender", tls=TLS()) as client:
        assert client.url == "recommender:8001"


def test_a_server_is_found_in_every_form(tritons: Callable[[str], Server]) -> None:
    url = tritons(EMBEDDED).grpc_url
    port = url.rpartition(":")[2]
    for form in ("grpc://{}/", "dns:///{}", "ipv4:{}", "{}/", f"localhost:{port}"):
        with Client(form.format(url)) as client:
            assert is_local(client.url), form
            assert len(client.recommend("sasrec", [{}], top_k=1)[0]) == 1, form


@pytest.mark.parametrize("remote", ["recommender:1", "dns:///recommender:1", "127.example:1"])
def test_another_machine_is_not_taken_for_this_one(remote: str) -> None:
    assert not is_local(remote)


@pytest.mark.parametrize(
    "written", ["127.0.0.1:8001", "http://0.0.0.0", "[::1]:8001", "", "a b", "/tmp/socket"]
)
@pytest.mark.parametrize("option", ["--host", "--metrics-host"])
def test_a_server_listens_on_a_host_alone(option: str, written: str, repository: Path) -> None:
    result = CliRunner().invoke(app, ["serve", "-r", str(repository), option, written])
    assert isinstance(result.exception, SeqrecError)
    assert f"{option} is {written!r}; give only a host" in str(result.exception)


def test_hosts_of_both_kinds_stand_in_addresses_as_they_must() -> None:
    assert listening_host(" [::1] ", "--host") == "::1"
    assert in_url(reached_at("::")) == "[::1]"
    assert in_url(reached_at("0.0.0.0")) == "127.0.0.1"
    assert in_url("localhost") == "localhost"


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(
    importlib.util.find_spec("pytriton") is None, reason="the nvidia-pytriton wheel is absent"
)
@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 on loopback")
def test_a_server_listens_on_ipv6_and_on_a_name(repository: Path) -> None:
    where = Endpoints(host="::1", metrics_host="localhost", grpc_port=0, metrics_port=0)
    with launch(repository, ["sasrec"], where) as server, Client(server.grpc_url) as client:
        assert server.grpc_url.startswith("[::1]:")
        assert len(client.recommend("sasrec", [{}], top_k=1)[0]) == 1
        with urllib.request.urlopen(server.metrics_url) as metrics:
            assert b"nv_inference" in metrics.read()
