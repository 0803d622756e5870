"""Options that several commands share, and what they and the TOML file say together.

The command line wins over the file, the file over the preset, and the preset over the defaults. A
model without the preset takes its defaults.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seqrec_export.errors import SeqrecError

if TYPE_CHECKING:
    from seqrec_export import contract
    from seqrec_export.clients.python import TLS
    from seqrec_export.data.interactions import Interactions
    from seqrec_export.models.model import Model

DEFAULT_RUNS = Path("runs")
DEFAULT_REPOSITORY = Path("model_repository")
DEFAULT_URL = "127.0.0.1:8001"

ModelNames = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "-m",
        help="Model to build, by its name or as package.module:MODEL; repeat for several. Default: "
        "all that come with seqrec-export.",
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        help="Log to read, as READER:PATH (movielens, hm, jdsearch, table), or synthetic for a "
        "generated shop."
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        help="Column names for table: user=uid,item=sku,time=ts. `rating=` leaves a column out; "
        "time_unit=ms, time_origin=1899-12-30 and time_format=%d/%m/%Y say what times are. Another "
        "name, such as device=hardware, is a column for models that take it."
    ),
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="TOML file with any of these settings.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Model setting: dim=64 or sasrec.dim=64; see `models NAME` for all."
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        help="Named settings to start from instead of the defaults: source (of the notebooks that "
        "the models stem from), ml-1m, ...; see `models NAME` for all."
    ),
]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random. Default: 0.")]
Runs = Annotated[Path | None, typer.Option(help="Folder of the run folders. Default: runs.")]
Repository = Annotated[
    Path | None,
    typer.Option("--repository", "-r", help="Triton model repository. Default: model_repository."),
]
TopK = Annotated[
    int | None,
    typer.Option(
        help="Items in an answer, fixed at export. Default: 100; for `export`, as the last time."
    ),
]
ItemPrecision = Annotated[
    str | None,
    typer.Option(
        help="Item vectors that are searched: float32, or int8, which is faster on a CPU and may "
        "miss one item in 1,000. Default: float32; for `export`, as the last time."
    ),
]
Keep = Annotated[int, typer.Option(help="Versions of each model that stay for rollback.")]
AcceptQuality = Annotated[
    bool,
    typer.Option(
        "--accept-quality",
        help="Publish a model although it does not beat its baseline; the version records it.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a training that was stopped.")]
GoOn = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Only go on with what was stopped: do not start over if it was of another model or "
        "log.",
    ),
]
Retrain = Annotated[
    bool,
    typer.Option(
        "--retrain",
        help="Train even if this very run is there already, or an unfinished training, which is "
        "dropped.",
    ),
]
MlflowUri = Annotated[
    str | None,
    typer.Option("--mlflow", help="Tracking URI of an MLflow to log new trainings to as well."),
]
Url = Annotated[str, typer.Option(help="gRPC address of the server.")]
TlsCa = Annotated[
    Path | None, typer.Option(help="PEM certificate that vouches for the server: TLS.")
]
TlsCert = Annotated[
    Path | None, typer.Option(help="PEM certificate to show a server that asks: mutual TLS.")
]
TlsKey = Annotated[Path | None, typer.Option(help="PEM key of --tls-cert.")]
Users = Annotated[int | None, typer.Option(help="Users of the synthetic shop.")]
Items = Annotated[int | None, typer.Option(help="Items of the synthetic shop.")]
Events = Annotated[int | None, typer.Option(help="Events of the synthetic shop.")]


def client_tls(ca: Path | None, cert: Path | None, key: Path | None) -> TLS | None:
    """What --tls-ca, --tls-cert and --tls-key say; None if none of them is given."""
    from seqrec_export.clients.python import TLS

    return TLS(ca=ca, cert=cert, key=key) if ca or cert or key else None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a command is to do, from the file and the command line."""

    data: str | None  # None: no log is named, which is for commands that read none
    columns: Mapping[str, str]
    models: tuple[str, ...]
    seed: int
    runs: Path
    repository: Path
    top_k: int | None  # None: nothing is said about it
    item_precision: contract.ItemPrecision | None
    filter_by: tuple[str, ...] | None  # None: nothing is said about it
    items: str | None  # a table of them
    items_id: str | None
    settings: Mapping[str, Mapping[str, Any]]  # by model
    found: Mapping[str, Model]  # by name, each of `models`

    def read(self) -> Interactions:
        """The log that the plan names."""
        from seqrec_export.data.readers import read

        if self.data is None:
            raise SeqrecError(
                "no log is named; give --data READER:PATH (movielens:ml-1m/ratings.dat), or "
                "--data synthetic for generated events"
            )
        return read(self.data, self.columns)

    def config(self, name: str) -> Any:
        """The config of one model: its defaults and what the plan sets."""
        return self.found[name].config(**self.settings.get(name, {}))


