"""``ckpttool.load``: what was verified, and nothing that is not on the allow-list."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckpttool.errors import Damaged, MissingExtra, Unreadable, Unsafe, UsageError, printable
from ckpttool.model import Finding, Json
from ckpttool.saving.allowed import allowed
from ckpttool.saving.paths import local_path
from ckpttool.saving.save import torch_module
from ckpttool.source import LocalFile
from ckpttool.units import plural
from ckpttool.verbs.verify import verify

if TYPE_CHECKING:
    from ckpttool.report import Report


class NotACheckpoint(UsageError):
    """A file that is something else, or nothing: empty, a page of HTML, random bytes."""


PATIENCE = 60.0
"""Seconds for which a file that is replaced while it is read is read anew."""


def load(
    path: str | os.PathLike[str],
    *,
    map_location: object = "cpu",
    trust: Collection[str] = (),
    headers_only: bool = False,
    mmap: bool = False,
) -> Any:
    """Load a checkpoint that is verified first, in place of ``torch.load``: every byte, and every name it asks for.

    Torch files, safetensors files (as a dict of tensors) and sharded sets of either. ``map_location`` is torch's.
    Nothing is imported that is not on the allow-list of data-only names, save those that ``trust`` names as
    ``module.name``. ``headers_only`` skips the content: quicker, and flipped bits go unseen. With ``mmap`` tensors stay
    in the file until they are used, so that it may be larger than memory; who writes into that file later changes
    them, while ``ckpttool.save`` puts another file in its place.

    Raises ``Damaged``, ``Unsafe``, ``Unreadable``; ``UsageError`` for what is no checkpoint. Reads the bytes twice, the
    second time from the system's cache. What is loaded is the very file that was verified: one that is replaced
    meanwhile is read anew, one that is written to meanwhile is ``Damaged``.
    """
    name = _one(local_path(path, "load"))
    names = (trust,) if isinstance(trust, str) else tuple(trust)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with ExitStack() as opened:
            pins = [_Pin(opened.enter_context(closing(LocalFile(file)))) for file in _files(name)]
            report = verify([name], trust=names, headers_only=headers_only)
            if all(pin.in_place for pin in pins):
                _judge(name, report)
                return _loaded(name, pins, map_location, names, mmap)
    raise Unreadable(name, f"replaced again and again for {PATIENCE:.0f} s; wait until its writer is done")


class _Pin:
    """A file of the checkpoint, open from before it is verified until it is loaded."""

    def __init__(self, file: LocalFile) -> None:
        self.name = file.name
        self._file = file
        link = f"/proc/self/fd/{file.fileno()}"
        self.way = link if os.path.exists(link) else file.name  # noqa: PTH110 - a name of the open file, on Linux

    @property
    def in_place(self) -> bool:
        """Whether the name still is this file's."""
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), Path(self.name).stat())
        except OSError:
            return False

    @property
    def same(self) -> bool:
        """Whether the file is what it was, and, where it was opened again by its name, still has it."""
        return not self._file.changed() and (self.way != self.name or self.in_place)


def _one(name: str) -> str:
    """The checkpoint that a folder is or holds; raises ``UsageError`` where it holds several."""
    from ckpttool.formats.targets import find_targets

    if not Path(name).is_dir():
        return name
    found = find_targets(name)
    if len(found) == 1:
        return found[0]
    if not found:
        raise Unreadable(name, "a directory that holds no checkpoint")
    text = f"{printable(name)} – holds {plural(len(found), 'checkpoint')}; name one, or ask `ckpttool latest`"
    raise UsageError(text)


def _files(name: str) -> Sequence[str]:
    """The files that a checkpoint consists of."""
    if not (name.endswith(".index.json") or Path(name).is_dir()):
        return (name,)
    from ckpttool.formats import describe

    checkpoint = describe(name)
    if checkpoint.format != "sharded" and not checkpoint.kind:
        kind = checkpoint.format
        text = f"a {kind} of several parts; `ckpttool convert` makes one file of it, or load its files one by one"
        raise UsageError(f"{printable(name)} – {text}")
    return checkpoint.files


def check(path: Path) -> None:
    """Raise what ``load`` would of one checkpoint, a file or a folder. Reads every byte."""
    report = verify([path])
    if len(report.subjects) != 1:
        raise Unreadable(str(path), f"holds {plural(len(report.subjects), 'checkpoint')}, not one")
    _judge(str(path), report)


