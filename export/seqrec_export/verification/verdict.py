"""What the gate found about one graph, as it goes into parity.json."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from seqrec_export.contract import Tolerance
from seqrec_export.verification.parity import HISTOGRAM_EDGES, Histogram, Tally
from seqrec_export.verification.structure import Finding

CPU, CUDA, CUDA_TF32 = "ONNX Runtime CPU", "ONNX Runtime CUDA", "ONNX Runtime CUDA, TF32"
TORCH = "PyTorch float32"
_FAILURES_TOLD = 20


@dataclass(frozen=True)
class Failure:
    """One thing that is wrong with a graph."""

    check: str
    message: str
    provider: str = ""
    case: str = ""
    reproduce: str = ""  # a script, relative to the run's folder

    def __str__(self) -> str:
        place = f" ({self.case}; {self.provider})" if self.case else ""
        return f"{self.check}: {self.message}{place}"


@dataclass(kw_only=True)
class Verdict:
    """What was found about one graph."""

    graph: str
    tolerance: Tolerance
    findings: list[Finding] = field(default_factory=list)
    tallies: dict[tuple[str, str], Tally] = field(default_factory=dict)  # (provider, case class)
    allowed: dict[str, Tolerance] = field(default_factory=dict)  # by provider
    skipped: dict[tuple[str, str], str] = field(default_factory=dict)  # and why
    failures: list[Failure] = field(default_factory=list)
    histograms: dict[str, Histogram] = field(default_factory=dict)  # by provider
    torch_max_abs: float = 0.0
    recall: dict[str, float] = field(default_factory=dict)  # if a search may miss items
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the graph may be published."""
        return not self.failures

    @property
    def cases(self) -> int:
        """Requests that were compared, on all providers."""
        return sum(tally.cases for tally in self.tallies.values())

    def largest(self, provider: str = "") -> Tally:
        """The case class with the largest difference."""
        found = [t for (p, _), t in self.tallies.items() if provider in ("", p)]
        return max(found, key=lambda tally: tally.max_abs, default=Tally())

    def skipped_providers(self) -> list[str]:
        """What the graph was not tried on, and why."""
        return [
            f"skipped: {provider}: {reason}"
            for (provider, case_class), reason in self.skipped.items()
            if case_class == "all"
        ]

    def as_dict(self) -> dict[str, Any]:
        """For parity.json and `--json`."""
        return {
            "graph": self.graph,
            "ok": self.ok,
            **self.notes,
            "reference": "PyTorch float64 on the weights of the run",
            "tolerance": {"atol": self.tolerance.atol, "rtol": self.tolerance.rtol},
            "cases": self.cases,
            "max_abs_diff": self.largest(CPU).max_abs,
            "max_rel_diff": max(
                (t.max_rel for (p, _), t in self.tallies.items() if p == CPU), default=0.0
            ),
            "torch_max_abs_diff": self.torch_max_abs,
            "recall": self.recall,
            "checks": [
                {"check": f.check, "status": f.status, "detail": f.detail} for f in self.findings
            ],
            "results": list(self._results()),
            "differences": {
                "log10_edges": list(HISTOGRAM_EDGES),
                "counts": {name: h.counts.tolist() for name, h in self.histograms.items()},
                "zero": {name: h.zero for name, h in self.histograms.items()},
            },
            "failures": [
                {
                    "check": f.check,
                    "provider": f.provider,
                    "case": f.case,
                    "message": f.message,
                    "reproduce": f.reproduce,
                }
                for f in self.failures[:_FAILURES_TOLD]
            ],
        }

    def _results(self) -> Iterator[dict[str, Any]]:
        for (provider, case_class), tally in self.tallies.items():
            yield {
                "provider": provider,
                "case_class": case_class,
                "status": "FAIL" if tally.failed else "OK",
                "cases": tally.cases,
                "failed": tally.failed,
                "atol": self.allowed[provider].atol,
                "rtol": self.allowed[provider].rtol,
                "max_abs_diff": tally.max_abs,
                "max_rel_diff": tally.max_rel,
                "where": tally.where,
            }
        for (provider, case_class), reason in self.skipped.items():
            yield {
                "provider": provider,
                "case_class": case_class,
                "status": "SKIPPED",
                "reason": reason,
            }
