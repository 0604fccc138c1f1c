"""A training in the test's own process: exact ones pass, broken ones are named, and shrunk to the fewest moves."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import settings

from ckpttool.determinism import Trainee
from ckpttool.determinism.in_process import choose_cuts, prove
from ckpttool.errors import UsageError
from ckpttool.testing import ResumeMachine, assert_resume_exact, check_resume_machine

np = pytest.importorskip("numpy")


class Descent:
    """Stochastic descent with momentum, a noisy gradient, a shuffled order and a best loss; torch has no part in it."""

    forgets: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        random.seed(5)
        np.random.seed(2)
        self.params = np.full(3, 5.0)
        self.optimizer = {"momentum": np.zeros(3)}
        self.done, self.best, self.order = 0, 1e9, [1, 2, 0]

    def step(self) -> dict[str, Any]:
        if self.done % 3 == 0:
            self.order = random.sample(range(3), 3)
        chosen = self.order[self.done % 3]
        gradient = 2 * self.params + np.random.normal(size=3) + chosen
        self.optimizer["momentum"] = 0.9 * self.optimizer["momentum"] + gradient
        self.params = self.params - 0.01 * self.optimizer["momentum"]
        self.done += 1
        loss = float((self.params**2).sum())
        self.best = min(self.best, loss)
        return {"loss": loss, "ids": chosen}

    def save(self, path: Path) -> None:
        kind, keys, *rest = np.random.get_state()
        state = {
            "params": self.params.tolist(), "momentum": self.optimizer["momentum"].tolist(), "done": self.done,
            "best": self.best, "order": self.order, "python": random.getstate(),
            "numpy": [kind, keys.tolist(), *rest],
        }  # fmt: skip
        path.write_text(json.dumps(state))

    def load(self, path: Path) -> None:
        state = json.loads(path.read_text())
        for name in self.forgets:
            del state[name]
        self.params = np.array(state.get("params", self.params))
        self.optimizer["momentum"] = np.array(state.get("momentum", np.zeros(3)))
        self.done, self.best = state.get("done", 0), state.get("best", 1e9)
        self.order = state.get("order", self.order)
        if "python" in state:
            version, numbers, gauss = state["python"]
            random.setstate((version, tuple(numbers), gauss))
        if "numpy" in state:
            np.random.set_state(tuple(state["numpy"]))


def forgetting(*names: str) -> Callable[[], Trainee]:
    return type(f"Without{names[0].title()}", (Descent,), {"forgets": names})


def test_what_is_exact_passes_and_the_callers_generators_stay() -> None:
    random.seed(7)
    np.random.seed(7)
    before = random.getstate(), np.random.get_state()[1].tolist()
    proof = assert_resume_exact(Descent, steps=12, cuts=8)
    assert (proof.outcome, len(proof.cuts)) == ("exact", 8)
    assert any(len(cut) > 1 for cut in proof.cuts)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


# What is forgotten -> the component, the step at which it shows after a stop at 4, the first whose loss shows it.
LOST = {
    "params": ("params", 5, 5),
    "momentum": ("optimizer", 5, 5),
    "done": ("counters", 5, 6),
    "best": ("counters", 4, None),
    "order": ("counters", 5, 5),
    "python": ("rng", 5, 7),
    "numpy": ("rng", 5, 5),
}


@pytest.mark.parametrize("name", LOST)
def test_what_is_forgotten_is_named(tmp_path: Path, name: str) -> None:
    (found,) = prove(forgetting(name), tmp_path, steps=12, cuts=[4]).findings
    assert (found.outcome, found.cut) == ("diverged", (4,))
    assert found.departure is not None
    assert (found.causes[0].component, found.departure.step, found.departure.loss_step) == LOST[name]
    assert found.element is not None
    assert found.element.name.partition(" ")[0].partition(".")[0] == LOST[name][0]


def test_what_heals_is_no_failure_of_the_trajectory() -> None:
    with pytest.raises(AssertionError, match="not what was loaded, though no later step shows it"):
        assert_resume_exact(forgetting("best"), steps=12, cuts=[4])
    assert_resume_exact(forgetting("best"), steps=12, cuts=[4], level="trajectory")


def test_the_message_names_component_step_cause_and_distance() -> None:
    class Nudged(Descent):
        def load(self, path: Path) -> None:
            super().load(path)
            self.params[1] = np.nextafter(self.params[1], 9.0)

    with pytest.raises(AssertionError) as caught:
        assert_resume_exact(Nudged, steps=8, cuts=[3, 5])
    text = str(caught.value)
    assert text.startswith("not exact: stopped after step 3 and resumed, it departs at step 4\n")
    assert re.search(r"^component +params$", text, re.MULTILINE)
    assert re.search(r"^cause +weights-changed: ", text, re.MULTILINE)
    assert re.search(
        r"^first +params\[1\] is [\d.]+, not [\d.]+, 1 ulp apart; 1 of 3 elements differ$", text, re.MULTILINE
    )
    assert re.search(r"^cuts +not exact: 3; 5\. exact: none$", text, re.MULTILINE)


def test_a_training_that_does_not_repeat_is_no_resumes_fault() -> None:
    class Loose(Descent):
        def __init__(self) -> None:
            super().__init__()
            self.params = self.params + clock.random()

    clock = random.Random(3)
    with pytest.raises(AssertionError, match="two uninterrupted runs differ at step 1"):
        assert_resume_exact(Loose, steps=4)


def test_a_factory_that_seeds_nothing_is_not_reproducible() -> None:
    class Unseeded(Descent):
        def __init__(self) -> None:
            start = random.random()
            super().__init__()
            self.params = self.params + start

    with pytest.raises(AssertionError, match="seed every generator"):
        assert_resume_exact(Unseeded, steps=4)


def test_saving_that_is_seen_in_the_training_is_told() -> None:
    class Drawing(Descent):
        def save(self, path: Path) -> None:
            super().save(path)
            random.random()

    with pytest.raises(AssertionError, match="saving changes the training: after the save of step 1"):
        assert_resume_exact(Drawing, steps=4)


def test_a_load_that_fails_is_told() -> None:
    class Failing(Descent):
        def load(self, path: Path) -> None:
            raise KeyError("momentum")

    with pytest.raises(AssertionError, match=r"the resume fails\n\nerror +load after step 2: KeyError: 'momentum'"):
        assert_resume_exact(Failing, steps=4, cuts=[2])


class SecondResume(Descent):
    """One resume is exact; a resume of a resume is not."""

    resumed = False

    def state(self) -> dict[str, Any]:
        return {"params": self.params, "optimizer": self.optimizer, "best": self.best, "done": self.done}

    def load(self, path: Path) -> None:
        super().load(path)
        self.resumed = True

    def save(self, path: Path) -> None:
        super().save(path)
        if self.resumed:
            path.write_text(path.read_text().replace('"best": ', '"best": 1'))


def test_a_resume_of_a_resume_is_tried() -> None:
    assert_resume_exact(SecondResume, steps=10, cuts=[2, 5])
    with pytest.raises(AssertionError, match=r"cuts +not exact: 2 and again after 5\. exact: 2"):
        assert_resume_exact(SecondResume, steps=10, cuts=[2, (2, 5)])


def test_a_generator_that_is_seeded_in_every_step_need_not_be_kept() -> None:
    class Stateless(forgetting("numpy")):  # type: ignore[misc]
        def step(self) -> dict[str, Any]:
            np.random.seed(self.done)
            return dict(super().step())

    assert_resume_exact(Stateless, steps=6)


@pytest.mark.parametrize("cuts", [[0], [8], [(5, 3)], [()], [9]])
def test_cuts_outside_the_steps_are_refused(cuts: Any) -> None:
    with pytest.raises(UsageError, match="cannot be a cut of 8 steps"):
        choose_cuts(8, cuts, 0)


def test_chosen_cuts_repeat_and_lie_within() -> None:
    for steps in (2, 3, 5, 40):
        found = choose_cuts(steps, 12, 3)
        assert found == choose_cuts(steps, 12, 3)
        assert all(1 <= place < steps for cut in found for place in cut)
        assert len(set(found)) == len(found)


# --- the machine -----------------------------------------------------------------------------------------


def test_an_exact_training_passes_every_order_of_moves() -> None:
    check_resume_machine(Descent, steps=8, examples=12, moves=10)


class Evaluating(Descent):
    """Evaluating draws from the generator that training draws from."""

    def evaluate(self) -> None:
        random.random()


class Workers(Descent):
    """The order depends on the number of workers."""

    workers = 0

    def state(self) -> dict[str, Any]:
        return {name: part for name, part in vars(self).items() if name != "workers"}

    def change_workers(self, number: int) -> None:
        self.workers = number

    def step(self) -> dict[str, Any]:
        return {**super().step(), "ids": (self.done + self.workers) % 3}


BROKEN = {
    "momentum": (forgetting("momentum"), ["train(count=1)", "save()", "crash()", "train(count=1)"]),
    "generator": (forgetting("numpy"), ["train(count=1)", "save()", "crash()", "train(count=1)"]),
    "weights": (forgetting("params"), ["train(count=1)", "save()", "crash()", "train(count=1)"]),
    "evaluation": (Evaluating, ["evaluate()", "train(count=1)"]),
    "workers": (Workers, ["change_workers(number=1)", "train(count=1)"]),
    "second resume": (SecondResume, ["train(count=1)", "save()", "crash()", "save()", "crash()", "train(count=1)"]),
}


@pytest.mark.parametrize(
    "name", ["weights", *(pytest.param(n, marks=pytest.mark.slow) for n in BROKEN if n != "weights")]
)
def test_a_broken_one_is_found_and_shrunk(name: str) -> None:
    factory, moves = BROKEN[name]
    with pytest.raises(AssertionError, match=r"is not (that of|what was saved)") as caught:
        check_resume_machine(factory, steps=4, examples=400, moves=8)
    told = [line for note in caught.value.__notes__ for line in note.splitlines()]
    shrunk = [line.strip().removeprefix("state.") for line in told if line.strip().startswith("state.")]
    # Shrinking ends where no single move can go: a longer way to the same fault may be such a place.
    assert len(shrunk[:-1]) <= len(moves) + 2, shrunk
    assert shrunk[-1] == "teardown()"


def machine(factory: Any, level: str = "boundary") -> Any:
    return type("Machine", (ResumeMachine,), {"factory": factory, "steps": 6, "level": level})()


def test_moves_are_checked_one_by_one() -> None:
    drawn = machine(Evaluating)
    drawn.evaluate()
    with pytest.raises(AssertionError, match="step 1 is not that of the uninterrupted run: "):
        drawn.train(1)
    drawn.teardown()
    assert not drawn.folder.exists()


@pytest.mark.parametrize("level", ["boundary", "trajectory"])
def test_loads_are_checked_where_that_is_asked(level: str) -> None:
    lost = machine(forgetting("best"), level)
    lost.train(2)
    lost.save()
    if level == "boundary":
        with pytest.raises(AssertionError, match=r"saved after step 2 \(resumed from step 2\): counters.best"):
            lost.crash()
    else:
        lost.crash()
        lost.train(4)
        assert lost.life.done == 6
    lost.teardown()


def test_a_machine_says_when_the_training_does_not_repeat() -> None:
    class Loose(Descent):
        def step(self) -> dict[str, Any]:
            return {**super().step(), "ids": next(numbers)}

    numbers = iter(range(1000))
    with pytest.raises(AssertionError, match="two uninterrupted runs differ at step 1"):
        check_resume_machine(Loose, steps=3, examples=2)


class Machine(ResumeMachine):
    factory = Descent
    steps = 6


class TestMachine(Machine.TestCase):  # type: ignore[misc, name-defined]
    """A machine is a test as it stands."""

    settings = settings(max_examples=5, stateful_step_count=8)
