"""two_tower: query and item towers in one embedding space, searched by cosine.

It is trained with in-batch softmax, a temperature and a correction for item popularity (Yi et al.
2019, "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations"). Ids are
dropped at random in training, so that new customers and articles have a vector from their features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from seqrec_export.contract import Graph, Spec, Tolerance
from seqrec_export.data.batches import Indices
from seqrec_export.data.histories import Dataset, Part
from seqrec_export.data.interactions import months
from seqrec_export.data.vocabulary import NUM_RESERVED, UNKNOWN
from seqrec_export.evaluation.metrics import Metrics
from seqrec_export.evaluation.ranking import basket_baselines, basket_metrics
from seqrec_export.models import wire
from seqrec_export.models.filtered import Retrieval
from seqrec_export.models.model import Batch, Metric, Model
from seqrec_export.models.next_item import NextItem
from seqrec_export.models.retrieval import candidate_scorer
from seqrec_export.models.settings import SHARE, TWO_OR_MORE, WIDTH, Range, Settings, setting
from seqrec_export.nn import layers, losses
from seqrec_export.nn.item_search import Catalogue, Search, best_items, exact, int8_search

ITEM_FEATURES = ("garment_group_name", "index_group_name")
_ITEM_ROWS_AT_ONCE = 65_536
_OLDEST = 120.0  # years
_UNIT_TOLERANCE = Tolerance(2e-6)  # vectors of unit length, and their cosines


@dataclass(frozen=True, kw_only=True)
class TwoTowerConfig(Settings):
    """Settings of `two_tower`."""

    dim: int = setting(32, "size of the shared space", WIDTH)
    id_dim: int = setting(32, "size of the two id embeddings", WIDTH)
    hidden: int = setting(64, "width of each tower's hidden layer", WIDTH)
    temperature: float = setting(0.1, "cosines are divided by it", Range(low=0.001, high=1_000))
    id_dropout: float = setting(0.1, "share of training ids replaced by the unknown id", SHARE)
    learning_rate: float = 3e-3
    lr_decay: float = 0.9
    batch_size: int = setting(1024, "purchases a step; a batch norm takes two", TWO_OR_MORE)
    patience: int = 3


class TwoTower(nn.Module):
    """Each tower: embedding and features, two linear layers with ReLU between, unit length."""

    mean_age: Tensor  # () years
    groups: Tensor  # (V, F) group indices
    log_q: Tensor  # (V,) log share of the training purchases
    item_index: Tensor  # (V, D) unit vectors

    def __init__(self, config: TwoTowerConfig, rows: Mapping[str, int]) -> None:
        super().__init__()
        self.config = config
        # A step sees few of them: `sparse` lets the training leave the others alone.
        self.users = nn.Embedding(rows["users"], config.id_dim, sparse=True)
        self.items = nn.Embedding(rows["items"], config.id_dim, sparse=True)
        for embedding in (self.users, self.items):
            nn.init.normal_(embedding.weight, std=0.1)
        self.age_norm = nn.BatchNorm1d(1)
        self.query_tower = _tower(config.id_dim + 4, config)
        groups = sum(rows[name] for name in ITEM_FEATURES)
        self.item_tower = _tower(config.id_dim + groups, config)
        self.group_rows = [rows[name] for name in ITEM_FEATURES]
        self.register_buffer("mean_age", torch.tensor(0.0))
        self.register_buffer("groups", torch.zeros(rows["items"], len(ITEM_FEATURES)).long())
        self.register_buffer("log_q", torch.zeros(rows["items"]))
        self.register_buffer("item_index", torch.zeros(rows["items"], config.dim))

    @property
    def catalogue(self) -> Catalogue:
        """What a user embedding is multiplied with."""
        return Catalogue(self.item_index)

    def fill_buffers(self, dataset: Dataset) -> None:
        """Take over the mean age, the articles' groups and how often each was bought."""
        ages = _ages(dataset, dataset.histories.users[dataset.train])
        self.mean_age.fill_(float(np.nanmean(ages)) if np.isfinite(ages).any() else 40.0)
        assert dataset.item_features is not None
        for column, name in enumerate(ITEM_FEATURES):
            values = dataset.item_features[name].to_numpy(dtype=object)
            indices = dataset.vocabularies[name].encode(values)
            indices[indices < NUM_RESERVED] = UNKNOWN  # "" is a missing group, not padding
            self.groups[:, column] = torch.from_numpy(indices)
        share = dataset.item_counts / max(dataset.item_counts.sum(), 1)
        self.log_q.copy_(torch.from_numpy(np.log(np.maximum(share, 1e-9))))

    def finish(self) -> None:
        """Build the index of all item vectors."""
        self.eval()
        with torch.no_grad():
            rows = torch.arange(len(self.item_index), device=self.item_index.device)
            for start in range(0, len(rows), _ITEM_ROWS_AT_ONCE):
                part = rows[start : start + _ITEM_ROWS_AT_ONCE]
                vectors = self.encode_items(part, self.groups[part])
                self.item_index[part] = vectors.to(self.item_index.dtype)  # autocast may be on

    def encode(self, user: Tensor, age: Tensor, month: Tensor) -> Tensor:
        """(B, 1) user index, (B, 1) years, (B, 1) month 1..12 -> (B, D) unit vector."""
        user = torch.where(user[:, 0] >= NUM_RESERVED, user[:, 0], UNKNOWN)
        plausible = (age > 0) & (age < _OLDEST)  # False for NaN
        years = self.age_norm(torch.where(plausible, age, self.mean_age))
        known_month = ((month >= 1) & (month <= 12)).to(years.dtype)
        # Clipped as a float: ONNX Runtime has no CUDA kernel that clips an int32.
        angle = month.to(years.dtype).clamp(0, 12) * (2 * np.pi / 12)
        season = [torch.sin(angle) * known_month, torch.cos(angle) * known_month]
        has_age = plausible.to(years.dtype)
        x = torch.cat([self.users(user), years, has_age, *season], dim=1)
        return F.normalize(self.query_tower(x), dim=1)

    def encode_items(self, item: Tensor, groups: Tensor) -> Tensor:
        """(B,) item indices, (B, F) group indices -> (B, D) unit vectors."""
        item = torch.where(item >= NUM_RESERVED, item, UNKNOWN)
        columns = [self.items(item)]
        for column, rows in enumerate(self.group_rows):
            group = groups[:, column]
            group = torch.where(group >= NUM_RESERVED, group, UNKNOWN)
            one_hot = group[:, None] == torch.arange(rows, device=group.device)[None]
            columns.append(one_hot.to(columns[0].dtype))
        return F.normalize(self.item_tower(torch.cat(columns, dim=1)), dim=1)

    def loss(self, batch: Batch) -> Tensor:
        """In-batch softmax over cosines."""
        item, rate = batch["target"], self.config.id_dropout
        query = _encode(self, batch | {"user": layers.hide_items(batch["user"], rate)})
        items = self.encode_items(layers.hide_items(item, rate), self.groups[item])
        return losses.in_batch_softmax(
            query, items, item, self.log_q[item], self.config.temperature
        )


