"""Settings: of their type and in range, or one sentence; from --set, TOML and Python alike."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from seqrec_cli.main import app
from seqrec_cli.options import make_plan
from seqrec_export.errors import SeqrecError
from seqrec_export.models.registry import MODELS
from seqrec_export.models.settings import (
    SEED,
    TOP_K,
    Range,
    Setting,
    Settings,
    setting,
    settings_of,
)

EVERY = [(name, found) for name in MODELS for found in settings_of(MODELS[name].config).values()]
IDS = [f"{name}.{found.name}" for name, found in EVERY]
NUMBERS = [(name, found) for name, found in EVERY if found.kind in (int, float)]
WRONG_FOR_A_NUMBER = (math.nan, math.inf, -math.inf, 10**5000, -(10**30), "", "x", "64", True, None)
WRONG_FOR_ANY = ([], {}, [1], {"a": 1}, b"1", object())
VALUES = st.one_of(
    st.integers(),
    st.floats(),
    st.booleans(),
    st.text(st.characters(codec="utf-8"), max_size=100),
    st.sampled_from(["auto", "float32", "true", "False", "1e3", "1_0", "nan", "-inf", " 2 "]),
)
some = settings(max_examples=300, derandomize=True, deadline=None, database=None)


def refused(name: str, found: Setting, make: Any) -> None:
    """`make` raises one sentence with the setting and what is right."""
    with pytest.raises(SeqrecError) as caught:
        make()
    said = str(caught.value)
    assert f"{found.name} is " in said
    assert said.endswith(f"; give {found.allowed}")
    assert "\n" not in said
    assert len(said) < 300, name


def set_to(name: str, setting: str, text: str) -> Any:
    """What --set makes of it; there is no log, so it is not read."""
    return make_plan(
        models=[name], settings=[f"{name}.{setting}={text}"], data="table:there-is-none.csv"
    ).config(name)


def from_file(folder: Path, name: str, setting: str, value: str) -> Any:
    file = folder / "c.toml"
    file.write_text(f"[settings.{name}]\n{setting} = {value}\n", encoding="utf-8")
    return make_plan(models=[name], config=file).config(name)


@pytest.mark.parametrize(("name", "found"), EVERY, ids=IDS)
def test_every_setting_says_what_it_means_and_which_numbers_are_right(
    name: str, found: Setting
) -> None:
    assert found.help
    assert (found.range is not None) == (found.kind in (int, float))
    assert found.checked(found.default) == found.default


@pytest.mark.parametrize(
    ("name", "found"), NUMBERS, ids=[f"{name}.{found.name}" for name, found in NUMBERS]
)
def test_a_number_beyond_its_range_is_refused_wherever_it_comes_from(
    name: str, found: Setting, tmp_path: Path
) -> None:
    span = found.range
    assert span is not None
    step = 1 if found.kind is int else 1e-6
    beyond = [
        span.low if span.above else span.low - step,
        span.high if span.below else span.high + max(step, span.high * 1e-6),
        -1,
        1e300,
    ]
    if found.kind is int:
        beyond = [math.floor(beyond[0]), math.ceil(beyond[1]), -1, span.low + 0.5]
    for value in beyond:
        refused(name, found, lambda value=value: MODELS[name].config(**{found.name: value}))
        refused(name, found, lambda value=value: set_to(name, found.name, repr(value)))
        refused(name, found, lambda value=value: from_file(tmp_path, name, found.name, repr(value)))
    # The ends that belong to it are right. (One head divides every dim.)
    rest = {} if name != "sasrec" or found.name == "num_heads" else {"num_heads": 1}
    if found.name == "num_heads":
        rest = {"dim": 1024}
    for end in (span.low if not span.above else None, span.high if not span.below else None):
        if end is not None:
            config = MODELS[name].config(**{found.name: end} | rest)
            assert getattr(config, found.name) == end
            assert type(getattr(config, found.name)) is found.kind


@pytest.mark.parametrize(("name", "found"), EVERY, ids=IDS)
def test_a_value_of_another_type_is_refused_wherever_it_comes_from(
    name: str, found: Setting, tmp_path: Path
) -> None:
    wrong = [*WRONG_FOR_ANY, *(WRONG_FOR_A_NUMBER if found.kind is not bool else (0, 1, "true"))]
    for value in wrong:
        refused(name, found, lambda value=value: MODELS[name].config(**{found.name: value}))
        refused(
            name, found, lambda value=value: replace(MODELS[name].config(), **{found.name: value})
        )
    for text in (
        "",
        " ",
        "x",
        "nan",
        "inf",
        "-inf",
        "1e999",
        "9" * 5000,
        "[1]",
        "None",
        "1,2",
        "²",
    ):
        refused(name, found, lambda text=text: set_to(name, found.name, text))
    for value in ('""', '"x"', '"64"', "[1]", "{a = 1}", "nan", "-inf", "1979-05-27", "9e99"):
        refused(name, found, lambda value=value: from_file(tmp_path, name, found.name, value))


@some
@given(chosen=st.sampled_from(EVERY), value=VALUES)
@example(chosen=EVERY[0], value=64.0)
def test_a_config_holds_only_what_is_right_and_the_command_line_agrees(
    chosen: tuple[str, Setting], value: Any
) -> None:
    name, found = chosen

    def outcome(make: Any) -> Any:
        try:
            return getattr(make(), found.name)
        except SeqrecError as error:
            return str(error).rpartition("; give ")[2]

    held = outcome(lambda: MODELS[name].config(**{found.name: value}))
    if isinstance(value, str):
        held = outcome(lambda: set_to(name, found.name, value))
    elif type(value) is bool or found.kind is not bool:
        assert held == outcome(lambda: set_to(name, found.name, str(value)))
    if held == found.allowed or "multiple of num_heads" in str(held):
        return
    if found.kind in (int, float, bool):
        assert type(held) is found.kind
        assert found.range is None or held in found.range
    else:
        assert held in ("auto", "float32", "bfloat16")


def test_numbers_of_numpy_are_numbers() -> None:
    config = MODELS["caser"].config(dim=np.int64(7), dropout=np.float32(0.5), epochs=3.0)
    assert json.dumps([config.dim, config.dropout, config.epochs]) == "[7, 0.5, 3]"


def test_heads_that_do_not_divide_dim_are_refused_before_anything_is_read() -> None:
    with pytest.raises(SeqrecError, match="dim 64 is not a multiple of num_heads 3"):
        MODELS["sasrec"].config(dim=64, num_heads=3)
    with pytest.raises(SeqrecError, match="dim 64 is not a multiple of num_heads 3"):
        make_plan(models=["sasrec"], settings=["dim=64", "num_heads=3"], data="table:none.csv")


@dataclass(frozen=True, kw_only=True)
class OtherConfig(Settings):
    """With every type that an annotation may have, some of them in quotes."""

    widths: tuple[int, ...] = setting((64, 32), "of layers", Range(low=1, high=100))
    betas: "tuple[float, float]" = setting((0.9, 0.999), "of Adam", Range(low=0, high=1))
    limit: int | None = setting(None, "at most", Range(low=1, high=9))
    pooling: Literal["mean", "max", 2] = setting("mean", "of states")
    note: str = setting("", "for people")
    epochs: "int" = 7


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("widths", "8, 4,2", (8, 4, 2)),
        ("betas", "0,1", (0.0, 1.0)),
        ("limit", "none", None),
        ("limit", "9", 9),
        ("pooling", "max", "max"),
        ("pooling", "2", 2),
        ("note", "a=b", "a=b"),
        ("epochs", "1e2", 100),
    ],
)
def test_types_are_those_of_the_annotations(name: str, text: str, value: Any) -> None:
    found = settings_of(OtherConfig)[name]
    assert found.parsed(text) == value
    assert found.checked(list(value) if isinstance(value, tuple) else value) == value
    assert getattr(OtherConfig(**{name: value}), name) == value
    assert found.help


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("widths", (8, 0), "several with commas between, each a whole number from 1 to 100"),
        ("widths", 8, "several with commas between, each a whole number from 1 to 100"),
        ("betas", (0.9,), "2 with commas between, each a number from 0 to 1"),
        ("betas", (0.9, math.nan), "2 with commas between, each a number from 0 to 1"),
        ("limit", 0, "a whole number from 1 to 9 or none"),
        ("pooling", "sum", "mean, max or 2"),
        ("note", 5, "a text"),
        ("epochs", 0, "a whole number from 1 to 100,000"),
    ],
)
def test_what_is_wrong_for_any_type_is_said(name: str, value: Any, allowed: str) -> None:
    found = settings_of(OtherConfig)[name]
    assert found.allowed == allowed
    refused("other", found, lambda: OtherConfig(**{name: value}))


def test_the_models_own_settings_come_first_and_a_plain_default_keeps_the_meaning() -> None:
    found = settings_of(OtherConfig)
    assert list(found)[:5] == ["widths", "betas", "limit", "pooling", "note"]
    assert found["epochs"].default == 7
    assert found["epochs"].help == settings_of(Settings)["epochs"].help


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models = 5", "models is 5"),
        ('models = ["sasrec", 5]', "models is ['sasrec', 5]"),
        ("models = []", "models is empty"),
        ('models = ""', "models is empty"),
        ('models = "nosuch"', "no model is called 'nosuch'"),
        ('seed = "x"', "seed is 'x'; give a whole number from 0 to 4,294,967,295"),
        ("seed = 1.5", "seed is 1.5"),
        ("seed = -1", "seed is -1"),
        ("seed = true", "seed is True"),
        (f"seed = {'9' * 5000}", "is not a TOML file"),
        ("top_k = 0", "top_k is 0; give a whole number from 1 to 1,000,000"),
        ("top_k = [5]", "top_k is [5]"),
        ('item_precision = "int4"', "item_precision is 'int4'; give float32 or int8"),
        ("item_precision = 8", "item_precision is 8"),
        ("runs = 3", "runs is 3; give a text"),
        ("repository = {}", "repository is {}"),
        ('repository = ""', "repository is empty"),
        ("data = 5", "data is 5"),
        ('data = ["a"]', "data is ['a']"),
        ('preset = ["ml-1m"]', "preset is ['ml-1m']"),
        ('preset = "nosuch"', "has no preset 'nosuch'"),
        ("columns = 5", "columns is 5; columns is a table of texts"),
        ("[columns]\nuser = 5", "columns is {'user': 5}"),
        ('columns = "user"', "--columns 'user': write it as"),
        ("settings = 3", "settings is 3; settings is a table of tables"),
        ("[settings]\ndim = 64", "settings has dim = 64; settings is a table of tables"),
        ("[[settings]]\ndim = 64", "settings is [{'dim': 64}]"),
        ("[settings.sasrec]\ndim = [64]", "sasrec.dim is [64]"),
        ("[settings.sasrec.dim]\nx = 1", "sasrec.dim is {'x': 1}"),
        ("[settings.sasrec]\nwidth = 64", "sasrec has no setting 'width'"),
        ("[settings.nosuch]\ndim = 64", "no model is called 'nosuch'"),
        ("[settings.mlink]\nbatch_size = 1", "mlink.batch_size is 1; give a whole number from 2"),
        ("nosuch = 1", "sets 'nosuch'; it can set"),
        ("seed = ", "is not a TOML file"),
        ("x = " + "[" * 5000, "is not a TOML file"),
        ("# caf\xe9", "is not UTF-8"),
    ],
)
def test_a_file_of_other_types_is_refused_in_one_sentence(
    text: str, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "c.toml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(SeqrecError) as caught:
        make_plan(config=file, models=None if "models" in text else ["sasrec"])
    assert said in str(caught.value)
    assert "c.toml" in str(caught.value) or "--columns" in said or "no " in said
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_a_file_that_can_be_understood_is(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('﻿models = "sasrec"\ncolumns = "user=uid"\nseed = 2\n', encoding="utf-8")
    plan = make_plan(config=file)
    assert (plan.models, dict(plan.columns), plan.seed) == (("sasrec",), {"user": "uid"}, 2)


@pytest.mark.parametrize(
    ("option", "kind"), [({"seed": -1}, SEED), ({"seed": 2**32}, SEED), ({"top_k": 0}, TOP_K)]
)
def test_seed_and_top_k_have_a_range_on_the_command_line(
    option: dict[str, int], kind: Setting
) -> None:
    ((name, value),) = option.items()
    with pytest.raises(SeqrecError) as caught:
        make_plan(**option)  # type: ignore[arg-type]
    said = f"--{name.replace('_', '-')} is {value}; give {kind.allowed}"
    assert str(caught.value) == said


@pytest.mark.parametrize("arguments", [["--preset", ""], ["--set", ""], ["--set", "=5"]])
def test_an_empty_word_is_no_default(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["train", "-m", "sasrec", "--data", "table:x", *arguments])
    assert isinstance(result.exception, SeqrecError)


@pytest.mark.parametrize("name", MODELS)
def test_models_shows_what_each_setting_may_be(name: str) -> None:
    result = CliRunner().invoke(app, ["models", name, "--json"])
    shown = {row["setting"]: row["allowed"] for row in json.loads(result.stdout)}
    assert shown == {n: found.allowed for n, found in settings_of(MODELS[name].config).items()}
    assert "from" in shown["batch_size"]
