"""Checkpoints of other libraries, read without running anything that is in them.

They are pickles, which can run code when they are opened. Nothing is unpickled here: PyTorch's
`weights_only` reader reads them, and every name that it does not know by itself (an enum, a NumPy
array) becomes a `Held`, which keeps what it is given and does nothing. Any other name is refused.
No code of NumPy or of the libraries runs, and none of the libraries is needed.
"""

from __future__ import annotations

import io
import pickle  # its exception alone: nothing is unpickled
import pickletools
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from seqrec_export.errors import SeqrecError


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """A network as another library saved it: settings, weights by the library's names, item ids."""

    library: str
    model: str
    settings: dict[str, Any]
    weights: dict[str, Tensor]
    items: list[str] = field(default_factory=list)  # by row; the first, padding, is left out

    def __post_init__(self) -> None:
        """Raises SeqrecError if a file held something else: nobody behind this has to ask."""
        texts = isinstance(self.model, str) and all(isinstance(name, str) for name in self.settings)
        tensors = any(isinstance(value, Tensor) for value in self.settings.values())
        if not texts or tensors or not all(map(_is_weight, self.weights.items())):
            raise SeqrecError(f"not what {self.library} saves: a name, setting or weight is none")


def _is_weight(named: tuple[Any, Any]) -> bool:
    name, tensor = named
    plain = isinstance(tensor, Tensor) and tensor.layout == torch.strided
    real = plain and not (tensor.is_complex() or tensor.is_quantized or tensor.is_meta)
    return isinstance(name, str) and real


def mapping(value: object, name: str) -> Mapping[Any, Any]:
    """A dict of a checkpoint, or SeqrecError: it was of another library, or is damaged."""
    if not isinstance(value, Mapping):
        raise SeqrecError(f"{name} is missing or no dict")
    return value


class Held:
    """In place of what a checkpoint names: what that was called with, and its state."""

    def __init__(self, *arguments: object) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __new__(cls, *_: object) -> Held:
        """Also for a pickle that makes an object without a call."""
        held = super().__new__(cls)
        held.arguments, held.state = (), None
        return held

    def __setstate__(self, state: object) -> None:
        self.state = state


NUMPY = [
    f"numpy{core}.multiarray.{name}"
    for core in (".core", "._core")
    for name in ("_reconstruct", "scalar")
] + ["numpy.ndarray", "numpy.dtype"]

# What PyTorch's reader raises for a name that it does not allow, and it and zipfile for damage.
DAMAGED = (
    pickle.UnpicklingError, zipfile.BadZipFile, struct.error, RuntimeError, EOFError, OSError,
    ValueError, LookupError, TypeError, AttributeError, AssertionError, OverflowError, MemoryError,
)  # fmt: skip


# PyTorch's words for a name that is not allowed.
FORBIDDEN = re.compile(r"GLOBAL (\S+)")
# And for what it cannot read.
UNREADABLE = re.compile(r"WeightsUnpickler error:\s+(.+)")


def load_weights_only(file: io.BytesIO, names: list[str]) -> dict[str, Any]:
    """The checkpoint's values, on the CPU; each of `names` is read as `Held`."""
    allowed = torch.serialization.safe_globals([(Held, name) for name in names])
    try:
        with allowed, warnings.catch_warnings(action="ignore"):
            found = torch.load(file, map_location="cpu", weights_only=True)
    except DAMAGED as error:
        if named := FORBIDDEN.search(str(error)):
            raise SeqrecError(
                f"names {named[1]}, which is not read (a pickle can run code)"
            ) from error
        raise damaged(error) from error
    if not isinstance(found, dict):
        raise SeqrecError(f"a {type(found).__name__}, not a checkpoint")
    return found


def damaged(error: Exception) -> SeqrecError:
    """The error for a file that cannot be read to its end."""
    # Around that, PyTorch advises to open the file without its reader: nobody should.
    inner = UNREADABLE.search(str(error))
    said = inner[1] if inner else (str(error).splitlines() or [repr(error)])[0]
    return SeqrecError(f"damaged, or of another library: {said}")


# What PyTorch's reader knows and what means the same in every protocol.
KEPT = {
    "APPEND", "APPENDS", "BINFLOAT", "BININT", "BININT1", "BININT2", "BINPERSID", "BINUNICODE",
    "BUILD", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_SET", "EMPTY_TUPLE", "GLOBAL", "LONG1", "MARK",
    "NEWFALSE", "NEWOBJ", "NEWTRUE", "NONE", "REDUCE", "SETITEM", "SETITEMS", "STOP", "TUPLE",
    "TUPLE1", "TUPLE2", "TUPLE3",
}  # fmt: skip
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")


def as_protocol_2(pickled: bytes) -> bytes:
    """The same pickle in the opcodes of protocol 2; nothing is looked up, called or built.

    A string is written again wherever it is asked for from the memo, so that the two names before
    a STACK_GLOBAL are always the two opcodes before it.
    """
    opcodes: list[tuple[Any, Any, Any]] = list(pickletools.genops(pickled))
    ends = [position for _, _, position in opcodes[1:]] + [len(pickled)]
    out: list[tuple[bytes, str | None]] = []  # an opcode; the string that it pushes
    strings: dict[int, str] = {}
    memoized = 0
    for (opcode, argument, start), end in zip(opcodes, ends, strict=True):
        match opcode.name:
            case "PROTO":
                out.append((b"\x80\x02", None))
            case "FRAME":
                pass
            case "SHORT_BINUNICODE" | "BINUNICODE":
                out.append((_string(argument), argument))
            case "SHORT_BINBYTES" | "BINBYTES":
                text = _string(argument.decode("latin-1")) + _string("latin1")
                out.append((b"c_codecs\nencode\n" + text + b"\x86R", None))
            case "MEMOIZE" | "BINPUT" | "LONG_BINPUT":
                index = memoized if opcode.name == "MEMOIZE" else argument
                memoized += 1
                string = out[-1][1] if out else None
                if string is None:
                    out.append((b"r" + struct.pack("<I", index), None))
                    strings.pop(index, None)
                else:
                    strings[index] = string
            case "BINGET" | "LONG_BINGET":
                string = strings.get(argument)
                again = b"j" + struct.pack("<I", argument) if string is None else _string(string)
                out.append((again, string))
            case "STACK_GLOBAL":
                names = [string for _, string in out[-2:]]
                if len(names) != 2 or not all(n and NAME.fullmatch(n) for n in names):
                    raise SeqrecError("a pickle that names something in an unusual way")
                out[-2:] = [(f"c{names[0]}\n{names[1]}\n".encode(), None)]
            case name if name in KEPT:
                out.append((pickled[start:end], None))
            case name:
                raise SeqrecError(f"a pickle with {name}, which no RecBole checkpoint needs")
    return b"".join(opcode for opcode, _ in out)


def _string(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def restated(data: bytes) -> io.BytesIO:
    """A checkpoint of `torch.save` with its pickle in protocol 2."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for entry in old.infolist():
            if entry.compress_type != zipfile.ZIP_STORED:
                raise SeqrecError(f"{entry.filename} is compressed; torch.save never does that")
            content = old.read(entry)
            if entry.filename.endswith("/data.pkl"):
                content = as_protocol_2(content)
            new.writestr(entry.filename, content)
    out.seek(0)
    return out
