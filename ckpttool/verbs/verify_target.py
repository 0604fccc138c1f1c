"""What ``verify`` was asked, and what it found of one target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ckpttool.layout import Layout
from ckpttool.limits import DEFAULT, Limits
from ckpttool.model import Checkpoint, Finding, Severity
from ckpttool.verbs.verdict import Coverage, Verdict

NOTHING = Layout()


@dataclass(frozen=True, slots=True)
class Target:
    """One target's result; ``error`` says why there is none."""

    path: str
    checkpoint: Checkpoint | None = None
    layout: Layout = NOTHING
    findings: tuple[Finding, ...] = ()
    verdict: Verdict | None = None
    coverage: Coverage | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the caller asked for, the same for every target."""

    require: str | None = None
    fail_on: Severity | Literal["never"] = "error"
    headers_only: bool = False
    trust: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    limits: Limits = DEFAULT
