"""The command line: help, errors of one line, and the main job on a small log."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import typer

from seqrec_cli import options
from seqrec_cli.main import COMMANDS, app
from seqrec_export.data.readers.synthetic import generate
from seqrec_export.errors import SeqrecError
from seqrec_export.models.registry import MODELS
from support.commands import outcome, run
from support.served import serving

README = (Path(__file__).parents[2] / "README.md").read_text()
NAMES = [command.__name__.replace("_", "-") for _, command in COMMANDS]
SHOP = "synthetic:users=200,items=80,events=3000,seed=2"
FAST = ["--set", "epochs=2"]
ACCEPT = ["--accept-quality"]  # of so few epochs
FILTER_BY = ["--filter-by", "garment_group_name"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    models = ["-m", "sasrec", "-m", "mlink"]
    outcome("build", *where(folder), "--data", SHOP, *models, *FAST, *FILTER_BY, *ACCEPT)
    return folder


def where(folder: Path) -> list[str]:
    return ["--runs", str(folder / "runs"), "--repository", str(folder / "repository")]


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_help_with_an_example_and_stands_in_the_readme(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert f"seqrec-export {name}" in " ".join(result.output.split())
    assert f"`{name}`" in README


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, seqrec_cli.main; "
        "print([m for m in ('torch', 'pandas', 'onnx', 'lightning', 'numpy') if m in sys.modules])"
    )
    heavy = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert heavy.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--model", "bert4rec"], "no model is called 'bert4rec'"),
        (["train", "--data", "movielens:/nowhere.dat"], "nowhere.dat"),
        (["train", "--data", "parquet:x"], "no reader is called 'parquet'"),
        (["train", "-m", "sasrec", "--set", "width=3"], "no setting 'width'"),
        (["train", "-m", "sasrec", "--set", "dim=wide"], "give a whole number"),
        (
            ["train", "-m", "caser", "--preset", "best"],
            "no preset 'best'; there are ml-100k, ml-1m",
        ),
        (["train", "--config", "/nowhere.toml"], "nowhere.toml"),
        (["train", "--data", "movielens:x", "--users", "3"], "--users is for --data synthetic"),
        *[([name, "--data", ""], "--data is empty") for name in ("build", "train")],
        *[([name, "--data", "  "], "--data is empty") for name in ("build", "train")],
        *[([name, "-m", "sasrec"], "no log is named; give --data") for name in ("build", "train")],
        (["train", "-m", "sasrec", "--users", "300"], "--users is for --data synthetic"),
        (["train", "--data", "table:x", "--columns", ""], "write it as user=uid"),
        (["train", "--data", "table:x", "--columns", "item=a,item=b"], "maps item twice"),
        (["export", "--runs", "/nowhere"], "seqrec-export train"),
        (["inspect", "-r", "/nowhere"], "seqrec-export build"),
        (["serve", "-r", "/nowhere"], "seqrec-export build"),
        (["models", "nmf"], "no model is called 'nmf'"),
        (["recommend", "--url", "127.0.0.1:1", "--history", "1"], "seqrec-export serve"),
    ],
)
def test_a_mistake_is_said_with_what_to_do(arguments: list[str], said: str) -> None:
    result = run(*arguments)
    assert isinstance(result.exception, SeqrecError)
    assert said in str(result.exception)


def test_a_mistake_is_one_line_and_exit_status_1() -> None:
    command = [sys.executable, "-m", "seqrec_cli.main", "models", "nmf"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("models", [["-m", "sasrec", "-m", "mlink"], []])
@pytest.mark.parametrize("command", ["build", "train"])
def test_a_log_without_what_a_model_needs_is_refused_before_training(
    command: str, models: list[str], tmp_path: Path
) -> None:
    log = tmp_path / "events.csv"
    log.write_text("user,item,time\na,x,1\na,y,2\na,z,3\n")
    folders = where(tmp_path) if command == "build" else where(tmp_path)[:2]
    result = run(command, *folders, "--data", f"table:{log}", *models)
    assert isinstance(result.exception, SeqrecError)
    assert "nothing was trained: choose models with --model" in str(result.exception)
    needed = "mlink needs ratings" if models else "two_tower needs user_features"
    assert needed in str(result.exception)
    assert "readers that can give it: " in str(result.exception)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("data", [[], ["--data", ""]])
def test_embed_reads_no_generated_log_unless_asked(built: Path, tmp_path: Path, data: list) -> None:
    out = tmp_path / "users.npy"
    result = run("embed", "-m", "sasrec", "--runs", str(built / "runs"), "--out", str(out), *data)
    assert isinstance(result.exception, SeqrecError)
    assert "--data" in str(result.exception)
    assert not out.exists()


@pytest.mark.parametrize("place", ["--runs", "--repository"])
def test_the_demo_does_not_replace_models_of_a_real_log(
    built: Path, tmp_path: Path, place: str
) -> None:
    """Neither a run nor a published version: the log is a file's, so that it was not generated."""
    at = tmp_path / "shop"
    shutil.copytree(built / ("runs" if place == "--runs" else "repository"), at)
    files = [*at.rglob("config.json"), *at.rglob("manifest.json")]
    for file in files:
        file.write_text(file.read_text().replace('"synthetic:', '"table:shop.csv:'))
    other = "--repository" if place == "--runs" else "--runs"
    result = run("demo", place, str(at), other, str(tmp_path / "other"))
    assert isinstance(result.exception, SeqrecError)
    assert "table:shop.csv" in str(result.exception)
    assert f"{place} demo/" in str(result.exception)


