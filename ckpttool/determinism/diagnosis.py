"""What was lost, in a sentence, with the evidence and the remedy. Rules in the order of cause and effect. Pure."""

from __future__ import annotations

from ckpttool.determinism.cases import Case, Cause, Rule, listed
from ckpttool.determinism.lost_flow import FLOW_RULES
from ckpttool.determinism.lost_state import STATE_RULES

RULES: tuple[Rule, ...] = (*STATE_RULES, *FLOW_RULES)
"""The first that speaks has the word."""


def diagnose(case: Case) -> tuple[Cause, ...]:
    """The causes that explain a departure, the most telling first; always at least one."""
    found = (judge(case) for judge in RULES)
    return tuple(cause for cause in found if cause is not None) or (_unknown(case),)


def _unknown(case: Case) -> Cause:
    names = listed(case.departure.fields)
    return Cause(
        "unexplained",
        case.departure.component,
        f"step {case.departure.step} differs in {names}",
        names,
        "run again with --keep and look at the traces",
    )


__all__ = ["RULES", "Case", "Cause", "diagnose"]
