"""check_model: models of other packages pass it, and what is wrong with one is found by name."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from seqrec_export.models.model import Model
from seqrec_export.models.registry import MODELS
from seqrec_export.nn.ragged import Ragged, compact
from seqrec_export.testing import Check, check_model, checks
from support.device_model import MODEL as BY_DEVICE
from support.device_model import ByDevice


@pytest.mark.parametrize("check", checks(BY_DEVICE))
def test_a_model_with_an_input_of_its_own_holds_every_promise(check: Check) -> None:
    check()


def test_the_checks_have_names_and_a_model_is_put_to_those_that_it_has_inputs_for() -> None:
    names = [check.__name__ for check in checks(BY_DEVICE)]
    assert len(names) == len({*names}) == 12
    assert {"it learns a cycle", "filters are obeyed"} <= {*names}
    assert "it learns a cycle" not in map(str, checks(MODELS["two_tower"]))
    assert "unknown candidates are lowest" not in map(
        str, checks(replace(BY_DEVICE, graphs=only_the_encoder))
    )


def only_the_encoder(config: object, top_k: int) -> dict:
    found = BY_DEVICE.graphs(config, top_k)
    return {name: graph for name, graph in found.items() if not name.endswith("_scorer")}


class CountsPadding(ByDevice):
    """As its batch is padded, so it answers."""

    def encode(self, history: Ragged, device: Tensor, price: Tensor) -> Tensor:
        (items,) = compact(history, window=self.config.max_length)
        width = torch.ones_like(items).sum(dim=1, keepdim=True)
        return super().encode(history, device, price) * (1 + 0.1 * width)


class Forgets(ByDevice):
    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        return super().loss(batch | {"history": torch.zeros_like(batch["history"])})


class Unseeded(ByDevice):
    def __init__(self, *given: object) -> None:
        super().__init__(*given)  # type: ignore[arg-type]
        generator = torch.Generator()
        generator.seed()
        nn.init.normal_(self.items.weight[1:], generator=generator)


@pytest.mark.parametrize(
    ("net", "names"),
    [
        (
            CountsPadding,
            ["padding anywhere changes nothing"],
        ),
        (Forgets, ["it learns a cycle"]),
        (Unseeded, ["equal seeds give equal weights"]),
    ],
)
def test_what_is_wrong_with_a_model_is_found_by_name(
    net: Callable[..., nn.Module], names: list[str]
) -> None:
    wrong = replace(BY_DEVICE, net=net)
    settings = {"epochs": 3, "patience": 1}
    found = {check.name: check for check in checks(wrong, settings)}
    for name in names:
        with pytest.raises(AssertionError):
            found[name]()


def test_a_model_is_told_all_that_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise AssertionError("wrong")

    def holds() -> None: ...

    two = [Check("the first", fails), Check("the second", holds), Check("the third", fails)]
    monkeypatch.setattr("seqrec_export.testing.checks", lambda *_: two)
    with pytest.raises(AssertionError, match="by_device fails 2 checks\nthe first: wrong\nthe th"):
        check_model(BY_DEVICE)


def test_a_model_without_a_graph_of_its_name_is_refused() -> None:
    other: Model = replace(BY_DEVICE, name="other")
    with pytest.raises(AssertionError, match="by_device_scorer; call one of them other"):
        check_model(other)
