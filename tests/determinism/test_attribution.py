"""What was lost is proved by putting it back: parts of the state, and the batches that steps consumed."""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from ckpttool.determinism.attribution import SINGLES, STATE, TRANSPLANTS, Parts, fewest, proof
from ckpttool.determinism.branches import Lab, Reference
from ckpttool.determinism.check import Verdict, Wishes, reference_of
from ckpttool.determinism.cuts import Kill
from ckpttool.determinism.orders import Orders
from ckpttool.determinism.proving import ALSO, POWER
from ckpttool.determinism.running import Command, Launchers
from ckpttool.determinism.trace import component_of
from ckpttool.determinism.verdict import Branch

HERE = Path(__file__).parent
Explained = Callable[[str], tuple[Branch, Parts, str]]


# --- the fewest --------------------------------------------------------------------------------------------------


@given(st.permutations(TRANSPLANTS), st.integers(1, 9), st.sets(st.sampled_from(TRANSPLANTS), min_size=1))
def test_the_fewest_are_found_in_a_few_runs(order: list[str], count: int, lost: set[str]) -> None:
    runs: list[Parts] = []

    def exact(parts: Parts) -> bool:
        runs.append(parts)
        return lost <= set(parts)

    guesses = order[:count]
    found = fewest(guesses, exact)
    whole = set(guesses) if len(guesses) > 1 else {*guesses, *STATE}
    assert set(found) == (lost if lost <= whole else set())
    assert len(runs) <= SINGLES + 1 + 3 + len(TRANSPLANTS)
    assert len(runs) == len(set(runs))


def test_what_explains_nothing_costs_little() -> None:
    runs: list[Parts] = []
    assert fewest(TRANSPLANTS, lambda parts: bool(runs.append(parts))) == ()
    assert len(runs) == SINGLES + 1


# --- batches, in one process ----------------------------------------------------------------------------------------


def trained(orders: Orders, seed: int, *, double: bool = False) -> tuple[list[float], list[str]]:
    """Losses of three steps of two batches each, all of them consumed through the inflow; and what it complains of."""
    import torch
    from torch import nn

    from ckpttool.determinism.gathering import Gathered
    from ckpttool.determinism.inflow import inflow_of

    told: list[str] = []
    inflow = inflow_of(orders, 1, lambda why: told.append(why))
    assert inflow is not None
    torch.manual_seed(0)
    model = nn.Linear(3, 3)
    data = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(3):
        for _ in range(2):
            x, y = torch.randn(4, 3, generator=data), torch.randint(0, 3, (4,), generator=data)
            x = x.double() if double else x
            _, kwargs = inflow.forward((), {"batch": [{"x": x}], "flag": True})
            assert kwargs["flag"] is True
            found = model(kwargs["batch"][0]["x"].float())
            inflow.after_forward()
            counts = torch.zeros(())
            counts += (found.argmax(1) == y).sum()  # meets nothing that has a gradient
            weights = torch.randn(4, generator=data)
            loss = (nn.functional.cross_entropy(found, y, reduction="none") * weights).mean() + (found[y, y]).sum()
            inflow.close()
            losses.append(loss.item())
        inflow.ends(Gathered())
    return losses, told


