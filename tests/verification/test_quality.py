"""The gate for quality: what is no gain over its own baseline is refused, unless it is accepted."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import seqrec_export as sx
from seqrec_export.data.vocabulary import UNKNOWN
from seqrec_export.evaluation.ratings import rating_metrics
from seqrec_export.exporting.exported import Exported
from seqrec_export.folders import read_json
from seqrec_export.models.model import Metric
from seqrec_export.models.registry import MODELS
from seqrec_export.report.page import ModelReport, write_report
from seqrec_export.repository.describe import describe
from seqrec_export.repository.publish import publish
from seqrec_export.verification.quality import shortfall
from support.commands import run
from support.contents import content
from support.copies import own_graphs_only

HITS, STARS = Metric(name="hr@10"), Metric(name="rmse", direction="min", baseline="bias")


def measured(
    test: dict[str, float], baseline: dict[str, float] | None, name: str = "popularity"
) -> dict[str, Any]:
    """What metrics.json holds of it."""
    baselines = {} if baseline is None else {name: baseline}
    return {"test": test, "baselines": baselines, "curve": [{"epoch": 0.0}]}


BEHIND = "it does not beat popularity: hr@10 "
NOTHING = "it has nothing to be measured on: the test part gives no "


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        (measured({"hr@10": 0.0811}, {"hr@10": 0.081}), ""),
        (measured({"hr@10": 0.065}, {"hr@10": 0.081}), BEHIND + "0.0650 against 0.0810"),
        (measured({"hr@10": 0.081}, {"hr@10": 0.081}), BEHIND + "0.0810 against 0.0810"),
        (measured({"hr@10": 0.0}, {"hr@10": 0.0}), BEHIND + "0.0000 against 0.0000"),
        (measured({"hr@10": 0.08}, {"hr@10": 0.080001}), BEHIND + "0.080000 against 0.080001"),
        (measured({"hr@10": 0.08}, {"hr@10": math.nan}), BEHIND + "0.0800 against nan"),
        (measured({"hr@10": math.nan}, {"hr@10": 0.08}), NOTHING + "hr@10"),
        (measured({"targets": 0.0}, {"targets": 0.0}), NOTHING + "hr@10"),
        (measured({"hr@10": 0.5, "targets": 0.0}, {"hr@10": 0.0}), NOTHING + "hr@10"),
        (measured({}, None), NOTHING + "hr@10"),
        # A model without a baseline, and a run of a version that wrote fewer figures of it.
        (measured({"hr@10": 0.01}, None), ""),
        (measured({"hr@10": 0.01}, {"ndcg@10": 0.5}), ""),
        # A network that was trained elsewhere.
        (measured({}, None) | {"curve": []}, ""),
    ],
)
def test_higher_is_better_and_equal_is_no_gain(metrics: dict[str, Any], said: str) -> None:
    assert shortfall(HITS, metrics) == said


@pytest.mark.parametrize(
    ("own", "said"),
    [(0.94, ""), (0.95, "0.9500 against 0.9500"), (0.96, "0.9600 against 0.9500")],
)
def test_lower_is_better_if_the_metric_says_so(own: float, said: str) -> None:
    found = shortfall(STARS, measured({"rmse": own}, {"rmse": 0.95}, "bias"))
    assert found == (said and f"it does not beat bias: rmse {said}")


@pytest.mark.parametrize("name", MODELS)
def test_every_model_and_its_baseline_have_the_figure_that_is_judged(
    name: str, exports: Callable[[str], Exported]
) -> None:
    metric, metrics = MODELS[name].metric, exports(name).run.metrics
    assert metric.name in metrics["test"]
    assert metric.name in metrics["baselines"][metric.baseline]


def test_ratings_of_new_users_alone_measure_nothing() -> None:
    ratings, users = np.ones(4, np.float32), np.zeros(4, np.int32)
    unknown = np.array([UNKNOWN])
    log: Any = SimpleNamespace(
        histories=SimpleNamespace(ratings=ratings, users=users), user_index=unknown
    )
    test = rating_metrics(log, np.arange(4), np.full(4, 2, np.float32))
    assert test["unseen_rmse"] == 1
    assert shortfall(MODELS["mlink"].metric, measured(test, {})) == NOTHING + "rmse"


def behind(exported: Exported, by: float = 0.5) -> Exported:
    """The same export of a run that is worse than its baseline."""
    run, metric = exported.run, exported.run.model.metric
    figure = run.metrics["baselines"][metric.baseline][metric.name]
    worse = figure + by if metric.direction == "min" else figure - by
    test = run.metrics["test"] | {metric.name: worse}
    return replace(exported, run=replace(run, metrics={**run.metrics, "test": test}))


@pytest.mark.parametrize("name", ["caser", "mlink"])
def test_publish_refuses_it_until_it_is_accepted_and_records_that(
    name: str, exports: Callable[[str], Exported], tmp_path: Path
) -> None:
    exported, repository = behind(exports(name)), tmp_path / "repository"
    verified = sx.Verified(exported=exported, verdicts={})
    assert not verified.ok
    assert not verified.differs
    assert verified.shortfall.startswith(f"it does not beat {MODELS[name].metric.baseline}: ")
    assert verified.refusal in repr(verified)
    with pytest.raises(sx.SeqrecError, match=f"{name} is not published: it does not .* against"):
        sx.publish(verified, repository)
    assert not repository.exists()

    published = sx.publish(verified, repository, accept_quality=True)

    assert {(model.version, model.new) for model in published} == {(1, True)}
    listed = read_json(repository / "manifest.json")["models"]
    assert {of["1"]["accepted_quality"] for of in listed.values()} == {verified.shortfall}
    shown = run("inspect", "-r", str(repository))
    told = f"{name}: version 1 was published although {verified.shortfall}"
    assert " ".join(shown.output.split()).count(told) == 1
    assert (
        f"was published although {verified.shortfall}" in (repository / "report.html").read_text()
    )


def test_a_model_that_beats_its_baseline_leaves_no_such_record(repository: Path) -> None:
    assert "accepted_quality" not in (repository / "manifest.json").read_text()
    assert not any("accepted_quality" in entry["metrics"] for entry in describe(repository))


def three_events(path: Path) -> Path:
    """Half of the users take what is popular last, the others take it first."""
    rows = []
    for user in range(60):
        rest = [f"i{(7 * user + n) % 29}" for n in range(2)]
        items = [*rest, "popular"] if user % 2 else ["popular", *rest]
        rows += [f"u{user},{item},{1_700_000_000 + 60 * n}" for n, item in enumerate(items)]
    path.write_text("\n".join(["user,item,time", *rows, ""]))
    return path


def test_a_log_of_three_events_a_user_gives_nothing_to_publish_unasked(
    exports: Callable[[str], Exported], tmp_path: Path
) -> None:
    repository, runs = tmp_path / "repository", tmp_path / "runs"
    publish(exports("sasrec"), repository)
    before = content(repository)
    log = three_events(tmp_path / "log.csv")
    small = ["--set", "epochs=1", "--set", "dim=8", "--set", "max_length=3", "--top-k", "5"]
    asked = ["build", "-m", "sasrec", "--data", f"table:{log}", "--runs", str(runs), *small]

    with own_graphs_only():
        refused = run(*asked, "-r", str(repository))

    assert refused.exit_code == 1
    assert content(repository) == before
    metrics = read_json(runs / "sasrec" / "metrics.json")
    own, other = (of["ndcg@10"] for of in (metrics["test"], metrics["baselines"]["popularity"]))
    assert own < other
    said = str(refused.exception)
    assert said.startswith("sasrec is not published: it does not beat popularity: ")
    assert f"ndcg@10 {own:.4f} against {other:.4f}; " in said
    assert "the best epoch was the last of 1; more epochs may help" in refused.stderr
    assert "</b> is published with --accept-quality only: it does" in page(runs / "sasrec")


def page(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("losses", "last"), [((0.1, 0.3, 0.2), False), ((0.1, 0.2, 0.3), True)])
def test_the_page_says_that_more_epochs_may_help_if_the_best_was_the_last(
    losses: tuple[float, ...], last: bool, exports: Callable[[str], Exported], tmp_path: Path
) -> None:
    run = exports("caser").run
    curve = [{"epoch": float(i), "ndcg@10": value} for i, value in enumerate(losses)]
    shown = ModelReport.of(run.model, {**run.metrics, "curve": curve}, [])
    write_report(tmp_path / "report.html", "caser", [shown])
    assert ("more epochs may help" in page(tmp_path)) == last
