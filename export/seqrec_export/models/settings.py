"""Settings: what a training can be told, the range of each, and the one place that checks them.

A model's config is a frozen dataclass that extends `Settings`. Each field says its default, what it
means and which numbers are right; a plain default keeps the meaning and the range of the field that
it replaces. Every way to make a config (`--set`, a TOML file, Python) gives the same error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from numbers import Real
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from seqrec_export.contract import ItemPrecision
from seqrec_export.errors import SeqrecError

_LONGEST_SHOWN = 60  # characters of a wrong value


@dataclass(frozen=True, kw_only=True)
class Range:
    """The numbers from `low` to `high`; with `above` without `low`, with `below` without `high`."""

    low: float
    high: float
    above: bool = False
    below: bool = False

    def __contains__(self, number: float) -> bool:
        """False for NaN."""
        after = number > self.low if self.above else number >= self.low
        return after and (number < self.high if self.below else number <= self.high)

    def __str__(self) -> str:
        low, high = _figure(self.low), _figure(self.high)
        if self.above or self.below:
            return f"{'above' if self.above else 'at least'} {low} and " + (
                f"below {high}" if self.below else f"at most {high}"
            )
        return f"from {low} to {high}"


def _figure(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One thing that can be set. `kind` is a type as an annotation says it.

    That is int, float, bool, str, a Literal, a tuple, or one of these or None.
    """

    name: str
    kind: Any
    default: Any = None
    help: str = ""
    unit: str = ""
    range: Range | None = None  # of every number in it

    @property
    def allowed(self) -> str:
        """What is right, for people: `a whole number from 1 to 100`."""
        return _allowed(self.kind, self.range)

    def checked(self, value: Any, shown_as: str | None = None) -> Any:
        """The value as the type that the setting has. Raises SeqrecError if it is wrong."""
        try:
            typed = _typed(self.kind, value)
        except (ValueError, OverflowError):
            raise self._refusal(value, shown_as) from None
        if self.range is not None and any(n not in self.range for n in _numbers(typed)):
            raise self._refusal(typed, shown_as)
        return typed

    def parsed(self, text: str, shown_as: str | None = None) -> Any:
        """The same for a value that was written on a command line."""
        try:
            value = _parsed(self.kind, text.strip())
        except (ValueError, OverflowError):
            raise self._refusal(text, shown_as) from None
        return self.checked(value, shown_as)

    def _refusal(self, value: Any, shown_as: str | None) -> SeqrecError:
        return SeqrecError(f"{shown_as or self.name} is {_shown(value)}; give {self.allowed}")


def _allowed(kind: Any, numbers: Range | None) -> str:
    options = [option for option in get_args(kind) if option is not Ellipsis]
    if get_origin(kind) is Literal:
        words = [str(option) for option in options]
        return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(_allowed(option, numbers) for option in options)
    if get_origin(kind) is tuple:
        several = ", ".join(dict.fromkeys(_allowed(option, numbers) for option in options))
        count = "several" if ... in get_args(kind) else str(len(options))
        return f"{count} with commas between, each {several}"
    named = {int: "a whole number", float: "a number", str: "a text", NoneType: "none"}
    if kind is bool:
        return "true or false"
    return f"{named[kind]} {numbers}" if numbers and kind in (int, float) else named[kind]


def _typed(kind: Any, value: Any) -> Any:
    """The value as `kind`; ValueError or OverflowError if it is of another one."""
    options = get_args(kind)
    if get_origin(kind) is Literal:
        found = [o for o in options if type(o) is type(value) and o == value]
    elif get_origin(kind) in (Union, UnionType):
        found = []
        for option in options:
            try:
                found.append(_typed(option, value))
            except (ValueError, OverflowError):
                continue
    elif get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError
        kinds = options[:1] * len(value) if ... in options else options
        return tuple(_typed(k, v) for k, v in zip(kinds, value, strict=True))
    elif kind in (int, float):
        # A bool is a number to Python, but not to people who write settings.
        right = not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)
        found = [kind(value)] if right and (kind is float or int(value) == value) else []
    else:
        if kind not in (bool, str, NoneType):
            raise SeqrecError(
                f"a setting cannot be of the type {getattr(kind, '__name__', kind)}; take int, "
                "float, bool, str, a Literal, a tuple of them, or None next to one"
            )
        found = [value] if isinstance(value, kind) else []
    if not found:
        raise ValueError
    return found[0]


