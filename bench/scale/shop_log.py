"""A log of H&M's shape and size from the synthetic shop, written for `bench/scale/growth.py`.

    python -m bench.scale.shop_log ROWS FORMAT FOLDER

`transactions_train`, `customers` and `articles`, as CSV or as Parquet, with H&M's column types:
ids are text (64 hex digits, 10 digits), days are text in CSV and date32 in Parquet. 31.8 million
rows have 1.36 million customers and 105,542 articles, fewer rows fewer in proportion. The two years
of the shop become the 734 days of H&M; rows are sorted by day and customer, as H&M sorts them.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from seqrec_export.data.readers.synthetic import generate
from seqrec_export.data.readers.synthetic_shop import SPAN, START

FULL_ROWS, FULL_CUSTOMERS, FULL_ARTICLES = 31_800_000, 1_362_281, 105_542
FIRST_DAY, DAYS = np.datetime64("2018-09-20"), 734
ROWS_AT_ONCE = 1_000_000


def write(rows: int, form: str, folder: Path) -> None:
    """Write the three tables; `folder` appears once it is complete."""
    log = generate(
        users=max(1, rows * FULL_CUSTOMERS // FULL_ROWS),
        items=max(50, rows * FULL_ARTICLES // FULL_ROWS),
        events=rows,
        sessions=0,
    )
    customers = np.array([_digest(user) for user in log.user_ids.tolist()])
    order = np.argsort(customers)
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order))
    days = ((log.times - START) * DAYS // SPAN).astype(np.int16)
    users = rank[log.users]
    in_file = np.lexsort((users, days))
    users, items, days = users[in_file], log.items[in_file], days[in_file]
    customers = pa.array(customers[order])
    articles = pa.array(log.item_ids, pa.string())
    rng = np.random.default_rng(0)

    def transactions() -> Iterator[pa.Table]:
        for start in range(0, rows, ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            uniform = rng.random((2, len(users[part])))
            yield pa.table(
                {
                    "t_dat": pa.array(FIRST_DAY + days[part]),
                    "customer_id": customers.take(pa.array(users[part])),
                    "article_id": articles.take(pa.array(items[part])),
                    "price": pa.array(np.round(0.02 + 0.05 * uniform[0] ** 2, 6), pa.float32()),
                    "sales_channel_id": pa.array(1 + (uniform[1] < 0.7), pa.int8()),
                }
            )

    beside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    _save(transactions(), form, beside / "transactions_train")
    _save(_customers(log.user_features.take(order), customers), form, beside / "customers")
    features = pa.Table.from_pandas(log.item_features, preserve_index=False)
    _save([features.add_column(0, "article_id", articles)], form, beside / "articles")
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _customers(features: pd.DataFrame, ids: pa.Array) -> Iterator[pa.Table]:
    """The columns of H&M's table; its postal codes are digests as well."""
    codes = pa.array([_digest(str(code)) for code in range(1 + len(ids) // 4)])
    at = np.random.default_rng(1).integers(0, len(codes), len(ids))
    for start in range(0, len(ids), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        age = features["age"].to_numpy()[part]
        yield pa.table(
            {
                "customer_id": ids[part],
                "FN": pa.array(at[part] % 3 == 0).cast(pa.float32()),
                "Active": pa.array(at[part] % 3 == 0).cast(pa.float32()),
                "club_member_status": pa.array(features["club_member_status"][part], pa.string()),
                "fashion_news_frequency": pa.array(np.where(at[part] % 3, "NONE", "Regularly")),
                "age": pa.array(age, pa.float32(), mask=np.isnan(age)),
                "postal_code": codes.take(pa.array(at[part])),
            }
        )


def _save(tables: Iterator[pa.Table] | list[pa.Table], form: str, stem: Path) -> None:
    # H&M's header has no quotes; Arrow writes it with some.
    options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="none")
    with stem.with_suffix(f".{form}").open("wb") as file:
        writer = None
        for table in tables:
            if writer is None and form == "csv":
                file.write((",".join(table.column_names) + "\n").encode())
                writer = pyarrow.csv.CSVWriter(file, table.schema, write_options=options)
            elif writer is None:
                writer = pyarrow.parquet.ParquetWriter(file, table.schema)
            writer.write_table(table)
        assert writer is not None
        writer.close()


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", type=int)
    parser.add_argument("format", choices=["csv", "parquet"])
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    write(options.rows, options.format, options.folder)


if __name__ == "__main__":
    main()
