"""The TOML file of --config: which keys it may hold, and of which types.

data = "movielens:ml-1m/ratings.dat"
models = ["sasrec"]
preset = "ml-1m"
top_k = 100
item_precision = "int8"
filter_by = ["colour", "genres:|"]
items = "items.csv"

[columns]
user = "uid"

[settings.sasrec]
dim = 64
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seqrec_export.contract import ItemPrecision
from seqrec_export.errors import SeqrecError
from seqrec_export.models.settings import SEED, TOP_K, Setting

_TEXTS = ("data", "preset", "runs", "repository", "items", "items_id")
_SEVERAL = ("models", "filter_by")  # texts, or one of them
_KEYS: Mapping[str, Setting] = {
    **{name: Setting(name=name, kind=str) for name in _TEXTS},
    **{name: Setting(name=name, kind=str | tuple[str, ...]) for name in _SEVERAL},
    "seed": SEED,
    "top_k": TOP_K,
    "item_precision": Setting(name="item_precision", kind=ItemPrecision),
}
_TABLES = ("columns", "settings")


def read_config(path: Path | None) -> dict[str, Any]:
    """What the file says, every value of its type; nothing without a file.

    `models` and `filter_by` are tuples, `columns` a table or a text as after --columns. The
    settings of models are two levels of tables; their values are not checked here. Raises
    SeqrecError for anything else.
    """
    if path is None:
        return {}
    content = _parse(path)
    for key, value in content.items():
        if key == "settings":
            _check_settings(path, value)
        elif key == "columns":
            _check_columns(path, value)
        elif key in _KEYS:
            content[key] = _KEYS[key].checked(value, f"{path}: {key}")
            if content[key] in ("", ()):
                raise SeqrecError(f"{path}: {key} is empty; give it a value or leave it out")
        else:
            known = ", ".join((*_KEYS, *_TABLES))
            raise SeqrecError(f"{path} sets {key!r}; it can set {known}")
    for key in _SEVERAL:
        if isinstance(content.get(key), str):
            content[key] = (content[key],)
    return content


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SeqrecError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SeqrecError(
            f"{path} is not UTF-8, as a TOML file has to be: byte {error.start} is "
            f"{error.object[error.start]:#04x}; save it as UTF-8"
        ) from error
    # A number of thousands of digits is Python's ValueError, which TOMLDecodeError is as well.
    except (ValueError, RecursionError) as error:
        raise SeqrecError(f"{path} is not a TOML file: {error}") from error


def _check_settings(path: Path, value: Any) -> None:
    wrong = f"settings is {value!r}" if not isinstance(value, dict) else ""
    for name, table in value.items() if isinstance(value, dict) else ():
        wrong = wrong or (f"settings has {name} = {table!r}" if not isinstance(table, dict) else "")
    if wrong:
        raise SeqrecError(
            f"{path}: {wrong[:100]}; settings is a table of tables, one a model, like "
            "[settings.sasrec] with dim = 64 below"
        )


def _check_columns(path: Path, value: Any) -> None:
    right = isinstance(value, dict) and all(isinstance(column, str) for column in value.values())
    if not right and not isinstance(value, str):
        raise SeqrecError(
            f"{path}: columns is {repr(value)[:100]}; columns is a table of texts, like [columns] "
            'with user = "uid" below'
        )
