"""What a rules file says, as frozen values. Texts stay as written, so that a file can be printed again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, TypeAlias

from ckpttool.frozen import dataclass
from ckpttool.model import Scalar

Scope: TypeAlias = Literal["weights", "tree"]
Option: TypeAlias = "None | bool | int | float | str | tuple[Option, ...] | Conditions"
Setting: TypeAlias = "int | float | str"


@dataclass(frozen=True, slots=True)
class Conditions:
    """Named options: a ``restore`` or ``reverse`` of a rule."""

    items: tuple[tuple[str, Option], ...]

    def get(self, name: str) -> Option:
        return dict(self.items).get(name)


@dataclass(frozen=True, slots=True)
class Guard:
    """When a rule applies: every condition holds. Patterns may use the rule's captures.

    ``metadata`` pairs a path into the checkpoint's plain values with conditions of which one must hold, ``version``
    a module's name likewise. A condition is ``<2``, ``>=1.0``, a value, or None for "absent".
    """

    exists: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    shape: tuple[Option, ...] | None = None
    dtype: tuple[str, ...] = ()
    metadata: tuple[tuple[str, tuple[Scalar, ...]], ...] = ()
    version: tuple[tuple[str, tuple[Scalar, ...]], ...] = ()

    @property
    def speaks_of_names(self) -> bool:
        return bool(self.exists or self.missing)

    @property
    def speaks_of_content(self) -> bool:
        return self.shape is not None or bool(self.dtype)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. ``sources`` are patterns of the names that its stage is given, ``targets`` of those it makes.

    ``regex`` says that the one source is a regular expression. ``options`` hold what its kind takes beside.
    ``back`` is the guard of the rule's inverse where the file states it (``reverse_when``), and ``states_back``
    that it does.
    """

    kind: str
    sources: tuple[str, ...]
    targets: tuple[str, ...] = ()
    options: tuple[tuple[str, Option], ...] = ()
    regex: bool = False
    when: Guard | None = None
    back: Guard | None = None
    states_back: bool = False
    optional: bool = False
    scope: Scope = "weights"
    where: str = ""

    def option(self, name: str) -> Option:
        """An option's value; None where it is not given."""
        return dict(self.options).get(name)

    def has(self, name: str) -> bool:
        return any(key == name for key, _ in self.options)

    @property
    def text(self) -> str:
        """The rule in one line, without its options: ``rename 'h.{i}' to 'layers.{i}'``."""
        left = ", ".join(f"'{source}'" for source in self.sources)
        right = ", ".join(f"'{target}'" for target in self.targets)
        if self.kind == "tie":
            return f"tie {right} to {left}"
        if self.kind == "add":
            return f"add {right}"
        return f"{self.kind} {left}" + (f" to {right}" if right else "")


@dataclass(frozen=True, slots=True)
class Given:
    """A named number or text that rules use. ``paths`` are where the checkpoint may tell it, the first one that does.

    ``default`` None makes it required; the name of another given value stands for that one.
    """

    name: str
    default: Setting | None = None
    paths: tuple[str, ...] = ()
    about: str = ""


@dataclass(frozen=True, slots=True)
class Stage:
    """Rules that all look at the same names, and speak of the same part of the checkpoint."""

    rules: tuple[Rule, ...]

    @property
    def scope(self) -> Scope:
        return self.rules[0].scope if self.rules else "weights"


@dataclass(frozen=True, slots=True)
class RuleFile:
    """An ordered list of stages. ``from_`` and ``to`` are versions, for chains. ``text`` is the file as it was read.

    ``origin`` says where the rules were found out (``source:``), ``notes`` what to know before running them;
    ``where`` is the file's name for messages.
    """

    stages: tuple[Stage, ...]
    about: str = ""
    given: tuple[Given, ...] = ()
    from_: str = ""
    to: str = ""
    origin: tuple[str, ...] = ()
    notes: str = ""
    where: str = ""
    text: str = ""
    version: int = 1

    @property
    def rules(self) -> tuple[Rule, ...]:
        """All rules, in order: what the numbers in a ``Rewriting`` refer to."""
        return tuple(rule for stage in self.stages for rule in stage.rules)

    @property
    def names(self) -> frozenset[str]:
        """The names of given values."""
        return frozenset(given.name for given in self.given)

    def inverse(self) -> RuleFile:
        """The rules that lead back. Raises ``RuleError`` that names each rule which cannot be undone, and why."""
        from ckpttool.migration.inversion import inverse

        return inverse(self)

    def scopes(self) -> tuple[RuleFile, ...]:
        """The file cut where its stages turn from the weights to the whole tree or back: each part has one scope."""
        parts: list[list[Stage]] = []
        for stage in self.stages:
            if not parts or parts[-1][-1].scope != stage.scope:
                parts.append([])
            parts[-1].append(stage)
        return tuple(replace(self, stages=tuple(stages)) for stages in parts)

    @property
    def scope(self) -> Scope:
        """What its first stage speaks of; of all stages where the file is one of ``scopes()``."""
        return self.stages[0].scope if self.stages else "weights"

    def cut(self, count: int) -> tuple[RuleFile, RuleFile]:
        """The first ``count`` stages and the rest: one after the other does what the whole does."""
        return replace(self, stages=self.stages[:count]), replace(self, stages=self.stages[count:])


Settings: TypeAlias = "Mapping[str, Setting]"