def test_embedding_with_ratings_needs_them_and_says_so(built: Path, tmp_path: Path) -> None:
    log, out = tmp_path / "events.csv", tmp_path / "users.npy"
    arguments = ["embed", "-m", "mlink", "--runs", str(built / "runs"), "--out", str(out)]
    for rating, said in ((None, "mlink needs ratings, which table:"), ("", "line 2: rating ''")):
        more = "" if rating is None else f",{rating}"
        head = "user,item,time" + ",rating" * (rating is not None)
        log.write_text(f"{head}\na,x,1600000000{more}\n")
        result = run(*arguments, "--data", f"table:{log}")
        assert isinstance(result.exception, SeqrecError)
        assert said in str(result.exception)
    assert list(tmp_path.iterdir()) == [log]


def test_a_second_build_trains_and_exports_nothing(built: Path) -> None:
    files = sorted(f for f in built.rglob("*.onnx"))
    before = [f.stat().st_mtime_ns for f in files]
    models = ["-m", "sasrec", "-m", "mlink"]
    again = outcome("build", *where(built), "--data", SHOP, *models, *FAST, *FILTER_BY, *ACCEPT)
    assert not any(model["exported_anew"] for model in again.values())
    assert not any(g["new"] for model in again.values() for g in model["graphs"].values())
    assert [f.stat().st_mtime_ns for f in files] == before
    assert all(model["quality"]["accepted"] and not model["refusal"] for model in again.values())
    listed = json.loads((built / "repository" / "manifest.json").read_text())["models"]
    said = {name: model["quality"]["shortfall"] for name, model in again.items()}
    assert {name: listed[name]["1"].get("accepted_quality", "") for name in said} == said
    assert said["mlink"].startswith("it does not beat user and item bias: rmse 0.")


def test_requests_can_ask_for_the_attributes_that_a_build_names(built: Path) -> None:
    contract = (built / "repository" / "sasrec_filtered" / "contract.json").read_text()
    assert '"allow_garment_group_name"' in contract
    assert "index_group_name" not in contract


def test_export_takes_attributes_and_says_which_model_has_no_filter(
    built: Path, tmp_path: Path
) -> None:
    shutil.copytree(built / "runs", tmp_path / "runs")
    (tmp_path / "runs/mlink/onnx/export.json").write_text("{")  # stops before seconds of work
    result = run("export", "-m", "mlink", *where(tmp_path), "--data", SHOP, *FILTER_BY)
    assert "mlink: it does not search among all items, so there is no filter" in result.output
    assert "export.json is damaged" in str(result.exception)


def test_nothing_is_published_if_a_run_is_missing(built: Path, tmp_path: Path) -> None:
    result = run("export", *where(built)[:2], "-r", str(tmp_path / "repository"))
    assert isinstance(result.exception, SeqrecError)
    assert "seqrec-export train" in str(result.exception)
    assert not (tmp_path / "repository").exists()


