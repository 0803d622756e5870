"""The page on which one decides: it tells what the files say, to anyone, on any screen."""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrec_export.report.page import ModelReport, change, difference, duration, figure, size
from support.pages import (
    BLOCKS,
    CPU,
    CUDA,
    EDGES,
    EVIL,
    FAILURE,
    TORCH,
    Node,
    curve,
    failed,
    graph,
    model,
    page,
    plots,
    row,
    skipped,
    verdict,
    within,
)

ANY_PAGE = {
    "passed": (model(graph()),),
    "failed": (model(graph(), failed()),),
    "two models": (model(graph()), replace(model(failed()), name="other")),
    "no graph": (model(),),
    "no model": (),
    "no curve": (model(graph(), curve=[]),),
    "one epoch": (model(graph(), curve=curve(0.5)),),
    "no numbers": (model(graph(), curve=curve(None, math.nan, "NaN", math.inf)),),
    "no baselines": (model(graph(), baselines={}),),
    "evil": (model(graph(graph=EVIL, model=EVIL)),),
}


@pytest.fixture(params=ANY_PAGE.values(), ids=ANY_PAGE.keys())
def any_page(request: pytest.FixtureRequest, folder: Path) -> Node:
    return page(folder, *request.param)


def test_a_browser_has_nothing_to_repair(any_page: Node) -> None:
    for paragraph in any_page.all("p"):
        assert not [n.tag for n in paragraph.all(*BLOCKS)]
    ids = [n.attributes["id"] for n in any_page.all() if "id" in n.attributes]
    assert len(set(ids)) == len(ids)
    for table in any_page.all("table"):
        wide = {
            sum(int(c.attributes.get("colspan", 1)) for c in r.all("td", "th"))
            for r in table.all("tr")
        }
        assert len(wide) == 1


def test_the_page_loads_nothing_and_runs_nothing(any_page: Node) -> None:
    assert not list(any_page.all("script", "link", "iframe", "object", "embed", "img", "base"))
    ids = {n.attributes.get("id") for n in any_page.all()}
    for node in any_page.all():
        assert not {"src", "srcset", "action", "style", "xlink:href"} & node.attributes.keys()
        assert not [name for name in node.attributes if name.startswith("on")]
        if "href" in node.attributes:
            assert node.attributes["href"].removeprefix("#") in ids
    style = next(iter(any_page.all("style"))).text
    assert "url(" not in style
    assert "@import" not in style


def test_a_phone_shows_it_without_zooming(any_page: Node) -> None:
    viewport = [n for n in any_page.all("meta") if n.attributes.get("name") == "viewport"]
    assert "width=device-width" in viewport[0].attributes["content"]
    for table in any_page.all("table"):
        assert table.parent
        assert table.parent.attributes["class"] == "scroll"
    style = next(iter(any_page.all("style"))).text
    sizes = re.findall(r"font-size: ([\d.]+)(rem|px)", style)
    assert len(sizes) > 3
    assert min(float(n) * (16 if unit == "rem" else 1) for n, unit in sizes) >= 12
    for plot in plots(any_page):  # wider ones would shrink their text
        assert float(plot.attributes["viewbox"].split()[2]) <= 336


def test_text_stands_out_in_light_and_in_dark(folder: Path) -> None:
    def luminance(colour: str) -> float:
        digits = colour * 2 if len(colour) == 3 else colour
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(a: str, b: str) -> float:
        low, high = sorted((luminance(a), luminance(b)))
        return (high + 0.05) / (low + 0.05)

    style = next(iter(page(folder, model(graph())).all("style"))).text
    schemes = [
        dict(re.findall(r"--(\w+): #(\w+)", part))
        for part in re.findall(r":root \{(.+?)\}", style, re.S)
    ]
    assert len(schemes) == 2
    assert luminance(schemes[0]["page"]) > 0.5 > luminance(schemes[1]["page"])
    for scheme in schemes:
        for name in ("text", "soft", "ok", "fail", "skipped"):
            # WCAG 2.2, 1.4.3: text.
            assert contrast(scheme[name], scheme["page"]) >= 4.5
            assert contrast(scheme[name], scheme["card"]) >= 4.5
        for name in ("s0", "s1", "s2", "s3", "s4"):
            # WCAG 2.2, 1.4.11: graphics.
            assert contrast(scheme[name], scheme["page"]) >= 3


def test_every_graph_provider_class_and_check_is_told(folder: Path) -> None:
    graphs = [graph(), failed()]
    text = within(page(folder, model(*graphs)), "parity")
    for entry in graphs:
        assert entry["graph"] in text
        for result in entry["results"]:
            assert result["case_class"] in text
            assert result.get("reason", "") in text
            assert result["provider"].removeprefix("all") in text
        for check in entry["checks"]:
            assert f"{check['check']}: {check['detail']}" in text


