"""New versions published one after the other under load: how many requests failed.

    GOMP_SPINCOUNT=1000 python -m bench.survival.hot_swap [--mode serve] [--requests 10000]
                                                              [--runs FOLDER]

Two contents of one model, of other weights, take turns as its versions; a load of requests to each
of its graphs goes on meanwhile, and each answer has to be that of the version which it names. Now
and then a version with files cut off is put there by hand. `--mode` is one of MODES in
harness/swapping.py. Exits 1 if a request failed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median

from bench.harness import swapping
from bench.harness.load import Load
from bench.harness.small_models import small_models
from bench.harness.wire import connect, stub
from seqrec_export.repository.publish import publish

CORRUPT_EVERY = 10  # versions


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mode", choices=swapping.MODES, default="explicit")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--per-second", type=int, default=200)
    parser.add_argument("--model", default="caser")
    parser.add_argument("--runs", type=Path, help="where the model lies, or will")
    options = parser.parse_args()
    explicit = options.mode == "explicit"
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        first = small_models(options.runs or work / "runs", options.model)[options.model]
        contents = [first, swapping.other_weights(first, work / "other")]
        repository = work / "model_repository"
        publish(first, repository)
        seconds: list[float] = []  # from `publish` to the moment when every graph serves it
        corrupt = 0
        with (
            swapping.served(repository, options.mode) as url,
            connect(url) as channel,
            Load(url, swapping.asks(contents, 20, 0), options.per_second) as load,
        ):
            triton = stub(channel)
            load.wait(options.per_second)
            while load.answered < options.requests:
                if len(seconds) % CORRUPT_EVERY == CORRUPT_EVERY - 1:
                    corrupt += 1
                    bad = swapping.corrupt_next(contents, repository)
                    if explicit:
                        swapping.load_all(triton, contents)
                    load.wait(2 * options.per_second)
                    assert not swapping.serves(triton, contents, bad)
                began = time.monotonic()
                version = swapping.publish_next(contents, repository)
                if explicit:
                    swapping.load_all(triton, contents)
                while not swapping.serves(triton, contents, version):
                    time.sleep(0.01)
                seconds.append(time.monotonic() - began)
            tally = load.stop()
        by_version = Counter(version for _, version in tally.versions.elements())
        print(f"{options.mode}: {len(seconds)} versions published, {corrupt} corrupt ones")
        print(f"published to served: median {median(seconds):.2f} s, worst {max(seconds):.2f} s")
        print(f"{len(by_version)} versions answered, the fewest times {min(by_version.values())}")
        print(tally)
        if tally.failures:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
