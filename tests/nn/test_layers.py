"""Layers against slow, literal references."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from seqrec_export.errors import SeqrecError
from seqrec_export.models.registry import MODELS
from seqrec_export.nn import layers
from seqrec_export.nn.ragged import Ragged
from support.served import small_config

SEEDS = st.integers(0, 2**32 - 1)
few = settings(max_examples=60, derandomize=True, deadline=None, database=None)
ROWS = {"items": 40, "users": 12, "event_types": 5, "garment_group_name": 4, "index_group_name": 4}


def net(name: str, seed: int, **settings: object) -> nn.Module:
    torch.manual_seed(seed % 2**31)
    built = MODELS[name].net(small_config(name, **settings), ROWS)
    with torch.no_grad():  # fresh weights hide mistakes: zero biases, tiny embeddings
        for parameter in built.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return built.eval()


@few
@given(
    batch=st.integers(1, 5), length=st.integers(1, 9), size=st.sampled_from([1, 3, 8]), seed=SEEDS
)
def test_the_exported_gru_equals_nn_gru_up_to_each_length(
    batch: int, length: int, size: int, seed: int
) -> None:
    """The ONNX operator is evaluated as the ONNX specification defines it, gate by gate."""
    torch.manual_seed(seed % 2**31)
    gru, x = layers.GRU(4, size), torch.randn(batch, length, 4)
    lengths = torch.randint(1, length + 1, (batch,))
    with torch.no_grad():
        states, last = gru(x, lengths)
        for row in range(batch):
            real = int(lengths[row])
            expected, _ = nn.GRU.forward(gru, x[row : row + 1, :real])
            torch.testing.assert_close(states[row, :real], expected[0])
            torch.testing.assert_close(last[row], expected[0, -1])
            torch.testing.assert_close(last[row], literal_gru(gru, x[row, :real]))


def literal_gru(gru: nn.GRU, x: Tensor) -> Tensor:
    """Cho et al. 2014, with the reset gate after the recurrent product, as in nn.GRU."""
    h = torch.zeros(gru.hidden_size)
    for step in x:
        from_x = (gru.weight_ih_l0 @ step + gru.bias_ih_l0).chunk(3)
        from_h = (gru.weight_hh_l0 @ h + gru.bias_hh_l0).chunk(3)
        reset, update = (torch.sigmoid(from_x[i] + from_h[i]) for i in (0, 1))
        h = (1 - update) * torch.tanh(from_x[2] + reset * from_h[2]) + update * h
    return h


@few
@given(length=st.integers(0, 8), dim=st.integers(1, 6), height=st.integers(1, 5), seed=SEEDS)
def test_caser_equals_the_formulas_of_the_paper(
    length: int, dim: int, height: int, seed: int
) -> None:
    """Tang and Wang 2018, equations 2 to 8; phi_c and phi_a are ReLU, as in the paper's code."""
    caser = net("caser", seed, dim=dim, max_length=height, num_vertical=3, num_horizontal=2)
    rng = np.random.default_rng(seed)
    history = torch.from_numpy(rng.integers(2, ROWS["items"], (1, length)))
    user = torch.tensor([[4]])
    with torch.no_grad():
        vector = caser.encode(Ragged.of(history), user)[0]
        if not length:
            torch.testing.assert_close(vector, caser.cold)
            return
        padded = [0] * max(0, height - length) + history[0].tolist()[-height:]
        image = torch.stack([caser.items.weight[i] for i in padded])  # L x d
        vertical = [
            sum(caser.vertical.weight[k, row] * image[row, column] for row in range(height))
            + caser.vertical.bias[k]
            for column in range(dim)
            for k in range(3)
        ]
        horizontal = []
        for h in range(1, height + 1):
            convolve = caser.horizontal[h - 1]
            for k in range(2):
                filtered = [
                    (image[i : i + h] * convolve.weight[k].T).sum() + convolve.bias[k]
                    for i in range(height - h + 1)
                ]
                horizontal.append(max(torch.relu(value) for value in filtered))
        z = torch.relu(caser.project(torch.stack(vertical + horizontal)))
        torch.testing.assert_close(vector, torch.cat([z, caser.users.weight[4]]))
        scores = caser.catalogue.score(vector[None], Ragged.of(torch.tensor([[5, 7]])))
        for score, item in zip(scores, (5, 7), strict=True):
            expected = caser.out_vectors.weight[item] @ vector + caser.out_bias[item]
            torch.testing.assert_close(score, expected)


