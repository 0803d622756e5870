"""The network that is served has learned every event, also what was held back for the figures."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seqrec_export.data.interactions import Interactions
from seqrec_export.data.vocabulary import NUM_RESERVED, Vocabulary
from seqrec_export.models.registry import MODELS
from seqrec_export.models.two_tower import ITEM_FEATURES
from seqrec_export.nn.ragged import Ragged
from seqrec_export.training import final_fit
from seqrec_export.training.carry_over import carry_over, vocabulary_axes
from seqrec_export.training.train import Run, train
from support.served import small_config

SECOND_LAST, LAST = "only ever second last", "only ever last"
USERS = 60


def planted() -> Interactions:
    """Users go through the items in order; what is planted stands at their ends alone."""
    events = []
    for user in range(USERS):
        start = user % 8
        history = [f"item {(start + i) % 12}" for i in range(5 + user % 3)]
        events += [(user, item) for item in [*history, SECOND_LAST, LAST]]
    users, items = zip(*events, strict=True)
    ids = sorted(set(items))
    return Interactions(
        user_ids=np.array([f"user {u}" for u in range(USERS)], object),
        item_ids=np.array(ids, object),
        users=np.array(users, np.int32),
        items=np.array([ids.index(item) for item in items], np.int32),
        times=np.arange(len(events), dtype=np.int64),
        source="planted",
    )


def best(run: Run, history: list[str], k: int) -> list[str]:
    items = run.vocabularies["items"]
    indices = torch.from_numpy(items.encode(np.array([history], object)))
    net: Any = run.net
    with torch.inference_mode():
        scores = net.catalogue.scores(net.encode(Ragged.of(indices)))[0]
    found = [str(items.strings[i]) for i in scores.argsort(descending=True)]
    return [item for item in found if item not in history][:k]


@pytest.mark.parametrize("way", ["continue", "scratch", "none"])
def test_items_of_the_last_events_alone_are_recommended(way: Any, tmp_path: Path) -> None:
    model = MODELS["sasrec"]
    config = model.config(
        dim=16, max_length=10, batch_size=8, epochs=15, learning_rate=0.01, final_fit=way
    )
    run = train(model, planted(), config, tmp_path / "run", progress=False)
    assert run.metrics["config"]["epochs"] == 15
    known = {SECOND_LAST, LAST} & set(run.vocabularies["items"].ids)
    if way == "none":
        assert not known
        assert "final_fit" not in run.metrics
        return
    assert known == {SECOND_LAST, LAST}
    history = [f"item {i}" for i in range(5)]
    assert LAST in best(run, [*history, SECOND_LAST], 3)
    assert SECOND_LAST in best(run, history, 4)  # for some it was another item that came next
    said = run.metrics["final_fit"]
    assert said["way"] == way
    assert said["events"] == len(planted())
    assert math.isfinite(said["loss"])
    assert any(f"all {len(planted())} events" in note for note in run.metrics["notes"])


def test_a_final_fit_that_was_stopped_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, log = MODELS["caser"], planted()
    config = small_config("caser", epochs=2, batch_size=32, final_fit="continue")
    whole = train(model, log, config, tmp_path / "whole", progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(final_fit, "finish", stopped)  # after its last checkpoint
        with pytest.raises(KeyboardInterrupt):
            train(model, log, config, tmp_path / "run", progress=False)
    run = train(model, log, config, tmp_path / "run", resume=True, progress=False)
    assert run.metrics["final_fit"]["epochs"] == whole.metrics["final_fit"]["epochs"]
    expected = whole.net.state_dict()
    for name, tensor in run.net.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def stopped(net: torch.nn.Module) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", MODELS)
def test_an_id_keeps_its_rows_though_all_stand_elsewhere(name: str) -> None:
    model = MODELS[name]
    config = small_config(name)
    names = ("items", "users", "event_types", *ITEM_FEATURES)
    before, now = (
        {of: Vocabulary([f"{of} {i}" for i in numbers]) for of in names}
        for numbers in ((0, 1, 2, 3, 4, 5), (7, 4, 5, 0, 1, 8, 2))
    )
    old, net = (
        model.net(config, {of: v.num_rows for of, v in some.items()}) for some in (before, now)
    )
    state = old.state_dict()
    fresh = {of: tensor.clone() for of, tensor in net.state_dict().items()}
    carry_over(model, config, state, before, net, now)
    axes = vocabulary_axes(model, config, now)
    assert any({"items"} in of.values() for of in axes.values())
    for of, tensor in net.state_dict().items():
        by = axes[of]
        if not by:
            assert torch.equal(tensor, state[of]), of
        elif any(len(names) > 1 for names in by.values()):
            assert torch.equal(tensor, fresh[of]), f"{of} goes by several that have changed"
        else:
            assert list(by) == [0], of
            (of_it,) = by[0]
            ids = np.array([f"{of_it} {i}" for i in (4, 0, 2)], object)
            assert torch.equal(
                tensor[now[of_it].encode(ids)], state[of][before[of_it].encode(ids)]
            ), of
            assert torch.equal(tensor[:NUM_RESERVED], state[of][:NUM_RESERVED]), of
            new = NUM_RESERVED + np.array([0, 5])
            assert torch.equal(tensor[new], fresh[of][new]), of


def test_rows_by_several_vocabularies_are_kept_if_these_are_the_same() -> None:
    model, config = MODELS["two_tower"], small_config("two_tower")
    names = ("items", "users", *ITEM_FEATURES)
    before = {of: Vocabulary([f"{of} {i}" for i in range(6)]) for of in names}
    now = before | {"items": Vocabulary([f"items {i}" for i in range(9)])}
    old, net = (
        model.net(config, {of: v.num_rows for of, v in some.items()}) for some in (before, now)
    )
    carry_over(model, config, old.state_dict(), before, net, now)
    axes = vocabulary_axes(model, config, now)
    stacked = [of for of, by in axes.items() if any(len(names) > 1 for names in by.values())]
    assert stacked
    for of in stacked:
        assert torch.equal(net.state_dict()[of], old.state_dict()[of])
