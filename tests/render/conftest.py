"""Reports made by hand: every kind of block, findings of every severity, and names that try to break out."""

from __future__ import annotations

import pytest

from ckpttool.errors import ExitCode
from ckpttool.model import Finding
from ckpttool.report import Bars, Cell, Details, Facts, Findings, HeatMap, Histogram, Report, Subject, Table, Text, Tree
from ckpttool.rules import Rule

EVIL = "a\x1b[31m\u202e\n::error::x|`</script><img src=x onerror=alert(1)>@admin #1 http://evil.example\udcff\ufffe"
PAGE = """A record's bytes are not what was written.

What: The checksum differs
over two lines.

Why: Weights would be wrong.

Cause: A bad disk.

Remedy: Take another copy.
"""
RULE = Rule("CK102", "crc-mismatch", "error", PAGE, axis="integrity")


@pytest.fixture(params=["plain", EVIL], ids=["plain", "evil"])
def name(request: pytest.FixtureRequest) -> str:
    """A name from a file, friendly or not."""
    return str(request.param)


@pytest.fixture
def findings(name: str) -> tuple[Finding, ...]:
    return (
        Finding("CK701", "not-resumable", "info", "", "lacks the optimizer"),
        Finding("CK602", "unreachable-storage", "warning", name, "12 MB belong to no tensor", {"bytes": 12}),
        Finding("CK102", "crc-mismatch", "error", name, f"recorded 0x1, computed 0x2 in {name}", {}, "run: x"),
    )


@pytest.fixture
def report(name: str, findings: tuple[Finding, ...]) -> Report:
    """One target with findings, one that could not be read, one without a finding."""
    long = ".".join([name, *(f"segment_{i}" for i in range(30))])
    blocks = (
        Text(name, "title"),
        Text("damaged", "bad"),
        Facts((("format", "torch-zip"), ("a very long label indeed", f"{name} " * 12))),
        Bars((("weights", 100.0, "100 bytes"), ("ema", 1.0, "1 byte"), ("none", 0.0, "nothing")), "bytes"),
        Table(("key", "dtype", "bytes"), ((long, "float32", "1,024"), ("b", "int8", "1")), "llr", "tensors"),
        Table(("key", *"abcdefg"), ((long, *("1.234e-05",) * 7),), "lrrrrrrr"),
        Table(("key", *"abcdefghijkl"), ((long, *("1.234e-05",) * 12),)),
        Table(("rule", "severity", "says"), (("CK1", "error", "words " * 30),)),
        Tree(((0, "root"), (1, f"{name} " * 20), (2, "leaf"), (1, "last"), *((d, "deep") for d in range(2, 90)))),
        Tree(tuple((depth, "deep") for depth in range(90))),
        Bars(((name, 0.5, f"{name} " * 3), ("b", 0.0, "")), name, parts=False),
        HeatMap(
            (name, "h.1"),
            tuple(f"{name}{i}" for i in range(9)),
            (
                (Cell(0.0), Cell(1e-9, name, name), Cell(0.5, "0.5"), Cell(float("nan")), None, *[Cell(0.1)] * 4),
                (Cell(float("inf"), "inf"), *[None] * 8),
            ),
            name,
            name,
            name,
            name,
        ),
        Histogram(((name, 5, name), ("1e-2", 0, "b")), name, name),
        Details(name, (Text(name), Table(("key",), ((name,),)))),
        Findings(findings),
    )
    numbers = [1.0, float("nan"), float("inf"), -float("inf")]
    data = {"path": name, "numbers": numbers, "nested": {"x": float("nan")}}
    subjects = (
        Subject(f"runs/{name}.pt", "damaged", findings),
        Subject("locked.pt", "unreadable", (), failed=True, error="locked.pt – permission denied"),
        Subject("/abs/good file.pt", "exact", ()),
    )
    return Report("verify", data, blocks, ExitCode.IMPOSSIBLE, subjects, rules=(RULE,))
