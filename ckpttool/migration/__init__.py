"""Migrations: rules that lead from the names and tensors of one model to those of another.

``load`` reads a rules file, ``rewrite`` says what becomes of a state dict's keys, ``dump`` prints rules,
``unreturned`` says which keys the way back would not lead back.
"""

from __future__ import annotations

from ckpttool.migration.rewrite import rewrite
from ckpttool.migration.round_trip import names_after, unreturned
from ckpttool.migration.rule_errors import RuleError
from ckpttool.migration.rule_file import load
from ckpttool.migration.rule_nouns import RuleFile
from ckpttool.migration.rule_text import dump

__all__ = ["RuleError", "RuleFile", "dump", "load", "names_after", "rewrite", "unreturned"]