def test_the_file_and_the_command_line_are_merged(tmp_path: Path) -> None:
    config = tmp_path / "shop.toml"
    config.write_text(
        f'data = "{SHOP}"\nmodels = ["sasrec"]\nruns = "{tmp_path / "runs"}"\nseed = 5\n'
        "[settings.sasrec]\ndim = 12\nepochs = 1\n[settings.caser]\ndim = 7\n"
    )
    outcome("train", "--config", str(config), "--set", "sasrec.dim=16")
    run_config = json.loads((tmp_path / "runs/sasrec/config.json").read_text())
    assert run_config["seed"] == 5
    assert run_config["config"]["dim"] == 16
    assert run_config["config"]["epochs"] == 1


def test_a_preset_is_where_the_settings_start(tmp_path: Path) -> None:
    config = tmp_path / "shop.toml"
    config.write_text('preset = "ml-1m"\n[settings.sasrec]\ndim = 12\n')
    plan = options.make_plan(config=config, settings=["sasrec.epochs=1"])
    preset = MODELS["sasrec"].presets["ml-1m"]
    assert plan.config("sasrec") == MODELS["sasrec"].config(**preset | {"dim": 12, "epochs": 1})
    assert plan.config("mlink") == MODELS["mlink"].config()  # which has no such preset
    plan = options.make_plan(config=config, preset="source", models=["caser"])
    assert plan.config("caser") == MODELS["caser"].config(**MODELS["caser"].presets["source"])


def test_models_shows_the_presets() -> None:
    settings = {entry["setting"]: entry for entry in outcome("models", "sasrec")}
    assert settings["dim"]["ml-1m"] == MODELS["sasrec"].presets["ml-1m"]["dim"]
    assert settings["tie_weights"]["source"] is False


def test_inspect_shows_every_model_with_parity_and_metrics(built: Path) -> None:
    shown = {entry["model"]: entry for entry in outcome("inspect", *where(built)[2:])}
    assert set(shown) == GRAPHS_OF_BOTH
    assert all(entry["parity"]["ok"] for entry in shown.values())
    assert "hr@10" in shown["sasrec"]["metrics"]["test"]
    assert run("inspect", "sasrec", *where(built)[2:]).exit_code == 0


GRAPHS_OF_BOTH = {
    f"{model}{part}" for model in ("sasrec", "mlink") for part in ("", "_encoder", "_scorer")
} | {"sasrec_filtered", "sasrec_similar_items"}


def test_verify_says_what_was_compared(built: Path) -> None:
    found = outcome("verify", "-m", "sasrec", *where(built)[:2], "--seed", "9")
    assert found["sasrec"]["ok"]
    assert found["sasrec"]["cases"] > 100


def test_models_lists_settings_with_defaults() -> None:
    for name, model in MODELS.items():
        listed = {s["setting"]: s["default"] for s in outcome("models", name)}
        assert listed == {key: getattr(model.config(), key) for key in listed}
        assert len(listed) >= 8
    assert {m["model"] for m in outcome("models")} == set(MODELS)


def test_embed_writes_every_user_in_the_logs_order(built: Path, tmp_path: Path) -> None:
    out = tmp_path / "vectors.npy"
    arguments = ["-m", "sasrec", *where(built)[:2], "--data", SHOP]
    outcome("embed", *arguments, "--out", str(out), "--batch-size", "7")
    outcome("embed", *arguments, "--out", str(tmp_path / "whole.npy"), "--batch-size", "500")
    vectors = np.load(out, allow_pickle=False)
    table = pq.read_table(tmp_path / "vectors.parquet")
    users = generate(users=200, items=80, events=3000, seed=2).user_ids
    assert table["user_id"].to_pylist() == list(users)
    np.testing.assert_array_equal(np.stack(table["embedding"].to_pylist()), vectors)
    np.testing.assert_allclose(vectors, np.load(tmp_path / "whole.npy"), atol=1e-5)
    assert sorted(f.name for f in tmp_path.iterdir()) == [
        "vectors.npy",
        "vectors.parquet",
        "whole.npy",
        "whole.parquet",
    ]


def test_embed_items_reads_no_log(built: Path, tmp_path: Path) -> None:
    out = tmp_path / "vectors.npy"
    said = outcome("embed", "--items", "-m", "sasrec", *where(built)[:2], "--out", str(out))
    assert said["items"] == len(np.load(out)) == len(pq.read_table(said["table"])) <= 80


