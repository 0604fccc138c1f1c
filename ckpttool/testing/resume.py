"""Asserting that a training that was interrupted and resumed equals one that was not."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ckpttool.determinism.in_process import Cuts, Finding, Level, Proof, prove
from ckpttool.determinism.trainee import Factory
from ckpttool.errors import printable


def assert_resume_exact(
    factory: Factory,
    *,
    steps: int,
    cuts: Cuts = 6,
    seed: int = 0,
    level: Level = "boundary",
    folder: str | os.PathLike[str] | None = None,
) -> Proof:
    """Pass where every resumed run equals the uninterrupted one, step by step, bit for bit; else say what was lost.

    ``factory`` builds a ``Trainee`` as a fresh process would, seeding included. ``cuts`` is how many interruptions to
    choose (``seed`` draws the random ones), or a list of them: ``5`` stops after step 5, ``(5, 8)`` is resumed, stopped
    again after step 8 and resumed again. With ``level="trajectory"`` state that a load does not restore is no failure
    where no later step shows it. Checkpoints go to ``folder``, by default one that is removed afterwards. The
    caller's random generators are as before when this returns. Raises ``AssertionError`` with the component, the first
    step, the cause and the first element with its distance in ulps; ``UsageError`` for cuts outside the steps.
    """
    __tracebackhide__ = True
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        proof = prove(factory, Path(folder), steps=steps, cuts=cuts, seed=seed, level=level)
    else:
        with tempfile.TemporaryDirectory(prefix="ckpttool-resume-") as own:
            proof = prove(factory, Path(own), steps=steps, cuts=cuts, seed=seed, level=level)
    if proof.findings:
        raise AssertionError(explain(proof))
    return proof


def explain(proof: Proof) -> str:
    """What a failed assertion says: the first finding, and how the other cuts fared."""
    found = proof.findings[0]
    head, facts = _told(found)
    width = max(len(label) for label, _ in facts)
    lines = [f"{label:<{width}}  {printable(text)}" for label, text in facts if text]
    if found.outcome in ("diverged", "failed"):
        bad = [_cut(f.cut) for f in proof.findings]
        exact = [_cut(cut) for cut in proof.cuts if cut not in {f.cut for f in proof.findings}]
        lines.append(f"{'cuts':<{width}}  not exact: {'; '.join(bad)}. exact: {'; '.join(exact) or 'none'}")
    return "\n".join([head, "", *lines])


def _told(found: Finding) -> tuple[str, list[tuple[str, str]]]:
    odd, element = found.departure, str(found.element or "")
    if odd is None:
        return f"saved after step {_cut(found.cut)}: the resume fails", [("error", found.error)]
    fields = [("component", odd.component), ("differs", ", ".join(odd.fields)), ("first", element)]
    if found.outcome == "not-reproducible":
        head = f"two uninterrupted runs differ at step {odd.step}: nothing can be said of resumes"
        return head, [*fields, ("remedy", "seed every generator where the trainee is built, and pin what else varies")]
    if found.outcome == "saving-changes-training":
        head = f"saving changes the training: after the save of step {odd.step} it is not what it was"
        return head, [
            *fields,
            ("remedy", "let save() draw no random numbers and leave modes, weights and gradients alone"),
        ]
    head = f"not exact: stopped after step {_cut(found.cut)} and resumed, it departs at step {odd.step}"
    if odd.step in found.cut:
        head = f"not exact: what was saved after step {odd.step} is not what was loaded, though no later step shows it"
    cause = found.causes[0]
    seen = "never, in these steps" if odd.loss_step is None else f"from step {odd.loss_step}"
    return head, [
        ("component", cause.component), ("cause", f"{cause.name}: {cause.message}"), ("differs", ", ".join(odd.fields)),
        ("at load", ", ".join(found.at_load)), ("first", element), ("remedy", cause.remedy), ("in the loss", seen),
    ]  # fmt: skip


def _cut(cut: tuple[int, ...]) -> str:
    return " and again after ".join(map(str, cut))