def _tower(width: int, config: TwoTowerConfig) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, config.hidden), nn.ReLU(), nn.Linear(config.hidden, config.dim)
    )


def graphs(config: TwoTowerConfig, top_k: int) -> dict[str, Graph]:
    """What Triton serves. Bought articles are recommended again: people buy them again."""
    query = (wire.USER_ID, wire.AGE, wire.MONTH)
    user = wire.user_embedding(config.dim)
    known = replace(
        wire.KNOWN_ITEMS,
        meaning="1 where the model knew the user_id; 0: the answer comes from age and month alone",
    )

    def known_user(user: Tensor) -> Tensor:
        return (user >= NUM_RESERVED).to(torch.int32)

    def reference_scores(net: TwoTower, user: Tensor, age: Tensor, month: Tensor) -> Tensor:
        return net.catalogue.scores(net.encode(user, age, month))

    def recommend(
        net: TwoTower, user: Tensor, age: Tensor, month: Tensor, search: Search = exact
    ) -> tuple[Tensor, ...]:
        best = best_items(search, net.catalogue, net.encode(user, age, month), top_k)
        return (*best, known_user(user))

    def encode(net: TwoTower, user: Tensor, age: Tensor, month: Tensor) -> tuple[Tensor, ...]:
        return net.encode(user, age, month), known_user(user)

    def encode_item(net: TwoTower, item: Tensor, *groups: Tensor) -> tuple[Tensor, ...]:
        return (net.encode_items(item[:, 0], torch.cat(groups, dim=1)),)

    def text(name: str, vocabulary: str, meaning: str) -> Spec:
        shape = ("batch", 1)
        return Spec(name=name, dtype="string", shape=shape, vocabulary=vocabulary, meaning=meaning)

    item = text("item_id", "items", "the article's id; a new article has a vector from its groups")
    groups = [
        text(name, name, f"the article's {name}; one that the model does not know is fine")
        for name in ITEM_FEATURES
    ]
    vector = replace(
        user,
        name="item_embedding",
        meaning="the article in the space of user_embedding, unit length",
    )
    fused = Graph(
        name="two_tower",
        meaning="the articles nearest to a customer at a time of the year",
        function=recommend,
        inputs=query,
        outputs=(*wire.ranked_items(top_k), known),
        tolerance=_UNIT_TOLERANCE,
        reference_scores=reference_scores,
        int8_search=lambda net: int8_search(net.catalogue, top_k),
    )
    retrieval = Retrieval(
        graph=fused,
        top_k=top_k,
        encode=TwoTower.encode,
        known=lambda user, *rest: known_user(user),
        removes_seen=False,
        shop=lambda net: Catalogue(net.item_index, popularity=net.log_q),
    )
    return {
        "two_tower": replace(fused, filtered=retrieval.graphs),
        "two_tower_encoder": Graph(
            name="two_tower_encoder",
            meaning="a customer at a time of the year as a vector of unit length",
            function=encode,
            inputs=query,
            outputs=(user, known),
            tolerance=_UNIT_TOLERANCE,
        ),
        "two_tower_scorer": candidate_scorer("two_tower", user),
        "two_tower_item_encoder": Graph(
            name="two_tower_item_encoder",
            meaning="an article as a vector of unit length",
            function=encode_item,
            inputs=(item, *groups),
            outputs=(vector,),
            tolerance=_UNIT_TOLERANCE,
        ),
    }


