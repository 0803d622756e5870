"""The gate: decides whether an exported model may be published, and writes down why.

For every graph it looks at the files, and raw requests of every kind are answered by PyTorch in
float64, by ONNX Runtime on the CPU, on CUDA if there is a device, and by a live Triton if one is
named. It writes parity.json and golden.json next to the ONNX file, report.html into the run's
folder, and after a failure repro/ there.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import onnxruntime
from torch.nn import Module

from seqrec_export.contract import USER_EMBEDDING, Graph, Tolerance
from seqrec_export.data.raw_requests import Request
from seqrec_export.errors import SeqrecError
from seqrec_export.exporting.exported import PARITY_FILE, Exported, Report, file_hashes
from seqrec_export.exporting.runtime import (
    RUNTIME_ERRORS,
    answer,
    cuda_session,
    feeds,
    session,
    why_no_cuda,
)
from seqrec_export.folders import remove, write_json
from seqrec_export.models.wire import HISTORY, QUERY
from seqrec_export.report.page import REPORT_FILE, ModelReport, write_report
from seqrec_export.training.train import library_versions
from seqrec_export.verification.cases import (
    CLASSES,
    Case,
    alone,
    among,
    cases,
    draw,
    every_id,
    rows_of,
    stack,
    why_not,
)
from seqrec_export.verification.filter_cases import Filters
from seqrec_export.verification.golden import GOLDEN_FILE, write_golden
from seqrec_export.verification.parity import (
    Comparison,
    Histogram,
    Problem,
    Tally,
    compare,
    no_answer,
)
from seqrec_export.verification.quality import shortfall
from seqrec_export.verification.reference import Answer, Extra, Provider, PyTorch, Reference
from seqrec_export.verification.reproduction import write_reproduction
from seqrec_export.verification.structure import Finding, check_files
from seqrec_export.verification.verdict import CPU, CUDA, CUDA_TF32, TORCH, Failure, Verdict

REPRODUCTIONS = "repro"
TF32_FACTOR = 1000.0  # times the tolerance: 10 bits of a factor, not 23; see bench/cuda/tf32.py
LEAST_RECALL = 0.999  # of what an exact search finds
_SWEEPS = 16  # requests for each input of ids that go through its vocabulary
_ROWS_BESIDE = 7
_REPRODUCED = 3  # failures a graph, of different checks
HELD_OUT, EVERY_ID, NEIGHBOURS = "held-out rows", "every id", "neighbours"


def verify(
    exported: Exported,
    *,
    seed: int = 0,
    extra: Extra | None = None,
    report: Report = lambda _: None,
) -> dict[str, Verdict]:
    """Compare every graph of an export; gives a verdict for each, also if it fails.

    `extra` is one more way of computing each graph, like `pipeline.on_triton`, and may raise.
    """
    run = exported.run
    remove(run.path / REPRODUCTIONS)
    torch_net = PyTorch(run.net, run.vocabularies)
    verdicts: dict[str, Verdict] = {}
    entries = []
    for name, graph in exported.graphs.items():
        report(f"verifying {name}")
        folder = exported.folder / name
        for earlier in (PARITY_FILE, GOLDEN_FILE):  # ONNX Runtime may end this process
            remove(folder / earlier)
        verdicts[name] = _Gate(exported, graph, torch_net, seed, extra).run()
        entries.append(verdicts[name].as_dict())
        write_json(folder / PARITY_FILE, entries[-1])
    title = f"{run.model.name}: parity, quality, training"
    short = shortfall(run.model.metric, run.metrics)
    shown = ModelReport.of(run.model, run.metrics, entries, shortfall=short)
    write_report(run.path / REPORT_FILE, title, [shown])
    return verdicts


def refused(exported: Exported, verdicts: Mapping[str, Verdict]) -> str:
    """What is wrong with the graphs that may not be published; empty if all may."""
    run, said = exported.run, []
    for verdict in verdicts.values():
        if not verdict.ok:
            shown = next((f for f in verdict.failures if f.reproduce), verdict.failures[0])
            said.append(f"{verdict.graph}: {shown}")
            if shown.reproduce:
                said[-1] += f", shown by {run.path / shown.reproduce}"
    if not said:
        return ""
    return (
        f"{run.model.name} does not answer as PyTorch does and is not published: "
        f"{'; '.join(said)}. All of it: {run.path / REPORT_FILE}"
    )


class _Gate:
    """The verification of one graph."""

    def __init__(
        self, exported: Exported, graph: Graph, net: PyTorch, seed: int, extra: Extra | None
    ) -> None:
        self.exported, self.graph, self.net, self.seed = exported, graph, net, seed
        self.extra = extra
        self.path = exported.model_file(graph.name)
        self.window = getattr(exported.run.config, "max_length", 1)
        self.rng = np.random.default_rng(seed)
        self.verdict = Verdict(graph=graph.name, tolerance=graph.tolerance)

    def run(self) -> Verdict:
        verdict, run = self.verdict, self.exported.run
        state = {**run.net.state_dict(), **self.graph.tables}
        if isinstance(search := self.graph.search(run.net), Module):
            state |= search.state_dict()
        verdict.findings, cpu_nodes = check_files(
            self.graph, self.path.parent, run.vocabularies, state
        )
        verdict.failures += [
            Failure(f.check, f.detail) for f in verdict.findings if f.status == "FAIL"
        ]
        verdict.notes = self._notes()
        providers = list(self._providers())
        if not any(provider.name == CPU for provider in providers):
            return verdict
        verdict.notes["cpu_nodes_on_cuda"] = cpu_nodes
        verdict.allowed = {provider.name: provider.tolerance for provider in providers}
        for case in cases(self.graph, self.window, self.rng):
            request = draw(self.graph, run.vocabularies, self.rng, case)
            self._compare(providers, case.name, str(case), request)
        for name in CLASSES:
            if reason := why_not(name, self.graph):
                verdict.skipped["all", name] = reason
        self._held_out(providers)
        self._every_id(providers)
        self._neighbours(providers)
        self._recall()
        if verdict.ok:
            write_golden(
                self.path.with_name(GOLDEN_FILE),
                self.graph,
                run.vocabularies,
                self.window,
                self.seed,
                providers[0].answer,
            )
        return verdict

    def _notes(self) -> dict[str, Any]:
        return {
            "model": self.exported.run.model.name,
            "seed": self.seed,
            "files": file_hashes(self.path.parent),
            "item_precision": self.graph.item_precision,
            "bytes": self.exported.size(self.graph.name),
            "versions": library_versions()
            | {"onnxruntime": onnxruntime.__version__, "python": platform.python_version()},
        }

    def _providers(self) -> Iterator[Provider]:
        strict, skipped = self.graph.tolerance, self.verdict.skipped
        loose = Tolerance(strict.atol * TF32_FACTOR, strict.rtol * TF32_FACTOR)
        began = time.perf_counter()
        yield from self._loaded(CPU, strict, partial(session, self.path))
        self.verdict.notes["load_seconds"] = round(time.perf_counter() - began, 4)
        if reason := why_no_cuda():
            skipped[CUDA, "all"] = skipped[CUDA_TF32, "all"] = reason
        else:
            yield from self._loaded(CUDA, strict, partial(cuda_session, self.path))
            yield from self._loaded(CUDA_TF32, loose, partial(cuda_session, self.path, tf32=True))
        if self.extra is None:
            skipped["Triton", "all"] = "no --url was given"
        else:
            yield self.extra(self.graph)

    def _loaded(
        self, name: str, tolerance: Tolerance, load: Callable[[], onnxruntime.InferenceSession]
    ) -> Iterator[Provider]:
        try:
            ask = partial(answer, load(), self.graph)
        except RUNTIME_ERRORS as error:
            self._fail("answers", f"{name} cannot load the file: {error}")
        else:
            yield Provider(name=name, answer=ask, tolerance=tolerance)

    def _compare(
        self, providers: list[Provider], case_class: str, case: str, request: Request
    ) -> None:
        reference = self.net.reference(self.graph, request)
        for i, provider in enumerate(providers):
            with self._kept_on_abort(provider, case, request, reference):
                got, comparison = self._ask(provider, request, reference)
            self._count(provider, case_class, case, comparison)
            if i == 0:
                self.verdict.torch_max_abs = max(
                    self.verdict.torch_max_abs, comparison.torch_max_abs
                )
                self._histogram(TORCH).add(comparison.torch_differences)
            if comparison.problems:
                self._record(provider, case, comparison.problems, request, reference, got)

    @contextmanager
    def _kept_on_abort(
        self, provider: Provider, case: str, request: Request, reference: Reference
    ) -> Iterator[None]:
        """A request stays in repro/ if ONNX Runtime aborts, as it does over a GRU of length 0."""
        if all(values.size for values in request.values()):
            yield
            return
        folder = self.exported.run.path / REPRODUCTIONS
        message = f"{provider.name} ended the process at: {case}"
        path = folder / f"{self.graph.name}-aborted.npz"
        script = write_reproduction(
            path, self.path, message, feeds(self.graph, request), reference, {}
        )
        yield
        remove(path)
        remove(script)
        if not any(folder.iterdir()):
            remove(folder)

    def _ask(
        self,
        provider: Provider,
        request: Request,
        reference: Reference,
        rows: slice = slice(None),
    ) -> tuple[Answer, Comparison]:
        """Ask the whole request and compare the answer to some of its rows."""
        try:
            got = rows_of(provider.answer(request), rows)
        except (*RUNTIME_ERRORS, SeqrecError) as error:
            return {}, no_answer(error)
        vocabularies, asked = self.exported.run.vocabularies, rows_of(request, rows)
        return got, compare(self.graph, vocabularies, asked, reference, got, provider.tolerance)

    def _count(
        self, provider: Provider, case_class: str, case: str, comparison: Comparison
    ) -> None:
        tally = self.verdict.tallies.setdefault((provider.name, case_class), Tally())
        tally.add(comparison, case)
        self._histogram(provider.name).add(comparison.differences)

    def _histogram(self, name: str) -> Histogram:
        return self.verdict.histograms.setdefault(name, Histogram())

    def _fail(self, check: str, message: str, **where: str) -> None:
        self.verdict.failures.append(Failure(check, message, **where))

    def _record(
        self,
        provider: Provider,
        case: str,
        problems: list[Problem],
        request: Request,
        reference: Reference,
        got: Answer,
    ) -> None:
        """Note failures; the first of each check with a request and a script that show it."""
        run = self.exported.run
        for problem in problems:
            shown = ""
            known = {f.check for f in self.verdict.failures if f.reproduce}
            if problem.check not in known and len(known) < _REPRODUCED:
                if problem.check != NEIGHBOURS:
                    smallest = self._smallest(provider, problem.check, request)
                    request, reference, got = smallest or (request, reference, got)
                message = f"{provider.name}, {case}: {problem.message}"
                script = write_reproduction(
                    run.path / REPRODUCTIONS / f"{self.graph.name}-{problem.check}.npz",
                    self.path,
                    message,
                    feeds(self.graph, request),
                    reference,
                    got,
                )
                shown = str(script.relative_to(run.path))
            where = {"provider": provider.name, "case": case, "reproduce": shown}
            self._fail(problem.check, problem.message, **where)

    def _smallest(
        self, provider: Provider, check: str, request: Request
    ) -> tuple[Request, Reference, Answer] | None:
        """The first row that fails alone too."""
        batch = len(request[self.graph.inputs[0].name])
        for row in range(batch):
            one = rows_of(request, slice(row, row + 1))
            reference = self.net.reference(self.graph, one)
            got, comparison = self._ask(provider, one, reference)
            if check in {problem.check for problem in comparison.problems}:
                return one, reference, got
        return None

    def _held_out(self, providers: list[Provider]) -> None:
        """Real rows: what held-out events were preceded by."""
        rows = list(self.exported.run.held_out)
        reason = "" if rows else "the run holds no held-out rows"
        names = {spec.name for spec in self.graph.inputs if not spec.narrows}
        encoder = self.exported.graphs.get(f"{self.exported.run.model.name}_encoder")
        if rows and USER_EMBEDDING in names and encoder is not None:
            vectors = self.net.answer(encoder, stack(encoder, rows))[USER_EMBEDDING]
            rows = [row | {USER_EMBEDDING: v} for row, v in zip(rows, vectors, strict=True)]
        if rows and QUERY.name in names and HISTORY.name in rows[0]:
            rows = [row | {QUERY.name: row[HISTORY.name][-1:]} for row in rows]
        if rows and not names <= rows[0].keys():
            reason = f"the log has no {', '.join(sorted(names - rows[0].keys()))}"
        if reason:
            self.verdict.skipped["all", HELD_OUT] = reason
            return
        for size in (1, 7, len(rows)):
            request = stack(self.graph, rows[:size])
            filters = Filters(HELD_OUT, len(rows[:size]), self.exported.run.vocabularies, self.rng)
            request |= {s.name: filters.draw(s) for s in self.graph.inputs if s.narrows}
            self._compare(providers, HELD_OUT, f"{HELD_OUT}, the first {size}", request)

    def _every_id(self, providers: list[Provider]) -> None:
        vocabularies, looked_up = self.exported.run.vocabularies, 0
        requests = every_id(self.graph, vocabularies, self.rng, self.window, _SWEEPS)
        for i, (request, new) in enumerate(requests):
            self._compare(providers, EVERY_ID, f"{EVERY_ID}, request {i}", request)
            looked_up += new
        total = sum(len(vocabularies[s.vocabulary]) for s in self.graph.inputs if s.vocabulary)
        self.verdict.notes["ids_looked_up"] = f"{looked_up} of {total}"

    def _neighbours(self, providers: list[Provider]) -> None:
        """Compare each row alone, and last among strangers, with the answer in its own batch."""
        sizes = {"batch": _ROWS_BESIDE, "length": self.window + 1, "candidates": 20}
        wild = "strange ids" if why_not("extreme numbers", self.graph) else "extreme numbers"
        for name in ("mixed ids", "mixed lengths"):
            if why_not(name, self.graph):
                continue
            request, strangers = (
                draw(self.graph, self.exported.run.vocabularies, self.rng, Case(name=n, **sizes))
                for n in (name, wild)
            )
            reference = self.net.reference(self.graph, request)
            for row in range(_ROWS_BESIDE):
                for asked in (alone(self.graph, request, row), among(request, strangers, row)):
                    batch = len(asked[self.graph.inputs[0].name])
                    case = f"{name}, one row in a batch of {batch}"
                    for provider in providers:
                        self._ask_last(provider, case, asked, reference.rows(slice(row, row + 1)))

    def _recall(self) -> None:
        """What share of the items of an exact search the graph found, if it may miss some."""
        tallies = self.verdict.tallies
        by_class = {
            "all cases": list(tallies.values()),
            HELD_OUT: [tally for (_, name), tally in tallies.items() if name == HELD_OUT],
        }
        for name, chosen in by_class.items():
            wanted = sum(tally.wanted for tally in chosen)
            if not wanted:
                continue
            recall = 1 - sum(tally.missed for tally in chosen) / wanted
            self.verdict.recall[name] = recall
            said = f"{recall:.5f} of {wanted:,} items ({name}), at least {LEAST_RECALL} is asked"
            passed = recall >= LEAST_RECALL
            self.verdict.findings.append(Finding("recall", "OK" if passed else "FAIL", said))
            if not passed:
                self._fail(
                    "recall",
                    f"int8 vectors find {said}; export with --item-precision float32",
                )

    def _ask_last(
        self, provider: Provider, case: str, request: Request, reference: Reference
    ) -> None:
        """Compare the answer to the last row of a request."""
        last = slice(len(request[self.graph.inputs[0].name]) - 1, None)
        got, comparison = self._ask(provider, request, reference, last)
        comparison.problems = [Problem(NEIGHBOURS, p.message) for p in comparison.problems]
        self._count(provider, NEIGHBOURS, case, comparison)
        self._record(provider, case, comparison.problems, request, reference, got)
