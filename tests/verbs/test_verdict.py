"""The verdict: the order of its six names, its three axes, coverage."""

from __future__ import annotations

import itertools

import pytest

from ckpttool.checks import rules
from ckpttool.dtypes import DTYPES
from ckpttool.layout import Layout, Readiness
from ckpttool.measures import Measures, SpanMeasure, TensorMeasure
from ckpttool.model import Checkpoint, Checksum, Damage, Extent, Finding, Span, Storage, Tensor
from ckpttool.rules import Context
from ckpttool.verbs.findings import finding, judge
from ckpttool.verbs.verdict import LEVELS, Coverage, cover, falls_short, reach

FULL = Coverage(10, 10, 10, 1, 1, ())
SAMPLES = {"integrity": "truncated", "safety": "unsafe-global", "hostile": "duplicate-record", "none": "nan"}


def of(*names: str) -> list[Finding]:
    return [finding(rules()[name], Damage(name, "x", "x")) for name in names]


def layout(level: str = "exact") -> Layout:
    return Layout(readiness=Readiness(level, (), ()))  # type: ignore[arg-type]


def checkpoint(**more: object) -> Checkpoint:
    return Checkpoint("x.pt", "torch-zip", **more)  # type: ignore[arg-type]


def test_the_samples_stand_for_their_axes() -> None:
    for axis, name in SAMPLES.items():
        assert (rules()[name].axis, rules()[name].severity) == (axis, "error")


def test_the_first_that_applies_names_the_verdict() -> None:
    for level in LEVELS:
        for picked in itertools.chain.from_iterable(itertools.combinations(SAMPLES, n) for n in range(5)):
            verdict = reach(checkpoint(), layout(level), of(*(SAMPLES[a] for a in picked)), FULL)
            broken, unsafe = {"integrity", "hostile"} & set(picked), {"safety", "hostile"} & set(picked)
            assert verdict.name == ("damaged" if broken else "unsafe" if unsafe else level)
            assert verdict.integrity == ("damaged" if broken else "proved")
            assert verdict.safety == ("unsafe" if unsafe else "plain")
            assert verdict.readiness == level


def test_what_is_no_checkpoint_is_said_first() -> None:
    empty = checkpoint(kind="a web page")
    verdict = reach(empty, layout("none"), of("not-a-checkpoint", "unsafe-global"), cover(empty, None))
    assert (verdict.name, verdict.integrity, verdict.readiness) == ("not-a-checkpoint", "unchecked", "weights-only")


def test_warnings_do_not_damage() -> None:
    verdict = reach(checkpoint(), layout(), of("trailing-bytes", "needs-code"), FULL)
    assert (verdict.name, verdict.integrity, verdict.safety) == ("exact", "proved", "needs-code")
    assert reach(checkpoint(), layout(), of("contains-code"), FULL).safety == "needs-code"


@pytest.mark.parametrize("have", LEVELS)
@pytest.mark.parametrize(("require", "rank"), [("weights", 0), ("resumable", 1), ("exact", 2)])
def test_requirements_are_levels(have: str, require: str, rank: int) -> None:
    assert falls_short(have, require) is (LEVELS.index(have) < rank)  # type: ignore[arg-type]
    assert not falls_short(have, None)  # type: ignore[arg-type]


CRC = Checksum("crc32", 7)


def stored(checksum: Checksum | None = CRC) -> Checkpoint:
    span = Span("x.pt", 0, 8)
    storage = Storage("0", DTYPES["float32"], 8, span, checksum, record="data/0")
    tensor = Tensor(DTYPES["float32"], (2,), (1,), 0, 0)
    return checkpoint(
        nodes=(tensor,), root=0, storages=(storage,), extents=(Extent("data/0", span, checksum),), nbytes=8
    )


def measured(crc: int = 7, read: int = 8) -> Measures:
    return Measures({"data/0": SpanMeasure(read, crc)}, {0: TensorMeasure(2)}, nbytes=read)


def test_coverage_counts_what_agrees_with_a_checksum() -> None:
    assert cover(stored(), measured()).json == {
        "bytes": 8, "bytes_read": 8, "bytes_proved": 8, "tensors": 1, "tensors_measured": 1, "unchecked": [],
    }  # fmt: skip
    assert cover(stored(), measured(crc=8)).proved == 0
    assert cover(stored(), measured(read=4)).proved == 0


def test_integrity_is_unprovable_without_checksums_and_unchecked_without_reading() -> None:
    bare = stored(None)
    assert reach(bare, layout(), [], cover(bare, measured())).integrity == "unprovable"
    assert "no checksum" in cover(bare, measured()).text
    assert reach(stored(), layout(), [], cover(stored(), None)).integrity == "unchecked"
    assert "headers only" in cover(stored(), None).text


def test_a_tensor_that_could_not_be_measured_is_named_with_the_reason() -> None:
    measures = Measures({"data/0": SpanMeasure(8, 7)}, {}, {0: "its bytes are missing"}, nbytes=8)
    assert cover(stored(), measures).unchecked == (("the content of 1 tensor", "its bytes are missing"),)


def test_findings_are_sorted_once_each_and_ignored_by_code_or_name() -> None:
    damage = tuple(
        Damage(name, "x", "x") for name in ("trailing-bytes", "crc-not-recorded", "over-limit", "trailing-bytes")
    )
    context = Context(checkpoint(damage=damage), Layout(), None)
    assert [f.name for f in judge(context)][:1] == ["over-limit"]
    assert [f.severity for f in judge(context)] == sorted(
        (f.severity for f in judge(context)), key=["error", "warning", "info"].index
    )
    assert sum(f.name == "trailing-bytes" for f in judge(context)) == 1
    for ignored in ("CK115", "ck115", "over-limit", "Over-Limit"):
        assert "over-limit" not in {f.name for f in judge(context, [ignored])}


def test_what_another_finding_explains_is_left_out() -> None:
    both = tuple(Damage(name, "x", "x") for name in ("truncated", "missing-record"))
    assert {f.name for f in judge(Context(checkpoint(damage=both), Layout()))} >= {"truncated"}
    assert "missing-record" not in {f.name for f in judge(Context(checkpoint(damage=both), Layout()))}