@few
@given(length=st.integers(1, 9), seed=SEEDS)
def test_gru4att_trains_every_event_on_what_it_serves_without_gaps(length: int, seed: int) -> None:
    gru4att = net("gru4att", seed, max_length=10)
    rng = np.random.default_rng(seed)
    history = torch.from_numpy(rng.integers(2, ROWS["items"], (2, length)))
    types = torch.from_numpy(rng.integers(1, ROWS["event_types"], (2, length)))
    gaps = torch.full((2, length), torch.nan)
    with torch.no_grad():
        users = gru4att._every_user(history, types)
        for end in range(1, length + 1):
            lists = (Ragged.of(part[:, :end]) for part in (history, types))
            torch.testing.assert_close(gru4att.encode(*lists, gaps[:, :end]), users[:, end - 1])


def test_hidden_items_are_unknown_and_padding_stays() -> None:
    items = torch.arange(5).repeat(2000, 1)  # 0 is padding
    assert torch.equal(layers.hide_items(items, 0.0), items)
    assert torch.equal(layers.hide_items(items, 1.0), torch.ones_like(items) * (items > 0))
    torch.manual_seed(0)
    some = layers.hide_items(items, 0.25)
    hidden = some != items
    assert not hidden[:, :2].any()  # padding, and what is unknown already
    assert (some[hidden] == 1).all()
    assert 0.22 < hidden[:, 2:].float().mean() < 0.28


@pytest.mark.parametrize("name", ["sasrec", "gru4att"])
def test_without_relative_positions_there_is_nothing_to_learn_of_them(name: str) -> None:
    with_them, without = (net(name, 0, relative_positions=on) for on in (True, False))
    names = {n for n, _ in with_them.named_parameters() if "by_distance" in n}
    assert names
    assert names == {n for n, _ in with_them.named_parameters()} - {
        n for n, _ in without.named_parameters()
    }
    assert all(not b.any() for n, b in without.named_buffers() if "by_distance" in n)


@few
@given(length=st.integers(1, 9), changed=st.integers(0, 8), seed=SEEDS)
def test_a_later_event_never_changes_an_earlier_state_of_sasrec(
    length: int, changed: int, seed: int
) -> None:
    sasrec = net("sasrec", seed)
    rng = np.random.default_rng(seed)
    changed = min(changed, length - 1)
    history = torch.from_numpy(rng.integers(2, ROWS["items"], (2, length)))
    other = history.clone()
    other[:, changed] = (history[:, changed] - 1) % (ROWS["items"] - 2) + 2
    with torch.no_grad():
        before, after = sasrec.states(history), sasrec.states(other)
    torch.testing.assert_close(before[:, :changed], after[:, :changed], rtol=0, atol=0)
    assert (before[:, changed:] != after[:, changed:]).any(dim=2).all()


@few
@given(length=st.integers(1, 9), padding=st.integers(1, 5), seed=SEEDS)
def test_sasrec_trains_and_serves_the_same_states(length: int, padding: int, seed: int) -> None:
    """Padding in front of a batch's shorter rows, and computing the last position only."""
    sasrec = net("sasrec", seed, max_length=14)
    history = torch.from_numpy(np.random.default_rng(seed).integers(2, 40, (2, length)))
    padded = torch.cat([torch.zeros(2, padding, dtype=torch.int64), history], dim=1)
    with torch.no_grad():
        states = sasrec.states(history)
        close = {"rtol": 1e-5, "atol": 1e-5}
        torch.testing.assert_close(sasrec.states(padded)[:, padding:], states, **close)
        torch.testing.assert_close(sasrec.encode(Ragged.of(padded)), states[:, -1], **close)


@few
@given(
    length=st.integers(1, 9),
    padding=st.integers(0, 3),
    heads=st.sampled_from([1, 2, 3, 6]),
    seed=SEEDS,
)
def test_a_layer_of_sasrec_is_pytorchs_transformer_layer(
    length: int, padding: int, heads: int, seed: int
) -> None:
    """Post-norm, causal, padding never looked at, each head's bias by distance in its logits."""
    layer = net("sasrec", seed, dim=6, num_heads=heads, max_length=14).layers[0]
    # In training mode, without dropout: in eval mode PyTorch takes any bias for "hidden".
    expected = nn.TransformerEncoderLayer(6, heads, 6, dropout=0.0, batch_first=True).train()
    with torch.no_grad():
        for target, *sources in (
            (expected.self_attn.in_proj_weight, layer.query.weight, layer.key_value.weight),
            (expected.self_attn.in_proj_bias, layer.query.bias, layer.key_value.bias),
        ):
            target.copy_(torch.cat(sources))
        for target, source in (
            (expected.self_attn.out_proj, layer.out),
            (expected.linear1, layer.feed_forward[0]),
            (expected.linear2, layer.feed_forward[3]),
            (expected.norm1, layer.attention_norm),
            (expected.norm2, layer.feed_forward_norm),
        ):
            target.load_state_dict(source.state_dict())
        x = torch.randn(2, padding + length, 6)
        steps = torch.arange(padding + length)
        hidden = (steps[:, None] < steps) | ((steps < padding) & (steps[:, None] >= padding))
        mask = torch.where(hidden, -1e4, 0.0).expand(2, -1, -1)
        got = layer(x.flatten(0, 1), mask).view_as(x)
        last = layer.last(x, mask[:, -1:])
        biases = []  # in PyTorch's order: all heads of the first row, then those of the second
        for by_distance in layer.by_distance:
            bias = torch.where(hidden, float("-inf"), 0.0)
            for i, j in (~hidden).nonzero().tolist():
                bias[i, j] = by_distance[-1 - (i - j)]
            biases.append(bias)
        wanted = expected(x, src_mask=torch.stack(biases).repeat(2, 1, 1))
    assert layer.by_distance.any()
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(last, wanted[:, -1], rtol=1e-4, atol=1e-5)


