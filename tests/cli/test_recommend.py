"""`recommend` asks what it was given, and prints what comes as it is."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from seqrec_cli.console import message, print_table
from seqrec_cli.lists import numbers, texts
from seqrec_cli.main import app
from seqrec_export.errors import SeqrecError
from seqrec_export.folders import read_json
from seqrec_export.serving.server import Server
from support.served import EMBEDDED

# What Rich would take for markup, an emoji, a link or a closing tag, and what a terminal obeys.
STRANGE = (
    "[red]rose",
    "item[bold]",
    "a:heart:b",
    "[/x]",
    "shoe[size=42]",
    "[link=http://x]y[/link]",
    r"\[b]",
    ":warning:",
    "[[a]]",
    "[@click=f()]z",
    "x,y",
    'say "hi"',
    "寿司",
)


@pytest.fixture(scope="module")
def url(tritons: Callable[[str], Server]) -> str:
    return tritons(EMBEDDED).grpc_url


def run(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["recommend", "--url", url, *arguments])


def answer(url: str, *arguments: str) -> Any:
    result = run(url, *arguments, "--json")
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("1193,661,914", ["1193", "661", "914"]),
        (" 1193 , a b ,914 ", ["1193", "a b", "914"]),
        ('"x,y","a, b",p', ["x,y", "a, b", "p"]),
        ('"x,y" , " p"', ["x,y", " p"]),
        ('"say ""hi""",5" nail', ['say "hi"', '5" nail']),
        ("a,,b,", ["a", "", "b", ""]),
        ("", []),
        (" ", []),
        ('""', [""]),
        ('["x,y", "a, b", 7, 1.50, null]', ["x,y", "a, b", "7", "1.50", ""]),
        ("[]", []),
        ('"[""a""]"', ['["a"]']),
        ("[red]rose,[/x]", ["[red]rose", "[/x]"]),
        ("[1],[2]", ["[1]", "[2]"]),
        (r"x\,y", ["x\\", "y"]),
        ('"a\nb"', ["a\nb"]),
    ],
)
def test_a_list_is_read_as_a_line_of_csv_or_as_json(written: str, meant: list[str]) -> None:
    assert texts("--history", [written]) == meant
    assert texts("--history", [written, "z"]) == [*meant, "z"]


@pytest.mark.parametrize("written", ['"x,y', '"a"b', 'x,"', '[["a"]]', "[true]", '[{"a": 1}]'])
def test_a_list_that_says_two_things_is_refused(written: str) -> None:
    with pytest.raises(SeqrecError, match="--history: "):
        texts("--history", [written])


def test_numbers_keep_their_places() -> None:
    read = numbers("--ratings", ["5,,-3.5,.5,1e2", "[4, null]"])
    assert repr(read) == "[5.0, nan, -3.5, 0.5, 100.0, 4.0, nan]"
    for wrong in ("1_0", "five", "4;5", "0x10"):
        with pytest.raises(SeqrecError, match="takes numbers"):
            numbers("--ratings", [wrong])


def test_ids_with_commas_and_spaces_are_asked(url: str) -> None:
    asked = ["-m", "mlink", "--history", "a", "--candidates"]
    found = answer(url, *asked, '"x,y"," p",a b,"[""1""]"')["items"]
    assert {item["item_id"] for item in found} == {"x,y", " p", "a b", '["1"]'}
    twice = answer(url, *asked, "x", "--candidates", '"x,y"')["items"]
    assert {item["item_id"] for item in twice} == {"x", "x,y"}


def test_an_id_of_the_catalogue_is_known_in_any_way_of_writing(url: str, repository: Path) -> None:
    item = read_json(repository / "sasrec" / "1" / "golden.json")["requests"][0]["outputs"]
    known = item["item_ids"]["data"][0]
    for written in (known, f" {known} ", f'"{known}"', json.dumps([known])):
        assert answer(url, "--history", written)["known_items"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-m", "mlink", "--history", "a", "--ratings", "1,2", "--candidates", "a"], "2 values"),
        (["-m", "gru4att", "--gap-days", "3"], "--gap-days has 1 values for the 0 ids"),
        (["-m", "mlink", "--history", "a"], "--candidates"),
        (["-m", "mlink", "--history", "a", "--candidates", ""], "--candidates"),
        (["-m", "sasrec", "--age", "3"], "takes no --age; it takes --history"),
        (["-m", "sasrec", "--history", "a", "--candidates", "b"], "takes no --candidates"),
        (["-m", "sasrec_encoder", "--history", "a"], "does not rank items"),
        (["-m", "sasrec_scorer", "--candidates", "a"], "ask sasrec"),
        (["-m", "two_tower", "--month", "3000000000"], "INT32"),
        (["-m", "two_tower", "--age", "1e39"], "FP32"),
        (["-m", "[/x]"], "[/x]"),
        (["--history", "a", "--allow", ""], "sasrec, --allow: found a list without a value"),
        (["--history", "a", "--where", "tags="], "--where tags=...: found a list without a value"),
        (["--where", "tags"], "--where tags: write an attribute and its values"),
        (
            ["--history", "a", "--where", "colour=red"],
            "sasrec does not filter by --where colour=...; it takes --exclude, --allow, "
            "--where garment_group_name=..., --where tags=..., --keep-seen",
        ),
        (["-m", "two_tower", "--user", "a", "--keep-seen"], "does not filter by --keep-seen"),
        (["-m", "mlink", "--history", "a", "--candidates", "a", "--allow", "a"], "mlink_filtered"),
        (["--similar-to", "a", "--history", "a"], "takes no --history; it takes --similar-to"),
        (["--similar-to", "a", "--keep-seen"], "does not filter by --keep-seen"),
    ],
)
def test_what_cannot_be_asked_is_said(url: str, arguments: list[str], said: str) -> None:
    result = run(url, *arguments)
    assert isinstance(result.exception, SeqrecError)
    assert said in str(result.exception)


