"""What is known of a branch that departed, and the rules that may speak of it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ckpttool.determinism.comparing import Departure
from ckpttool.determinism.trace import Process, Save, Step, component_of


@dataclass(frozen=True, slots=True)
class Case:
    """Everything that is known of one branch that departed.

    ``start`` is the process of the uninterrupted run, ``saves`` are that run's.
    """

    reference: Mapping[int, Step]
    branch: Mapping[int, Step]
    resumed: Process
    departure: Departure
    boundary: tuple[str, ...]
    double: bool = False
    start: Process | None = None
    saves: tuple[Save, ...] = ()

    @property
    def base(self) -> int:
        """The step that the resume went on from."""
        return self.resumed.base or 0

    def lost(self, component: str) -> tuple[str, ...]:
        """The fields of a component that are not what they were when they were saved."""
        return tuple(name for name in self.boundary if component_of(name) == component)

    def differs(self, component: str) -> tuple[str, ...]:
        """The fields of a component that differ at the first step that does."""
        return tuple(name for name in self.departure.fields if component_of(name) == component)

    def fields(self, number: int) -> Mapping[str, str]:
        """The branch's fields at a step."""
        step = self.branch.get(number)
        return {} if step is None else step.fields

    @property
    def saved(self) -> Save | None:
        """What the uninterrupted run saved at that step."""
        return next((save for save in reversed(self.saves) if save.number == self.base), None)

    def odd_tensors(self, component: str) -> tuple[str, ...]:
        """The single values of a component that are not what they were when they were saved."""
        saved, state = self.saved, self.resumed.state
        if saved is None or state is None or not saved.live or not state.tensors:
            return ()
        names = [n for n in dict.fromkeys([*saved.live, *state.tensors]) if component_of(n) == component]
        return tuple(n for n in names if saved.live.get(n) != state.tensors.get(n))

    def count_of(self, component: str) -> int:
        """How many single values of a component were saved."""
        return 0 if self.saved is None else sum(component_of(n) == component for n in self.saved.live)

    def origin(self, name: str) -> tuple[int, str] | None:
        """The step and the name under which a restored value was saved, where that is another than its own."""
        state = self.resumed.state
        digest = "" if state is None else state.tensors.get(name, "")
        if not digest:
            return None
        for save in sorted(self.saves, key=lambda s: s.number != self.base):
            for other, saved in {**save.leaves, **save.live}.items():
                if saved == digest and (save.number, other) != (self.base, name):
                    return save.number, other
        return None


@dataclass(frozen=True, slots=True)
class Cause:
    """A verdict: a stable name, the component, one sentence, what speaks for it, what would mend it."""

    name: str
    component: str
    message: str
    evidence: str
    remedy: str


Rule = Callable[[Case], Cause | None]


def listed(fields: object) -> str:
    """The first few of some names."""
    found = [str(name) for name in fields] if isinstance(fields, (list, tuple)) else []
    return ", ".join(found[:6]) + (f" and {len(found) - 6} more" if len(found) > 6 else "")
