"""The page on which one decides: it tells what the files say, to anyone, on any screen."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from seqrec_export.report import (
    ModelReport,
    best_epoch,
    change,
    difference,
    duration,
    figure,
    histogram,
    size,
    ticks,
    write_report,
)

VOID = {"meta", "br", "wbr", "hr", "img", "link", "input"}
BLOCKS = {"p", "ul", "div", "table", "h1", "h2", "h3", "details", "figure", "section"}
CPU, CUDA, TORCH = "ONNX Runtime CPU", "ONNX Runtime CUDA", "PyTorch float32"
EDGES = [-12 + 0.5 * i for i in range(25)]
EVIL = """ü<script>alert('x')</script>"&amp;<b a='"""


@dataclass
class Node:
    tag: str
    attributes: dict[str, str]
    parent: "Node | None" = None
    children: list["Node | str"] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(c if isinstance(c, str) else c.text for c in self.children)

    def all(self, *tags: str) -> Iterator["Node"]:
        for child in self.children:
            if isinstance(child, Node):
                if not tags or child.tag in tags:
                    yield child
                yield from child.all(*tags)

    def above(self) -> Iterator["Node"]:
        if self.parent:
            yield self.parent
            yield from self.parent.above()


class Strict(HTMLParser):
    """Builds the tree, and takes no page that a browser would have to repair."""

    def __init__(self) -> None:
        super().__init__()
        self.root = self.at = Node("", {})

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute twice: {attrs}"
        node = Node(tag, {name: value or "" for name, value in attrs}, self.at)
        self.at.children.append(node)
        if tag not in VOID:
            self.at = node

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.at.tag == tag, f"</{tag}> closes <{self.at.tag}>"
        assert self.at.parent
        self.at = self.at.parent

    def handle_data(self, data: str) -> None:
        self.at.children.append(data)


def parse(text: str) -> Node:
    parser = Strict()
    parser.feed(text)
    parser.close()
    assert parser.at is parser.root, f"<{parser.at.tag}> is never closed"
    return parser.root


def row(provider: str, case_class: str, **changes: Any) -> dict[str, Any]:
    numbers = {"cases": 8, "max_abs_diff": 1e-7, "max_rel_diff": 2e-6, "where": "scores[0, 1]"}
    return {"provider": provider, "case_class": case_class, "status": "OK"} | numbers | changes


def skipped(provider: str, case_class: str, reason: str) -> dict[str, Any]:
    return {"provider": provider, "case_class": case_class, "status": "SKIPPED", "reason": reason}


def graph(**changes: Any) -> dict[str, Any]:
    counts = {CPU: [0] * 10 + [5, 90, 3] + [0] * 11, TORCH: [0] * 10 + [7, 88, 2] + [0] * 11}
    entry = {
        "model": "toy",
        "graph": "toy_encoder",
        "ok": True,
        "seed": 0,
        "files": {"model.onnx": "ab" * 32},
        "versions": {"torch": "2.13", "onnxruntime": "1.31"},
        "reference": "PyTorch float64",
        "tolerance": {"atol": 5e-6, "rtol": 1e-4},
        "cases": 16,
        "max_abs_diff": 4e-7,
        "max_rel_diff": 2e-6,
        "torch_max_abs_diff": 3e-7,
        "bytes": 123_456,
        "load_seconds": 0.031,
        "checks": [{"check": "axes", "status": "OK", "detail": "all are symbolic"}],
        "results": [
            row(CPU, "padding only"),
            row(CPU, "mixed ids", max_abs_diff=4e-7),
            skipped(CUDA, "all", "no CUDA device here"),
            skipped("all", "unequal lists", "the graph takes no lists"),
        ],
        "differences": {"log10_edges": EDGES, "counts": counts, "zero": {CPU: 12, TORCH: 9}},
        "failures": [],
    }
    return entry | changes


FAILURE = {
    "check": "values",
    "provider": CPU,
    "case": "padding only, batch 7, length 50",
    "message": "scores[3, 1] is 0.5 instead of 0.25",
    "reproduce": "repro/toy_encoder-values.py",
}


def failed(**changes: Any) -> dict[str, Any]:
    rows = [row(CPU, "padding only", status="FAIL"), row(CPU, "mixed ids")]
    return graph(ok=False, failures=[FAILURE], results=rows, graph="toy_scorer", **changes)


