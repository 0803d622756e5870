"""What is checked in under model_repository/ is what the default build writes, less the weights."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from seqrec_export.contract import Graph
from seqrec_export.exporting.exported import DEFAULT_TOP_K, Exported, graphs_of
from seqrec_export.exporting.triton_config import (
    CONFIG_FILE,
    CONTRACT_FILE,
    config_text,
    contract,
    model_config,
    parse_config,
)
from seqrec_export.models.registry import MODELS
from seqrec_export.repository.publish import publish

CHECKED_IN = Path(__file__).parents[2] / "model_repository"
GRAPHS = {
    name: graph
    for model in MODELS.values()
    for name, graph in graphs_of(model, model.config(), DEFAULT_TOP_K).items()
}


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_the_default_config_and_contract_are_checked_in(graph: Graph) -> None:
    folder = CHECKED_IN / graph.name
    assert parse_config((folder / CONFIG_FILE).read_text()) == model_config(graph)
    assert json.loads((folder / CONTRACT_FILE).read_text()) == contract(graph)


def test_nothing_else_is_checked_in() -> None:
    names = {f.parent.name for f in CHECKED_IN.glob(f"*/{CONFIG_FILE}")}
    assert names == set(GRAPHS), "run `make model_repository`"


def test_a_build_with_other_filters_is_published_over_what_is_checked_in(
    exports: Callable[[str], Exported], tmp_path: Path
) -> None:
    repository = tmp_path / "model_repository"
    shutil.copytree(CHECKED_IN, repository)
    exported = exports("caser")  # with attributes, which the default build has not
    assert {one.version for one in publish(exported, repository)} == {1}
    config = parse_config((repository / "caser_filtered" / CONFIG_FILE).read_text())
    assert config == model_config(exported.graphs["caser_filtered"])
    assert config != model_config(GRAPHS["caser_filtered"])


def regenerate() -> None:
    """Write the checked-in files anew: `make model_repository`."""
    for graph in GRAPHS.values():
        folder = CHECKED_IN / graph.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG_FILE).write_text(config_text(model_config(graph)))
        text = json.dumps(contract(graph), indent=2, ensure_ascii=False) + "\n"
        (folder / CONTRACT_FILE).write_text(text)


if __name__ == "__main__":
    regenerate()
