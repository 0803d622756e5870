"""For whoever has a model of their own: what every model here promises, as checks for their tests.

    from seqrec_export.testing import check_model, checks

    @pytest.mark.parametrize("check", checks(MODEL))
    def test_my_model(check):
        check()

or `check_model(MODEL)` for all of them at once. They train three small runs in a folder that is
deleted afterwards, which takes a minute or less for a model of a few thousand weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from seqrec_export.errors import SeqrecError
from seqrec_export.models.model import Model
from seqrec_export.testing.trials import Trial

__all__ = ["Check", "check_model", "checks"]


@dataclass(frozen=True)
class Check:
    """One thing that a model has to hold. Calling it raises AssertionError or SeqrecError if not.

    pytest takes its name for that of the parameter.
    """

    name: str
    run: Callable[[], None]

    @property
    def __name__(self) -> str:
        return self.name

    def __call__(self) -> None:
        """Raise AssertionError or SeqrecError if the model does not hold it."""
        self.run()

    def __str__(self) -> str:
        return self.name


def checks(
    model: Model,
    settings: Mapping[str, Any] | None = None,
    learning: Mapping[str, Any] | None = None,
) -> list[Check]:
    """The checks that a model can be put to, which share their trainings.

    `settings` are those of all of them, best with small sizes; `learning` those of the training
    that has to learn a cycle, if more epochs or another learning rate do it. What a model has no
    inputs or outputs for is left out.
    """
    trial = Trial(model, settings or {}, learning or {})
    return [Check(name, partial(check, trial)) for name, check in trial.checks().items()]


def check_model(
    model: Model,
    settings: Mapping[str, Any] | None = None,
    learning: Mapping[str, Any] | None = None,
) -> None:
    """Run all checks of a model. Raises AssertionError with all that it does not hold."""
    said = []
    for check in checks(model, settings, learning):
        try:
            check()
        except (AssertionError, SeqrecError) as error:
            said.append(f"{check}: {error}")
    if said:
        raise AssertionError(f"{model.name} fails {len(said)} checks\n" + "\n".join(said))
