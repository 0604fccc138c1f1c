"""Whether saving and evaluating leave training as it is: seen between two steps, and by runs in another rhythm."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ckpttool.determinism.branches import NEW_LEG, Lab, Reference
from ckpttool.determinism.cases import Cause, listed
from ckpttool.determinism.comparing import STEPPED, Departure, departure, steps_of, without
from ckpttool.determinism.orders import Orders
from ckpttool.determinism.trace import Between, component_of

Say = Callable[[str], None]
Odd = tuple[Departure, Cause]

REMEDIES = {
    "saving": "put back whatever was changed for the save before the next step; draw nothing from global generators",
    "evaluation": "evaluate with a generator of its own, or put the generators back where they were before it",
}


def beside(reference: Reference) -> Odd | None:
    """What a save or an evaluation moves of weights and optimizer that nothing moves otherwise; the first of it.

    Generators are left to ``rhythm``: an epoch's new order is drawn between two steps too.
    """
    gaps = reference.between
    usual = {name for gap in gaps if not gap.saves and not gap.evaluations for name in gap.moved}
    for gap in gaps:
        names = [n for n in gap.moved if component_of(n) in STEPPED and n not in usual and n != "optimizer.settings"]
        if names and (gap.saves or gap.evaluations):
            return _odd("saving" if gap.saves and not _evaluates_so(gaps, names) else "evaluation", gap, names)
    return None


def _evaluates_so(gaps: Sequence[Between], names: Sequence[str]) -> bool:
    """Whether the same moves where there is an evaluation and no save."""
    return any(gap.evaluations and not gap.saves and set(names) & set(gap.moved) for gap in gaps)


def _odd(what: str, gap: Between, names: Sequence[str]) -> Odd:
    doing = "saving" if what == "saving" else "evaluating"
    message = f"{doing} after step {gap.number} moved {', '.join(names)}: training depends on how often that is done"
    component = component_of(names[0])
    cause = Cause(f"{what}-changes-training", component, message, ", ".join(names), REMEDIES[what])
    return Departure(gap.number + 1, tuple(names), None), cause


def rhythm(lab: Lab, say: Say) -> Odd | None:
    """Uninterrupted runs that save or evaluate at other steps, where there are words for it, equal the reference."""
    for what, words in (("saving", lab.wishes.without_saves), ("evaluation", lab.wishes.without_evaluation)):
        if not words:
            continue
        say(f"another rhythm of {what}")
        folder = lab.work / f"rhythm-{what}"
        orders = Orders(folder / "trace", kill_at=lab.wishes.steps)
        ran = lab.launchers.run(lab.command, folder / NEW_LEG, orders, more=words)
        mine = steps_of(ran.trace)
        found = departure(without(lab.reference.steps, lab.reference.loose), mine)
        if not mine:
            message = f"with {' '.join(words)} the command took no step"
            found = Departure(1, ("counters.steps",), None)
        elif found is None:
            continue
        else:
            message = f"{what} at other steps changes training: step {found.step} differs in {listed([*found.fields])}"
        evidence = f"the command with {' '.join(words)}"
        return found, Cause(f"{what}-changes-training", found.component, message, evidence, REMEDIES[what])
    return None