def _parsed(kind: Any, text: str) -> Any:
    """What a text means as `kind`."""
    options = get_args(kind)
    if get_origin(kind) is Literal:
        return {str(option): option for option in options}.get(text, text)
    if get_origin(kind) in (Union, UnionType):
        for option in sorted(options, key=lambda option: option is str):
            try:
                return _typed(option, _parsed(option, text))
            except (ValueError, OverflowError):
                continue
        raise ValueError
    if get_origin(kind) is tuple:
        parts = text.split(",")
        kinds = options[:1] * len(parts) if ... in options else options
        return tuple(_parsed(k, p.strip()) for k, p in zip(kinds, parts, strict=True))
    if kind is NoneType:
        return None if text.lower() == "none" else text
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    if kind is int:
        try:
            return int(text)
        except ValueError:
            return float(text)  # 1e3 is a whole number too
    return float(text) if kind is float else text


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, tuple):
        for part in value:
            yield from _numbers(part)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def _shown(value: Any) -> str:
    if isinstance(value, int) and value.bit_length() > 100:
        return f"a whole number of {value.bit_length()} bits"
    text = f"{value:g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def setting(default: Any, help: str, range: Range | None = None, *, unit: str = "") -> Any:
    """A field of a config: its default, what it means, and which numbers are right."""
    return field(default=default, metadata={"help": help, "range": range, "unit": unit})


def settings_of(config: type[Any]) -> Mapping[str, Setting]:
    """The settings of a config class by name, its own first, their types from its annotations."""
    hints = get_type_hints(config)
    shared = {of.name for of in fields(Settings)}
    found = {}
    for of in sorted(fields(config), key=lambda of: of.name in shared):
        said: Mapping[str, Any] = {}
        for base in config.__mro__:
            said = said or getattr(base, "__dataclass_fields__", {}).get(of.name, of).metadata
        found[of.name] = Setting(
            name=of.name,
            kind=hints[of.name],
            default=of.default,
            help=said.get("help", ""),
            unit=said.get("unit", ""),
            range=said.get("range"),
        )
    return MappingProxyType(found)


# The limits catch slips: no sensible setting is beyond them, and torch, numpy or the memory would
# fail there with errors of their own.
SEED = Setting(name="seed", kind=int, range=Range(low=0, high=2**32 - 1))
TOP_K = Setting(name="top_k", kind=int, range=Range(low=1, high=1_000_000))
KEEP = Setting(name="keep", kind=int, range=Range(low=1, high=1_000_000))
ITEM_PRECISION = Setting(name="item_precision", kind=ItemPrecision)
WIDTH = Range(low=1, high=4_096)
WINDOW = Range(low=1, high=10_000)
SHARE = Range(low=0, high=1, below=True)
COUNT = Range(low=1, high=1_000_000)
COUNT_OR_NONE = Range(low=0, high=1_000_000)
TWO_OR_MORE = Range(low=2, high=1_000_000)  # rows of a step: a batch norm over one has no variance

Precision = Literal["auto", "float32", "bfloat16"]
FinalFit = Literal["continue", "scratch", "none"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What every training can be told. Raises SeqrecError for a value that is out of its range."""

    learning_rate: float = setting(
        1e-3, "Adam's step size", Range(low=0, high=1_000_000_000, above=True)
    )
    lr_decay: float = setting(
        0.0, "learning rate factor an epoch; 0: half a cosine over all epochs", Range(low=0, high=1)
    )
    warmup_steps: int = setting(
        0, "steps in which the learning rate rises", COUNT_OR_NONE, unit="steps"
    )
    # Below 0.81, the square of Adam's decay of the mean, what has no gradient for a few steps is
    # moved without bounds: its mean fades more slowly than what it is divided by.
    adam_beta2: float = setting(
        0.999, "Adam's decay of the squared gradient's mean", Range(low=0.9, high=1, below=True)
    )
    weight_decay: float = setting(0.0, "Adam's weight decay", Range(low=0, high=1_000))
    gradient_clip: float = setting(
        0.0, "largest gradient norm; 0: off", Range(low=0, high=1_000_000_000)
    )
    batch_size: int = setting(256, "targets a step", COUNT)
    epochs: int = setting(10, "most passes over the data", Range(low=1, high=100_000))
    patience: int = setting(
        5, "stop after so many without gain", Range(low=1, high=100_000), unit="epochs"
    )
    precision: Precision = setting(
        "auto", "of a training step; auto: bfloat16 if it is faster here; a run names what it took"
    )

    final_fit: FinalFit = setting(
        "none",
        "how the served network learns what was held back for the figures: it may continue from "
        "the best epoch, start from scratch, or leave it",
    )

    def __post_init__(self) -> None:
        config: type[Any] = type(self)
        for name, found in settings_of(config).items():
            value = found.checked(getattr(self, name), f"{config.__name__}.{name}")
            object.__setattr__(self, name, value)


@dataclass(frozen=True, kw_only=True)
class HistorySettings(Settings):
    """Those of a model that reads a history, too."""

    dim: int = setting(50, "size of embeddings and hidden states", WIDTH)
    max_length: int = setting(50, "window", WINDOW, unit="events")
    dropout: float = setting(0.2, "dropout probability", SHARE)
    unknown_rate: float = setting(
        0.01, "share of training inputs replaced by the unknown item", SHARE
    )
