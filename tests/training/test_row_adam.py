"""Adam by row is Adam."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from seqrec_export.training.row_adam import RowAdam

ROWS, DIM = 12, 3
few = settings(max_examples=15, derandomize=True, deadline=None, database=None)


class Net(nn.Module):
    def __init__(self, sparse: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(ROWS, DIM, sparse=sparse)
        self.layer = nn.Linear(DIM, 1)

    def loss(self, rows: torch.Tensor) -> torch.Tensor:
        return (self.layer(self.embedding(rows)) - rows[:, None].float()).square().mean()


def lookups(seed: int, steps: int) -> list[torch.Tensor]:
    """Rows of each step, some of them twice, most of them seldom."""
    rng = np.random.default_rng(seed)
    odds = rng.dirichlet(np.full(ROWS, 0.3))
    return [torch.from_numpy(rng.choice(ROWS, rng.integers(1, 4), p=odds)) for _ in range(steps)]


def train(net: Net, optimizer: torch.optim.Optimizer, batches: list[torch.Tensor]) -> None:
    for rows in batches:
        optimizer.zero_grad()
        net.loss(rows).backward()
        optimizer.step()


def assert_equal(one: Net, other: Net) -> None:
    for name, value in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, rtol=1e-4, atol=2e-6, msg=name)


@few
@given(seed=st.integers(0, 2**32 - 1), steps=st.integers(1, 400))
def test_rows_that_were_skipped_make_up_for_it(seed, steps):
    dense, sparse = Net(False), Net(True)
    adam = torch.optim.Adam(dense.parameters(), lr=3e-3)
    by_row = RowAdam(sparse.parameters(), [sparse.embedding], lr=3e-3)
    batches = lookups(seed, steps)
    train(dense, adam, batches)
    train(sparse, by_row, batches)
    by_row.catch_up()
    assert_equal(dense, sparse)


def test_its_state_is_that_of_adam_and_can_be_gone_on_from():
    first, second = lookups(0, 150), lookups(1, 150)
    whole, resumed = Net(True), Net(True)
    by_row = RowAdam(whole.parameters(), [whole.embedding], lr=3e-3)
    train(whole, by_row, first)
    state = copy.deepcopy(by_row.state_dict())
    resumed.load_state_dict(whole.state_dict())
    train(whole, by_row, second)
    by_row.catch_up()
    again = RowAdam(resumed.parameters(), [resumed.embedding], lr=1.0)
    again.load_state_dict(state)
    train(resumed, again, second)
    again.catch_up()
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    torch.optim.Adam(Net(False).parameters()).load_state_dict(state)


def test_closed_it_leaves_the_net_as_it_was():
    net = Net(True)
    by_row = RowAdam(net.parameters(), [net.embedding], lr=3e-3)
    train(net, by_row, lookups(0, 20))
    by_row.close()
    assert not net.embedding._forward_pre_hooks


def test_missed_steps_are_taken_at_the_learning_rate_of_their_time():
    dense, sparse = Net(False), Net(True)
    adam = torch.optim.Adam(dense.parameters(), lr=3e-3)
    by_row = RowAdam(sparse.parameters(), [sparse.embedding], lr=3e-3)
    for epoch in range(3):
        for net, optimizer in ((dense, adam), (sparse, by_row)):
            train(net, optimizer, lookups(epoch, 50))
            optimizer.param_groups[0]["lr"] *= 0.1  # before anything catches up
    by_row.catch_up()
    assert_equal(dense, sparse)


@pytest.mark.parametrize("missed", [1, 1000])
def test_a_row_that_waits_moves_as_far_as_it_would_have(missed):
    dense, sparse = Net(False), Net(True)
    adam = torch.optim.Adam(dense.parameters(), lr=3e-3)
    by_row = RowAdam(sparse.parameters(), [sparse.embedding], lr=3e-3)
    batches = [torch.tensor([0, 1]), *[torch.tensor([1])] * missed, torch.tensor([0])]
    train(dense, adam, batches)
    train(sparse, by_row, batches)
    by_row.catch_up()
    assert_equal(dense, sparse)
