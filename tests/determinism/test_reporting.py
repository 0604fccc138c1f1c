"""What a check says, in every format, of every outcome."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from ckpttool.determinism.cases import Cause
from ckpttool.determinism.comparing import Departure
from ckpttool.determinism.cuts import Kill
from ckpttool.determinism.leaves import Element
from ckpttool.determinism.reporting import report, script_of
from ckpttool.determinism.running import Ran
from ckpttool.determinism.trace import Process, Save, Step
from ckpttool.determinism.verdict import Branch, Detail, Level, Verdict
from ckpttool.errors import ExitCode
from ckpttool.render import render

if TYPE_CHECKING:
    import xmlschema

COMMAND = "python train.py --out {out}"
CAUSE = Cause("optimizer-lost", "optimizer", "the optimizer starts without its state", "exp_avg", "save it & load it")


def steps(first: int, last: int, odd: int | None = None) -> tuple[Step, ...]:
    def fields(number: int) -> dict[str, str]:
        mark = "x" if odd is not None and number >= odd else ""
        return {"params": f"p{number}{mark}", "loss": f"l{number}{mark}", "optimizer.exp_avg": f"m{number}{mark}"}

    return tuple(Step(n, fields(n), (1.0 if odd is None or n < odd else 1.5) / n) for n in range(first, last + 1))


def ran(first: int, last: int, odd: int | None = None) -> Ran:
    saves = tuple(Save(n, f"/tmp/{n}.pt", str(n)) for n in range(first, last + 1) if n % 4 == 0)
    process = Process(0, first - 1 or None, {}, None, steps(first, last, odd), saves, ended="killed")
    return Ran(status=-9, timed_out=False, lines=(), trace=(process,))


def branch(cut: int, odd: int | None = None, **more: object) -> Branch:
    found = None if odd is None else Departure(odd, ("optimizer.exp_avg", "params"), odd + 1)
    all_steps = {s.number: s for s in (*steps(1, cut), *steps(cut, 12, odd))}
    return Branch(
        (cut,), (ran(1, cut), ran(cut - cut % 4 + 1, 12, odd)), all_steps, found, () if odd is None else (CAUSE,),
        kill=Kill((cut,), "after a save"), proof=() if odd is None else ("optimizer",), **more,  # type: ignore[arg-type]
    )  # fmt: skip


REFERENCE = {s.number: s for s in steps(1, 12)}
SAVES = tuple(Save(n, f"{n}.pt", str(n)) for n in (4, 8, 12))
LEVELS = (Level("boundary", "broken", "1 of 2 loads"), Level("data", "exact", "12 batches"))
DETAIL = Detail(
    "right after the load of step 4", ("optimizer.exp_avg.0.weight",),
    Element("optimizer.exp_avg.0.weight", (0, 3), "0.25", "0", 1048576, 12, 16),
    ("optimizer.exp_avg.0.weight equals the saved params.0.bias",),
)  # fmt: skip
FOUND = {
    "exact": Verdict("exact", "exact: 2 interrupted runs", REFERENCE, SAVES, (branch(5), branch(9))),
    "diverged": Verdict(
        "diverged", "killed after step 5 and resumed, the run departs at step 6", REFERENCE, SAVES,
        (branch(9), branch(5, 6)), Departure(6, ("optimizer.exp_avg", "params"), 7), (CAUSE,), levels=LEVELS,
        detail=DETAIL, smallest="after step 5",
    ),
    "recovery-failed": Verdict(
        "recovery-failed", "killed after step 5: it failed", REFERENCE, SAVES,
        (Branch((5,), (ran(1, 5),), failure="the resumed command failed with exit status 3", kill=Kill((5,), "x")),),
        lines=("Traceback \x1b[31m", "KeyError: <b>momentum</b> ]]>"),
    ),
    "nothing-saved": Verdict("recovery-failed", "nothing was saved before step 12", REFERENCE),
    "not-reproducible": Verdict("not-reproducible", "two uninterrupted runs differ at step 1", REFERENCE),
    "command-failed": Verdict("command-failed", "exit status 1", lines=("SyntaxError: \x00 binary \ud800",)),
    "no-power": Verdict(
        "no-power", "no loss of any part would show", REFERENCE, SAVES, (branch(5),), not_exercised=("rng", "lr")
    ),
}  # fmt: skip
CODES = {"exact": 0, "diverged": 1, "recovery-failed": 1, "nothing-saved": 1}


@pytest.mark.parametrize("name", FOUND)
def test_junit_fits_its_schema_and_says_what_failed(name: str, junit_schema: xmlschema.XMLSchema) -> None:
    found = report(FOUND[name], COMMAND)
    text = render(found, "junit").split("\n", 1)[1]
    junit_schema.validate(text)
    root = ET.fromstring(text)
    bad = int(root.get("failures", "0")) + int(root.get("errors", "0"))
    assert bool(bad) == (found.exit_code != ExitCode.OK)
    assert (int(root.get("errors", "0")) > 0) == (found.exit_code == ExitCode.IMPOSSIBLE)


def test_junit_has_a_suite_for_every_interrupted_run() -> None:
    root = ET.fromstring(render(report(FOUND["diverged"], COMMAND), "junit").split("\n", 1)[1])
    names = [suite.get("name") for suite in root]
    assert names == ["train.py: uninterrupted", "train.py: killed after step 9", "train.py: killed after step 5"]
    failed = [suite.get("name") for suite in root if suite.get("failures") != "0"]
    assert failed == ["train.py: killed after step 5"]
    failure = root.find(".//testcase[@name='determinism optimizer-lost step 6, optimizer.exp_avg, params']/failure")
    assert failure is not None
    assert "save it & load it" in (failure.text or "")


@pytest.mark.parametrize("name", FOUND)
def test_annotations_are_one_line_each_and_pinned_to_the_script(name: str) -> None:
    lines = render(report(FOUND[name], COMMAND), "github").splitlines()
    assert all(
        re.fullmatch(r"::(error|warning|notice) file=train\.py,title=[^:,]*(%3A[^:,]*)?::.+", line) for line in lines
    )
    assert bool(lines) == (name != "exact")


def test_a_branch_below_the_level_that_was_asked_for_is_a_remark() -> None:
    found = report(Verdict("exact", "exact", REFERENCE, SAVES, (branch(5, 6),)), COMMAND)
    assert render(found, "github").startswith("::notice ")
    root = ET.fromstring(render(found, "junit").split("\n", 1)[1])
    assert (root.get("failures"), root.get("errors")) == ("0", "0")


@pytest.mark.parametrize("name", FOUND)
def test_text_fits_a_terminal_and_has_no_colour_of_its_own(name: str) -> None:
    text = render(report(FOUND[name], COMMAND), "text", 80)
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    assert "\x1b[" in render(report(FOUND[name], COMMAND), "text", 80, color=True)


def test_text_draws_what_was_run() -> None:
    text = render(report(FOUND["diverged"], COMMAND), "text", 80)
    lane = dict(re.findall(r"^( *\S.*?)  ([─s×r!·█ ]{4,})$", text, re.MULTILINE))
    assert lane["uninterrupted"].count("s") == 3
    assert lane["killed after step 5"].rstrip().endswith("×")
    assert "!" in text.split("  resumed ", 1)[1]
    for words in ("optimizer-lost", "optimizer.exp_avg.0.weight[0, 3] is 0, not 0.25, 1,048,576 ulp apart"):
        assert words in " ".join(text.split())
    assert re.search(r"^params .*·.*█", text, re.MULTILINE)
    assert "× resumed, killed after step 5" in text


@pytest.mark.parametrize("name", FOUND)
@pytest.mark.parametrize("format_", ["html", "markdown", "json"])
def test_other_formats_hold_what_the_child_printed(name: str, format_: str) -> None:
    text = render(report(FOUND[name], COMMAND), format_)
    assert "\x1b" not in text
    assert "\x00" not in text
    assert "<b>momentum" not in text or format_ == "json"
    text.encode()
    if format_ == "json":
        told = json.loads(text)
        assert (told["schema"], told["exit_code"]) == ("ckpttool.determinism/1", CODES.get(name, 2))


def test_json_has_the_divergence_to_the_element() -> None:
    told = json.loads(render(report(FOUND["diverged"], COMMAND), "json"))
    assert told["divergence"]["cause"] == "optimizer-lost"
    assert told["divergence"]["detail"]["element"]["ulp"] == 1048576
    assert [cut["exact"] for cut in told["cuts"]] == [True, False]
    assert told["levels"][0] == {"name": "boundary", "state": "broken", "basis": "1 of 2 loads"}


@pytest.mark.parametrize(
    ("command", "script"),
    [
        (COMMAND, "train.py"),
        ("torchrun --nproc-per-node 2 src/train.py {out}", "src/train.py"),
        ("python -m pkg.train", "python -m pkg.train"),
        ("it's odd", "it's odd"),
    ],
)
def test_the_script_is_found_in_the_command(command: str, script: str) -> None:
    assert script_of(command) == script


def test_pages_say_in_words_what_shapes_say() -> None:
    page = render(report(FOUND["diverged"], COMMAND), "html")
    assert "<script" not in page
    assert 'aria-label="killed after step 5: steps 1 to 5; saved after it: 4; killed after it: 5"' in page
    assert page.count("<polyline") == 2
