"""Every cause that a diagnosis can name, each from the smallest traces that show it: no process, no torch."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ckpttool import determinism
from ckpttool.determinism.cases import Peer
from ckpttool.determinism.causes import NAMES
from ckpttool.determinism.comparing import Departure
from ckpttool.determinism.diagnosis import Case, diagnose
from ckpttool.determinism.trace import Process, Save, Step
from ckpttool.determinism.traits import Trait

EPOCH, STEPS, BASE = 8, 24, 12
"""Batches of an epoch, steps of the uninterrupted run, and the step that the resume went on from."""


def sample(number: int) -> str:
    return f"{number:08x}"


def step(number: int) -> Step:
    """A step of the uninterrupted run: a batch of two, in another order each epoch."""
    epoch, place = divmod(number - 1, EPOCH)
    first = (place * 3 + epoch) % EPOCH
    return Step(number, {"data": f"data@{number}"}, rows=sample(first) + sample(first + EPOCH))


REFERENCE = {number: step(number) for number in range(1, STEPS + 1)}


def case(
    *odd: str,
    at: int = BASE + 1,
    lost: tuple[str, ...] = (),
    live: Mapping[str, str] | None = None,
    tensors: Mapping[str, str] | None = None,
    leaves: Mapping[str, str] | None = None,
    theirs: Mapping[str, Any] | None = None,
    mine: Mapping[str, Any] | None = None,
    was: Mapping[str, Any] | None = None,
    now: Mapping[str, Any] | None = None,
    state: Mapping[str, str] | None = None,
    held: Mapping[str, Trait] | None = None,
    found: Mapping[str, Trait] | None = None,
    known: Mapping[int, Step] | None = None,
    peers: tuple[Peer, ...] = (),
    rank: int = 0,
    goes_on: Mapping[int, Step] | None = None,
) -> Case:
    """A branch that departs in the fields ``odd`` at a step, after a load that did not bring back ``lost``.

    ``live`` was saved by name and ``tensors`` came back, ``held`` and ``found`` are how these were; ``theirs`` and
    ``mine`` are the two runs' steps, ``known`` and ``goes_on`` more of them, ``was`` and ``now`` their processes.
    """
    reference = {**REFERENCE, **(known or {})}
    reference[at] = Step(at, **{"fields": {}, **(theirs or vars_of(reference[at]))})
    branch = {at: Step(at, **{"fields": {}, **(mine or {})}), **(goes_on or {})}
    fields = state if state is not None else dict.fromkeys(lost, "x")
    loaded = Step(BASE, fields, tensors=tensors or {}, traits=found or {})
    saves = (Save(BASE, "last.pt", "digest", leaves=leaves or {}, live=live or {}, traits=held or {}),)
    resumed = Process(rank, BASE, state=loaded, **(now or {}))
    start = Process(rank, None, **(was or {}))
    return Case(reference, branch, resumed, Departure(at, odd, at, rank), lost, start=start, saves=saves, peers=peers)


def vars_of(one: Step) -> dict[str, Any]:
    return {"fields": one.fields, "rows": one.rows, "contents": one.contents}


def batch_of(number: int) -> dict[str, Any]:
    return {"fields": {"data": f"data@{number}"}}


def moment(name: str, zero: int = 0, count: int = 64, **more: Any) -> dict[str, Trait]:
    """How a moment of a parameter is."""
    return {f"optimizer.{name}": Trait("float32", count, zero, **more)}


MOMENTS = ("optimizer.exp_avg", "optimizer.exp_avg_sq")
RIGHT = {"held": moment("exp_avg.w") | moment("exp_avg_sq.w")}
CAST = moment("exp_avg.w", fits=("bfloat16",)) | moment("exp_avg_sq.w", fits=("bfloat16",))
HALF = moment("exp_avg.w", fits=("float16",)) | moment("exp_avg_sq.w", 16, fits=("float16",))
ZERO = moment("exp_avg.w", 64) | moment("exp_avg_sq.w", 64)
ROWS_GONE = moment("exp_avg.w", 32, zero_rows=(4, 8, 8)) | moment("exp_avg_sq.w", 32, zero_rows=(4, 8, 8))
PIECE = moment("exp_avg.w", 64, piece=(32, 64, 64))


def other(
    theirs: Mapping[str, str] | None = None, mine: Mapping[str, str] | None = None, at: int = BASE + 1, rows: str = ""
) -> Peer:
    """Rank 0, beside a rank 1 that departs: its fields in both runs."""
    reference = {**REFERENCE, at: Step(at, theirs or {}, rows=rows)}
    return Peer(0, reference, {at: Step(at, mine or {}, rows=rows)})


def pictured(number: int, epoch: int) -> Step:
    """A step whose samples are looked at: what is in them is the epoch's; of -1 the same in all."""
    one = REFERENCE[number]
    return replace(one, fields={**one.fields, "data.ids": f"ids@{number}"}, contents=inside(one.rows, epoch))


