"""Losses against their formulas, spelt out."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F  # noqa: N812

from seqrec_export.nn import losses
from seqrec_export.nn.item_search import Catalogue
from seqrec_export.nn.ragged import Ragged

SEEDS = st.integers(0, 2**31 - 1)
few = settings(max_examples=40, derandomize=True, deadline=None, database=None)


def minus_log_softmax(chosen: float, others: list[float]) -> float:
    return -math.log(math.exp(chosen) / (math.exp(chosen) + sum(math.exp(o) for o in others)))


@few
@given(rows=st.integers(1, 8), items=st.integers(1, 4), seed=SEEDS)
def test_in_batch_softmax_corrects_for_popularity_and_masks_duplicates(
    rows: int, items: int, seed: int
) -> None:
    torch.manual_seed(seed)
    users, vectors = torch.randn(rows, 5), torch.randn(rows, 5)
    index, log_q = torch.randint(2, 2 + items, (rows,)), -torch.rand(rows) * 3
    got = losses.in_batch_softmax(users, vectors, index, log_q, 0.5)
    expected = []
    for i in range(rows):
        logit = [float(users[i] @ vectors[j]) / 0.5 - float(log_q[j]) for j in range(rows)]
        negatives = [logit[j] for j in range(rows) if index[j] != index[i]]
        expected.append(minus_log_softmax(logit[i], negatives))
    assert math.isclose(got, np.mean(expected), rel_tol=1e-4, abs_tol=1e-5)


@few
@given(seed=SEEDS)
def test_full_softmax_gives_padding_and_unknown_no_probability(seed: int) -> None:
    torch.manual_seed(seed)
    users, items, bias = torch.randn(3, 4), torch.randn(7, 4), torch.randn(7)
    targets = torch.tensor([2, 6, 3])
    expected = []
    for user, target in zip(users, targets, strict=True):
        logit = {i: float(user @ items[i] + bias[i]) for i in range(2, 7)}
        own = logit.pop(int(target))
        expected.append(minus_log_softmax(own, list(logit.values())))
    got = losses.full_softmax(users, Catalogue(items, bias), targets)
    assert math.isclose(got, np.mean(expected), rel_tol=1e-4, abs_tol=1e-5)


@few
@given(seed=SEEDS)
def test_sampled_softmax_over_the_whole_catalogue_is_the_full_softmax(seed: int) -> None:
    torch.manual_seed(seed)
    users, items, bias = torch.randn(4, 4), torch.randn(9, 4), torch.randn(9)
    targets = torch.tensor([2, 8, 3, 3])
    sampled = losses.sampled_softmax(users, Catalogue(items, bias), targets, torch.arange(2, 9))
    torch.testing.assert_close(sampled, losses.full_softmax(users, Catalogue(items, bias), targets))


def test_sampled_softmax_estimates_the_full_softmax() -> None:
    """Its normaliser is unbiased, so many negatives come close to all of them."""
    torch.manual_seed(0)
    users, items, bias = torch.randn(4, 4), torch.randn(50, 4) * 0.5, torch.zeros(50)
    targets = torch.tensor([2, 8, 3, 3])
    negatives = torch.randint(2, 50, (200_000,))
    sampled = losses.sampled_softmax(users, Catalogue(items, bias), targets, negatives)
    full = losses.full_softmax(users, Catalogue(items, bias), targets)
    # The target counts once for itself; as a negative it was left out.
    torch.testing.assert_close(sampled, full, rtol=0.01, atol=0.01)


@few
@given(width=st.integers(1, 6), seed=SEEDS)
def test_listwise_softmax_is_listnets_top_one_cross_entropy(width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(3, width))
    labels = rng.integers(0, 4, (3, width)).astype(float)
    labels[:, 0] = 2.0  # every row has a positive
    real = rng.random((3, width)) < 0.7
    real[:, 0] = True
    expected = []
    for row in range(3):
        chosen = [i for i in range(width) if real[row, i]]
        gain = sum(labels[row, i] for i in chosen)
        expected.append(
            sum(
                labels[row, i]
                / gain
                * minus_log_softmax(scores[row, i], [scores[row, j] for j in chosen if j != i])
                for i in chosen
            )
        )
    got = losses.listwise_softmax(*(torch.from_numpy(a) for a in (scores, labels, real)))
    assert math.isclose(got, np.mean(expected), rel_tol=1e-6)


def test_bpr_is_the_mean_of_minus_log_sigmoid_of_the_difference() -> None:
    got = losses.bpr(torch.tensor([2.0, 0.0]), torch.tensor([1.0, 3.0]))
    expected = [math.log(1 + math.exp(-1)), math.log(1 + math.exp(3))]
    assert math.isclose(got, np.mean(expected), rel_tol=1e-6)


@few
@given(rows=st.integers(1, 40), items=st.integers(1, 30), seed=SEEDS)
def test_full_softmax_is_pytorchs_cross_entropy_and_so_is_its_gradient(
    rows: int, items: int, seed: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    shapes = ((rows, 5), (items + 2, 5), (items + 2,))
    tensors = [torch.randn(shape, generator=rng).requires_grad_() for shape in shapes]
    targets = torch.randint(2, items + 2, (rows,), generator=rng)

    def by_pytorch(users: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(F.linear(users, weight[2:], bias[2:]), targets - 2)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "_LOGITS_AT_ONCE", 7 * items)  # so that rows come in several parts
        ours = losses.full_softmax(tensors[0], Catalogue(*tensors[1:]), targets)
    gradients = torch.autograd.grad(3 * ours, tensors)
    theirs = by_pytorch(*tensors)
    assert ours.item() == pytest.approx(theirs.item(), abs=2e-6)
    for got, expected in zip(gradients, torch.autograd.grad(3 * theirs, tensors), strict=True):
        torch.testing.assert_close(got, expected, atol=2e-6, rtol=1e-5)
    with torch.no_grad():
        assert losses.full_softmax(
            tensors[0], Catalogue(*tensors[1:]), targets
        ).item() == pytest.approx(theirs.item())


def test_full_softmax_in_bfloat16_is_as_exact_as_bfloat16() -> None:
    rng = torch.Generator().manual_seed(0)
    tensors = [
        torch.randn(shape, generator=rng).requires_grad_()
        for shape in ((500, 32), (300, 32), (300,))
    ]
    targets = torch.randint(2, 300, (500,), generator=rng)
    exact = losses.full_softmax(tensors[0], Catalogue(*tensors[1:]), targets)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = losses.full_softmax(tensors[0], Catalogue(*tensors[1:]), targets)
    assert rounded.dtype == torch.float32
    assert rounded.item() == pytest.approx(exact.item(), rel=2e-3)
    gradients = (torch.autograd.grad(loss, tensors) for loss in (rounded, exact))
    for got, expected in zip(*gradients, strict=True):
        assert (got - expected).norm() < 0.01 * expected.norm()


def test_a_catalogue_without_a_bias_is_one_whose_bias_is_zero() -> None:
    rng = torch.Generator().manual_seed(0)
    users, items = torch.randn(4, 3, generator=rng), torch.randn(9, 3, generator=rng)
    targets, candidates = torch.tensor([2, 8, 5, 2]), Ragged.of(torch.tensor([[2, 3]] * 4))
    without, zero = Catalogue(items), Catalogue(items, torch.zeros(9))
    for loss in (losses.full_softmax, partial(losses.sampled_softmax, negatives=targets)):
        assert torch.equal(loss(users, without, targets), loss(users, zero, targets))
    assert torch.equal(without.score(users, candidates), zero.score(users, candidates))
    every = without.scores(users)
    torch.testing.assert_close(without.score(users, candidates), every[:, 2:4].flatten())


def test_full_softmax_of_no_rows_is_zero_and_moves_nothing() -> None:
    users, weight = torch.zeros(0, 3, requires_grad=True), torch.randn(7, 3, requires_grad=True)
    loss = losses.full_softmax(
        users, Catalogue(weight, torch.zeros(7)), torch.zeros(0, dtype=torch.int64)
    )
    loss.backward()
    assert loss.item() == 0
    assert weight.grad is None or not weight.grad.any()
