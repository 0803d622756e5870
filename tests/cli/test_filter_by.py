"""`--filter-by` and `--items`: which attributes of items an export lets requests ask for."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import seqrec_export as sx
from seqrec_cli import filters, options
from seqrec_export.data.readers.item_tables import asked_attributes
from seqrec_export.errors import SeqrecError
from seqrec_export.exporting.exported import Exported
from seqrec_export.pipeline import attributes_of
from seqrec_export.training.run import load
from support.commands import run


@pytest.fixture(scope="module")
def runs(exports: Callable[[str], Exported], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with one that was exported with other attributes."""
    folder = tmp_path_factory.mktemp("filter_by")
    shutil.copytree(exports("caser").run.path, folder / "caser")
    return folder


@pytest.fixture(scope="module")
def table(runs: Path) -> pd.DataFrame:
    """What the items of that run are; every fifth is small and medium."""
    ids = load(runs / "caser").vocabularies["items"].ids
    sizes = ["S|M" if i % 5 == 0 else "L" for i in range(len(ids))]
    return pd.DataFrame({"sku": [*ids, "unknown"], "size": [*sizes, "XL"], "year": 1999.0})


def test_an_export_takes_attributes_from_a_table_and_keeps_them(
    runs: Path, table: pd.DataFrame
) -> None:
    of_run = sx.load(runs / "caser")
    assert sx.export(of_run, filter_by=["size:|"], items=table, progress=False).fresh
    contract = (runs / "caser" / "onnx" / "caser_filtered" / "contract.json").read_text()
    assert "allow_size" in contract
    assert "allow_year" not in contract
    assert "allow_tags" not in contract  # of the export before
    again = sx.export(of_run, progress=False)  # as the last time
    assert not again.fresh
    (size,) = again.attributes
    assert size.vocabulary.ids == ("L", "M", "S")  # XL is of no item that the model knows
    assert not sx.export(of_run, filter_by=["size:|"], items=table, progress=False).fresh

    small = {*table["sku"][table["size"] == "S|M"]}
    row = {"history_item_ids": ["?"], "exclude_item_ids": [], "allow_item_ids": []}
    row |= {"allow_size": ["S", "unknown"], "keep_seen": [0]}
    (answer,) = of_run.call([row], "caser_filtered")
    found = {item for item in answer["item_ids"] if item}
    assert found
    assert found <= small


def test_naming_nothing_drops_attributes_and_saying_nothing_keeps_them(runs: Path) -> None:
    of_run = load(runs / "caser")
    dropped = asked_attributes("", of_run.vocabularies["items"].ids)
    assert attributes_of(of_run, dropped) == ()
    assert attributes_of(of_run, None) is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--items", "5", "--items", "x.csv"], "--items is given twice (5, x.csv)"),
        (["--items", "5"], "--items is for --data synthetic, not for movielens:x"),
        (["--items", "nowhere.csv"], "no attribute is named"),
        (["--items", "nowhere.csv", "--filter-by", "size"], "nowhere.csv does not exist"),
        (["--filter-by", "item_ids"], "single items by allow_item_ids anyway"),
    ],
)
def test_a_mistake_is_said_before_the_log_is_read(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    place = ["-r", str(tmp_path / "repository"), "--runs", str(tmp_path)]
    result = run("build", *place, "-m", "caser", "--data", "movielens:x", *arguments)
    assert isinstance(result.exception, SeqrecError)
    assert said in str(result.exception)


def test_an_attribute_that_nothing_has_is_refused_before_training(tmp_path: Path) -> None:
    place = ["-r", str(tmp_path / "repository"), "--runs", str(tmp_path / "runs")]
    shop = "synthetic:users=20,items=50,events=100"
    result = run("build", *place, "-m", "caser", "--data", shop, "--filter-by", "colour")
    assert "the log has garment_group_name, index_group_name" in str(result.exception)
    with pytest.raises(SeqrecError, match="no attribute of items is called colour"):
        sx.build("caser", sx.read(shop), tmp_path / "runs", filter_by="colour", progress=False)
    assert not (tmp_path / "runs").exists()


def test_export_says_where_attributes_may_come_from(runs: Path, tmp_path: Path) -> None:
    asked = ["export", "--runs", str(runs), "-m", "caser", "-r", str(tmp_path)]
    result = run(*asked, "--filter-by", "garment_group_name")
    assert "nothing says what garment_group_name an item has" in str(result.exception)
    log = ["--data", "synthetic:users=20,items=50,events=100"]
    result = run(*asked, "--filter-by", "colour", *log)
    assert "the log has garment_group_name, index_group_name" in str(result.exception)


def test_a_whole_number_of_items_is_the_size_of_the_shop() -> None:
    assert filters.count_and_table(None) == (None, None)
    assert filters.count_and_table(["2000"]) == (2000, None)
    assert filters.count_and_table(["./2000"]) == (None, "./2000")


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    config = tmp_path / "shop.toml"
    config.write_text('filter_by = "colour"\nitems = "items.csv"\nitems_id = "key"\n')
    plan = options.make_plan(config=config)
    assert (plan.filter_by, plan.items, plan.items_id) == (("colour",), "items.csv", "key")
    plan = options.make_plan(config=config, filter_by=[""], items="other.csv", items_id="sku")
    assert (plan.filter_by, plan.items, plan.items_id) == (("",), "other.csv", "sku")
    assert options.make_plan().filter_by is None
