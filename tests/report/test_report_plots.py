"""The plots of the page: inside their frame, and true to what they show."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from seqrec_export.report.page import best_epoch, histogram, ticks
from support.pages import CPU, EDGES, Node, curve, graph, model, page, plots, within


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
            wide = min(wide, float(node.attributes.get("textlength", wide)))
            before = {"end": wide, "middle": wide / 2}.get(
                node.attributes.get("text-anchor", ""), 0
            )
            assert x - before >= -2
            assert x - before + wide <= width + 2


few = settings(max_examples=40, derandomize=True, deadline=None, database=None)
LOSSES = st.floats(-1e30, 1e30) | st.floats(0, 10) | st.sampled_from([None, math.nan, math.inf])


@few
@given(values=st.lists(LOSSES, max_size=30))
@example(values=[0.0])
@example(values=[0.5] * 300)
@example(values=[5e-324, 0.0])
@example(values=[7.0000001, 7.0])
@example(values=[-1e30, 1e30])
@example(values=[-9.090909090909091e29])
@example(values=[-9.0909e-25, -9.0919e-25])
def test_a_curve_stays_inside_its_plot(folder: Path, values: list[float | None]) -> None:
    drawn = plots(page(folder, model(curve=curve(*values))))
    known = [v for v in values if v is not None and math.isfinite(v)]
    assert len(drawn) == (2 if known else 0)
    for plot in drawn:
        assert_inside(plot)
        assert sum(n.attributes["class"] == "point" for n in plot.all("circle")) == len(known)


COUNTS = st.lists(st.integers(0, 10**9), min_size=24, max_size=24)


@few
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


def test_baselines_of_the_validation_part_are_lines_under_the_curve(folder: Path) -> None:
    beside = {"popularity": {"ndcg@10": 0.05, "loss": 1.0}, "untrained": {"ndcg@10": math.nan}}
    root = page(folder, model(curve=curve(0.1, 0.2, 0.3), validation_baselines=beside))
    loss, monitored = plots(root)
    assert not [n for n in loss.all("line") if "baseline" in n.attributes["class"]]
    (line,) = [n for n in monitored.all("line") if "baseline" in n.attributes["class"]]
    assert line.attributes["y1"] == line.attributes["y2"]
    (points,) = [n.attributes["points"].split() for n in monitored.all("polyline")]
    heights = [float(point.split(",")[1]) for point in points]
    assert float(line.attributes["y1"]) > max(heights)  # lower on the page
    for plot in (loss, monitored):
        assert_inside(plot)
    assert "popularity: 0.05" in within(root, "training")


def test_before_the_export_the_page_tells_of_the_training_alone(folder: Path) -> None:
    root = page(folder, model())
    headings = [node.text for node in root.all("h2")]
    assert headings == ["Training", "Quality on held-out test data"]
    assert "all 3 epochs done" in within(root, "training")


def test_a_curve_is_broken_where_an_epoch_holds_no_number(folder: Path) -> None:
    root = page(folder, model(curve=curve(1.0, 2.0, None, 3.0, math.nan)))
    for plot in plots(root):
        assert [len(n.attributes["points"].split()) for n in plot.all("polyline")] == [2, 1]
    assert within(root, "training").count("Epochs without a number: 2") == 2


@few
@given(low=st.floats(-1e6, 1e6), span=st.floats(1e-3, 1e6))
def test_ticks_enclose_the_range_and_are_few(low: float, span: float) -> None:
    found = ticks(low, low + span)
    assert found[0] <= low + 1e-6 * span
    assert found[-1] >= low + span - 1e-6 * span
    assert 3 <= len(found) <= 6
