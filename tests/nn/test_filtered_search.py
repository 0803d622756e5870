"""The search among allowed items with int8 vectors finds what the exact one finds."""

import numpy as np
import pytest
import torch
from torch import Tensor

from seqrec_export.data.vocabulary import NUM_RESERVED, PAD
from seqrec_export.nn.filtered_search import Filters, Wanted, best_allowed_items
from seqrec_export.nn.item_search import Catalogue, Int8Search, exact
from seqrec_export.nn.ragged import Ragged
from seqrec_export.verification.gate import LEAST_RECALL

ITEMS, DIM, USERS, CLUSTERS, K = 20_000, 64, 40, 400, 100
ROWS = ITEMS + NUM_RESERVED


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    """Items in clusters, as those of a shop are, some of them many times longer than others."""
    rng = torch.Generator().manual_seed(3)
    centers = torch.randn(CLUSTERS, DIM, generator=rng)
    lengths = torch.exp(0.3 * torch.randn(ROWS, 1, generator=rng))
    cluster = torch.arange(ROWS) % CLUSTERS
    vectors = (centers[cluster] + 0.5 * torch.randn(ROWS, DIM, generator=rng)) * lengths
    return Catalogue(vectors, torch.randn(ROWS, generator=rng))


def same_for_all(values: Tensor) -> Ragged:
    return Ragged.of(values[None].expand(USERS, -1))


def filters(share: float, kind: str) -> tuple[Filters, Tensor]:
    """Those that leave a share of the items, and which items they leave."""
    chosen = torch.zeros(ROWS, dtype=torch.bool)
    if kind == "an attribute of whole clusters":
        chosen = torch.arange(ROWS) % CLUSTERS < share * CLUSTERS
    else:
        order = torch.from_numpy(np.random.default_rng(1).permutation(ITEMS)) + NUM_RESERVED
        chosen[order[: int(share * ITEMS)]] = True
    chosen[:NUM_RESERVED] = False
    nothing, items = same_for_all(torch.tensor([PAD])), torch.arange(ROWS)
    if kind == "exclusions":
        return Filters(excluded=[same_for_all(items[~chosen])], allowed=nothing), chosen
    if kind == "a list":
        return Filters(excluded=[nothing], allowed=same_for_all(items[chosen])), chosen
    values = (chosen.to(torch.int32) + NUM_RESERVED) * (items >= NUM_RESERVED)
    wanted = Wanted(
        columns=[values.to(torch.int32)],
        num_rows=NUM_RESERVED + 2,
        wanted=same_for_all(torch.tensor([NUM_RESERVED + 1])),
    )
    return Filters(excluded=[nothing], allowed=nothing, attributes=[wanted]), chosen


@pytest.mark.parametrize(
    "kind", ["exclusions", "a list", "an attribute", "an attribute of whole clusters"]
)
@pytest.mark.parametrize("share", [0.5, 0.05, 0.005])
def test_int8_finds_what_is_left_of_the_catalogue(
    catalogue: Catalogue, share: float, kind: str
) -> None:
    users = torch.randn(USERS, DIM, generator=torch.Generator().manual_seed(7))
    asked, chosen = filters(share, kind)
    known = torch.ones(USERS, 1, dtype=torch.int32)
    wanted = torch.where(chosen, catalogue.scores(users), torch.finfo(torch.float32).min)
    best = wanted.topk(K, dim=1).values
    for search in (exact, Int8Search(catalogue)):
        items, scores = best_allowed_items(search, catalogue, users, K, asked, known)
        assert chosen[items].all()
        torch.testing.assert_close(scores, wanted.gather(1, items), rtol=0, atol=1e-4)
        found = (scores >= best[:, -1:] - 1e-4).float().mean()
        assert found >= (LEAST_RECALL if search is not exact else 1)
