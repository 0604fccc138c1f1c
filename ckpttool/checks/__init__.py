"""The checks: one small file each, found here by name.

A module of this package holds one rule: its docstring is the rule's page (a first line, then paragraphs
``What:``, ``Why:``, ``Cause:``, ``Remedy:``), ``RULE = rule(__doc__, code, name, …)`` registers it, and where
the rule judges for itself the function is decorated instead: ``@judges(__doc__, code, name, …)``.
A judge is pure: it looks at a ``Context`` and yields ``Damage`` named like its rule.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from functools import cache

from ckpttool.model import Severity
from ckpttool.rules import Axis, Judge, Rule, check_page

_REGISTERED: dict[str, Rule] = {}


def rule(
    page: str | None,
    code: str,
    name: str,
    severity: Severity,
    *,
    axis: Axis = "none",
    content: bool = False,
    judge: Judge | None = None,
) -> Rule:
    """Register a rule; raises ``ValueError`` for a page with parts missing or a code or name taken twice."""
    check_page(page or "")
    if code in {r.code for r in _REGISTERED.values()} or name in _REGISTERED:
        raise ValueError(f"{code} {name} is registered twice")
    made = Rule(code, name, severity, page or "", axis, content, judge)
    _REGISTERED[name] = made
    return made


def judges(
    page: str | None, code: str, name: str, severity: Severity, *, axis: Axis = "none", content: bool = False
) -> Callable[[Judge], Judge]:
    """Register the decorated function as the judge of a rule."""

    def register(judge: Judge) -> Judge:
        rule(page, code, name, severity, axis=axis, content=content, judge=judge)
        return judge

    return register


@cache
def rules() -> dict[str, Rule]:
    """Every rule by name, ordered by code."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return dict(sorted(_REGISTERED.items(), key=lambda item: item[1].code))


def rule_of(text: str) -> Rule | None:
    """The rule with this code or name, case ignored; None if there is none."""
    wanted = text.strip().lower()
    return next((r for r in rules().values() if wanted in (r.code.lower(), r.name)), None)
