"""``ckpttool.load``: what was verified, and nothing that is not on the allow-list."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckpttool.errors import Damaged, MissingExtra, Unsafe, UsageError, printable
from ckpttool.model import Json
from ckpttool.safety import canonical, standing
from ckpttool.saving.save import torch_module
from ckpttool.verbs.verify import verify

if TYPE_CHECKING:
    from ckpttool.report import Report


def load(
    path: str | os.PathLike[str],
    *,
    map_location: object = "cpu",
    trust: Collection[str] = (),
    headers_only: bool = False,
) -> Any:
    """Load a checkpoint that is verified first, in place of ``torch.load``: every byte, and every name it asks for.

    Torch files, safetensors files (as a dict of tensors) and sharded sets of either. ``map_location`` is torch's.
    Nothing is imported that is not on the allow-list of data-only names, save those that ``trust`` names as
    ``module.name``. ``headers_only`` skips the content: quicker, and flipped bits go unseen. Raises ``Damaged``,
    ``Unsafe``, ``Unreadable``; ``UsageError`` for what is no checkpoint. Reads the bytes twice, the second time from
    the system's cache.
    """
    name = os.fspath(path)
    _judge(name, verify([name], trust=trust, headers_only=headers_only))
    return _loader(name)(name, map_location, trust)


def _judge(name: str, report: Report) -> None:
    """Raise what the verdict on a file is, unless it may be loaded."""
    subject = report.subjects[0]
    if subject.error:
        raise UsageError(subject.error)
    target: dict[str, Json] = report.json["targets"][0]  # type: ignore[assignment, index]
    first = next((f for f in subject.findings if f.severity == "error"), None)
    why = f": {first.where} – {first.message}" if first is not None else ""
    if subject.verdict == "not-a-checkpoint":
        raise UsageError(f"{printable(name)} – not a checkpoint{why}")
    if target["integrity"] == "damaged":
        raise Damaged(name, f"damaged{why}; see `ckpttool verify`, `ckpttool repair`")
    if first is not None and first.name == "edited-since-sealed":
        raise Damaged(name, f"not what was sealed{why}; `ckpttool seal` if the change was meant")
    if target["safety"] == "unsafe":
        raise Unsafe(name, f"loading it may run code{why}; see `ckpttool repair --sanitize`")
    if target["safety"] == "needs-code":
        needs = next((f.message for f in subject.findings if f.name in ("needs-code", "contains-code")), "")
        raise Unsafe(name, f"{needs}; `trust` names what you know")


Loader = Callable[[str, object, Collection[str]], Any]


def _loader(name: str) -> Loader:
    if name.endswith(".index.json") or Path(name).is_dir():
        return _load_sharded
    with Path(name).open("rb") as file:
        head = file.read(9)
    return _load_safetensors if head[8:9] == b"{" and head[:2] != b"PK" else _load_torch


def _load_torch(name: str, map_location: object, trust: Collection[str]) -> Any:
    torch = torch_module()
    with torch.serialization.safe_globals([*_plain(name), *map(_named, trust)]):
        return torch.load(name, map_location=map_location, weights_only=True)


_TORCH_KNOWS = frozenset({"torch", "builtins", "__builtin__", "collections", "_codecs"})
"""Where the names live that torch allows of itself as far as it can build what they make."""


def _plain(name: str) -> Iterator[Any]:
    """The constructors of plain data that a file names and torch's own list lacks: numbers, paths, namespaces.

    They are imported from where they live, under the name that the file has for them.
    """
    from ckpttool.formats import describe

    for use in describe(name).globals:
        known = use.module.partition(".")[0] in _TORCH_KNOWS
        if not known and standing(use.module, use.name) == "plain":
            yield _named(".".join(canonical(use.module, use.name))), use.dotted
            if canonical(use.module, use.name) == ("numpy", "dtype"):
                yield from _element_types()


def _element_types() -> list[Any]:
    """What ``numpy.dtype`` makes is of these classes, and torch asks for them too; numpy before 1.25 has none."""
    try:
        found = import_module("numpy.dtypes")
    except ImportError:
        return []
    return [getattr(found, name) for name in dir(found) if name.endswith("DType")]


def _named(dotted: str) -> Any:
    """An object by its name, which is on our list or was given by the caller, never by a file alone."""
    module, _, name = dotted.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"cannot import {printable(dotted)}, which loading needs: {error}") from error


def _load_safetensors(name: str, map_location: object, trust: Collection[str]) -> Any:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise MissingExtra("safetensors", "train") from error
    device = map_location if isinstance(map_location, (str, int)) else str(map_location or "cpu")
    return load_file(name, device=device)


def _load_sharded(name: str, map_location: object, trust: Collection[str]) -> Any:
    from ckpttool.formats import describe

    checkpoint = describe(name)
    if checkpoint.format != "sharded":
        raise UsageError(
            f"{printable(name)} – a {checkpoint.format} of several parts; load its files one by one"
        )
    merged: dict[str, Any] = {}
    for file in checkpoint.files:
        if not file.endswith(".json"):
            merged.update(_loader(file)(file, map_location, trust))
    return merged
