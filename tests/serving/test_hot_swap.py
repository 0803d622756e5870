"""New versions under load: every request is answered, by one version or another, never by a mix.

bench/survival/hot_swap.py does the same for longer.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.harness import swapping
from bench.harness.load import Load
from bench.harness.processes import eventually
from bench.harness.wire import connect, stub
from seqrec_export.exporting.exported import Exported
from seqrec_export.repository.publish import publish
from support.served import assert_same, without_filters

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("pytriton") is None, reason="the nvidia-pytriton wheel is absent"
)
PER_SECOND = 150
REQUESTS = 1000


@pytest.fixture(scope="module")
def contents(
    exports: Callable[[str], Exported], tmp_path_factory: pytest.TempPathFactory
) -> list[Exported]:
    """One run twice, with other weights."""
    run = exports("caser")
    other = swapping.other_weights(run, tmp_path_factory.mktemp("other") / "run")
    return [without_filters(run), without_filters(other)]  # whose answers may be empty in both


@pytest.mark.parametrize("mode", swapping.MODES)
def test_no_request_fails_while_versions_change(
    contents: list[Exported], tmp_path: Path, mode: str
) -> None:
    repository = tmp_path / "model_repository"
    publish(contents[0], repository)
    asks = swapping.asks(contents, each=10, seed=0)
    for ask in asks:  # or an answer would not show its version
        with pytest.raises(AssertionError):
            assert_same(*ask.answers)
    with (
        swapping.served(repository, mode) as url,
        connect(url) as channel,
        Load(url, asks, PER_SECOND) as load,
    ):
        triton = stub(channel)

        def swap() -> int:
            version = swapping.publish_next(contents, repository)
            if mode == "explicit":
                assert not swapping.load_all(triton, contents)
            assert eventually(lambda: swapping.serves(triton, contents, version))
            load.wait(PER_SECOND)
            return version

        load.wait(PER_SECOND)
        expected = [1, swap(), swap()]
        corrupt = swapping.corrupt_next(contents, repository)
        if mode == "explicit":
            assert len(swapping.load_all(triton, contents)) == len(contents[0].graphs)
        load.wait(2 * PER_SECOND)  # who looks for new versions does so in this time
        assert not swapping.serves(triton, contents, corrupt)
        expected.append(swap())
        load.wait(max(0, REQUESTS - load.answered))
        tally = load.stop()
    assert not tally.failures, str(tally)
    assert tally.sent >= REQUESTS
    assert corrupt not in expected
    assert set(tally.versions) == {(name, v) for name in contents[0].graphs for v in expected}