def test_heads_of_sasrec_that_do_not_divide_dim_are_refused() -> None:
    with pytest.raises(SeqrecError, match="dim 10 is not a multiple of num_heads 4"):
        net("sasrec", 0, dim=10, num_heads=4)


def test_sasrec_tells_the_order_of_events() -> None:
    sasrec = net("sasrec", 0)
    with torch.no_grad():
        one = sasrec.encode(Ragged.of(torch.tensor([[3, 4, 5, 6]])))
        other = sasrec.encode(Ragged.of(torch.tensor([[4, 3, 5, 6]])))
    assert (one - other).abs().max() > 1e-3


def test_the_positions_of_sasrec_are_the_sinusoids_of_the_paper() -> None:
    """Vaswani et al. 2017, section 3.5: pairs of a sine and a cosine of one wavelength."""
    positions = net("sasrec", 0, dim=6, num_heads=2).positions
    for step in range(len(positions)):
        for i in range(3):
            angle = step / 10_000 ** (2 * i / 6)
            assert math.isclose(positions[step, 2 * i], math.sin(angle), abs_tol=1e-6)
            assert math.isclose(positions[step, 2 * i + 1], math.cos(angle), abs_tol=1e-6)


@few
@given(length=st.integers(1, 9), seed=SEEDS)
def test_the_attention_of_gru4att_is_a_softmax_over_the_real_steps(length: int, seed: int) -> None:
    model = net("gru4att", seed, max_length=10)
    rng = np.random.default_rng(seed)
    history = torch.from_numpy(rng.integers(2, 40, (1, length)))
    types = torch.from_numpy(rng.integers(2, 5, (1, length)))
    gaps = torch.from_numpy(rng.uniform(-5, 2000, (1, length)).astype(np.float32))
    edges = [0, 1, 3, 7, 14, 30, 60, 90, 180, 365, 1000]  # days
    with torch.no_grad():
        vector = model.encode(Ragged.of(history), Ragged.of(types), gaps)[0]
        x = model.items(history) + model.event_types(types)
        # The rows of the gap embedding: padding, unknown, then one for every edge.
        bucket = [2 + max([i for i, edge in enumerate(edges) if g >= edge] or [0]) for g in gaps[0]]
        x = x + model.gaps(torch.tensor([bucket]))
        states, _ = nn.GRU.forward(model.gru, x)
        logits = [
            model.attention(state) + model.by_distance[-length + i]
            for i, state in enumerate(states[0])
        ]
        weights = torch.cat(logits).exp() / torch.cat(logits).exp().sum()
        pooled = sum(weight * state for weight, state in zip(weights, states[0], strict=True))
        torch.testing.assert_close(vector, model.out(pooled), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_dropout_keeps_its_share_and_the_mean(share: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.ones(1001, 300, dtype=dtype, requires_grad=True)
    y = layers.Dropout(share)(x)
    dropped = y == 0
    assert dropped.double().mean().item() == pytest.approx(share, abs=0.004)
    for axis in (0, 1):  # no row and no column is spared
        spread = dropped.double().mean(dim=axis).std().item()
        expected = math.sqrt(share * (1 - share) / x.shape[axis])
        assert spread == pytest.approx(expected, rel=0.25)
    assert y[~dropped].unique().numel() == 1
    assert y.double().mean().item() == pytest.approx(1.0, abs=0.01)
    y.sum().backward()
    torch.testing.assert_close(x.grad, y.detach())  # dropped with the same mask
    torch.manual_seed(0)
    assert torch.equal(layers.Dropout(share)(x), y)


def test_dropout_does_nothing_to_what_is_served_and_takes_any_probability() -> None:
    x = torch.randn(7, 3).T  # not contiguous
    assert torch.equal(layers.Dropout(0.5).eval()(x), x)
    assert torch.equal(layers.Dropout(0.0)(x), x)
    assert (layers.Dropout(1.0)(x) == 0).all()
    assert layers.Dropout(0.3)(x).shape == x.shape
    assert torch.isfinite(layers.Dropout(0.5)(torch.full((99,), math.inf))).any()
