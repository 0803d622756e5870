"""The requests of harness/fuzz_cases.py for as long as you like, next to a stream of good ones.

    GOMP_SPINCOUNT=1000 python -m bench.survival.fuzz [--minutes 10] [--seed 0] [--runs FOLDER]
    GOMP_SPINCOUNT=1000 python -m bench.survival.fuzz --leaving 20000

Rounds of 2,500 requests to one server that serves every graph; after each, how they ended, what was
wrong, and the memory of the server and its backends. With `--leaving`, so many callers that leave
before the answer instead, to a server that is started again when it died. Exits 1 if a request
ended in any other way than fuzz_cases.py says, a good one failed, or a process ended.
`--runs` keeps the small models that are trained first.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from bench.harness.fuzz_cases import LEAVING_CASES, STAYING_CASES
from bench.harness.fuzzing import Fuzzer, good_asks, plan, summary
from bench.harness.load import Load
from bench.harness.processes import descendants, resident
from bench.harness.served import Served
from bench.harness.small_models import small_models
from seqrec_export.repository.publish import publish
from seqrec_export.serving import server

ROUND = 2500
Graphs = Mapping[str, Served]


def serve(repository: Path, log: Path) -> server.Server:
    return server.start(repository, grpc_port=0, metrics_port=0, log=log)


def megabytes(pid: int) -> str:
    return f"{resident(pid) / 2**20:.0f} MB"


def staying(options: argparse.Namespace, repository: Path, graphs: Graphs, log: Path) -> bool:
    """Rounds for some minutes; whether all was as it should be."""
    asks = good_asks(graphs, each=10, seed=options.seed)
    fine, number, until = True, 0, time.monotonic() + 60 * options.minutes
    with (
        serve(repository, log) as running,
        Load(running.grpc_url, asks, options.per_second) as steady,
        Fuzzer(running.grpc_url, graphs, options.seed) as fuzzer,
    ):
        steady.wait(2 * options.per_second)
        processes = descendants(running.pid)
        print(f"before: {megabytes(running.pid)} in {1 + len(processes)} processes", flush=True)
        while time.monotonic() < until and descendants(running.pid) == processes:
            requests = plan(STAYING_CASES, graphs, ROUND, options.seed + number)
            results = fuzzer.run(requests, first=number)
            number += len(requests)
            fine &= not any(result.fault for result in results)
            steady.wait(options.per_second)  # memory comes back with the next good request
            print(f"{summary(results)}\n{megabytes(running.pid)}", flush=True)
        same = descendants(running.pid) == processes
        tally = steady.stop()
        print(f"{number} requests; the same processes: {same}\nsteady: {tally}")
    return fine and same and not tally.failures


def leaving(options: argparse.Namespace, repository: Path, graphs: Graphs, log: Path) -> bool:
    """Callers that leave; whether those ends that were seen were as they should be."""
    sent, died, faults = 0, 0, []
    while sent < options.leaving:
        with (
            serve(repository, log) as running,
            Fuzzer(running.grpc_url, graphs, options.seed) as fuzzer,
        ):
            while sent < options.leaving and running.running():
                results = fuzzer.run(plan(LEAVING_CASES, graphs, 200, options.seed + sent), sent)
                time.sleep(0.2)
                sent += len(results)
                if running.running():
                    faults += [result for result in results if result.fault]
            died += not running.running()
        print(f"{sent} callers left, the server died {died} times", flush=True)
    print("\n".join(map(str, faults)))
    return not faults


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--per-second", type=int, default=200, help="good requests next to them")
    parser.add_argument("--leaving", type=int, default=0, help="callers that leave, instead")
    parser.add_argument("--runs", type=Path, help="where the models lie, or will")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        exports = small_models(options.runs or work / "runs")
        for exported in exports.values():
            publish(exported, work / "model_repository")
        graphs = {
            name: Served(exported, graph)
            for exported in exports.values()
            for name, graph in exported.graphs.items()
        }
        part = leaving if options.leaving else staying
        if not part(options, work / "model_repository", graphs, work / "triton.log"):
            raise SystemExit(1)


if __name__ == "__main__":
    main()
