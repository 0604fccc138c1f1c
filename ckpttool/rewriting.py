"""What a migration makes of a list of names: the meeting point of rules, targets and whole checkpoints.

Rules (or a target) turn ``Names`` into a ``Rewriting``. It speaks of names and forms only, so it is computed once
and applied to weights, EMA twins, optimizer moments and whatever else is keyed by the same names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field

from ckpttool.draft import Made
from ckpttool.expressions import Expression, Form, leaves
from ckpttool.frozen import dataclass
from ckpttool.model import Scalar


@dataclass(frozen=True, slots=True)
class Named:
    """A key of a state dict. ``form`` is None for what is no tensor."""

    name: str
    form: Form | None


@dataclass(frozen=True, slots=True)
class Names:
    """The keys of a state dict in order, and the plain values around it that rules may ask for.

    ``facts`` are every plain leaf of the checkpoint by its key (``epoch``, ``meta.mmdet_version``,
    ``hyper_parameters.n_head``); ``versions`` the recorded version of each module by its name (``_metadata``).
    ``contents`` says what the bytes of a tensor are, for code that looks at values; None where nothing does.
    """

    items: tuple[Named, ...]
    facts: Mapping[str, Scalar] = field(default_factory=dict, hash=False)
    versions: Mapping[str, Scalar] = field(default_factory=dict, hash=False)
    contents: Callable[[str], Made] | None = field(default=None, hash=False)


@dataclass(frozen=True, slots=True)
class Output:
    """A key of the result: how it follows from keys of the input, and by which rules (their numbers, in order).

    An expression without leaves makes a new tensor. A bare leaf is a key that keeps its content; with the leaf's
    name equal to ``name`` it is untouched.
    """

    name: str
    expression: Expression
    rules: tuple[int, ...] = ()

    @property
    def inputs(self) -> tuple[str, ...]:
        return leaves(self.expression)


@dataclass(frozen=True, slots=True)
class Dropped:
    """A key of the input that the result has no place for."""

    name: str
    rules: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Tied:
    """A key of the result that shares the storage of another one; it stands among the outputs too, in its place.

    ``replaces`` names the key of the input whose own content it takes the place of; empty where there was none.
    """

    name: str
    to: str
    rules: tuple[int, ...] = ()
    replaces: str = ""


@dataclass(frozen=True, slots=True)
class RuleUse:
    """A rule as a person wrote it, where it stands (``rules.yaml:14``) and how many keys it decided or changed."""

    text: str
    where: str
    hits: int
    lossy: str = ""


@dataclass(frozen=True, slots=True)
class Rewriting:
    """The result in its order, with everything that a person should know about how it came about.

    ``rules`` is what the numbers in outputs refer to. ``untouched`` are keys that no rule spoke of. ``notes`` are
    warnings in words: rules that never fired, drops never reached, values that will be mixed. ``repeats`` says that
    the rules would match names of their own result again, so running twice needs a stamp or a guard to be told.
    ``already`` says that no rule matches and the names are those that the rules lead to, ``foreign`` that none
    matches and the names are not those either.
    """

    outputs: tuple[Output, ...]
    dropped: tuple[Dropped, ...] = ()
    ties: tuple[Tied, ...] = ()
    rules: tuple[RuleUse, ...] = ()
    untouched: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    repeats: bool = False
    already: bool = False
    foreign: bool = False

    @property
    def changes(self) -> bool:
        """Whether anything differs from the input."""
        return bool(self.dropped or self.ties) or any(
            leaves(o.expression) != (o.name,) or o.rules for o in self.outputs
        )
