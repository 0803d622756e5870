"""The gate for quality: a model that is no better than its own baseline is not published unasked.

Judged is the figure that chose the epoch, on the test part, which training never saw: the model's
next to that of the baseline that its `Metric` names. The other figures stay for people.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from seqrec_export.models.model import Metric

_DECIMALS = 4


def shortfall(metric: Metric, metrics: Mapping[str, Any]) -> str:
    """Why a run, by its metrics.json, is no gain over its baseline; "" if it is one.

    Being equal is no gain: a model costs more than a list of popular items. It is "" also for what
    nobody can judge: a network that was trained elsewhere (it has no curve), and a run without
    that figure of its baseline (a model may have no baseline; earlier versions wrote fewer).
    """
    if not metrics["curve"]:
        return ""
    test = metrics["test"]
    own, other = (
        of.get(metric.name) for of in (test, metrics["baselines"].get(metric.baseline, {}))
    )
    if own is None or math.isnan(own) or test.get("targets") == 0:
        return f"it has nothing to be measured on: the test part gives no {metric.name}"
    if other is None or (own < other if metric.direction == "min" else own > other):
        return ""
    return f"it does not beat {metric.baseline}: {metric.name} {_apart(own, other)}"


def _apart(own: float, other: float) -> str:
    """Both figures, with as many decimals as it takes to see which is larger."""
    for decimals in range(_DECIMALS, 18):
        shown = f"{own:.{decimals}f}", f"{other:.{decimals}f}"
        if shown[0] != shown[1] or own == other:
            break
    return " against ".join(shown)


def refusal(name: str, why: str) -> str:
    """The sentence for a model with this shortfall; "" without one."""
    if not why:
        return ""
    return (
        f"{name} is not published: {why}; give it a longer log or other settings, or publish it "
        "all the same with --accept-quality (accept_quality=True)"
    )
