"""Triton, its stand-in ONNX Runtime backend, and the client: the real parts, on loopback."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import tritonclient.grpc as grpc
from onnx import TensorProto, helper
from tritonclient.utils import InferenceServerException

from bench.harness.processes import alive, descendants, eventually
from seqrec_export.clients.python import Client
from seqrec_export.errors import SeqrecError
from seqrec_export.serving.server import Server, healthy, start
from support.toy_models import Declared, add_echo, add_model

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("pytriton") is None, reason="the nvidia-pytriton wheel is absent"
)

ITEMS = ["", "apple", "bread", "crème brûlée", "寿司", "🍣"]


def lookup(source: str, target: str) -> onnx.NodeProto:
    return helper.make_node(
        "LabelEncoder",
        [source],
        [target],
        domain="ai.onnx.ml",
        keys_strings=ITEMS,
        values_int64s=list(range(len(ITEMS))),
        default_int64=0,
    )


def add_lookups(root: Path) -> None:
    """`shop` echoes the known items, `shop_encoder` adds up their numbers, `shop_scorer` scores."""
    to_float = helper.make_node("Cast", ["index"], ["scores"], to=TensorProto.FLOAT)
    names = helper.make_tensor(
        "names", TensorProto.STRING, [len(ITEMS)], [i.encode() for i in ITEMS]
    )
    last = helper.make_tensor("last", TensorProto.INT64, [1], [1])
    history: Declared = {"history_item_ids": ("BYTES", -1)}
    add_model(
        root,
        "shop",
        history,
        {"item_ids": ("BYTES", -1), "scores": ("FP32", -1)},
        [
            lookup("history_item_ids", "index"),
            helper.make_node("Gather", ["names", "index"], ["item_ids"]),
            to_float,
        ],
        [names],
    )
    add_model(
        root,
        "shop_encoder",
        history,
        {"user_embedding": ("FP32", 1)},
        [
            lookup("history_item_ids", "index"),
            to_float,
            helper.make_node("ReduceSum", ["scores", "last"], ["user_embedding"]),
        ],
        [last],
    )
    add_model(
        root,
        "shop_scorer",
        {"user_embedding": ("FP32", 1), "candidate_ids": ("BYTES", -1)},
        {"scores": ("FP32", -1)},
        [
            lookup("candidate_ids", "index"),
            helper.make_node("Cast", ["index"], ["value"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["value", "user_embedding"], ["scores"]),
        ],
    )


def add_features(root: Path) -> None:
    """`features` gives back what it takes; `pick` fails on an index past its table."""
    add_model(
        root,
        "features",
        {"gaps": ("FP32", -1), "month": ("INT32", 1)},
        {"gaps_out": ("FP32", -1), "month_out": ("INT32", 1)},
        [
            helper.make_node("Identity", ["gaps"], ["gaps_out"]),
            helper.make_node("Identity", ["month"], ["month_out"]),
        ],
    )
    table = helper.make_tensor("table", TensorProto.FLOAT, [3], [10, 11, 12])
    pick = [helper.make_node("Gather", ["table", "index"], ["value"])]
    add_model(root, "pick", {"index": ("INT32", 1)}, {"value": ("FP32", 1)}, pick, [table])


def serve(repository: Path) -> Server:
    return start(repository, grpc_port=0, metrics_port=0)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("repository")
    add_echo(root)
    add_echo(root, "counted")
    add_echo(root, "unbatched", max_batch_size=0)
    add_lookups(root)
    add_features(root)
    with serve(root) as running:
        yield running


@pytest.fixture(scope="session")
def client(server: Server) -> Iterator[Client]:
    with Client(server.grpc_url) as connected:
        yield connected


@pytest.fixture
def echo_repository(tmp_path: Path) -> Path:
    add_echo(tmp_path / "repository")
    return tmp_path / "repository"


def shared_memory(work: Path) -> list[Path]:
    """Of the server whose temporary files lie there; its name is that of the folder's start."""
    return list(Path("/dev/shm").glob(f"{work.name.rpartition('-')[0]}-*"))


def raw_call(server: Server, model: str, name: str, array: np.ndarray, datatype: str) -> object:
    with grpc.InferenceServerClient(server.grpc_url) as connection:
        tensor = grpc.InferInput(name, array.shape, datatype)
        tensor.set_data_from_numpy(array)
        answer = connection.infer(model, [tensor], client_timeout=10)
        return answer.as_numpy(answer.get_response().outputs[0].name)


# Answers


def test_strings_of_any_alphabet_come_back(client: Client) -> None:
    text = [*ITEMS, "a" * 100_000, "line\nbreak", " ", "ß", "\U0010ffff"]
    assert client.call("echo", [{"text": text}]) == [{"same": text}]


def test_lookup_by_string_inside_the_graph(client: Client) -> None:
    rows = [{"history_item_ids": ["寿司", "never sold", "", "apple"]}, {"history_item_ids": "🍣"}]
    assert client.recommend("shop", rows) == [[("寿司", 4.0), ("apple", 1.0)], [("🍣", 5.0)]]
    assert client.recommend("shop", rows, top_k=1) == [[("寿司", 4.0)], [("🍣", 5.0)]]