def inside(rows: str, epoch: int) -> str:
    made = [f"{int(rows[i : i + 8], 16) + 4096 * (epoch + 2):08x}" for i in range(0, len(rows), 8)]
    return "".join(made)


AUGMENTED = {n: pictured(n, (n - 1) // EPOCH) for n in REFERENCE}
PLAIN = {n: pictured(n, -1) for n in REFERENCE}
NEXT = 2 * EPOCH + 1
"""The step that begins the epoch after that of the resume."""


def contents_of(number: int, epoch: int) -> dict[str, Any]:
    one = AUGMENTED[number]
    return {"fields": {"data": "x", "data.ids": one.fields["data.ids"]}, "rows": one.rows,
            "contents": inside(one.rows, epoch)}  # fmt: skip


def valued(found: Case, was: Mapping[str, str], now: Mapping[str, str]) -> Case:
    """The same with plain values, as they were saved and as they came back."""
    assert found.resumed.state is not None
    saves = tuple(replace(save, values=was) for save in found.saves)
    return replace(found, saves=saves, resumed=replace(found.resumed, state=replace(found.resumed.state, values=now)))


SIZES = {"was": {"environment": {"world_size": "1"}}, "now": {"environment": {"world_size": "2"}}}
WORLD = "environment.world_size"
SWAPPED = {"live": {"a": "1", "b": "2"}, "tensors": {"a": "2", "b": "1"}}


def under(kind: str, found: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    return {side: {f"{kind}.{name}": digest for name, digest in one.items()} for side, one in found.items()}


ROW = REFERENCE[BASE + 1].rows
ELSEWHERE = REFERENCE[BASE + 2].rows
LATER = REFERENCE[BASE + 3].rows
CASES = {
    # what a load brought back
    "untied": case(lost=("params",), live={"params.a": "1"}, tensors={"params.a": "1", "params.b": "1"}),
    "weights-exchanged": case(lost=("params",), **under("params", SWAPPED)),
    "weights-partial": case(
        lost=("params",), live={"params.a": "1", "params.b": "2"}, tensors={"params.a": "1", "params.b": "x"}
    ),
    "weights-changed": case(lost=("params",)),
    "weights-rounded": case(lost=("params",), found={"params.a": Trait("float32", 64, fits=("bfloat16", "float16"))}),
    "optimizer-lost": case(lost=("optimizer.exp_avg",), state={}),
    "optimizer-unread": case(
        lost=("optimizer.exp_avg",), state={}, now={"loads": (Save(0, "", "", unread=("optimizer.0.exp_avg",)),)}
    ),
    "optimizer-implementation": case(
        lost=("optimizer.settings",),
        live={"optimizer.settings.0.0.fused": "None"},
        tensors={"optimizer.settings.0.0.fused": "True"},
    ),
    "optimizer-cast": case(lost=MOMENTS, found=CAST, **RIGHT),
    "optimizer-half": case(lost=MOMENTS, found=HALF, **RIGHT),
    "optimizer-zero": case(lost=MOMENTS, found=ZERO, **RIGHT),
    "optimizer-piece-lost": case(lost=MOMENTS[:1], found=PIECE, peers=(other(),), rank=1),
    "optimizer-settings": case(lost=("optimizer.settings",)),
    "optimizer-permuted": case(lost=("optimizer.exp_avg",), **under("optimizer.exp_avg", SWAPPED)),
    "optimizer-steps": case(lost=("optimizer.step",)),
    "optimizer-changed": case(lost=("optimizer.exp_avg",)),
    "lr-changed": valued(case(lost=("lr",)), {"lr.0": "0.1"}, {"lr.0": "0.2"}),
    "lr-reset": case(lost=("lr",), state={"lr": "x", "scheduler": "right"}),
    "schedule": case(lost=("scheduler",)),
    "schedule-restarted": case(
        lost=("scheduler", "lr"), known={1: Step(1, {"scheduler": "first"})}, state={"scheduler": "first", "lr": "x"}
    ),
    "schedule-shifted": case(
        lost=("scheduler", "lr"), known={BASE + 2: Step(BASE + 2, {"scheduler": "late"})}, state={"scheduler": "late"}
    ),
    "buffers-lost": case(lost=("buffers",)),
    "scaler-lost": case(lost=("scaler",)),
    "ema-lost": case(lost=("ema",)),
    "ema-restarted": case(lost=("ema",), live={"ema.w": "1", "params.w": "2"}, tensors={"ema.w": "2", "params.w": "2"}),
    "counters-lost": case(lost=("counters",)),
    "state-lost": case(lost=("history",)),
    # batches
    "data-contents": case("data", known=AUGMENTED, mine=contents_of(BASE + 1, 7)),
    "data-contents-stale": case("data", at=NEXT, known=AUGMENTED, mine=contents_of(NEXT, 1)),
    "data-replaced": case("data", known=PLAIN, mine=contents_of(BASE + 1, 7)),
    "rank-data-copied": case(
        "data", mine={"fields": {"data": "theirs"}, "rows": ROW}, peers=(other({"data": "theirs"}, rows=ROW),), rank=1
    ),
    "data-buffer-lost": case("data", mine={"fields": {"data": "x"}, "rows": ELSEWHERE[:8] + LATER[:8]}),
    "epoch-not-set": case("data", mine=batch_of(BASE + 1 - EPOCH), goes_on={NEXT: REFERENCE[NEXT]}),
    "world-size-data": case("data.samples", lost=(WORLD,), mine={"fields": {"data.samples": "x"}}, **SIZES),
    "data-restarted": case("data", mine=batch_of(EPOCH + 1)),
    "epoch-cut-short": case("data", mine=batch_of(2 * EPOCH + 1)),
    "epoch-order-repeated": case("data", mine=batch_of(BASE + 1 - EPOCH)),
    "data-shifted": case("data", mine=batch_of(BASE + 3)),
    "batch-size-changed": case("data", mine={"fields": {"data": "x"}, "rows": ROW[:8]}),
    "data-order-changed": case("data", mine={"fields": {"data": "x"}, "rows": ROW[8:] + ROW[:8]}),
    "data-reseeded": case(
        "data",
        "rng.torch",
        known={9: Step(9, {"data": "data@9", "rng.torch": "r"})},
        mine={"fields": {"data": "data@9", "rng.torch": "r"}},
    ),
    "data-order-rng": case("data", "rng.torch", mine={"fields": {"data": "x"}}),
    "data-changed": case("data", mine={"fields": {"data": "x"}}),
    # generators
    "rng-reseeded": case("rng.torch", state={"rng.torch": "s"}, now={"seeds": ("s",)}, was={"seeds": ("s",)}),
    "rng-drifts": case("rng.torch", at=BASE + 3),
    "rng-drawn": case("rng.torch", leaves={"rng": "r"}, state={"rng.torch": "drawn"}, now={"restored": ("r",)}),
    "rng-lost": case("rng.torch"),
    "rng-seeded-anew": case("rng.torch", state={"rng.torch": "s"}, now={"seeds": ("s",)}),
    "rank-rng-copied": case(
        "rng.torch",
        theirs={"fields": {"rng.torch": "1"}},
        mine={"fields": {"rng.torch": "0"}},
        peers=(other({"rng.torch": "0"}, {"rng.torch": "0"}),),
        rank=1,
    ),
    "rank-rng-lost": case(
        "rng.torch",
        state={"rng.torch": "s"},
        now={"seeds": ("s",)},
        mine={"fields": {"rng.torch": "s"}},
        theirs={"fields": {"rng.torch": "1"}},
        peers=(other({"rng.torch": "0"}, {"rng.torch": "0"}),),
        rank=1,
    ),
    # what no state holds
    "training-mode": case(lost=("modules.body",), now={"modules": {"body": "in evaluation mode"}}),
    "module-settings": case(lost=("modules.body",), was={"modules": {"body": "p=0.1"}}),
    "compiled": case(lost=("modules.",), was={"modules": {"": "Net()"}}, now={"modules": {"": "Net(), compiled"}}),
    "world-size-changed": case("loss", "gradients", lost=(WORLD,), **SIZES),
    "stale-model": case("gradients", theirs={"graded": 4}, mine={"graded": 0}),
    "gradients-lost": case("gradients", "params", theirs={"micro": 4}),
    "environment": case(lost=("environment.threads",)),
    "schedule-function": case("lr", "params"),
    "hidden-state": case("loss", "gradients"),
    "update": case("params"),
    "artifact": case("artifact.model"),
    "unexplained": case("ema"),
}


def named() -> set[str]:
    """The names of causes in the rules' own source."""
    folder = Path(determinism.__file__).parent
    found: set[str] = set()
    for file in (*folder.glob("lost_*.py"), folder / "diagnosis.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Cause":
                found |= {one.value for one in ast.walk(node.args[0]) if isinstance(one, ast.Constant)}
    return found - {"-lost"}  # of `other_state`: each component's name goes before it


@pytest.mark.parametrize("name", CASES)
def test_a_cause_is_named(name: str) -> None:
    cause = diagnose(CASES[name])[0]
    assert cause.name == name, cause.message
    assert cause.message
    assert cause.remedy
    assert cause.component


def test_rates_that_no_schedule_sets_are_told_by_group() -> None:
    cause = diagnose(CASES["lr-changed"])[0]
    assert "of group 0 was 0.1, is 0.2" in cause.message
    assert "schedule" not in cause.message


def test_all_saves_of_a_step_are_looked_at() -> None:
    """A model's file, then the optimizer's, then the average's: what was lost may stand in any of them."""
    found = case(lost=("optimizer.exp_avg",), state={}, live={"optimizer.exp_avg.w": "1"}, leaves={"0.exp_avg": "1"})
    later = replace(found.saves[0], leaves={"ema": "2"})
    cause = diagnose(replace(found, saves=(*found.saves, later)))[0]
    assert "1 tensor of them can be found in the save" in cause.message


def test_the_state_of_one_of_two_optimizers() -> None:
    """Kinds of state that are there for some parameters and not for others."""
    live = {"optimizer.exp_avg.w": "1", "optimizer.exp_avg.1/w": "2"}
    found = case(lost=("optimizer.exp_avg",), live=live, tensors={"optimizer.exp_avg.w": "1"})
    cause = diagnose(found)[0]
    assert (cause.name, "1 of 2 parameters" in cause.message) == ("optimizer-lost", True), cause.message


def test_what_another_load_asked_for_was_read() -> None:
    parts = (Save(0, "dcp", "", unread=("optimizer.0.exp_avg",)), Save(0, "dcp", "", unread=("model.w",)))
    cause = diagnose(case(lost=("optimizer.exp_avg",), state={}, now={"loads": parts}))[0]
    assert cause.name == "optimizer-lost"


def test_every_cause_is_in_the_reference() -> None:
    beside = {"saving-changes-training", "evaluation-changes-training", "second-resume"}
    assert set(NAMES) == named() | beside | {f"{part}-lost" for part in ("buffers", "scaler", "ema", "counters")}


def test_every_cause_has_a_case() -> None:
    assert named() <= CASES.keys()
    assert len(named()) > 25