def test_recommend_all_writes_a_list_for_every_user(built: Path, tmp_path: Path) -> None:
    out = tmp_path / "lists.parquet"
    arguments = ["recommend-all", "-m", "sasrec", *where(built), "--data", SHOP, "--top-k", "4"]
    arguments += ["--batch-size", "50", "--out", str(out)]
    said = outcome(*arguments)
    assert said == {"lists": str(out), "rows": 200 * 4}
    one = out.read_bytes()
    for part in ("1/2", "2/2"):
        outcome(*arguments, "--shard", part)
    out.unlink()
    assert outcome("recommend-all", "--join", "2", "--out", str(out)) == said
    assert out.read_bytes() == one
    wrong_join = run("recommend-all", "--join", "2", "--out", str(out), "--exclude", "a")
    assert "leave out --exclude" in str(wrong_join.exception)
    some = pq.read_table(out).slice(8, 3)
    some.to_pandas().to_csv(tmp_path / "some.csv", index=False)
    best = some["item_id"][0].as_py()
    outcome(*arguments, "--users", str(tmp_path / "some.csv"), "--exclude", best)
    found = pq.read_table(out)
    assert found["user_id"].to_pylist() == [some["user_id"][0].as_py()] * 4
    assert found["item_id"].to_pylist()[:2] == some["item_id"].to_pylist()[1:]
    for wrong, why in (("--shard=2", "as 2/4"), ("--where=colour", "an attribute and its values")):
        assert why in str(run(*arguments, wrong).exception)


def test_recommend_asks_a_running_server(built: Path, tmp_path: Path) -> None:
    shop = generate(users=200, items=80, events=3000, seed=2)
    most = np.argsort(-np.bincount(shop.items), kind="stable")[:3]  # which every model knows
    items = [str(i) for i in shop.item_ids[most]]
    titles = tmp_path / "movies.csv"
    titles.write_text(
        "movieId,title,genres\n" + "".join(f"{i},Film {i},x\n" for i in shop.item_ids)
    )
    with serving(built / "repository") as url:
        asked = ["recommend", "--url", url, "--history", ",".join(items)]
        answer = outcome(*asked, "-m", "sasrec", "--top-k", "4", "--titles", str(titles))
        assert len(answer["items"]) == 4
        assert not {i["item_id"] for i in answer["items"]} & set(items)
        assert all(i["title"] == f"Film {i['item_id']}" for i in answer["items"])
        rated = outcome(*asked, "-m", "mlink", "--ratings", "5,1,3", "--candidates", items[0])
        assert [i["item_id"] for i in rated["items"]] == items[:1]
        assert 0 <= rated["items"][0]["score"] <= 5
        shown = outcome("inspect", *where(built)[2:], "--url", url)
        serving_now = {entry["model"]: entry["serving"] for entry in shown}
        assert serving_now == {name: [1] for name in GRAPHS_OF_BOTH}
        cold = outcome("recommend", "--url", url, "-m", "sasrec", "--history", "?")
        assert cold["known_items"] == 0
        result = run(*asked, "-m", "sasrec_encoder")
        assert isinstance(result.exception, SeqrecError)


def test_ctrl_c_stops_cleanly_and_says_how_to_resume(tmp_path: Path) -> None:
    arguments = [
        "train",
        "-m",
        "caser",
        "--data",
        SHOP,
        "--set",
        "epochs=400",
        "--set",
        "patience=400",
        "--runs",
        str(tmp_path / "my runs"),
    ]
    command = [sys.executable, "-m", "seqrec_cli.main", *arguments]
    training = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    work = tmp_path / "my runs" / ".caser.training" / "checkpoints" / "last"
    deadline = time.monotonic() + 120
    while not work.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert work.exists(), "no epoch was finished in two minutes"
    training.send_signal(signal.SIGINT)
    _, said = training.communicate(timeout=60)
    assert training.returncode == 130
    pasted = shlex.split(said.rstrip().splitlines()[-1].partition("go on with: ")[2])
    assert pasted == ["seqrec-export", *arguments, "--resume"]
    assert "Traceback" not in said
    assert not (tmp_path / "my runs" / "caser").exists()


def test_every_option_has_help() -> None:
    for command in typer.main.get_command(app).commands.values():  # type: ignore[attr-defined]
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{command.name} {parameter.name}"