def test_when_all_graphs_pass_the_verdict_says_so(folder: Path) -> None:
    found = verdict(page(folder, model(graph(), graph(graph="toy_scorer"))))
    assert found.attributes["class"] == "verdict ok"
    assert "All graphs OK: 2 of 2" in found.text
    assert "FAIL" not in found.text


def test_a_provider_that_was_not_tried_stands_in_the_verdict_with_its_reason(folder: Path) -> None:
    tried = graph(results=[row(CPU, "mixed ids")])
    text = verdict(page(folder, model(graph(), graph(), tried))).text
    assert f"{CUDA}: no CUDA device here (2 of 3 graphs)" in text
    assert "the graph takes no lists" not in text  # one class of cases is no provider


def test_a_failure_stands_on_top_with_its_message_and_its_script(folder: Path) -> None:
    root = page(folder, model(graph(), failed()))
    found = verdict(root)
    assert found.attributes["class"] == "verdict fail"
    assert "1 of 2 graphs failed" in found.text
    for told in ("toy / toy_scorer", *FAILURE.values()):
        assert told in found.text
    assert "toy_encoder" not in found.text.replace(FAILURE["reproduce"], "")
    opened = [n for n in root.all("details") if "open" in n.attributes]
    assert [FAILURE["message"] in n.text for n in opened] == [True]


def test_of_many_failures_the_top_shows_some_and_the_details_all(folder: Path) -> None:
    many = [FAILURE | {"message": f"wrong in place {i}."} for i in range(20)]
    root = page(folder, model(failed() | {"failures": many}))
    top = [one["message"] for one in many if one["message"] in verdict(root).text]
    assert 0 < len(top) < 6
    assert f"{20 - len(top)} more" in verdict(root).text
    assert all(one["message"] in within(root, "parity") for one in many)


@pytest.mark.parametrize(
    "entry",
    [
        graph(ok=False),
        graph(results=[row(CPU, "mixed ids"), row(CPU, "padding only", status="FAIL")]),
        graph(checks=[{"check": "axes", "status": "FAIL", "detail": "batch is fixed"}]),
        graph(failures=[FAILURE]),
    ],
    ids=["not ok", "a result", "a check", "a failure"],
)
def test_any_sign_of_failure_is_a_failure(folder: Path, entry: dict[str, Any]) -> None:
    found = verdict(page(folder, model(graph(), entry)))
    assert found.attributes["class"] == "verdict fail"
    assert "1 of 2 graphs failed" in found.text


@pytest.mark.parametrize(
    "models",
    [
        (),
        (model(),),
        (model(graph()), model()),
        (model(graph(), graph(results=[skipped(CPU, "all", "no time")], cases=0)),),
    ],
    ids=["no model", "no graph", "one model without", "one graph without"],
)
def test_what_was_not_compared_is_not_called_ok(
    folder: Path, models: tuple[ModelReport, ...]
) -> None:
    found = verdict(page(folder, *models))
    assert found.attributes["class"] == "verdict skipped"
    assert "All graphs OK" not in found.text


def test_a_graph_that_could_not_be_loaded_has_no_difference_of_0(folder: Path) -> None:
    nothing = {"log10_edges": EDGES, "counts": {}, "zero": {}}
    entry = failed(cases=0, max_abs_diff=0.0, max_rel_diff=0.0, torch_max_abs_diff=0.0)
    entry |= {"results": [], "differences": nothing}
    del entry["load_seconds"]
    root = page(folder, model(entry))
    summary = next(r for r in root.all("tr") if "toy_scorer" in r.text)
    assert [n.text for n in summary.all("td")].count("0") == 1  # the cases
    assert "No numbers were compared" in within(root, "differences")
    assert "–" in within(root, "sizes")


@pytest.mark.parametrize("nothing", [{}, dict.fromkeys(("cases", "max_abs_diff", "max_rel_diff"))])
def test_rows_without_numbers_are_shown(folder: Path, nothing: dict[str, None]) -> None:
    bare = {"provider": CPU, "case_class": "every id", "status": "FAIL", "where": None} | nothing
    entry = failed() | {"results": [bare]}
    assert "every id" in within(page(folder, model(entry)), "parity")


def poisoned(value: Any) -> Any:
    """The same with something evil in every string but the states, which the gate writes."""
    if isinstance(value, dict):
        return {k: v if k == "status" else poisoned(v) for k, v in value.items()}
    if isinstance(value, list):
        return [poisoned(v) for v in value]
    return value + EVIL if isinstance(value, str) else value