def test_encode_and_score_use_the_models_beside(client: Client) -> None:
    users = client.encode("shop", [{"history_item_ids": ["apple", "bread"]}, {}])
    assert users.tolist() == [[3.0], [0.0]]
    assert client.encode("shop", []).shape == (0, 1)
    rows = [
        {"user_embedding": [2.0], "candidate_ids": ["bread", "apple"]},
        {"user_embedding": np.float32([1]), "candidate_ids": []},
    ]
    for model in ("shop", "shop_scorer"):
        assert [scores.tolist() for scores in client.score(model, rows)] == [[4.0, 2.0], []]


def test_length_zero_is_a_length(client: Client) -> None:
    assert client.call("echo", [{"text": []}, {}]) == [{"same": []}, {"same": []}]
    assert client.call("unbatched", [{"text": []}]) == [{"same": []}]
    assert client.recommend("shop", [{}]) == [[]]
    (result,) = client.call("features", [{"gaps": [], "month": 3}])
    assert np.shape(result["gaps_out"]) == (0,)
    assert np.array_equal(result["month_out"], [3])


def test_what_a_row_leaves_out_is_unknown(client: Client) -> None:
    results = client.call("features", [{"gaps": [1, 2.5]}, {"month": np.int32(7)}])
    assert np.array_equal(results[0]["gaps_out"], [1, 2.5])
    assert np.array_equal(results[1]["gaps_out"], [np.nan, np.nan], equal_nan=True)
    assert [list(result["month_out"]) for result in results] == [[0], [7]]
    assert client.call("echo", [{"text": ["a", "b"]}, {"text": "c"}])[1] == {"same": ["c", ""]}


def test_no_rows_and_more_rows_than_a_batch(client: Client) -> None:
    assert client.call("echo", []) == []
    rows = [{"text": [str(i)]} for i in range(21)]
    assert client.call("echo", rows) == [{"same": [str(i)]} for i in range(21)]
    assert client.call("unbatched", rows[:3]) == [{"same": [str(i)]} for i in range(3)]


def test_concurrent_requests_each_get_their_own_answer(server: Server, client: Client) -> None:
    def ask(i: int) -> bool:
        text = [f"{i}-{j}" for j in range(i % 3)]
        return client.call("counted", [{"text": text}] * (i % 2 + 1)) == [{"same": text}] * (
            i % 2 + 1
        )

    def counts() -> tuple[int, int]:
        with grpc.InferenceServerClient(server.grpc_url) as connection:
            (stats,) = connection.get_inference_statistics("counted").model_stats
            return stats.inference_stats.success.count, stats.execution_count

    requests, runs = counts()
    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(120)))
    end = time.monotonic() + 10  # Triton counts a run after it has sent the answers
    while counts()[0] - requests < 120 and time.monotonic() < end:
        time.sleep(0.01)
    assert counts()[0] - requests == 120
    assert counts()[1] - runs < 120, "no two requests shared a run"


# Refusals


def test_the_client_names_what_is_wrong(client: Client) -> None:
    refusals = {
        "takes no 'txt'; it takes text": ("echo", {"txt": "a"}),
        r"row 0, 'text': takes strings, found 17": ("echo", {"text": ["a", 17]}),
        r"row 0, 'text': takes text that has UTF-8": ("echo", {"text": "\ud800"}),
        r"row 0, 'month': takes 1 values, found 2": ("features", {"month": [1, 2]}),
        r"row 0, 'month': takes whole numbers, found 1\.5": ("features", {"month": 1.5}),
        r"row 0, 'month': INT32 goes to 2147483647": ("features", {"month": 2**31}),
        r"no_such_model at 127\.0\.0\.1:\d+: .*unknown model": ("no_such_model", {}),
        r"pick at 127\.0\.0\.1:\d+: .*out of data bounds": ("pick", {"index": 3}),
    }
    for message, (model, row) in refusals.items():
        with pytest.raises(SeqrecError, match=message):
            client.call(model, [row])
    with pytest.raises(SeqrecError, match=r"echo gives same: recommend\(\) is not for it"):
        client.recommend("echo", [{}])


def test_an_absent_server_is_an_error_that_says_how_to_start_one() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"127.0.0.1:{unused.getsockname()[1]}"
        with Client(url) as client, pytest.raises(SeqrecError, match="seqrec-export serve"):
            client.call("echo", [{}])
        assert not healthy(url)


def test_a_malformed_request_is_refused_and_the_server_lives(server: Server) -> None:
    text = np.array([["a"]], dtype=object)
    for name, array, datatype in [
        ("wrong", text, "BYTES"),
        ("text", np.ones((1, 1), np.float32), "FP32"),
        ("text", text[0], "BYTES"),
        ("text", text[None], "BYTES"),
    ]:
        with pytest.raises(InferenceServerException, match=r"text|wrong|shape"):
            raw_call(server, "echo", name, array, datatype)
    assert raw_call(server, "echo", "text", text, "BYTES") == [[b"a"]]


