"""One page on which to decide whether models go live: parity, differences, training, quality.

It is made from metrics.json and parity.json alone, loads nothing and runs no script. The template
lays it out; the functions here find what it says and where its plots put their marks.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from seqrec_export.folders import write_text

if TYPE_CHECKING:
    from seqrec_export.models.model import Model

REPORT_FILE = "report.html"

# One unit is one pixel on a phone that is 360 wide, so that text of size 12 is not tiny there.
FRAME = {"width": 336, "height": 200, "left": 64, "right": 322, "top": 24, "bottom": 160}
LABEL_LETTERS = 8  # of a label next to the vertical axis; a longer one is set narrower
_ZERO = 20  # the width of the bin for differences of 0, which are not on a logarithmic axis
_LOGS = FRAME["left"] + 38  # where the bins after it begin

Json = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ModelReport:
    """What the page needs of one model."""

    name: str
    metrics: Json  # the content of metrics.json
    headline: tuple[str, ...]
    monitor: str
    mode: Literal["min", "max"]  # what is better for `monitor`
    graphs: Sequence[Json]  # the content of each graph's parity.json
    shortfall: str = ""  # why it is not published unless that is accepted

    @classmethod
    def of(
        cls, model: Model, metrics: Json, graphs: Sequence[Json], *, shortfall: str = ""
    ) -> Self:
        """What the page needs of one model, from its metrics.json and its graphs' parity.json."""
        return cls(
            name=model.name,
            metrics=metrics,
            headline=model.metric.headline,
            monitor=model.metric.name,
            mode=model.metric.direction,
            graphs=graphs,
            shortfall=shortfall,
        )

    @classmethod
    def read(cls, name: str, metrics: Json, graphs: Sequence[Json]) -> Self:
        """The same of a model that is not at hand, by what its metrics.json says."""
        figures = metrics.get("figures", {})
        return cls(
            name=name,
            metrics=metrics,
            headline=tuple(figures.get("headline", ())),
            monitor=figures.get("monitor", ""),
            mode=figures.get("mode", "max"),
            graphs=graphs,
        )


def write_report(path: Path, title: str, models: Sequence[ModelReport]) -> None:
    """Write the page, self-contained HTML, to `path`."""
    page = _template().render(
        title=title,
        models=models,
        graphs=[graph for model in models for graph in model.graphs],
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        frame=FRAME,
        label_letters=LABEL_LETTERS,
    )
    write_text(path, page.strip() + "\n")


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    findings = (status, failures, worst, untried, merged, ahead, other_figures, best_epoch)
    plots_and_texts = (histogram, curve, difference, figure, change, size, duration, breakable)
    environment.filters |= {f.__name__: f for f in (*findings, *plots_and_texts)}
    return environment.get_template("report.html.j2")


def failures(graph: Json) -> list[Json]:
    """What is wrong with a graph; not empty if its parity.json says anywhere that it failed."""
    if graph["failures"]:
        return list(graph["failures"])
    failed = [row for row in (*graph["checks"], *graph["results"]) if row["status"] == "FAIL"]
    if not failed and not graph["ok"]:
        failed = [{"detail": "parity.json says that the graph failed, but not why"}]
    return [
        {
            "check": row.get("check") or "results",
            "provider": row.get("provider"),
            "case": row.get("case_class"),
            "message": row.get("detail") or row.get("reason") or "parity.json does not say why",
        }
        for row in failed
    ]


def status(graph: Json) -> Literal["OK", "FAIL", "SKIPPED"]:
    """SKIPPED if nothing failed because nothing was compared."""
    if failures(graph):
        return "FAIL"
    return "OK" if any(row["status"] == "OK" for row in graph["results"]) else "SKIPPED"


def worst(graph: Json) -> Json | None:
    """The row of the results that the graph's largest difference is from."""
    rows = (row for row in graph["results"] if row.get("cases"))
    return next((row for row in rows if row["max_abs_diff"] == graph["max_abs_diff"]), None)


def untried(graphs: Iterable[Json]) -> dict[tuple[str, str], int]:
    """(Provider that was skipped as a whole, why) -> on how many graphs."""
    found = Counter(
        reason
        for graph in graphs
        for reason in {
            (row["provider"], row.get("reason") or "no reason was left")
            for row in graph["results"]
            if row["status"] == "SKIPPED" and row["case_class"] == "all"
        }
    )
    return dict(sorted(found.items()))


