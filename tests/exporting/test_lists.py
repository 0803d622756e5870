"""The best items of every user in a file: as the server answers, whole after a kill, in shards."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import seqrec_export as sx
from seqrec_export.data.interactions import Interactions, months
from seqrec_export.exporting import lists
from seqrec_export.exporting.exported import Exported
from seqrec_export.exporting.lists import recommend_all
from seqrec_export.exporting.whole_histories import whole_feeds
from seqrec_export.serving.server import Server
from seqrec_export.training.run import Run
from support.served import EMBEDDED, TOP_K

K = 20
STRANGERS = [f"stranger {i}" for i in range(200)]


@pytest.fixture
def run(exports: Callable[[str], Exported]) -> Run:
    return exports("sasrec").run


def rows_by_hand(log: Interactions, users: list[str]) -> Iterator[dict[str, Any]]:
    """What a backend that keeps the log would send for each user."""
    assert log.event_types is not None
    assert log.user_features is not None
    numbers = {user: number for number, user in enumerate(log.user_ids)}
    for user in users:
        number = numbers.get(user, -1)
        events = np.flatnonzero(log.users == number)
        events = events[np.argsort(log.times[events], kind="stable")]
        now = log.times.max()
        if log.sessions is not None and number in log.sessions.users:
            now = log.sessions.times[np.flatnonzero(log.sessions.users == number)[-1]]
        row = {
            "history_item_ids": [log.item_ids[i] for i in log.items[events]],
            "history_event_types": [log.event_type_ids[t] for t in log.event_types[events]],
            "history_gap_days": np.maximum(now - log.times[events], 0) / 86_400,
            "user_id": user,
            "month": int(months(np.array([now]))[0]),
        }
        age = log.user_features["age"].iloc[number] if number >= 0 else float("nan")
        yield row | {"age": float(age)}


def of_each(table: Path) -> dict[str, pd.DataFrame]:
    return dict(tuple(pq.read_table(table).to_pandas().groupby("user_id", sort=False)))


@pytest.mark.parametrize(
    ("name", "filters"),
    [
        ("sasrec", {}),
        ("gru4att", {"where": {"tags": ["tag 2", "tag 3"]}, "keep_seen": True}),
        ("two_tower", {"exclude": 3, "where": {"tags": ["tag 2", "no such tag"]}}),
    ],
)
def test_500_users_get_what_the_server_answers(
    name: str,
    filters: dict[str, Any],
    exports: Callable[[str], Exported],
    interactions: Interactions,
    tritons: Callable[[str], Server],
    tmp_path: Path,
) -> None:
    run = exports(name).run
    users = [*interactions.user_ids, *STRANGERS]
    if "exclude" in filters:
        filters = filters | {"exclude": list(run.vocabularies["items"].ids[: filters["exclude"]])}
    out = tmp_path / "lists.parquet"
    sx.recommend_all(run, interactions, out, k=K, users=users, progress=False, **filters)
    sent = {f"allow_{of}": values for of, values in filters.get("where", {}).items()}
    sent |= {"exclude_item_ids": filters["exclude"]} if "exclude" in filters else {}
    sent |= {"keep_seen": 1} if "keep_seen" in filters else {}
    graph = f"{name}_filtered" if sent else name
    inputs = {spec.name for spec in exports(name).graphs[graph].inputs}
    rows = [
        {key: value for key, value in (row | sent).items() if key in inputs}
        for row in rows_by_hand(interactions, users)
    ]
    with sx.Client(tritons(EMBEDDED).grpc_url) as client:
        answers = client.call(graph, rows)
    found = of_each(out)
    for user, row, answer in zip(users, rows, answers, strict=True):
        ours, scores = found[user]["item_id"].to_list(), found[user]["score"].to_numpy()
        assert found[user]["rank"].to_list() == list(range(1, len(ours) + 1))
        theirs = [item for item in answer["item_ids"] if item][:K]
        np.testing.assert_allclose(scores, answer["scores"][: len(ours)], atol=2e-5)
        # Two items of one score, as far as floats go, may change places.
        apart = np.diff(scores, prepend=np.inf, append=-np.inf) < -1e-4
        settled = apart[:-1] & apart[1:]
        settled[-1] = False  # the next one is not in the list
        assert [ours[i] for i in np.flatnonzero(settled)] == [
            theirs[i] for i in np.flatnonzero(settled)
        ]
        if not sent:
            assert not set(ours) & set(row["history_item_ids"]), "however long ago"


def test_shards_that_are_put_together_are_the_file_of_one_run(
    run: Run, interactions: Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seqrec_export.exporting.list_files._GROUP_ROWS", 1_000)
    one = recommend_all(run, interactions, tmp_path / "one.parquet", k=K, batch_size=64)
    assert pq.read_metadata(one).num_row_groups == 6
    for count in (2, 7):  # of 5 batches: some shards of the 7 have nobody
        out = tmp_path / f"{count}.parquet"
        parts = [
            recommend_all(run, interactions, out, k=K, batch_size=64, shard=(number, count))
            for number in range(1, count + 1)
        ]
        assert parts[0] == tmp_path / f"{count}.1-of-{count}.parquet"
        assert sum(pq.read_metadata(part).num_rows for part in parts) == 300 * K
        assert sx.join_lists(out, count).read_bytes() == one.read_bytes()
    users = pq.read_table(one)["user_id"].to_pylist()[::K]
    assert users == list(interactions.user_ids)


def test_shards_that_do_not_go_together_are_refused(
    run: Run, interactions: Interactions, tmp_path: Path
) -> None:
    out = tmp_path / "lists.parquet"
    with pytest.raises(sx.SeqrecError, match=r"lists.1-of-2.parquet is missing"):
        sx.join_lists(out, 2)
    for number, filters in enumerate(({}, {"keep_seen": 1}), start=1):
        recommend_all(run, interactions, out, k=3, filters=filters, shard=(number, 2))
    with pytest.raises(sx.SeqrecError, match=r"2-of-2.parquet is of another filters, model"):
        sx.join_lists(out, 2)
    shutil.copy(tmp_path / "lists.2-of-2.parquet", tmp_path / "lists.1-of-2.parquet")
    with pytest.raises(sx.SeqrecError, match="is not shard 1 of 2"):
        sx.join_lists(out, 2)
    assert not out.exists()


def test_lists_that_were_killed_go_on_and_are_the_same(
    run: Run, interactions: Interactions, tmp_path: Path
) -> None:
    whole = recommend_all(run, interactions, tmp_path / "whole.parquet", batch_size=7)
    out = tmp_path / "a.parquet"

    def kill(done: int, total: int) -> None:
        if done >= 150:
            os.kill(os.getpid(), signal.SIGKILL)

    pid = os.fork()
    if pid == 0:  # never returns into pytest
        try:
            recommend_all(run, interactions, out, batch_size=7, threads=1, progress=kill)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    seen: list[int] = []
    said: list[str] = []
    with pytest.raises(sx.SeqrecError, match="begun with another model, log or settings"):
        recommend_all(run, interactions, out, batch_size=7, k=3, resume=True)
    recommend_all(
        run,
        interactions,
        out,
        batch_size=7,
        resume=True,
        progress=lambda done, total: seen.append(done),
        report=said.append,
    )
    assert seen[0] == 147
    assert said == [f"going on after the 140 users that {tmp_path}/.a.parquet.part holds"]
    assert out.read_bytes() == whole.read_bytes()
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]


@pytest.mark.parametrize("given", ["csv", "parquet", "frame"])
def test_what_a_table_says_is_left_out_for_that_user_alone(
    given: str, run: Run, interactions: Interactions, tmp_path: Path
) -> None:
    before = of_each(recommend_all(run, interactions, tmp_path / "before.parquet", k=6))
    never = before[interactions.user_ids[0]]["item_id"].iloc[4]
    pairs = pd.DataFrame(
        [(user, found["item_id"].iloc[i]) for user, found in before.items() for i in (0, 2)]
        + [("nobody", never), (interactions.user_ids[0], "no such item")],
        columns=["user_id", "item_id"],
    )[::2]  # every user's first one
    table: Any = pairs
    if given == "csv":
        pairs.to_csv(table := tmp_path / "pairs.csv", index=False)
    if given == "parquet":
        pairs.to_parquet(table := tmp_path / "pairs.parquet")
    said: list[str] = []
    after = recommend_all(
        run,
        interactions,
        tmp_path / "after.parquet",
        k=5,
        exclude_from=table,
        filters={"exclude_item_ids": [never, "a slip"]},
        report=said.append,
    )
    assert "1 of the 2 values of exclude_item_ids are not known" in said[0]
    assert "'a slip'" in said[0]
    assert "1 of 301 pairs of " in said[1]
    for user, found in of_each(after).items():
        kept = [item for item in before[user]["item_id"].to_list()[1:] if item != never]
        assert found["item_id"].to_list()[: len(kept)] == kept, user


def test_users_of_a_file_come_in_its_order_and_strangers_get_popular_items(
    run: Run, interactions: Interactions, tmp_path: Path
) -> None:
    known = list(interactions.user_ids[[7, 3]])
    table = tmp_path / "users.csv"
    table.write_text("user_id,why\n" + "".join(f"{user},x\n" for user in [known[0], "new", *known]))
    said: list[str] = []
    out = recommend_all(
        run, interactions, tmp_path / "some.parquet", users=table, report=said.append
    )
    found = of_each(out)
    assert list(found) == [known[0], "new", known[1]]
    assert found["new"]["item_id"].to_list() == list(run.vocabularies["items"].ids[:10])
    assert said == [
        "note: 1 users were named before, and get one list",
        "note: 1 of 3 users are not in the log, such as 'new'; they get what the model gives if "
        "nothing is known",
    ]


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("sasrec", {"k": TOP_K + 1}, f"with {TOP_K} items in an answer, and a list is to have 31"),
        ("sasrec", {"k": 0}, "k is 0"),
        ("mlink", {}, "mlink gives scores, known_items: it does not rank the items"),
        (
            "sasrec",
            {"where": {"colour": ["red"]}},
            "takes no allow_colour; it takes",
        ),
        ("sasrec", {"where": {"tags": []}}, "where={'tags': ...}: found a list without a value"),
        ("sasrec", {"allow": [""]}, "sasrec, allow: found a list without a value"),
        ("sasrec", {"exclude": [3]}, "sasrec, exclude"),
        ("two_tower", {"keep_seen": True}, "two_tower_filtered takes no keep_seen"),
        ("sasrec", {"shard": (3, 2)}, "--shard is 3/2; give 1/2 to 2/2"),
        ("sasrec", {"out": "lists.csv"}, "name a Parquet file"),
        ("sasrec", {"users": pd.DataFrame({"name": ["a"]})}, "has no column of the users"),
        (
            "sasrec",
            {"exclude_from": pd.DataFrame({"user": ["a"], "sku": ["b"]})},
            "the table has none of the model's items: its first is 'b', and an item is called",
        ),
    ],
)
def test_what_cannot_be_made_is_one_sentence(
    name: str,
    arguments: dict[str, Any],
    said: str,
    exports: Callable[[str], Exported],
    interactions: Interactions,
    tmp_path: Path,
) -> None:
    out = tmp_path / arguments.pop("out", "lists.parquet")
    with pytest.raises(sx.SeqrecError) as refused:
        sx.recommend_all(exports(name).run, interactions, out, progress=False, **arguments)
    assert said in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_one_long_history_does_not_make_a_batch_wide(
    exports: Callable[[str], Exported],
    interactions: Interactions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph = exports("gru4att").graphs["gru4att"]
    log, users = lists.RawLog(interactions), np.arange(60)
    together = whole_feeds(graph, log, users, interactions.asked_at[users], {})
    monkeypatch.setattr("seqrec_export.exporting.whole_histories._CELLS_AT_ONCE", 50)
    in_parts = whole_feeds(graph, log, users, interactions.asked_at[users], {})
    assert {spec.name for spec in graph.onnx_inputs} == set(together) == set(in_parts)
    for name, values in together.items():
        np.testing.assert_array_equal(values, in_parts[name])