def make_plan(
    *,
    config: Path | None = None,
    data: str | None = None,
    columns: str | None = None,
    models: list[str] | None = None,
    preset: str | None = None,
    seed: int | None = None,
    runs: Path | None = None,
    repository: Path | None = None,
    top_k: int | None = None,
    item_precision: str | None = None,
    filter_by: list[str] | None = None,
    items: str | None = None,
    items_id: str | None = None,
    settings: list[str] | None = None,
    synthetic: Mapping[str, int | None] | None = None,
) -> Plan:
    """Merge command line, file and defaults. Raises SeqrecError for what does not exist."""
    from seqrec_cli.config_file import read_config
    from seqrec_export.models.registry import OWN
    from seqrec_export.models.settings import SEED, TOP_K

    file = read_config(config)
    found = _found(models or file.get("models") or OWN)
    names = tuple(found)
    chosen = file.get("preset") if preset is None else preset
    merged: dict[str, dict[str, Any]] = {
        name: dict(found[name].presets.get(chosen or "", {})) for name in names
    }
    if chosen is not None and not any(chosen in found[name].presets for name in names):
        known = sorted({text for name in names for text in found[name].presets})
        raise SeqrecError(
            f"{', '.join(names)} has no preset {chosen!r}; there are {', '.join(known) or 'none'}"
        )
    others = _others(file, found)
    for name, values in file.get("settings", {}).items():
        for key, value in values.items():
            _assign(merged, others, f"{name}.{key}", value, file=config)
    for text in settings or []:
        key, separator, value = text.partition("=")
        if not separator:
            raise SeqrecError(f"--set {text}: write a setting and its value, such as dim=64")
        _assign(merged, found, key, value)
    for name in names:
        found[name].config(**merged[name])  # settings that do not go together
    return Plan(
        data=_data(config, file.get("data") if data is None else data, synthetic or {}),
        columns=_columns(file.get("columns", {}) if columns is None else columns),
        models=names,
        seed=file.get("seed", 0) if seed is None else SEED.checked(seed, "--seed"),
        runs=runs or Path(file.get("runs", DEFAULT_RUNS)),
        repository=repository or Path(file.get("repository", DEFAULT_REPOSITORY)),
        top_k=file.get("top_k") if top_k is None else TOP_K.checked(top_k, "--top-k"),
        item_precision=_item_precision(item_precision or file.get("item_precision")),
        filter_by=file.get("filter_by") if filter_by is None else tuple(filter_by),
        items=items or file.get("items"),
        items_id=items_id or file.get("items_id"),
        settings=merged,
        found=found,
    )


def _data(config: Path | None, data: str | None, synthetic: Mapping[str, int | None]) -> str | None:
    """What to read, with the options of the generated shop; never the shop unless asked for it."""
    if data is not None and not data.strip():
        raise SeqrecError(
            f"--data{f', or data in {config},' if config else ''} is empty; give READER:PATH, or "
            "synthetic for generated events"
        )
    given = {key: value for key, value in synthetic.items() if value is not None}
    if not given:
        return data
    if data is None or data.partition(":")[0] != "synthetic":
        log = data or "a log that is not named"
        raise SeqrecError(f"--{next(iter(given))} is for --data synthetic, not for {log}")
    options = ",".join(f"{key}={value}" for key, value in given.items())
    return f"{data}{',' if ':' in data else ':'}{options}"


def _item_precision(text: str | None) -> contract.ItemPrecision | None:
    from seqrec_export.contract import ITEM_PRECISIONS

    if text is None:
        return None

    for precision in ITEM_PRECISIONS:
        if text == precision:
            return precision
    raise SeqrecError(f"--item-precision is {text!r}; give {' or '.join(ITEM_PRECISIONS)}")


def _columns(text: str | Mapping[str, str]) -> Mapping[str, str]:
    if not isinstance(text, str):
        return text
    columns: dict[str, str] = {}
    for part in text.split(","):
        name, separator, column = (piece.strip() for piece in part.partition("="))
        if not separator or not name:
            raise SeqrecError(f"--columns {text!r}: write it as user=uid,item=sku,time=ts")
        if name in columns:
            raise SeqrecError(f"--columns {text!r} maps {name} twice; give one column")
        columns[name] = column
    return columns


def _found(asked: Iterable[str]) -> dict[str, Model]:
    """The models of these names or references, by name. Raises SeqrecError if two share one."""
    from seqrec_export.models.registry import find

    found: dict[str, Model] = {}
    for text in asked:
        model = find(text)
        if found.setdefault(model.name, model) is not model:
            raise SeqrecError(f"{text} is another model called {model.name!r}; give one of them")
    return found


def _others(file: Mapping[str, Any], found: Mapping[str, Model]) -> Mapping[str, Model]:
    """The models whose settings the file may hold: also those that this command does not build."""
    from seqrec_export.models.registry import find, names

    wanted = [name for name in file.get("settings", {}) if name not in found]
    known = {name: find(name) for name in wanted if name in names()}
    if len(known) < len(wanted):  # it may be one that the file names by its module
        known |= _found(text for text in file.get("models", ()) if ":" in text)
    return {**known, **found}


def _assign(
    merged: dict[str, dict[str, Any]],
    known: Mapping[str, Model],
    key: str,
    value: Any,
    *,
    file: Path | None = None,
) -> None:
    """Put `dim` or `sasrec.dim` where it belongs, as the type that the config declares.

    A value of the command line is text. One of a file has a type, and may be of a model that this
    command does not build.
    """
    from seqrec_export.models.registry import names
    from seqrec_export.models.settings import settings_of

    model, _, name = key.rpartition(".")
    said_by = f"{file}: " if file else ""
    if model and model not in {*names(), *known}:
        there = ", ".join(dict.fromkeys([*names(), *known]))
        raise SeqrecError(f"{said_by}{key}: no model is called {model!r}; there are {there}")
    if model and model not in merged and not file:
        raise SeqrecError(f"{key}: {model} is not among the models to build")
    takers = {name: settings_of(known[name].config) for name in ([model] if model else merged)}
    takers_of_it = [taker for taker, settings in takers.items() if name in settings]
    if not takers_of_it:
        there = ", ".join(sorted({name for settings in takers.values() for name in settings}))
        raise SeqrecError(
            f"{said_by}{', '.join(takers)} has no setting {name!r}; there are {there}"
        )
    for taker in takers_of_it:
        found = takers[taker][name]
        right = (found.checked if file else found.parsed)(value, f"{said_by}{taker}.{name}")
        if taker in merged:
            merged[taker][name] = right