def test_what_one_run_consumed_is_consumed_by_another(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    theirs, told = trained(Orders(tmp_path, batches=1 << 20), seed=1)
    assert told == []
    replaying = Orders(tmp_path, transplant=str(tmp_path), parts=("data",))
    mine, told = trained(replaying, seed=2)
    assert (mine, told) == (theirs, [])
    other, _ = trained(Orders(tmp_path / "other", batches=1 << 20), seed=2)
    assert other != theirs


def test_batches_that_take_too_much_are_not_kept_and_that_is_said(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    losses, told = trained(Orders(tmp_path, batches=300), seed=1)
    assert told == ["the batches take more than 300 bytes"]
    assert not list(tmp_path.iterdir())
    assert losses == trained(Orders(tmp_path, batches=1 << 20), seed=1)[0]


def test_batches_of_another_type_are_not_exchanged(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    trained(Orders(tmp_path, batches=1 << 20), seed=1)
    mine, told = trained(Orders(tmp_path, transplant=str(tmp_path), parts=("data",)), seed=2, double=True)
    assert told == ["a step consumes torch.float64, and the uninterrupted run's float32"]
    assert mine == trained(Orders(tmp_path / "own", batches=1 << 20), seed=2, double=True)[0]


# --- real processes --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def launchers() -> Iterator[Launchers]:
    pytest.importorskip("torch", reason="torch is not installed")
    with Launchers() as found:
        yield found


def explaining(
    launchers: Launchers, work: Path, wishes: Wishes, cut: int, *words: str, good: str = "good"
) -> Explained:
    """How a mode or a fault is explained: against one uninterrupted run."""
    command = Command((sys.executable, *words), timeout=120)
    unbroken = replace(command, words=tuple(word.replace("MODE", good) for word in command.words))
    found = reference_of(launchers, unbroken, wishes, work / "good")
    assert not isinstance(found, Verdict), found
    reference: Reference = found[1]

    def explain(mode: str) -> tuple[Branch, Parts, str]:
        mine = replace(command, words=tuple(word.replace("MODE", mode) for word in command.words))
        lab = Lab(launchers, mine, wishes, work / mode, reference)
        branch = lab.branch(Kill((cut,), "test"))
        proved = proof(lab, branch, lambda _: None)
        shutil.rmtree(lab.work)
        return branch, proved.parts, proved.remark

    return explain


@pytest.fixture(scope="module")
def loader(launchers: Launchers, tmp_path_factory: pytest.TempPathFactory) -> Explained:
    wishes = Wishes(8, power=False)
    return explaining(launchers, tmp_path_factory.mktemp("loader"), wishes, 5, str(HERE / "loader.py"), "{out}", "MODE")


MODES: dict[str, Any] = {
    "shifted": {"data"},
    "no-order": {"data", "rng"},
    "no-optimizer": {"optimizer"},
    "shifted-no-optimizer": {"data", "optimizer"},
}


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_the_smallest_set_is_found(loader: Explained, mode: str) -> None:
    branch, parts, remark = loader(mode)
    assert "trajectory" in branch.broken
    assert (set(parts), remark) == (MODES[mode], "")


@pytest.mark.slow
def test_no_more_batches_are_kept_than_is_allowed(loader: Explained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ckpttool.determinism.attribution.MOST_BYTES", 100)
    _, parts, remark = loader("shifted")
    assert parts == ()
    assert remark == "whether data explain it was not tried: the batches take more than 100 bytes"


FAULTS = ("data-restarted", "epoch-cut-short", "augmentation-reseeded", "shuffle-buffer-lost")
"""Of the trainer's data: those in which position, order and contents are lost, and a mixture comes."""

TRAINER = (
    "-m ckpttool.trainer --quiet --task digits --batch-size 256 --warmup 3 --steps 40 --save-every 7 --eval-every 5 "
    "--keep-best 0 --log-every 50 --out {out} --inject"
)


@pytest.fixture(scope="module")
def trainer(launchers: Launchers, tmp_path_factory: pytest.TempPathFactory) -> Explained:
    work = tmp_path_factory.mktemp("trainer")
    return explaining(launchers, work, Wishes(11, power=False), 8, *TRAINER.split(), "MODE", good="")


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_faults_of_the_trainer_are_proved_by_data(trainer: Explained, name: str) -> None:
    branch, parts, remark = trainer(name)
    assert "data" in branch.broken
    assert (parts, remark) == (("data",), "")


# --- parts broken on purpose ------------------------------------------------------------------------------------


def test_every_part_that_is_broken_on_purpose_is_another_afterwards() -> None:
    torch: Any = pytest.importorskip("torch", reason="torch is not installed")
    from ckpttool.determinism.digesting import generators
    from ckpttool.determinism.living import Living
    from ckpttool.determinism.surgery import break_part

    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    optimizer, scaler = torch.optim.Adam(model.parameters()), torch.amp.GradScaler("cpu", init_scale=8.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    scaler.scale(model(torch.randn(4, 2)).square().mean()).backward()
    scaler.step(optimizer)
    scaler.update()
    schedule.step()
    living = Living()
    kinds = (living.roots, living.optimizers, living.schedulers, living.scalers)
    for kind, thing in zip(kinds, (model, optimizer, schedule, scaler), strict=True):
        kind.add(thing)
    outside = torch.get_rng_state(), random.getstate()
    for part in (*POWER, *ALSO):
        before = living.state_fields() | living.settings() | generators()
        break_part(living, part)
        after = living.state_fields() | living.settings() | generators()
        odd = {component_of(name) for name in {*before, *after} if before.get(name) != after.get(name)}
        assert odd == {part}
    torch.set_rng_state(outside[0])
    random.setstate(outside[1])