def _ages(dataset: Dataset, users: NDArray[np.int32]) -> NDArray[np.float32]:
    """(P,) rows of user_ids -> (P,) years; NaN is missing."""
    if dataset.user_features is None or "age" not in dataset.user_features:
        return np.full(len(users), np.nan, np.float32)
    return dataset.user_features["age"].iloc[users].to_numpy(dtype=np.float32, copy=True)


def _inputs(dataset: Dataset, config: TwoTowerConfig, targets: Indices) -> Batch:
    users = dataset.histories.users[targets]
    return {
        "user": torch.from_numpy(dataset.user_index[users][:, None]),
        "age": torch.from_numpy(_ages(dataset, users)[:, None]),
        "month": torch.from_numpy(months(dataset.histories.times[targets])[:, None]),
    }


def _encode(net: TwoTower, batch: Batch) -> Tensor:
    return net.encode(batch["user"], batch["age"], batch["month"])


_NEXT_ITEM = NextItem(inputs=_inputs, encode=_encode, least_rows=2)


def evaluate(net: nn.Module, dataset: Dataset, config: TwoTowerConfig, part: Part) -> Metrics:
    """Recall@K, HR@K and MAP@12 of what each customer bought in the part; K = 12, 100."""
    assert isinstance(net, TwoTower)
    was_training = net.training
    net.finish()  # the index has to be that of the current weights
    score = _NEXT_ITEM.scores(net, dataset, config)
    result = basket_metrics(score, dataset, dataset.positions(part))
    net.train(was_training)
    return result


MODEL = Model(
    name="two_tower",
    summary="query and item towers, cosine over the whole catalogue",
    config=TwoTowerConfig,
    net=TwoTower,
    graphs=graphs,
    needs=("user_features", "item_features"),
    split="time",
    batches=_NEXT_ITEM.batches,
    num_batches=_NEXT_ITEM.num_batches,
    evaluate=evaluate,
    baselines=lambda dataset, config, part: basket_baselines(dataset, dataset.positions(part)),
    metric=Metric(
        name="recall@12",
        baseline="recent popularity",
        headline=("recall@12", "recall@100", "map@12"),
    ),
    ranks_new_items=True,
    presets={"source": {"temperature": 1.0, "batch_size": 64}},
)
