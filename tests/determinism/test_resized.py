"""Runs that go on with another number of processes: what they have in common, which promises that keeps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from ckpttool.determinism.branches import Lab
from ckpttool.determinism.check import _judged
from ckpttool.determinism.cuts import Kill
from ckpttool.determinism.holding import compared
from ckpttool.determinism.reference import Reference
from ckpttool.determinism.resized import in_common
from ckpttool.determinism.running import Command, Launchers, Ran
from ckpttool.determinism.trace import SCHEMA, Process, Save, Step
from ckpttool.determinism.traces import compare_traces
from ckpttool.determinism.traits import Trait
from ckpttool.determinism.verdict import Branch, Verdict, Wishes
from ckpttool.errors import ExitCode

STEPS, BASE, CUT, BATCH = 8, 4, 5, 4


def samples(number: int) -> list[str]:
    return [f"{number * BATCH + place:08x}" for place in range(BATCH)]


def step(number: int, rank: int, world: int, drift: bool, gone: str = "") -> Step:
    """A step of one process: its share of the batch, its own generators and loss, the same state as all others."""
    mark = f"{number}{'~' if drift else ''}"
    mine = ["f" * 8 if sample == gone else sample for sample in samples(number)[rank::world]]
    fields = {"data": f"{mine}", "rng.torch": f"{rank}@{number}", "loss": f"{rank}@{mark}", "lr": f"lr@{number}"}
    state = {name: f"{name}@{mark}" for name in ("gradients", "optimizer.exp_avg", "params")}
    return Step(number, fields | state, 0.5 + rank / 8 - (world - 1) / 16 + drift / 1024, rows="".join(mine))


def part(
    world: int, first: int, last: int, *, lost: bool = False, gone: str = "", spread: bool = False
) -> tuple[Process, ...]:
    """What the processes of one part of a run did, from a step to a step."""
    drift = first > 1 and world != 1
    found = []
    for rank in range(world):
        own = f"/{rank}" if spread else ""
        piece = {"params.w": Trait("float32", 8, piece=(0, 4, 8))} if spread else {}
        fields = {"params": f"params@{BASE}{own}", "optimizer.exp_avg": f"optimizer.exp_avg@{BASE}{own}"}
        state = Step(first - 1, {**fields, "lr": "x" if lost else f"lr@{first}"}, traits=piece)
        steps = tuple(step(number, rank, world, drift, gone) for number in range(first, last + 1))
        saves = (Save(BASE, "", "digest"),) if rank == 0 and first == 1 else ()
        base = None if first == 1 else first - 1
        found.append(Process(rank, base, {"world_size": str(world)}, state, steps, saves, ended="killed"))
    return tuple(found)


def resumed(*processes: Process, first: int = 1) -> Branch:
    whole = part(first, 1, STEPS)
    ranks = {process.rank: {s.number: s for s in process.steps} for process in whole}
    reference = Reference(Ran(0, False, (), whole), ranks=ranks)
    kill = Kill((CUT,), "")
    return compared(
        kill, (Ran(0, False, (), part(first, 1, CUT)), Ran(0, False, (), processes)), reference, Wishes(STEPS)
    )


@pytest.mark.parametrize("world", [2, 4])
def test_the_weaker_promise_is_kept(world: int) -> None:
    found = resumed(*part(world, BASE + 1, STEPS))
    assert found.departure is not None
    assert found.broken == ("trajectory",)
    cause = found.causes[0]
    assert cause.name == "world-size-changed"
    assert f"1 process saved, {world} go on" in cause.message
    assert "state exact at the boundary, the same samples in every step, numbers drift from step 5 on" in cause.message


def test_what_holds_is_said_where_no_more_was_asked_for(tmp_path: Path) -> None:
    whole = part(1, 1, STEPS)
    reference = Reference(Ran(0, False, (), whole), ranks={0: {s.number: s for s in whole[0].steps}})
    lab = Lab(Launchers(), Command(()), Wishes(STEPS, power=False, level="data"), tmp_path, reference)
    found = _judged(lab, Verdict("exact", "", branches=(resumed(*part(2, BASE + 1, STEPS)),)), lambda _: None)
    assert found.status == "exact"
    assert "equals the uninterrupted one in boundary and data; broken beyond that: trajectory" in found.message
    assert [(level.name, level.state) for level in found.levels[:3]] == [
        ("boundary", "exact"), ("data", "exact"), ("trajectory", "broken"),
    ]  # fmt: skip


def test_fewer_go_on() -> None:
    found = resumed(
        *(replace(p, steps=tuple(step(n, 0, 1, True) for n in range(5, 9))) for p in part(1, 5, 8)), first=2
    )
    assert "2 processes saved, 1 goes on" in found.causes[0].message
    assert found.broken == ("trajectory",)


def test_a_sample_that_is_left_out_is_told() -> None:
    found = resumed(*part(2, BASE + 1, STEPS, gone=samples(6)[1]))
    assert found.departure is not None
    assert set(found.broken) == {"data", "trajectory"}
    assert found.departure.step == BASE + 1  # where numbers drift
    assert found.causes[0].name == "world-size-data"
    assert "step 6 trained other samples: 1 of it are missing, 1 are not of it" in found.causes[0].message


def test_what_was_lost_as_well_comes_first() -> None:
    found = resumed(*part(2, BASE + 1, STEPS, lost=True))
    assert [cause.name for cause in found.causes[:2]] == ["schedule", "world-size-changed"]
    assert "boundary" in found.broken


def test_pieces_of_tensors_are_not_held_against_whole_ones() -> None:
    found = resumed(*part(2, BASE + 1, STEPS, spread=True))
    assert found.broken == ("trajectory",)
    assert found.departure is not None
    assert found.departure.fields == ("loss",)
    assert "spread over processes are cut otherwise now, and were not compared" in found.causes[0].message


@given(st.permutations(range(BATCH)), st.sampled_from([1, 2, 4]))
def test_samples_are_one_set_however_they_are_shared(order: list[int], world: int) -> None:
    mine = [samples(1)[place] for place in order]
    ranks = {rank: {1: Step(1, {}, rows="".join(mine[rank::world]))} for rank in range(world)}
    assert in_common(ranks)[1].fields == {
        "data.samples": in_common({0: {1: step(1, 0, 1, False)}})[1].fields["data.samples"]
    }


def written(folder: Path, world: int, gone: str = "") -> Path:
    folder.mkdir()
    for rank in range(world):
        lines: list[dict[str, object]] = [
            {"kind": "start", "schema": SCHEMA, "rank": rank, "environment": {"world_size": str(world)}}
        ]
        lines += [
            {"kind": "step", "step": one.number, "fields": dict(one.fields), "loss": one.loss, "rows": one.rows}
            for one in (step(number, rank, world, False, gone) for number in range(1, 4))
        ]
        (folder / f"r{rank}-1.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_traces_of_two_worlds_are_compared_in_what_they_share(tmp_path: Path) -> None:
    one, two = written(tmp_path / "one", 1), written(tmp_path / "two", 2)
    assert compare_traces(one, two).exit_code == ExitCode.OK
    odd = compare_traces(one, written(tmp_path / "odd", 2, samples(2)[3]))
    assert odd.exit_code == ExitCode.FINDINGS
    found = odd.json["divergence"]
    assert isinstance(found, dict)
    assert (found["step"], found["component"]) == (2, "data")


def test_steps_that_not_all_took_are_nobodys() -> None:
    assert in_common({}) == {}
    shared = in_common({0: {1: step(1, 0, 2, False)}, 1: {1: step(1, 1, 2, False), 2: step(2, 1, 2, False)}})
    assert list(shared) == [1]  # what one of them did not come to is nobody's step
