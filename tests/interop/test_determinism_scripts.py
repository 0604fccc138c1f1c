"""Training scripts as their frameworks document them, unchanged: the check says what really happens on a resume."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from ckpttool.determinism.check import check
from ckpttool.determinism.running import Command, Launchers
from ckpttool.determinism.verdict import Verdict, Wishes

pytestmark = pytest.mark.interop
SCRIPTS = Path(__file__).parent / "scripts"


@pytest.fixture(scope="module")
def launchers() -> Iterator[Launchers]:
    with Launchers() as found:
        yield found


def checked(
    launchers: Launchers, work: Path, steps: int, script: str, *words: str, resume: str = "", prove: bool = False
) -> Verdict:
    command = Command((sys.executable, str(SCRIPTS / script), *words), tuple(resume.split()), timeout=120)
    wishes = Wishes(steps, cuts=1, power=False, prove=prove, shrink=False, level="trajectory")
    return check(command, wishes, work, launchers=launchers)


def needs(name: str) -> None:
    """Skip where a framework is missing, but in tox's environment. It is the scripts that import it."""
    if not os.environ.get("CKPTTOOL_REQUIRE_TORCH") and find_spec(name) is None:
        pytest.skip(f"{name} is not installed")


def told(found: Verdict) -> tuple[str, str, str, int]:
    """The outcome, the component, the cause and the step."""
    assert found.causes, found
    assert found.departure is not None
    return found.status, found.causes[0].component, found.causes[0].name, found.departure.step


def test_nano_gpt_draws_the_first_windows_again(launchers: Launchers, tmp_path: Path) -> None:
    found = checked(launchers, tmp_path, 7, "char_gpt.py", "--out_dir={out}", resume="--init_from=resume")
    # It saves before step 5, and seeds with 1337 whenever it starts.
    assert told(found) == ("diverged", "data", "data-reseeded", 5), found.message
    assert "of step 1" in found.causes[0].evidence


def test_pytorch_examples_replay_the_first_epochs_order(launchers: Launchers, tmp_path: Path) -> None:
    found = checked(launchers, tmp_path, 10, "examples_style.py", "--out", "{out}", resume="--resume {last}")
    assert told(found) == ("diverged", "data", "data-reseeded", 5), found.message


def test_lightning_replays_the_first_epochs_order(launchers: Launchers, tmp_path: Path) -> None:
    needs("lightning")
    found = checked(launchers, tmp_path, 10, "lightning_fit.py", "{out}")
    assert told(found) == ("diverged", "data", "data-reseeded", 5), found.message


def test_transformers_trainer_is_exact(launchers: Launchers, tmp_path: Path) -> None:
    needs("transformers")
    found = checked(launchers, tmp_path, 8, "transformers_trainer.py", "{out}")
    assert found.status == "exact", found.message
    assert [save.number for save in found.saves][:1] == [3]


def test_accelerate_shuffles_anew_within_the_epoch(launchers: Launchers, tmp_path: Path) -> None:
    needs("accelerate")
    found = checked(launchers, tmp_path, 8, "accelerate_state.py", "--output_dir", "{out}", prove=True)
    # The generators are restored in mid-epoch, and the order of the epoch is drawn from them once more.
    status, component, name, step = told(found)
    assert (status, component, step) == ("diverged", "data", 4), found.message
    assert name == "data-order-rng", found.message
    assert set(found.branches[0].proof) == {"data", "rng"}, "its loader is one batch ahead"