def test_names_ids_and_messages_are_only_ever_text(folder: Path) -> None:
    evil = poisoned(graph()) | {"versions": {EVIL: EVIL}, "files": {EVIL: EVIL}}
    evil["differences"] = {"log10_edges": EDGES, "counts": {EVIL: [1] * 24}, "zero": {EVIL: 1}}
    figures = {EVIL: 0.5, "hr@10": 0.5}
    report = replace(
        model(
            evil,
            poisoned(failed()),
            test=figures,
            baselines={EVIL: figures},
            notes=[EVIL],
            data={"source": EVIL, "fingerprint": EVIL},
            versions={EVIL: EVIL},
            ended=EVIL,
            curve=[{"epoch": 0.0, "loss": 1.0, EVIL: 0.5}],
            config={EVIL: EVIL},
        ),
        name=EVIL,
        monitor=EVIL,
        headline=("hr@10", EVIL),
    )
    bad, good = page(folder, report, title=EVIL), page(folder, model(graph(), failed()))
    assert not list(bad.all("script"))
    assert {n.tag for n in bad.all()} == {n.tag for n in good.all()}
    assert {a for n in bad.all() for a in n.attributes} <= {
        a for n in good.all() for a in n.attributes
    }
    said = verdict(bad).text
    for told in (FAILURE["message"] + EVIL, FAILURE["reproduce"] + EVIL):
        assert told in said
    for section in ("parity", "differences", "training", "quality", "sizes"):
        assert EVIL in within(bad, section)


def test_quality_shows_every_figure_of_the_model_and_its_baselines(folder: Path) -> None:
    report = model(graph())
    text = within(page(folder, report), "quality")
    for metrics in (report.metrics["test"], *report.metrics["baselines"].values()):
        for name, value in metrics.items():
            assert name in text
            assert figure(value) in text
    assert "popularity" in text
    assert "+100 %" in text  # hr@10 is twice that of popularity
    assert all(note in text for note in report.metrics["notes"])


@pytest.mark.parametrize(("mode", "value"), [("max", 0.2), ("min", 0.1)])
def test_a_baseline_that_beats_the_model_is_told_on_top(
    folder: Path, mode: Any, value: float
) -> None:
    baselines = {"popularity": {"ndcg@10": value}, "equal": {"ndcg@10": 0.125}, "nameless": {}}
    report = replace(model(graph(), baselines=baselines), mode=mode)
    assert "toy is behind popularity in ndcg@10" in verdict(page(folder, report)).text
    other = replace(report, mode="min" if mode == "max" else "max")
    assert "behind" not in verdict(page(folder, other)).text


def test_sixteen_graphs_on_five_providers_are_less_than_a_megabyte(folder: Path) -> None:
    providers = [CPU, CUDA, f"{CUDA}, TF32", "Triton at localhost:8001", TORCH]
    results = [row(p, f"class {c}", where="x" * 70) for p in providers for c in range(14)]
    differences = {
        "log10_edges": EDGES,
        "counts": dict.fromkeys(providers, [9] * 24),
        "zero": dict.fromkeys(providers, 9),
    }
    entry = graph(results=results, differences=differences)
    page(folder, *(model(*[entry] * 4, curve=curve(*[0.5] * 100)) for _ in range(4)))
    assert (folder / "report.html").stat().st_size < 1_000_000


def test_a_new_page_replaces_the_old_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    page(tmp_path, model(failed()))
    root = page(tmp_path, model(graph()))
    assert "failed" not in verdict(root).text
    assert [f.name for f in tmp_path.iterdir()] == ["report.html"]


@settings(derandomize=True, deadline=None, database=None)
@given(st.floats(1e-300, 1e300))
def test_a_difference_is_told_to_two_digits(value: float) -> None:
    assert float(difference(value)) == pytest.approx(value, rel=0.051)
    assert not re.search(r"e[+-]?0|\.0e|\+", difference(value).replace("e0", ""))


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (difference(1.2e-6), "1.2e-6"),
        (difference(5e-6, 3), "5e-6"),
        (difference(0.0), "0"),
        (difference(None), "–"),
        (difference("NaN"), "nan"),
        (figure(964.0), "964"),
        (figure(0.13658), "0.1366"),
        (figure(None), "–"),
        (size(381_844), "381.8 KB"),
        (size(12_345_678), "12.3 MB"),
        (duration(0.031), "31 ms"),
        (duration(42.95), "43.0 s"),
        (duration(5400), "90 min"),
        (change(0.1, 0.2), "-50 %"),
        (change(0.1, 0.0), ""),
        (change(None, 0.2), ""),
    ],
)
def test_numbers_are_told_as_a_reader_says_them(shown: str, text: str) -> None:
    assert shown == text
