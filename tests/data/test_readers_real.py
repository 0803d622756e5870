"""What every reader makes of the real logs, if they are there."""

import numpy as np
import pytest

from seqrec_export.data.readers import read
from seqrec_export.data.readers.jdsearch import REQUEST_TIME
from seqrec_export.data.readers.titles import titles
from support.real_data import real_data


@pytest.mark.parametrize(
    ("spec", "counts"),
    [
        ("movielens:ml-1m/ratings.dat.gz", (1_000_209, 6_040, 3_706)),
        ("movielens:ml-1m/ml-1m_sasrec.txt.gz", (999_611, 6_040, 3_416)),
        ("movielens:ml-100k/u.data.gz", (100_000, 943, 1_682)),
        ("movielens:ml-latest-small/ratings.csv.gz", (100_004, 671, 9_066)),
    ],
)
def test_real_movielens_has_the_published_counts(spec, counts):
    reader, relative = spec.split(":")
    log = read(f"{reader}:{real_data(relative)}")
    assert (len(log), len(log.user_ids), len(log.item_ids)) == counts


def test_real_hm_week_has_its_events_and_all_articles():
    log = read(f"hm:{real_data('hm')}")
    assert (len(log), len(np.unique(log.users)), len(log.item_ids)) == (240_311, 68_984, 105_542)
    assert all(len(item) == 10 and item.startswith("0") for item in log.item_ids)
    assert (log.item_features["garment_group_name"] != "").all()
    assert log.item_features["garment_group_name"].nunique() == 21
    assert log.user_features["age"].notna().sum() == 9_874


def test_real_hm_head_has_lost_zeros_and_regains_them():
    log = read(f"hm:{real_data('hm/transactions_train.head_sample.csv.gz')}")
    assert len(log) == 10_000
    assert log.item_ids[log.items[0]] == "0663713001"
    assert len(log.item_ids) == 105_542


def test_real_jdsearch_rows_have_their_lengths():
    log = read(f"jdsearch:{real_data('jdsearch_sample/user_behavior_data_sample.txt')}")
    assert np.bincount(log.users).tolist() == [182, 46, 2]
    assert np.diff(log.sessions.offsets).tolist() == [90, 89, 83]
    assert log.times[-2:].tolist() == [REQUEST_TIME - 49_687, REQUEST_TIME - 49_660]


@pytest.mark.parametrize(
    ("relative", "count", "item", "title"),
    [
        ("ml-1m/movies.dat", 3_883, "1", "Toy Story (1995)"),
        ("ml-100k/u.item", 1_682, "1", "Toy Story (1995)"),
        ("ml-latest-small/movies.csv", 9_125, "1", "Toy Story (1995)"),
        ("hm/articles.parquet", 105_542, "0108775015", "Strap top"),
    ],
)
def test_real_titles_are_complete(relative, count, item, title):
    found = titles(real_data(relative))
    assert (len(found), found[item]) == (count, title)
