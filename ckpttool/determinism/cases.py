"""What is known of a branch that departed, and the rules that may speak of it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from ckpttool.determinism.comparing import Departure
from ckpttool.determinism.trace import Process, Save, Step, component_of
from ckpttool.determinism.traits import Trait


@dataclass(frozen=True, slots=True)
class Peer:
    """Another process of the same run: its steps in both runs, how it was resumed, what it did not get back."""

    rank: int
    reference: Mapping[int, Step]
    branch: Mapping[int, Step]
    resumed: Process | None = None
    boundary: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """Everything that is known of one branch that departed.

    ``start`` is the process of the uninterrupted run, ``saves`` are that run's. ``peers`` are the other processes of
    the same run, where there are several.
    """

    reference: Mapping[int, Step]
    branch: Mapping[int, Step]
    resumed: Process
    departure: Departure
    boundary: tuple[str, ...]
    double: bool = False
    start: Process | None = None
    saves: tuple[Save, ...] = ()
    peers: tuple[Peer, ...] = ()

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
        """What the uninterrupted run saved at that step: the last of its saves, with the contents of all of them."""
        found = [save for save in self.saves if save.number == self.base]
        if len(found) < 2:
            return found[0] if found else None
        leaves = {f"{place}:{name}": digest for place, save in enumerate(found) for name, digest in save.leaves.items()}
        return replace(found[-1], leaves=leaves)

    def odd_tensors(self, component: str) -> tuple[str, ...]:
        """The single values of a component that are not what they were when they were saved."""
        saved, state = self.saved, self.resumed.state
        if saved is None or state is None or not saved.live or not state.tensors:
            return ()
        names = [n for n in dict.fromkeys([*saved.live, *state.tensors]) if component_of(n) == component]
        return tuple(n for n in names if saved.live.get(n) != state.tensors.get(n))

    def odd_traits(self, component: str) -> dict[str, Trait]:
        """How tensors of a component are that did not come back as saved; all of its odd kinds, if no more is known."""
        if (state := self.resumed.state) is None:
            return {}
        kinds = tuple(f"{kind}." for kind in self.lost(component))
        names = self.odd_tensors(component) or tuple(name for name in state.traits if name.startswith(kinds))
        return {name: state.traits[name] for name in names if name in state.traits}

    def was(self, names: Collection[str]) -> dict[str, Trait]:
        """How these tensors were when they were saved, as far as that is known."""
        known = {} if self.saved is None else self.saved.traits
        return {name: known[name] for name in names if name in known}

    def moved_values(self, component: str) -> tuple[str, ...]:
        """Plain values of a component that are not what was saved, each with both."""
        saved, state = self.saved, self.resumed.state
        if saved is None or state is None:
            return ()
        pairs = [(n, was, state.values.get(n)) for n, was in saved.values.items() if component_of(n) == component]
        odd = [(n.partition(".")[2].removeprefix("0."), was, now) for n, was, now in pairs if now not in (was, None)]
        public = [pair for pair in odd if not pair[0].startswith("_")]
        return tuple(f"{name} was {was}, is {now}" for name, was, now in public or odd)

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
            for other, saved in {**save.live, **save.leaves}.items():
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


def many(count: int, what: str, plural: str = "") -> str:
    """A number of things, in words."""
    return f"{count} {what if count == 1 else plural or f'{what}s'}"


def listed(fields: object) -> str:
    """The first few of some names."""
    found = [str(name) for name in fields] if isinstance(fields, (list, tuple)) else []
    return ", ".join(found[:6]) + (f" and {len(found) - 6} more" if len(found) > 6 else "")