def test_a_failing_request_does_not_fail_its_batch(client: Client) -> None:
    def index(i: int) -> object:
        try:
            return client.call("pick", [{"index": 99 if i % 5 == 0 else i % 3}])[0]["value"]
        except SeqrecError as error:
            return str(error)

    with ThreadPoolExecutor(10) as pool:
        for i, answer in enumerate(pool.map(index, range(40))):
            assert "bounds" in str(answer) if i % 5 == 0 else answer == [10 + i % 3]


# The server's life


def test_a_model_that_disagrees_with_its_configuration_is_named_with_the_reason(
    tmp_path: Path,
) -> None:
    add_echo(tmp_path)
    add_echo(tmp_path, "misnamed", declared={"txt": ("BYTES", -1)})
    add_echo(tmp_path, "mistyped", declared={"text": ("FP32", -1)})
    add_echo(tmp_path, "unbatched", max_batch_size=0)
    config = tmp_path / "unbatched" / "config.pbtxt"
    config.write_text(config.read_text() + "max_batch_size: 4\n")
    add_echo(tmp_path, "corrupt")
    (tmp_path / "corrupt" / "1" / "model.onnx").write_bytes(b"not ONNX")
    add_echo(tmp_path, "misspelt")
    (tmp_path / "misspelt" / "config.pbtxt").write_text("nane: 'misspelt'")
    (tmp_path / "not_a_model").mkdir()
    with pytest.raises(SeqrecError) as caught:
        serve(tmp_path)
    message = str(caught.value)
    assert "\necho:" not in message
    assert "the file has no input 'txt', it has ['text']" in message
    assert (
        "input 'text' is TYPE_FP32 in the configuration and tensor(string) in the file" in message
    )
    assert (
        "the shape [-1, -1] by the configuration (max_batch_size 4) and [-1] in the file" in message
    )
    assert "\ncorrupt: Internal: InvalidProtobuf" in message
    assert "\nmisspelt: Poll failed for model directory 'misspelt': failed to read text" in message
    assert "not_a_model" not in message


def test_a_folder_without_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SeqrecError, match="holds no model"):
        serve(tmp_path)


def test_a_busy_port_is_named(echo_repository: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(SeqrecError, match=f"http on 127.0.0.1:{port}"):
            start(echo_repository, grpc_port=0, http_port=port, metrics_port=0)


def test_two_servers_do_not_disturb_each_other_and_stop_leaves_nothing(
    server: Server, client: Client, echo_repository: Path
) -> None:
    with serve(echo_repository) as second:
        regions = shared_memory(second.log.parent)
        processes = [second.pid, *descendants(second.pid)]
        work = second.log.parent
        assert regions
        assert len(processes) > 1
        assert healthy(second)
        with Client(second.grpc_url) as other:
            assert other.call("echo", [{"text": "2"}]) == [{"same": ["2"]}]
            with pytest.raises(SeqrecError, match="unknown model"):
                other.call("shop", [{}])
    assert not any(map(alive, processes))
    assert not shared_memory(work)
    assert not work.exists()
    assert not second.running()
    second.stop()
    assert client.call("echo", [{"text": "1"}]) == [{"same": ["1"]}]
    assert healthy(server)


def test_a_dead_backend_is_unhealthy_though_the_server_is_ready(tmp_path: Path) -> None:
    add_echo(tmp_path, instances=2)
    with serve(tmp_path) as running:
        assert healthy(running)
        assert healthy(running.grpc_url)
        os.kill(descendants(running.pid)[0], signal.SIGKILL)
        assert not healthy(running)
        with grpc.InferenceServerClient(running.grpc_url) as connection:
            assert connection.is_server_ready()


def test_a_killed_parent_leaves_no_server(echo_repository: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path\n"
        "from seqrec_export.serving.server import start\n"
        "s = start(Path(sys.argv[1]), grpc_port=0, metrics_port=0)\n"
        "print(s.pid, s.log.parent, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", program, str(echo_repository)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout
            pid, work = parent.stdout.readline().split()
            processes = descendants(parent.pid)
        finally:
            parent.kill()
    assert int(pid) in processes
    assert len(processes) >= 3  # the guard, Triton, the backend
    assert eventually(lambda: not any(map(alive, processes)))
    assert not Path(work).exists()
    assert not shared_memory(Path(work))


def test_a_killed_guard_takes_the_server_with_it(echo_repository: Path) -> None:
    running = serve(echo_repository)
    processes = [running.pid, *descendants(running.pid)]
    guard = int(Path(f"/proc/{running.pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(guard, signal.SIGKILL)
    running.stop()
    assert eventually(lambda: not any(map(alive, processes)))
    assert not running.log.parent.exists()


def test_a_new_version_is_served_when_polling(echo_repository: Path) -> None:
    with start(echo_repository, grpc_port=0, metrics_port=0, poll_seconds=1) as running:
        add_echo(echo_repository.parent / "new", "second")
        (echo_repository.parent / "new" / "second").rename(echo_repository / "second")
        with Client(running.grpc_url) as client:
            assert eventually(lambda: client.serving() == {"echo": [1], "second": [1]})
            assert client.call("second", [{"text": "é"}]) == [{"same": ["é"]}]
