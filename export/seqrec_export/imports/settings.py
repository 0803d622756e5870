"""What a checkpoint says of its network, checked: what is not followed here is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from seqrec_export.errors import SeqrecError
from seqrec_export.imports.checkpoint import Foreign

_MOST = 100_000
Net = TypeVar("Net", bound=nn.Module)


def require(foreign: Foreign, allowed: Mapping[str, tuple[object, ...]]) -> None:
    """Raise SeqrecError with each setting that is none of those `allowed`."""
    wrong = [
        f"{name} = {foreign.settings.get(name)!r} (read: {', '.join(map(repr, values))})"
        for name, values in allowed.items()
        if foreign.settings.get(name) not in values
    ]
    if wrong:
        raise refusal(foreign, "; ".join(wrong))


def refusal(foreign: Foreign, setting: str) -> SeqrecError:
    """The error for a setting that is not followed."""
    return SeqrecError(
        f"{foreign.library} {foreign.model} with {setting} cannot be imported; export the module "
        "itself with seqrec_export.import_module"
    )


def number(foreign: Foreign, name: str, most: int = _MOST) -> int:
    """A setting that is a whole number from 1 to `most`, or SeqrecError."""
    value = foreign.settings.get(name)
    if type(value) is not int or not 1 <= value <= most:
        raise refusal(foreign, f"{name} = {value!r}")
    return value


def heads(foreign: Foreign, dim: int) -> int:
    """The number of attention heads, a divisor of `dim`, or SeqrecError."""
    found = number(foreign, "n_heads")
    if dim % found:
        raise refusal(foreign, f"n_heads = {found} for vectors of {dim}")
    return found


def layers(foreign: Foreign, prefix: str, name: str) -> int:
    """The setting `name`, which has to be how many layers have weights, or SeqrecError."""
    begin = len(prefix)
    found = {key[begin:].split(".")[0] for key in foreign.weights if key.startswith(prefix)}
    if number(foreign, name) != len(found):
        raise refusal(foreign, f"{name} = {foreign.settings[name]} and weights of {len(found)}")
    return len(found)


def keywords(foreign: Foreign, name: str) -> dict[str, Any]:
    """A setting that is a dict or None, or SeqrecError."""
    value = foreign.settings.get(name)
    plain = isinstance(value, dict) and not any(isinstance(v, Tensor) for v in value.values())
    if value is not None and not plain:
        raise refusal(foreign, f"{name} = {value!r}")
    return value or {}


def filled(make: Callable[[], Net], weights: Mapping[str, Tensor], foreign: Foreign) -> Net:
    """The network that `make` gives, with its weights; its buffers stay as they are.

    Raises SeqrecError if a weight is missing, left over, of another shape, or not finite. Shapes
    are compared before there is memory for them: a damaged size may be any number.
    """
    who = f"{foreign.library} {foreign.model}"
    with torch.device("meta"):
        needed = {name: weight.shape for name, weight in make().named_parameters()}
    if lacking := sorted(needed.keys() - weights.keys()):
        raise SeqrecError(f"{who}: the checkpoint lacks {', '.join(lacking)}")
    if unknown := sorted(weights.keys() - needed.keys()):
        raise refusal(foreign, f"the weights {', '.join(unknown)}")
    for name, shape in needed.items():
        if weights[name].shape != shape:
            has = tuple(weights[name].shape)
            raise SeqrecError(f"{who}: {name} has the shape {has} instead of {tuple(shape)}")
    if wrong := sorted(name for name, tensor in weights.items() if not tensor.isfinite().all()):
        raise SeqrecError(
            f"{who}: {', '.join(wrong)} holds numbers that are not finite; the training diverged"
        )
    net = make()
    net.load_state_dict({**net.state_dict(), **weights})
    return net
