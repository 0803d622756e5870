"""The small runs that the checks of a model share, on logs that are made up for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import equal

from seqrec_export.contract import Graph
from seqrec_export.data.interactions import SECONDS_PER_DAY, Interactions
from seqrec_export.data.raw_requests import RawLog
from seqrec_export.data.readers.item_tables import asked_attributes
from seqrec_export.data.readers.synthetic import generate
from seqrec_export.exporting.exported import Exported, export_run
from seqrec_export.models.model import Model
from seqrec_export.models.settings import settings_of
from seqrec_export.models.wire import CANDIDATES, EXCLUDED, HISTORY, KNOWN_ITEMS
from seqrec_export.testing import promises
from seqrec_export.testing.promises import require
from seqrec_export.testing.served import Served
from seqrec_export.training.train import Run, extra_columns, train
from seqrec_export.training.train import require as require_log
from seqrec_export.verification.gate import refused, verify
from seqrec_export.verification.reference import PyTorch

TOP_K = 20
_DRAWS = 6  # requests for each promise of each graph
_CYCLE, _STEPS = 20, 12  # items around, and events of each user
_DEVICES = np.array(["phone", "desktop", "tv", ""], dtype=object)
# What learning a cycle takes, as far as a model has such settings.
_LEARNING = {"epochs": 60, "patience": 15, "learning_rate": 1e-2, "batch_size": 32, "dropout": 0.0}

Promise = Callable[[Served, np.random.Generator, int, int], Any]


class Trial:
    """One model, with settings that its owner chose, in a folder that goes with this object."""

    def __init__(
        self, model: Model, settings: Mapping[str, Any], learning: Mapping[str, Any]
    ) -> None:
        self.model = model
        self._config = model.config(**{"epochs": 2, **settings})
        known = settings_of(model.config)
        usual = {name: value for name, value in _LEARNING.items() if name in known}
        self._learning = model.config(**{**usual, **settings, **learning})
        self._folder = TemporaryDirectory(prefix="seqrec-export-")

    def checks(self) -> dict[str, Callable[[Trial], None]]:
        """By name, those that the model has the inputs and outputs for."""
        graphs = self.model.graphs(self._config, TOP_K)
        found: dict[str, Callable[[Trial], None]] = {
            "its settings and graphs can be read": Trial.is_described,
            "equal seeds give equal weights": Trial.equals_itself,
            "every graph passes the gate": Trial.passes,
            "neighbours in a batch change nothing": partial(
                Trial.hold, promise=promises.neighbours_change_nothing
            ),
            "no answer is NaN or infinite": partial(
                Trial.hold, promise=partial(promises.numbers_are_finite, candidates=9, all_odd=True)
            ),
        }
        if any(takes(graph, HISTORY.name) for graph in graphs.values()):
            found["padding anywhere changes nothing"] = partial(
                Trial.hold, promise=promises.padding_changes_nothing, given=HISTORY.name
            )
            found["an unknown history is a cold start"] = partial(
                Trial.hold, promise=promises.nothing_known_is_a_cold_start, given=HISTORY.name
            )
            found["numbers without an event change nothing"] = partial(
                Trial.hold,
                promise=promises.numbers_without_an_event_change_nothing,
                given=HISTORY.name,
            )
        if any(takes(g, HISTORY.name) and gives(g, KNOWN_ITEMS.name) for g in graphs.values()):
            found["known ids are counted"] = partial(
                Trial.hold,
                promise=promises.known_items_are_counted,
                given=HISTORY.name,
                gives_too=KNOWN_ITEMS.name,
            )
        if any(takes(graph, CANDIDATES.name) for graph in graphs.values()):
            found["unknown candidates are lowest"] = partial(
                Trial.hold,
                promise=promises.unknown_candidates_are_lowest,
                given=CANDIDATES.name,
            )
        if any(graph.filtered for graph in graphs.values()):
            found["filters are obeyed"] = partial(
                Trial.hold, promise=promises.filters_are_obeyed, given=EXCLUDED.name
            )
        main = graphs.get(self.model.name)
        cannot = {"item_features", "sessions"} & {*self.model.needs}  # which no cycle has
        if main and takes(main, HISTORY.name) and gives(main, "item_ids") and not cannot:
            found["it learns a cycle"] = Trial.learns
        return found

    def is_described(self) -> None:
        """Settings have types that can be set, and requests can be read from a log."""
        for name, found in settings_of(self.model.config).items():
            require(bool(found.allowed), f"the setting {name} has no type that can be set")
            found.checked(found.default, f"the default of {name}")
        for preset, values in self.model.presets.items():
            require(bool(self.model.config(**values)), f"the preset {preset} cannot be had")
        require_log(self.model, self.log)

    def equals_itself(self) -> None:
        """Weights are equal to the bit."""
        again = train(self.model, self.log, self._config, self._path("again"), progress=False)
        weights = [load_file(run.path / "weights.safetensors") for run in (self.run, again)]
        for name, tensor in weights[0].items():
            require(equal(tensor, weights[1][name]), f"{name} differs in two runs of one seed")

    def passes(self) -> None:
        """As `build` asks for, before it publishes."""
        said = refused(self.exported, verify(self.exported))
        require(not said, said)

    def hold(self, promise: Promise, given: str = "", gives_too: str = "") -> None:
        """A promise, on random requests for every graph that has the input and the output."""
        for graph in self.exported.graphs.values():
            if (given and not takes(graph, given)) or (gives_too and not gives(graph, gives_too)):
                continue
            served, rng = Served(self.exported, graph), np.random.default_rng(0)
            longest = 3 * served.window
            for draw in range(_DRAWS):
                length = (0, 1, longest)[draw] if draw < 3 else int(rng.integers(0, longest + 1))
                try:
                    promise(served, rng, int(rng.integers(1, 9)), length)
                except AssertionError as error:
                    raise AssertionError(f"{graph.name}: {error}") from error

    def learns(self) -> None:
        """On a catalogue that everybody goes around, the next item is the first answer."""
        cycle = self._filled(_cycle())
        run = train(self.model, cycle, self._learning, self._path("cycle"), progress=False)
        main, log = run.model.graphs(run.config, 1)[run.model.name], RawLog(cycle)
        last = log.offsets[1:] - 1  # each user's last event, which is not trained on
        users, window = np.arange(len(last)), getattr(run.config, "max_length", _STEPS)
        request = log.requests(main.inputs, users, last, log.times[last], window)
        got = PyTorch(run.net, run.vocabularies).answer(main, request)["item_ids"][:, 0]
        right = int((got == log.items[last]).sum())
        require(
            right == len(last),
            f"{right} of {len(last)} first answers are the next item, after "
            f"{len(run.metrics['curve'])} epochs",
        )

    @cached_property
    def log(self) -> Interactions:
        """A generated shop, with what the model takes from a log."""
        return self._filled(generate(users=120, items=60, events=2000, sessions=120, seed=2))

    @cached_property
    def run(self) -> Run:
        """A short training."""
        return train(self.model, self.log, self._config, self._path("run"), progress=False)

    @cached_property
    def exported(self) -> Exported:
        """Its graphs, with an attribute to filter by."""
        items = self.run.vocabularies["items"]
        kinds = [[], ["one"], ["other"], ["one", "other"]]
        table = {"item_id": items.ids, "kind": [kinds[i % len(kinds)] for i in range(len(items))]}
        found = asked_attributes(["kind"], items.ids, items=pd.DataFrame(table))
        assert found is not None
        return export_run(self.run, TOP_K, attributes=found.of(items))

    def _path(self, name: str) -> Path:
        return Path(self._folder.name) / name

    def _filled(self, log: Interactions) -> Interactions:
        """The log with made-up values of what it lacks."""
        rng, count = np.random.default_rng(1), len(log)
        columns: dict[str, NDArray[Any]] = {}
        for name, dtype in extra_columns(self.model, self._config, log).items():
            texts, numbers = _DEVICES[rng.integers(0, len(_DEVICES), count)], rng.random(count)
            columns[name] = texts if dtype == "string" else numbers.astype(np.float32)
        if log.ratings is None:
            log = replace(log, ratings=rng.integers(1, 6, count).astype(np.float32))
        if log.event_types is None:
            log = replace(log, event_types=np.zeros(count, np.int32), event_type_ids=("click",))
        if log.user_features is None:
            ages = rng.integers(20, 60, len(log.user_ids)).astype(np.float32)
            log = replace(log, user_features=pd.DataFrame({"age": ages}))
        return replace(log, columns=columns)


def takes(graph: Graph, name: str) -> bool:
    """Whether a graph has an input of that name."""
    return any(spec.name == name for spec in graph.inputs)


def gives(graph: Graph, name: str) -> bool:
    """Whether a graph has an output of that name."""
    return any(spec.name == name for spec in graph.outputs)


def _cycle() -> Interactions:
    """User u takes u, u + 1, u + 2, ..., around the catalogue, one item a day."""
    users = 8 * _CYCLE
    user, step = np.divmod(np.arange(users * _STEPS), _STEPS)
    return Interactions(
        user_ids=np.array([f"user {u}" for u in range(users)], dtype=object),
        item_ids=np.array([f"item {i}" for i in range(_CYCLE)], dtype=object),
        users=user.astype(np.int32),
        items=((user + step) % _CYCLE).astype(np.int32),
        times=step.astype(np.int64) * SECONDS_PER_DAY + 1_600_000_000,
        source="a cycle",
    )
