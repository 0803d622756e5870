"""Models of other packages: how they are found, and that a run folder makes nobody import any."""

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from seqrec_cli.options import make_plan
from seqrec_export.errors import SeqrecError
from seqrec_export.exporting.exported import Exported
from seqrec_export.folders import read_json, write_json
from seqrec_export.models import registry
from seqrec_export.models.registry import MODELS
from seqrec_export.training.run import load, write_files
from support.commands import outcome

FOREIGN = """
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from seqrec_export.models.sasrec import MODEL as SASREC
from seqrec_export.models.settings import Settings

Path(__file__).with_name("imported").touch()


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    width: int = 7
    kind: Literal["slow", "fast"] = "slow"
    steps: tuple[int, ...] = (1, 2)
    name: str | None = None
    epochs: int = 3


MODEL = replace(SASREC, name="foreign", config=Config, presets={})
TAKEN = replace(SASREC)
NUMBER = 7
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages, whose modules are forgotten afterwards."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "a_package.py").write_text(FOREIGN)
    (folder / "raises.py").write_text("raise RuntimeError('no card')\n")
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in ("a_package", "raises", "evil"):
        sys.modules.pop(name, None)
    registry._OPENED.clear()


def offer(site: Path, distribution: str = "a-package", **points: str) -> None:
    info = site / f"{distribution.replace('-', '_')}-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n")
    lines = [f"{name} = {value}" for name, value in points.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{registry.GROUP}]", *lines, ""]))


def test_an_installed_package_offers_a_model_that_is_imported_when_it_is_asked_for(
    site: Path,
) -> None:
    offer(site, foreign="a_package:MODEL")
    assert registry.names() == [*MODELS, "foreign"]
    assert list(make_plan(models=["sasrec"]).found) == ["sasrec"]
    assert tuple(make_plan().models) == registry.OWN, "the default is what comes with the package"
    assert not (site / "imported").exists()
    plan = make_plan(models=["foreign"], settings=["foreign.width=9"])
    assert plan.config("foreign").width == 9
    assert (site / "imported").exists()
    came = registry.origin(plan.found["foreign"])
    assert came.pop("source")
    assert came == {
        **{"model": "a_package:MODEL", "distribution": "a-package", "version": "1.5"},
        "entry_point": "foreign",
    }


def test_a_model_is_named_by_its_module_and_its_settings_are_read_from_annotations(
    site: Path,
) -> None:
    text = ["width=9", "kind=fast", "steps=3,4,5", "name=none", "epochs=2"]
    plan = make_plan(models=["a_package:MODEL"], settings=[f"foreign.{of}" for of in text])
    config = plan.config("foreign")
    assert (config.width, config.kind, config.steps, config.name, config.epochs) == (
        *(9, "fast", (3, 4, 5)),
        *(None, 2),
    )
    with pytest.raises(SeqrecError, match=r"foreign\.kind is 'quick'; give slow or fast"):
        make_plan(models=["a_package:MODEL"], settings=["kind=quick"])
    toml = site / "file.toml"
    toml.write_text('models = ["a_package:MODEL"]\n[settings.foreign]\nsteps = [8]\nname = "x"\n')
    assert make_plan(config=toml).config("foreign").steps == (8,)
    assert make_plan(config=toml, models=["caser"]).models == ("caser",)
    shown = {row["setting"]: row for row in outcome("models", "a_package:MODEL")}
    assert shown["kind"]["allowed"] == "slow or fast"
    assert shown["steps"]["default"] == [1, 2]
    assert shown["epochs"]["meaning"] == "most passes over the data", "its default, our meaning"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("nothing_here:MODEL", "cannot be imported: ModuleNotFoundError"),
        ("raises:MODEL", "raises:MODEL cannot be imported: RuntimeError: no card"),
        ("a_package:NOTHING", "cannot be imported: AttributeError"),
        ("a_package:NUMBER", "is of the type int; name a Model"),
        ("a_package:TAKEN", "called 'sasrec', which is the name of a model of seqrec-export"),
        ("a_package:", "names no model; write package.module:MODEL"),
        ("broken", "broken, which bad offers as raises:MODEL, cannot be imported: RuntimeError"),
        ("other", "is a model called 'foreign'; its entry point needs the same name"),
        ("twice", "bad and worse both offer a model called 'twice'"),
    ],
)
def test_what_is_no_model_is_said_by_name_and_stops_only_who_asks_for_it(
    site: Path, asked: str, message: str
) -> None:
    offer(site, "bad", broken="raises:MODEL", other="a_package:MODEL", twice="a_package:MODEL")
    offer(site, "worse", twice="a_package:MODEL", caser="a_package:MODEL")
    with pytest.raises(SeqrecError, match=message):
        make_plan(models=[asked])
    assert make_plan(models=["caser"]).found["caser"] is MODELS["caser"]
    listed = {row["model"] for row in outcome("models")}
    assert listed == {*MODELS}, "what can be had is listed, the rest is noted"
    assert {*registry.broken()} == {"broken", "other", "twice", "caser"}


def test_a_run_says_where_its_model_came_from(exports: Callable[[str], Exported]) -> None:
    said = read_json(exports("caser").run.path / "config.json")
    assert said["origin"] == {"model": "seqrec_export.models.caser:MODEL"}


def test_a_run_folder_makes_nobody_import_anything(
    site: Path, exports: Callable[[str], Exported], monkeypatch: pytest.MonkeyPatch
) -> None:
    (site / "evil.py").write_text(FOREIGN)
    monkeypatch.chdir(site)
    run = site / "run"
    shutil.copytree(exports("caser").run.path, run)
    said = read_json(run / "config.json")
    origin = {"model": "evil:MODEL", "distribution": "evil", "entry_point": "evil"}
    for name in ("evil", "evil:MODEL", "foreign", "../evil", "evil.MODEL"):
        write_json(run / "config.json", said | {"model": name, "origin": origin})
        write_files(run)
        with pytest.raises(SeqrecError, match=r"name a model that you trust with --model pack"):
            load(run)
    for other in (origin, "evil:MODEL", ["evil"], None):
        write_json(run / "config.json", said | {"origin": other})
        write_files(run)
        assert load(run).model is MODELS["caser"], "a name of ours is ours, whatever is said"
    assert "evil" not in sys.modules
    assert not (site / "imported").exists()
    with pytest.raises(SeqrecError, match=r"is a run of caser, not of foreign"):
        load(run, registry.find("evil:MODEL"))
    assert (site / "imported").exists(), "what the caller names is imported"


def test_a_config_is_a_class() -> None:
    with pytest.raises(SeqrecError, match=r"the config of sasrec is .*; give the class itself"):
        replace(MODELS["sasrec"], config=MODELS["sasrec"].config())
