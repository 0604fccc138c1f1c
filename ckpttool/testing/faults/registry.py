"""What a fault is, and the list of them all."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

Damaging: TypeAlias = Callable[[bytes, random.Random], bytes]
Files: TypeAlias = dict[str, bytes]
DamagingFiles: TypeAlias = Callable[[Files, random.Random], Files]


class Inapplicable(Exception):
    """The file has nothing that this fault could damage: no optimizer, say. The message says what."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A way for one file to break. ``apply(data, rng)`` gives the broken bytes, the same for the same rng.

    ``rule`` names the rule that has to report it. ``formats`` are those that it applies to. Raises
    ``Inapplicable`` for a file that lacks what it damages. Expects a sound file.
    """

    name: str
    rule: str
    formats: tuple[str, ...]
    about: str
    apply: Damaging


@dataclass(frozen=True, slots=True)
class FolderFault:
    """A way for a folder to break. ``apply(files, rng)`` takes and gives ``{file name: content}``."""

    name: str
    rule: str
    formats: tuple[str, ...]
    about: str
    apply: DamagingFiles


FAULTS: dict[str, Fault | FolderFault] = {}
"""Every fault by name, in the order of the modules that define them."""


def fault(name: str, rule: str, *formats: str) -> Callable[[Damaging], Damaging]:
    """Register the decorated function; its docstring's first line says what the fault is in life."""

    def register(apply: Damaging) -> Damaging:
        _add(Fault(name, rule, formats, about(apply), apply))
        return apply

    return register


def folder_fault(name: str, rule: str, *formats: str) -> Callable[[DamagingFiles], DamagingFiles]:
    """The same for a fault of several files."""

    def register(apply: DamagingFiles) -> DamagingFiles:
        _add(FolderFault(name, rule, formats, about(apply), apply))
        return apply

    return register


def add(name: str, rule: str, formats: tuple[str, ...], text: str, apply: Damaging) -> None:
    """Register one of a family of faults that a loop defines."""
    _add(Fault(name, rule, formats, text, apply))


def about(function: Callable[..., object]) -> str:
    """The first line of a docstring, without its full stop."""
    return (inspect.getdoc(function) or "").partition("\n")[0].rstrip(".")


def faults_of(*, format: str | None = None, rule: str | None = None) -> list[Fault | FolderFault]:  # noqa: A002
    """The faults that apply to a format, or that a rule must catch, or both; all of them by default."""
    return [
        found
        for found in FAULTS.values()
        if (format is None or format in found.formats) and (rule is None or found.rule == rule)
    ]


def _add(made: Fault | FolderFault) -> None:
    if made.name in FAULTS:
        raise ValueError(f"two faults are called {made.name}")
    FAULTS[made.name] = made
