"""How good similar items are, compared with what a shop would count.

    seqrec-export train --model sasrec --data DATA --preset ml-1m
    python -m bench.quality.similar_items DATA RUN [RUN ...]

HR@20 of the next item, given only the last one: for each held-out event of a user, the query is
the item before it, and a hit is one of the 20 nearest of `<model>_similar_items`. Nothing but the
query is left out, so a next event that is the same item again is no case. An item that training
never saw is a miss. Each run's own split is taken; all contenders get the same queries and the same
training events:

- popularity;
- same user: how many users have both;
- close together: how often they stand within W events of each other;
- next: how often the one comes within W events after the other.

Counts are taken as they are, or divided by the root of the item's own (cosine); that and W, one of
1, 2, 5, 10 and 20, are chosen on the validation part. The line "asked with the item" is the model
itself, asked with a history of the query alone, for models that have one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import seqrec_export as sx
from seqrec_export.data.batches import Indices
from seqrec_export.data.histories import Dataset, prepare
from seqrec_export.data.interactions import Interactions
from seqrec_export.data.vocabulary import NUM_RESERVED

K = 20
DENSE = 50_000_000  # cells of a matrix of users and items that is multiplied with itself
WINDOWS = (1, 2, 5, 10, 20)
AT_ONCE = 64
Lists = Callable[[Indices], Indices]  # (Q,) query item indices -> (Q, K), best first
Cases = tuple[Indices, Indices]  # (P,) query and target item indices


def cases(dataset: Dataset, positions: Indices) -> Cases:
    """The held-out events whose user has an event of another, known item before."""
    histories = dataset.histories
    positions = positions[positions > histories.starts(positions)]
    queries, targets = histories.items[positions - 1], histories.items[positions]
    kept = (queries != targets) & (queries >= NUM_RESERVED) & (dataset.item_counts[queries] > 0)
    return queries[kept], targets[kept]


def hit_rate(of: Cases, lists: Lists) -> float:
    """HR@K over all cases; a list is made once for each query."""
    queries, targets = of
    distinct, place = np.unique(queries, return_inverse=True)
    return float((lists(distinct)[place] == targets[:, None]).any(axis=1).mean())


class Counts:
    """Co-occurrences in the training events of a dataset. What ties goes by popularity."""

    def __init__(self, dataset: Dataset) -> None:
        histories = dataset.histories
        known = dataset.trained & (histories.items >= NUM_RESERVED)
        self.items, self.users = histories.items[known], histories.users[known].astype(np.int64)
        self.rows = dataset.items.num_rows
        self.norms = np.sqrt(np.maximum(dataset.item_counts, 1))
        # Item indices are in the order of popularity.
        self.popular = np.arange(NUM_RESERVED, NUM_RESERVED + K + 1)

    def popularity(self, queries: Indices) -> Indices:
        """The most popular items, for all the same but the query."""
        rows = np.tile(self.popular, (len(queries), 1))
        order = (rows == queries[:, None]).argsort(axis=1, kind="stable")
        return np.take_along_axis(rows, order, axis=1)[:, :K]

    def same_user(self, *, cosine: bool) -> Lists:
        """By the number of users who have both."""
        users, of_user = np.unique(self.users, return_inverse=True)
        user, item = np.divmod(np.unique(of_user * self.rows + self.items), self.rows)
        if len(users) * self.rows <= DENSE:
            matrix = np.zeros((len(users), self.rows), np.float32)
            matrix[user, item] = 1
            together = matrix.T @ matrix
            pairs = np.flatnonzero(together)
            return self._lists(pairs, together.ravel()[pairs], cosine=cosine)
        keys = []
        for distance in range(1, int(np.bincount(user).max())):
            same = user[distance:] == user[:-distance]
            one, other = item[:-distance][same], item[distance:][same]
            keys += [one * self.rows + other, other * self.rows + one]
        return self._lists(*np.unique(np.concatenate(keys), return_counts=True), cosine=cosine)

    def within(self, window: int, *, after: bool, cosine: bool) -> Lists:
        """By how often the other comes within so many events of the query, or only after it."""
        keys = []
        for distance in range(1, window + 1):
            same = self.users[distance:] == self.users[:-distance]
            first, then = self.items[:-distance][same], self.items[distance:][same]
            keys.append(first * self.rows + then)
            if not after:
                keys.append(then * self.rows + first)
        return self._lists(*np.unique(np.concatenate(keys), return_counts=True), cosine=cosine)

    def _lists(self, pairs: Indices, counts: NDArray[Any], *, cosine: bool) -> Lists:
        """Pairs as one number each, query first; popular items after those that were counted."""
        one, other = pairs // self.rows, pairs % self.rows
        different = one != other
        one, other, counts = one[different], other[different], counts[different]
        scores = counts / self.norms[other] if cosine else counts
        order = np.lexsort((other, -scores, one))
        one, other = one[order], other[order]
        begins = np.searchsorted(one, np.arange(self.rows + 1))

        def lists(queries: Indices) -> Indices:
            found = self.popularity(queries)
            for row, query in enumerate(queries):
                best = other[begins[query] : begins[query + 1]][:K]
                rest = found[row][~np.isin(found[row], best)]
                found[row] = np.concatenate([best, rest])[:K]
            return found

        return lists

    def contenders(self) -> dict[str, dict[str, Callable[[], Lists]]]:
        """What is counted, and with what settings."""
        kinds = {"counts": False, "cosine": True}
        found: dict[str, dict[str, Callable[[], Lists]]] = {
            "same user": {kind: partial(self.same_user, cosine=kinds[kind]) for kind in kinds}
        }
        for name, after in (("close together", False), ("next", True)):
            found[name] = {
                f"W={window}, {kind}": partial(self.within, window, after=after, cosine=cosine)
                for window in WINDOWS
                for kind, cosine in kinds.items()
            }
        return found


def by_ids(run: sx.Run, answers: Callable[[Sequence[str]], list[dict[str, object]]]) -> Lists:
    """Lists of a run's own answers, as item indices; a list that is too short ends with 0."""
    vocabulary = run.vocabularies["items"]
    index = {id_: row for row, id_ in enumerate(vocabulary.strings)}

    def lists(queries: Indices) -> Indices:
        found = np.zeros((len(queries), K), np.int64)
        for begin in range(0, len(queries), AT_ONCE):
            some = [vocabulary.strings[q] for q in queries[begin : begin + AT_ONCE]]
            for row, answer in enumerate(answers(some), begin):
                ids = [index[id_] for id_ in answer["item_ids"]]  # type: ignore[attr-defined]
                found[row, : len(ids)] = ids
        return found

    return lists


