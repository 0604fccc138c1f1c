"""A resume of a resume that alone departs is called so, and keeps the cause of what it lost."""

from __future__ import annotations

from ckpttool.determinism.cases import Cause
from ckpttool.determinism.check import _of_a_second_resume
from ckpttool.determinism.cuts import Kill
from ckpttool.determinism.verdict import Branch

DRAWN = Cause("rng-drawn", "rng", "drawn from", "torch", "restore last")
TWICE = Branch((5, 9), causes=(DRAWN,), kill=Kill((5, 9), ""), broken=("trajectory",))


def single(*broken: str) -> Branch:
    return Branch((5,), kill=Kill((5,), ""), broken=broken)  # type: ignore[arg-type]


def test_where_single_resumes_are_exact() -> None:
    found = _of_a_second_resume(TWICE, (single(), TWICE)).causes
    assert [cause.name for cause in found] == ["second-resume", "rng-drawn"]
    assert found[0].message == "one resume is exact, and the resume of a resume is not: drawn from"
    assert found[0].remedy == DRAWN.remedy


def test_where_they_are_not_or_were_not_tried() -> None:
    assert _of_a_second_resume(TWICE, (single("trajectory"), TWICE)) == TWICE
    assert _of_a_second_resume(TWICE, (TWICE,)) == TWICE
    assert _of_a_second_resume(single("trajectory"), (single(),)).causes == ()