def damage_of(path: Path) -> str:
    """Why a checkpoint is not sound, though it may be unsafe; empty if it is. Reads every byte."""
    try:
        check(path)
    except Unsafe:
        return ""
    except (Damaged, NotACheckpoint, Unreadable) as error:
        return str(error)
    return ""


# --- whether it may be loaded ----------------------------------------------------------------------------


def _judge(name: str, report: Report) -> None:
    """Raise what the verdict on a file is, unless it may be loaded."""
    subject = report.subjects[0]
    if subject.error:
        raise Unreadable(name, subject.error.removeprefix(f"{printable(name)} – "))
    target: dict[str, Json] = report.json["targets"][0]  # type: ignore[assignment, index]
    found = subject.findings
    if subject.verdict == "not-a-checkpoint":
        raise NotACheckpoint(f"{printable(name)} – not a checkpoint{_why(found)}")
    if target["integrity"] == "damaged":
        raise Damaged(name, f"damaged{_why(found, 'integrity', 'hostile')}; see `ckpttool verify`, `ckpttool repair`")
    edited = [f for f in found if f.name == "edited-since-sealed"]
    if edited:
        raise Damaged(name, f"not what was sealed{_why(edited)}; `ckpttool seal` if the change was meant")
    if target["safety"] == "unsafe":
        why = _why(found, "safety", "hostile")
        raise Unsafe(name, f"loading it may run code{why}; see `ckpttool repair --sanitize`")
    if target["safety"] == "needs-code":
        needs = next((f.message for f in found if f.name in ("needs-code", "contains-code")), "")
        raise Unsafe(name, f"{needs}; `trust` names what you know")
    if target.get("format") in _NOT_FOR_TORCH:
        kind = _NOT_FOR_TORCH[str(target["format"])]
        raise UsageError(f"{printable(name)} – {kind}, which torch does not load as data; `ckpttool convert` does")


_NOT_FOR_TORCH = {"pickle": "a plain pickle", "torch-tar": "a tar of torch before 0.2"}


def _why(found: Sequence[Finding], *axes: str) -> str:
    """The first error of some axes, or of any."""
    from ckpttool.checks import rules

    known = rules()
    errors = (f for f in found if f.severity == "error" and (not axes or known[f.name].axis in axes))
    first = next(errors, None)
    return "" if first is None else f": {first.where} – {first.message}"


# --- loading ---------------------------------------------------------------------------------------------

Loader = Callable[[_Pin, object, Collection[str], bool], Any]


def _loaded(name: str, pins: Sequence[_Pin], map_location: object, trust: Collection[str], mmap: bool) -> Any:
    parts = [pin for pin in pins if not pin.name.endswith(".json")]
    states = [_loader(pin)(pin, map_location, trust, mmap) for pin in parts]
    moved = next((pin for pin in pins if not pin.same), None)
    if moved is not None:
        raise Damaged(moved.name, "written to while it was loaded; wait until its writer is done")
    if len(pins) == 1:
        return states[0]
    merged: dict[str, Any] = {}
    for state in states:
        merged.update(state)
    return merged


def _loader(pin: _Pin) -> Loader:
    with Path(pin.way).open("rb") as file:
        head = file.read(9)
    return _load_safetensors if head[8:9] == b"{" and head[:2] != b"PK" else _load_torch


def _load_torch(pin: _Pin, map_location: object, trust: Collection[str], mmap: bool) -> Any:
    import pickle

    torch = torch_module()
    how = {"mmap": True} if mmap else {}
    with allowed(torch, pin.way, trust):
        try:
            return torch.load(pin.way, map_location=map_location, weights_only=True, **how)
        except pickle.UnpicklingError as error:
            # torch's own text goes on to advise loading with everything allowed.
            text = printable(str(error).replace(pin.way, pin.name).splitlines()[0])[:300]
            raise Unsafe(pin.name, f"torch {torch.__version__} does not load it as plain data: {text}") from None
        except RuntimeError as error:
            if mmap and "mmap can only be used" in str(error):
                why = "mmap needs a file that torch has saved since 1.6; load it without, or convert it"
                raise UsageError(f"{printable(pin.name)} – {why}") from None
            raise


def _load_safetensors(pin: _Pin, map_location: object, trust: Collection[str], mmap: bool) -> Any:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise MissingExtra("safetensors", "train") from error
    device = torch_module().device
    if not (map_location is None or isinstance(map_location, (str, int, device))):
        raise UsageError("map_location is the name of one device for safetensors files")
    return load_file(pin.way, device=map_location if isinstance(map_location, int) else str(map_location or "cpu"))