def print_table(log: Interactions, run: sx.Run) -> None:
    """One line a contender, on the run's own split."""
    model = run.model
    dataset = prepare(log, model.split, run.seed, new_items=model.ranks_new_items)
    if dataset.items.ids != run.vocabularies["items"].ids:
        raise SystemExit(f"{run.path} was not trained on this log")
    validation, test = (cases(dataset, dataset.positions(part)) for part in ("validation", "test"))
    print(f"\n{run.path}, {len(test[0]):,} cases{'':10}HR@{K}")

    def show(name: str, rate: float) -> None:
        print(f"  {name:<44}{rate:.4f}", flush=True)

    counts = Counts(dataset)
    show("popularity", hit_rate(test, counts.popularity))
    for name, settings in counts.contenders().items():
        rates = {setting: hit_rate(validation, make()) for setting, make in settings.items()}
        best = max(rates, key=lambda setting: rates[setting])
        show(f"{name} ({best})", hit_rate(test, settings[best]()))
    show(
        f"{model.name}_similar_items",
        hit_rate(test, by_ids(run, lambda ids: run.similar([[id_] for id_ in ids], K))),
    )
    if "history_item_ids" in {spec.name for spec in model.graphs(run.config, K)[model.name].inputs}:
        ask = by_ids(run, lambda ids: run.recommend([{"history_item_ids": [i]} for i in ids], K))
        show(f"{model.name}, asked with the item", hit_rate(test, ask))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", help="the log that the runs were trained on, as `--data` takes it")
    parser.add_argument("runs", nargs="+")
    options = parser.parse_args()
    torch.set_num_threads(1)
    log = sx.read(options.data)
    for path in options.runs:
        print(f"{path} ...", file=sys.stderr)
        print_table(log, sx.load(path))


if __name__ == "__main__":
    main()
