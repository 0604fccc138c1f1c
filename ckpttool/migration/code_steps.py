"""Steps of a chain that are written in Python: the decorator, and what becomes of a state dict by such a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from ckpttool.errors import CkpttoolError, UsageError
from ckpttool.frozen import dataclass
from ckpttool.migration.errors import MigrationError
from ckpttool.migration.keys import Fetch, Key, Keys, Plain, rewriting_of
from ckpttool.migration.rule_nouns import Scope
from ckpttool.model import Scalar
from ckpttool.ops.called import told
from ckpttool.rewriting import Names, Rewriting, RuleUse

Function: TypeAlias = Callable[[Keys], "Mapping[str, Key] | None"]
"""Edits the keys that it is given, or gives others in their place."""


class Migration:
    """A function that leads from one version to the next, and the one that leads back where there is one."""

    def __init__(self, from_: str, to: str, up: Function, scope: Scope) -> None:
        self.from_ = from_
        self.to = to
        self.up = up
        self.scope: Scope = scope
        self.back: Function | None = None

    def down(self, function: Function) -> Function:
        """A decorator: the function leads back."""
        self.back = function
        return function

    def __call__(self, keys: Keys) -> Mapping[str, Key] | None:
        return self.up(keys)


def migration(from_: str | int, to: str | int, *, scope: Scope = "weights") -> Callable[[Function], Migration]:
    """A decorator for a step of a chain: the function is given ``Keys``, and edits them or returns others.

    ``scope`` ``tree`` gives it every key of the checkpoint instead of each state dict's. The versions are written as
    literals, so that ``ckpttool chain`` can tell where a checkpoint stands without running the file.
    """
    if scope not in ("weights", "tree"):
        raise UsageError(f"a migration's scope is 'weights' or 'tree', not {scope!r}")
    return lambda function: Migration(str(from_), str(to), function, scope)


@dataclass(frozen=True, slots=True)
class Code:
    """A function of a step as it is carried out. ``where`` is its file and line, ``lossy`` what has no way back."""

    function: Function
    where: str
    scope: Scope
    lossy: str = ""


def rewrite_by(code: Code, names: Names, fetch: Fetch | None, edits: dict[str, Scalar]) -> Rewriting:
    """What the function makes of these names; ``edits`` takes the plain values that it sets.

    Raises ``MigrationError`` with the file, and the line in it, for whatever the function raises.
    """
    keys = Keys(names, code.where, fetch)
    try:
        found = code.function(keys)
    except CkpttoolError:
        raise
    except (Exception, SystemExit) as error:
        raise MigrationError(told(code.where, error)) from error
    if found is not None:
        _replace(keys, found, code)
    if isinstance(keys.plain, Plain):
        edits.update(keys.plain.edits)
    name = getattr(code.function, "__name__", "step")
    return rewriting_of(names, keys, RuleUse(f"{name}()", code.where, 0, code.lossy), as_listed=found is not None)


def _replace(keys: Keys, found: Any, code: Code) -> None:
    if not isinstance(found, Mapping):
        raise MigrationError(f"{code.where} – the step gave a {type(found).__name__}, not a mapping of names or None")
    items = list(found.items())
    keys.clear()
    keys.update(items)