def model(*graphs: dict[str, Any], **metrics: Any) -> ModelReport:
    content = {
        "test": {"hr@10": 0.25, "ndcg@10": 0.125, "mrr": 0.0625, "targets": 964.0},
        "baselines": {"popularity": {"hr@10": 0.125, "ndcg@10": 0.05, "targets": 964.0}},
        "notes": ["17 users have a single event"],
        "data": {"source": "synthetic", "fingerprint": "cd" * 32},
        "versions": {"torch": "2.13"},
        "curve": [
            {"epoch": float(i), "loss": 3.0 - i, "ndcg@10": value}
            for i, value in enumerate((0.05, 0.125, 0.1))
        ],
        "ended": "all 3 epochs done",
        "seconds": 25.7,
        "config": {"dim": 64},
    }
    return ModelReport(
        name="toy",
        metrics=content | metrics,
        headline=("hr@10", "ndcg@10"),
        monitor="ndcg@10",
        mode="max",
        graphs=graphs,
    )


def curve(*values: Any) -> list[dict[str, Any]]:
    return [{"epoch": float(i), "loss": v, "ndcg@10": v} for i, v in enumerate(values)]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


def page(folder: Path, *models: ModelReport, title: str = "toy") -> Node:
    write_report(folder / "report.html", title, models)
    return parse((folder / "report.html").read_text(encoding="utf-8"))


def verdict(root: Node) -> Node:
    return next(n for n in root.all("div") if n.attributes.get("id") == "verdict")


def plots(root: Node) -> list[Node]:
    return [n for n in root.all("svg") if n.attributes.get("role") == "img"]


def within(root: Node, section: str) -> str:
    """The text from one heading to the next."""
    main = next(iter(root.all("main")))
    found, inside = "", False
    for child in main.children:
        if isinstance(child, Node) and child.tag == "h2":
            inside = child.attributes["id"] == section
        elif isinstance(child, Node) and inside:
            found += child.text
    return found


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


def numbers(node: Node) -> Iterator[tuple[str, float]]:
    for name, value in node.attributes.items():
        if name in ("x", "x1", "x2", "cx", "y", "y1", "y2", "cy"):
            yield name[-1] if name[0] == "c" else name[0], float(value)
    for point in node.attributes.get("points", "").split():
        yield from zip("xy", map(float, point.split(",")), strict=True)


def assert_inside(plot: Node) -> None:
    left, top, width, height = map(float, plot.attributes["viewbox"].split())
    assert (left, top) == (0, 0)
    for node in plot.all():
        for axis, value in numbers(node):
            assert 0 <= value <= (width if axis == "x" else height)
        if node.tag == "rect":
            assert float(node.attributes["width"]) > 0
            assert float(node.attributes["height"]) > 0
            right = float(node.attributes["x"]) + float(node.attributes["width"])
            bottom = float(node.attributes["y"]) + float(node.attributes["height"])
            assert right <= width
            assert bottom <= height
        if node.tag == "text":
            x, wide = float(node.attributes["x"]), 7.0 * len(node.text)  # of size 12
            before = {"end": wide, "middle": wide / 2}.get(
                node.attributes.get("text-anchor", ""), 0
            )
            assert x - before >= -2
            assert x - before + wide <= width + 2


LOSSES = st.floats(-1e30, 1e30) | st.floats(0, 10) | st.sampled_from([None, math.nan, math.inf])


@settings(max_examples=40, deadline=None)
@given(values=st.lists(LOSSES, max_size=30))
@example(values=[0.0])
@example(values=[0.5] * 300)
@example(values=[5e-324, 0.0])
@example(values=[7.0000001, 7.0])
@example(values=[-1e30, 1e30])
def test_a_curve_stays_inside_its_plot(folder: Path, values: list[float | None]) -> None:
    drawn = plots(page(folder, model(curve=curve(*values))))
    known = [v for v in values if v is not None and math.isfinite(v)]
    assert len(drawn) == (2 if known else 0)
    for plot in drawn:
        assert_inside(plot)
        assert sum(n.attributes["class"] == "point" for n in plot.all("circle")) == len(known)


COUNTS = st.lists(st.integers(0, 10**9), min_size=24, max_size=24)