def merged(entries: Iterable[Json]) -> dict[str, str]:
    """Several {library: version} as one; if versions differ, it names each."""
    found: dict[str, dict[str, None]] = {}
    for entry in entries:
        for name, version in entry.items():
            found.setdefault(name, {})[str(version)] = None
    return {name: " / ".join(versions) for name, versions in sorted(found.items())}


def ahead(model: ModelReport) -> list[str]:
    """The baselines that beat the model on test data, in the figure that chose its epoch."""
    own = _finite(model.metrics["test"].get(model.monitor))
    if own is None:
        return []
    found = {n: _finite(m.get(model.monitor)) for n, m in model.metrics["baselines"].items()}
    return [n for n, v in found.items() if v is not None and _sign(model) * (v - own) > 0]


def other_figures(model: ModelReport) -> list[str]:
    """The names of the test figures that are not headlines."""
    tests = (model.metrics["test"], *model.metrics["baselines"].values())
    return [n for n in dict.fromkeys(n for test in tests for n in test) if n not in model.headline]


def best_epoch(model: ModelReport) -> int | None:
    """Which entry of the curve holds the best of what is monitored; of equal ones, the first."""
    values = enumerate(_finite(entry.get(model.monitor)) for entry in model.metrics["curve"])
    known = {i: value for i, value in values if value is not None}
    return max(known, key=lambda i: _sign(model) * known[i], default=None)


def _sign(model: ModelReport) -> int:
    return 1 if model.mode == "max" else -1


def _finite(value: Any) -> float | None:
    """The number; None for NaN, for an infinity, and for their forms in JSON."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A point of a plot, or of one axis."""

    x: float = 0.0
    y: float = 0.0
    label: str


@dataclass(frozen=True, kw_only=True)
class Bar(Mark):
    """One provider's share of a bin, from `y` down to the axis."""

    width: float
    series: int


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """How many differences are how large, by provider; both axes are logarithmic."""

    x_ticks: list[Mark]
    y_ticks: list[Mark]
    bars: list[Bar]
    tolerance: Mark | None
    legend: list[tuple[str, int, int]]  # provider, values, of which differ by 0


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One figure over the epochs, which count from 1 as `train` shows them."""

    x_ticks: list[Mark]
    y_ticks: list[Mark]
    lines: list[list[Mark]]  # broken at epochs without a number
    baselines: list[Mark]  # horizontal lines
    best: Mark | None
    missing: int


def histogram(graph: Json) -> Histogram | None:
    """The histogram; None if no numbers were compared."""
    edges, counts = graph["differences"]["log10_edges"], graph["differences"]["counts"]
    # The bin of the differences of 0 comes first.
    series = {n: [graph["differences"]["zero"].get(n, 0), *bins] for n, bins in counts.items()}
    peak = max((max(bins) for bins in series.values()), default=0)
    if not peak:
        return None
    atol = graph["tolerance"]["atol"]
    limits = [*edges, math.log10(atol)] if atol > 0 else edges
    low, high = min(limits), max(limits)
    x = scale(low, high, _LOGS, FRAME["right"])
    y = scale(0, math.log10(1 + peak), FRAME["bottom"], FRAME["top"])
    left = float(FRAME["left"])
    places = [(left, left + _ZERO, "0")]
    places += [(x(a), x(b), f"{_label(10.0**a)} to {_label(10.0**b)}") for a, b in pairwise(edges)]
    bars = []
    for number, (name, bins) in enumerate(series.items()):
        for (begin, end, what), count in zip(places, bins, strict=True):
            width = 0.9 * (end - begin) / len(series)
            text = f"{name}: {count:,} differ by {what}"
            at = Mark(x=round(begin + number * width, 1), y=y(math.log10(1 + count)), label=text)
            if count:
                bars.append(Bar(**vars(at), width=round(width, 1), series=number))
    every = max(1, math.ceil((high - low) / 4))
    decades = range(math.ceil(low), math.floor(high) + 1, every)
    powers = range(0, int(math.log10(peak)) + 1, max(1, round(math.log10(peak) / 4)))
    return Histogram(
        x_ticks=[
            Mark(x=left + _ZERO / 2, label="0"),
            *(Mark(x=x(e), label=_label(10.0**e)) for e in decades),
        ],
        y_ticks=[Mark(y=y(math.log10(1 + 10**p)), label=_label(10.0**p)) for p in powers],
        bars=bars,
        tolerance=Mark(x=x(math.log10(atol)), label=difference(atol, 3)) if atol > 0 else None,
        legend=[(name, sum(bins), bins[0]) for name, bins in series.items()],
    )


def curve(model: ModelReport, name: str) -> Curve | None:
    """The plot of one figure of the training curve; None if no epoch holds a number."""
    entries = model.metrics["curve"]
    values = [_finite(entry.get(name)) for entry in entries]
    known = [value for value in values if value is not None]
    if not known:
        return None
    numbered = [_finite(entry.get("epoch")) for entry in entries]
    epochs = [1 + (i if epoch is None else epoch) for i, epoch in enumerate(numbered)]
    first, last = min(epochs) - 0.5, max(epochs) + 0.5
    x = scale(first, last, FRAME["left"], FRAME["right"])
    others = model.metrics.get("validation_baselines", {}) if name == model.monitor else {}
    found = {n: _finite(figures.get(name)) for n, figures in others.items()}
    levels = {n: value for n, value in found.items() if value is not None}
    shown = [*known, *levels.values()]
    heights = ticks(*widened(min(shown), max(shown)))
    y = scale(heights[0], heights[-1], FRAME["bottom"], FRAME["top"])
    best, chosen = None, best_epoch(model)
    lines: list[list[Mark]] = [[]]
    for i, (epoch, value) in enumerate(zip(epochs, values, strict=True)):
        if value is None:
            lines.append([])
            continue
        mark = Mark(x=x(epoch), y=y(value), label=f"epoch {epoch:g}: {figure(value)}")
        lines[-1].append(mark)
        best = mark if i == chosen else best
    whole = [epoch for epoch in ticks(first, last, least=1) if first <= epoch <= last]
    return Curve(
        x_ticks=[Mark(x=x(epoch), label=f"{epoch:g}") for epoch in whole],
        y_ticks=[Mark(y=y(height), label=_label(height)) for height in heights],
        lines=[line for line in lines if line],
        baselines=[Mark(y=y(v), label=f"{n}: {figure(v)}") for n, v in levels.items()],
        best=best,
        missing=len(values) - len(known),
    )


def scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Maps low..high to start..end, in tenths of a pixel."""
    return lambda value: round(start + (value - low) / (high - low) * (end - start), 1)