def ids(found: Any) -> list[str]:
    return [item["item_id"] for item in found["items"]]


def test_filters_hold(url: str) -> None:
    first, second, *_ = ids(answer(url, "--history", "a"))
    asked = ["--history", first, "--allow", f"{first},{second}"]
    assert ids(answer(url, *asked)) == [second]
    assert set(ids(answer(url, *asked, "--keep-seen"))) == {first, second}
    assert first not in ids(answer(url, "--history", "a", "--exclude", first))
    tags = ["--where", "tags=tag 2", "--where", "tags=tag 3"]
    nothing = run(url, *asked, *tags, "--exclude", f"{first},{second}")
    assert "the model knows no item that may come back" in nothing.stderr


def test_similar_items_are_printed(url: str) -> None:
    first, second, *_ = ids(answer(url, "--history", "a"))
    found = answer(
        url, "--similar-to", f"{first},{second}", "--where", "tags=tag 2", "--top-k", "3"
    )
    assert found["known_items"] == 2
    assert found["model"] == "sasrec_similar_items"
    assert len(ids(found)) == 3
    assert not {first, second} & set(ids(found))


@pytest.mark.parametrize("top_k", ["0", "-1"])
def test_no_items_are_not_asked_for(top_k: str) -> None:
    assert run("127.0.0.1:1", "--top-k", top_k).exit_code == 2


def test_more_items_than_the_model_gives_are_not_kept_silent(url: str) -> None:
    result = run(url, "--history", "a", "--top-k", "100000")
    assert "items, as it was exported; --top-k asks for 100000" in result.stderr


def test_ids_and_titles_are_printed_as_they_are(url: str, tmp_path: Path) -> None:
    strange = [*STRANGE, "a" * 300]
    titles = tmp_path / "movies.csv"
    quoted = [item.replace('"', '""') for item in strange]
    titles.write_text(
        "movieId,title,genres\n" + "".join(f'"{item}","Film {item}",x\n' for item in quoted)
    )
    asked = ["-m", "mlink", "--history", "a", "--candidates", json.dumps(strange)]
    result = run(url, *asked, "--top-k", "100", "--titles", str(titles))
    assert result.exit_code == 0, result.exception
    lines = result.stdout.splitlines()
    for item in strange:
        assert any(f"│ {item} " in line and f"│ Film {item} " in line for line in lines), item


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_terminal_of_another_encoding_is_no_error(url: str, more: list[str]) -> None:
    asked = ["-m", "mlink", "--history", "a", "--candidates", "寿司,\N{SUSHI}", *more]
    command = [sys.executable, "-m", "seqrec_cli.main", "recommend", "--url", url, *asked]
    done = subprocess.run(
        command,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if more:
        found = {item["item_id"] for item in json.loads(done.stdout)["items"]}
        assert found == {"寿司", "\N{SUSHI}"}
    else:
        assert r"\u5bff\u53f8" in done.stdout


@pytest.mark.parametrize("fold", [True, False])
def test_no_table_reads_markup(fold: bool, capsys: pytest.CaptureFixture[str]) -> None:
    print_table("title [/x] :heart:", ("column [b]", "2"), [(s, s) for s in STRANGE], fold=fold)
    shown = capsys.readouterr().out
    for text in (*STRANGE, "title [/x] :heart:", "column [b]"):
        assert text in shown


def test_what_a_terminal_would_obey_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("a\x1b[31m", ("b\r",), [("c\nd\x9b1m\u202e\ud800",)])
    shown = capsys.readouterr().out
    for text in (r"a\x1b[31m", r"b\r", r"c\nd\x9b1m\u202e\ud800"):
        assert text in shown
    assert message("two\nlines\x07") == "two\nlines\\x07"