@settings(max_examples=40, deadline=None)
@given(
    bins=st.lists(COUNTS, min_size=1, max_size=5),
    zero=st.integers(0, 10**9),
    atol=st.just(0.0) | st.floats(1e-15, 1e3),
)
def test_a_histogram_stays_inside_its_plot(
    folder: Path, bins: list[list[int]], zero: int, atol: float
) -> None:
    counts = {f"provider {i}": b for i, b in enumerate(bins)}
    differences = {"log10_edges": EDGES, "counts": counts, "zero": {"provider 0": zero}}
    entry = graph(differences=differences, tolerance={"atol": atol, "rtol": 0.0})
    drawn = plots(page(folder, model(entry, curve=[])))
    filled = sum(bool(count) for b in bins for count in b) + bool(zero)
    assert len(drawn) == bool(filled)
    for plot in drawn:
        assert_inside(plot)
        assert len(list(plot.all("rect"))) == filled


def test_bars_stand_on_the_right_side_of_the_tolerance_and_grow_with_their_count() -> None:
    counts = [2**i for i in range(24)]
    differences = {"log10_edges": EDGES, "counts": {CPU: counts}, "zero": {CPU: 0}}
    plot = histogram(graph(differences=differences, tolerance={"atol": 1e-5, "rtol": 0.0}))
    assert plot
    assert plot.tolerance
    below = [bar.x + bar.width <= plot.tolerance.x for bar in plot.bars]
    assert below == [edge <= -5 for edge in EDGES[1:]]
    heights = [bar.y for bar in plot.bars]
    assert heights == sorted(heights, reverse=True)
    assert len(set(heights)) == len(heights)


def test_providers_stand_side_by_side_in_each_bin() -> None:
    plot = histogram(graph())
    assert plot
    assert [(name, total, zero) for name, total, zero in plot.legend] == [
        (name, sum(bins) + zero, zero)
        for (name, bins), zero in zip(
            graph()["differences"]["counts"].items(), (12, 9), strict=True
        )
    ]
    first, second = ([b for b in plot.bars if b.series == series] for series in (0, 1))
    for one, other, after in zip(first, second, [*first[1:], None], strict=True):
        assert one.x + one.width <= other.x + 0.1  # both are rounded
        assert after is None or other.x + other.width <= after.x + 0.1


@pytest.mark.parametrize(("mode", "best"), [("max", 2), ("min", 3)])
def test_the_best_epoch_is_marked_in_both_plots(folder: Path, mode: Any, best: int) -> None:
    entries = curve(None, 0.75, 0.25, math.nan, 0.75, 0.25)
    for i, entry in enumerate(entries):
        entry["loss"] = 9.0 - i
    report = replace(model(curve=entries), mode=mode)
    assert best_epoch(report) == best - 1
    root = page(folder, report)
    captions = [n.text for n in root.all("figcaption")]
    assert [f"epoch {best}:" in caption for caption in captions] == [True, True]
    for plot in plots(root):
        circles = list(plot.all("circle"))
        marked = next(n for n in circles if n.attributes["class"] == "best")
        named = next(n for n in circles if f"epoch {best}:" in n.text)
        assert list(numbers(marked)) == list(numbers(named))


def test_a_curve_is_broken_where_an_epoch_holds_no_number(folder: Path) -> None:
    root = page(folder, model(curve=curve(1.0, 2.0, None, 3.0, math.nan)))
    for plot in plots(root):
        assert [len(n.attributes["points"].split()) for n in plot.all("polyline")] == [2, 1]
    assert within(root, "training").count("Epochs without a number: 2") == 2


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


@given(st.floats(1e-300, 1e300))
def test_a_difference_is_told_to_two_digits(value: float) -> None:
    assert float(difference(value)) == pytest.approx(value, rel=0.051)
    assert not re.search(r"e[+-]?0|\.0e|\+", difference(value).replace("e0", ""))


@given(low=st.floats(-1e6, 1e6), span=st.floats(1e-3, 1e6))
def test_ticks_enclose_the_range_and_are_few(low: float, span: float) -> None:
    found = ticks(low, low + span)
    assert found[0] <= low + 1e-6 * span
    assert found[-1] >= low + span - 1e-6 * span
    assert 3 <= len(found) <= 6


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
