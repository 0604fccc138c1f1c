"""Migrations: rules that lead from the names and tensors of one model to those of another.

``load`` reads a rules file, ``rewrite`` says what becomes of a state dict's keys, ``dump`` prints rules,
``unreturned`` says which keys the way back would not lead back.

The module can be called: ``@ckpttool.migration("3", "4")`` makes a step of a chain of a function (``code_steps``).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING

from ckpttool.migration.rewrite import rewrite
from ckpttool.migration.round_trip import names_after, unreturned
from ckpttool.migration.rule_errors import RuleError
from ckpttool.migration.rule_file import load
from ckpttool.migration.rule_nouns import RuleFile
from ckpttool.migration.rule_text import dump

__all__ = ["RuleError", "RuleFile", "dump", "load", "names_after", "rewrite", "unreturned"]

if TYPE_CHECKING:
    from ckpttool.migration.code_steps import Function, Migration
    from ckpttool.migration.rule_nouns import Scope


class _Decorator(ModuleType):
    """What makes ``ckpttool.migration`` the decorator too, whichever of module and decorator is asked for first."""

    def __call__(self, from_: str | int, to: str | int, *, scope: Scope = "weights") -> Callable[[Function], Migration]:
        from ckpttool.migration.code_steps import migration

        return migration(from_, to, scope=scope)


sys.modules[__name__].__class__ = _Decorator