def widened(low: float, high: float) -> tuple[float, float]:
    """The range, or one around it if it is too narrow for an axis."""
    largest = max(abs(low), abs(high))
    if high - low > max(1e-4 * largest, 1e-12):
        return low, high
    margin = 0.1 * largest if largest > 1e-12 else 1.0
    return low - margin, high + margin


def ticks(low: float, high: float, least: float = 0.0) -> list[float]:
    """Three to six round numbers, at least `least` apart, that enclose low..high."""
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = max(least, next((m * power for m in (1, 2, 5) if m * power >= rough), 10 * power))
    return [k * step for k in range(math.floor(low / step), math.ceil(high / step) + 1)]


def _label(value: float) -> str:
    return _tidy(f"{value:.6g}")


def _tidy(text: str) -> str:
    """1.0e-06 -> 1e-6."""
    mantissa, e, exponent = text.partition("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if e and "." in mantissa else mantissa
    return f"{mantissa}e{int(exponent)}" if e else text


def difference(value: Any, digits: int = 1) -> str:
    """A difference or a tolerance, as 1.2e-6."""
    if value is None:
        return "–"
    return _tidy(f"{float(value):.{digits}e}") if value else "0"


def figure(value: Any) -> str:
    """A metric, with four decimals unless it is a count."""
    number = _finite(value)
    if number is None:
        return "–" if value is None else str(value)
    if number.is_integer() and abs(number) < 1e9:
        return f"{number:,.0f}"
    return f"{number:.4f}" if 1e-3 <= abs(number) < 1e9 else _tidy(f"{number:.2e}")


def change(value: Any, baseline: Any) -> str:
    """By how much a figure is above or below a baseline's; empty if that has no meaning."""
    own, other = _finite(value), _finite(baseline)
    return f"{100 * (own - other) / abs(other):+,.0f} %" if own is not None and other else ""


def size(number: int | None) -> str:
    """Bytes, as KB or MB of 1000."""
    if number is None:
        return "–"
    return f"{number / 1e6:,.1f} MB" if number >= 1e6 else f"{number / 1e3:.1f} KB"


def duration(seconds: float | None) -> str:
    """Seconds, as ms, s or min."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{1000 * seconds:.{0 if seconds >= 0.01 else 1}f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def breakable(name: str) -> Markup:
    """A name that may be broken after an underscore, for narrow columns."""
    return Markup("_<wbr>").join(name.split("_"))
