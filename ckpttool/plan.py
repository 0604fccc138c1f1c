"""A plan: what will be done to a checkpoint, step by step and with reasons, before a byte moves."""

from __future__ import annotations

from ckpttool.draft import Draft
from ckpttool.frozen import dataclass
from ckpttool.rewriting import RuleUse


@dataclass(frozen=True, slots=True)
class Step:
    """One change: the operation, the keys it takes, the keys it makes and why. ``lossy`` says what cannot come back.

    Keys are whole ones, as ``inspect`` shows them (``model.layers.0.weight``).
    """

    op: str
    old: tuple[str, ...]
    new: tuple[str, ...]
    reason: str
    lossy: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """Ordered steps and the draft that they lead to. ``notes`` are warnings; ``unmatched`` keys no rule spoke of.

    ``changed`` are the keys of the output whose bytes are computed rather than copied. ``repeats`` says that the
    same rules would find work in the result again. ``foreign`` says that they are for another checkpoint.
    """

    steps: tuple[Step, ...]
    draft: Draft
    rules: tuple[RuleUse, ...] = ()
    unmatched: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    repeats: bool = False
    foreign: bool = False

    @property
    def lossless(self) -> bool:
        return not any(step.lossy for step in self.steps)
