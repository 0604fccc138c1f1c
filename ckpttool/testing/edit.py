"""Edit a checkpoint as plain values and write it again in its own format. No torch is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ckpttool.formats import safetensors, torch_legacy, torch_zip
from ckpttool.limits import DEFAULT
from ckpttool.source import Memory
from ckpttool.testing.plain import Parameter, Tensor
from ckpttool.testing.thaw import thaw
from ckpttool.testing.writers import legacy_file, safetensors_file, torch_file
from ckpttool.testing.zips import placed

Step = str | int


def format_of(data: bytes) -> str:
    """The format of a sound file among those that can be written here."""
    if data[:4] == b"PK\3\4":
        return "torch-zip"
    return "torch-legacy" if data[:2] == b"\x80\x02" else "safetensors"


def load(data: bytes) -> Any:
    """A sound file's tree as plain values; see ``ckpttool.testing.thaw``."""
    reader = {"torch-zip": torch_zip, "torch-legacy": torch_legacy, "safetensors": safetensors}[format_of(data)]
    source = Memory(data)
    return thaw(reader.read(source, DEFAULT), source)


def dump(value: Any, like: bytes) -> bytes:
    """The values in the format of another file, under its top folder."""
    kind = format_of(like)
    if kind == "torch-zip":
        return torch_file(value, folder=placed(like)[0].name.split("/")[0])
    return legacy_file(value) if kind == "torch-legacy" else safetensors_file(value)


def edited(data: bytes, change: Callable[[Any], Any]) -> bytes:
    """The file after ``change``, which edits the values in place or gives others."""
    value = load(data)
    replacement = change(value)
    return dump(value if replacement is None else replacement, data)


def walk(value: Any, path: tuple[Step, ...] = ()) -> Iterator[tuple[tuple[Step, ...], Any]]:
    """Every value below with its path, containers before what they hold; stand-ins are not entered."""
    yield path, value
    if isinstance(value, dict):
        for key, item in value.items():
            yield from walk(item, (*path, key))
    elif isinstance(value, (list, tuple)):
        for place, item in enumerate(value):
            yield from walk(item, (*path, place))


def tensors(value: Any) -> list[tuple[tuple[Step, ...], Tensor]]:
    """Every plain tensor below, Parameters unwrapped, with its path."""
    found = []
    for path, item in walk(value):
        inner = item.data if isinstance(item, Parameter) else item
        if isinstance(inner, Tensor):
            found.append((path, inner))
    return found
