"""Several processes under torchrun: a trace for each, one of them or all killed, and compared rank by rank."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ckpttool.determinism.branches import Reference
from ckpttool.determinism.check import Verdict, Wishes, check, reference_of
from ckpttool.determinism.running import Command, Launchers

pytest.importorskip("torch", reason="torch is not installed")
pytestmark = pytest.mark.slow
SCRIPT = str(Path(__file__).with_name("ranks.py"))


def command(mode: str) -> Command:
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    return Command((*torchrun, SCRIPT, "{out}", mode), timeout=120)


def wishes(kills: int = 0) -> Wishes:
    return Wishes(6, cuts=1, kills=kills, power=False, prove=False, shrink=False)


@pytest.fixture(scope="module")
def launchers() -> Iterator[Launchers]:
    with Launchers() as found:
        yield found


@pytest.fixture(scope="module")
def reference(launchers: Launchers, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    found = reference_of(launchers, command("good"), wishes(), tmp_path_factory.mktemp("ranks"))
    assert not isinstance(found, Verdict), (found.message, found.lines)
    return found[1]


def test_one_rank_and_all_ranks_killed(tmp_path: Path, launchers: Launchers, reference: Reference) -> None:
    found = check(command("good"), wishes(1), tmp_path, launchers=launchers, reference=reference)
    assert found.status == "exact", (found.message, found.lines)
    assert found.ranks == 2
    assert [(b.kill.how, b.kill.place) for b in found.branches] == [("step", 0), ("rank", 1)]
    assert all({p.rank for p in b.ran[0].trace if p.steps} == {0, 1} for b in found.branches)


def test_a_generator_of_one_rank_is_named_with_it(tmp_path: Path, launchers: Launchers, reference: Reference) -> None:
    found = check(command("first-rng"), wishes(), tmp_path, launchers=launchers, reference=reference)
    assert found.status == "diverged", found.message
    assert found.departure is not None
    assert (found.departure.rank, found.departure.step) == (1, 4)
    assert found.causes[0].component == "rng"
