"""Reports written from made-up results, and read as a strict browser would."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from seqrec_export.report.page import ModelReport, write_report

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
