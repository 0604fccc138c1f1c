"""The whole check on scripts that are put together otherwise: two models, and an optimizer that calls its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ckpttool.determinism.check import Verdict, Wishes, check
from ckpttool.determinism.running import Command, Launchers

pytest.importorskip("torch")
pytestmark = pytest.mark.slow

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def launchers() -> Iterator[Launchers]:
    with Launchers() as found:
        yield found


def verdict(launchers: Launchers, work: Path, script: str, *more: str, steps: int, **wishes: bool) -> Verdict:
    command = Command((sys.executable, str(HERE / script), "{out}", *more), timeout=120)
    given = {"power": False, "shrink": False, **wishes}
    return check(command, Wishes(steps, cuts=3, **given), work, launchers=launchers)  # type: ignore[arg-type]


def test_two_models_with_an_optimizer_each_are_exact(launchers: Launchers, tmp_path: Path) -> None:
    """What the first model's forward pass moves is no loss, nor is the step that makes an optimizer's state."""
    found = verdict(launchers, tmp_path, "pair.py", "right", steps=14)
    assert found.status == "exact", found.message
    assert [save.number for save in found.saves] == [4, 8, 12]
    assert any(len(b.cut) == 2 for b in found.branches)


@pytest.mark.parametrize(
    ("mode", "cause", "proof"),
    [("judge-optimizer-lost", "optimizer-lost", ("optimizer",)), ("average-lost", "ema-lost", ("ema",))],
)
def test_what_one_of_two_models_lost(
    launchers: Launchers, tmp_path: Path, mode: str, cause: str, proof: tuple[str, ...]
) -> None:
    """The average is updated after the step: what is transplanted is the state that the next step finds."""
    found = verdict(launchers, tmp_path, "pair.py", mode, steps=10)
    assert (found.status, found.causes[0].name) == ("diverged", cause), found.message
    assert next(b.proof for b in found.branches if b.proof) == proof


def test_state_is_put_into_an_optimizer_within_its_step(launchers: Launchers, tmp_path: Path) -> None:
    found = verdict(launchers, tmp_path, "closure.py", steps=8)
    assert (found.status, found.causes[0].name) == ("diverged", "optimizer-lost"), found.message
    assert next(b.proof for b in found.branches if b.proof) == ("optimizer",)
