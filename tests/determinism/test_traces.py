"""Traces from elsewhere: recorded by a command, compared field by field, and odd files told for what they are."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, strategies as st

from ckpttool.cli import main
from ckpttool.determinism.reading import TraceError, read_trace
from ckpttool.determinism.recording import record
from ckpttool.determinism.trace import SCHEMA
from ckpttool.determinism.traces import compare_traces
from ckpttool.errors import UsageError
from ckpttool.render import render

SCRIPT = Path(__file__).with_name("script.py")
HEAD = {"kind": "start", "schema": SCHEMA, "rank": 0, "environment": {"torch": "2.13", "threads": "1"}}


def step(number: int, loss: float = 1.0, tensors: dict[str, str] | None = None, **fields: str) -> dict[str, Any]:
    given = {"params": f"p{number}", "loss": f"l{number}", "data": f"d{number}"}
    return {"kind": "step", "step": number, "fields": {**given, **fields}, "loss": loss, "tensors": tensors or {}}


def write(folder: Path, *lines: dict[str, Any], name: str = "r0-1.jsonl", head: Any = HEAD) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(json.dumps(line) + "\n" for line in (head, *lines)))
    return folder


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return write(tmp_path / "one", *(step(n) for n in range(1, 9)))


def test_equal_traces_are_exact(one: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "two", *(step(n) for n in range(3, 12)))
    told = compare_traces(one, other)
    assert (told.exit_code, told.json["status"], told.json["steps"], told.json["alone"]) == (0, "exact", 6, [2, 3])


def test_the_first_difference_is_told_with_tensors_and_environment(one: Path, tmp_path: Path) -> None:
    write(one, *(step(n, tensors={"params.a": "1", "params.b": "2"}) for n in range(1, 9)))
    lines = [step(n, 1.0 if n < 5 else 2.0, {"params.a": "1", "params.b": f"{n}"}) for n in range(1, 9)]
    lines[4]["fields"]["params"] = "x"
    lines[6]["fields"]["loss"] = "y"
    other = write(tmp_path / "two", *lines, head={**HEAD, "environment": {"torch": "2.12", "threads": "1"}})
    report = compare_traces(one, other)
    divergence: Any = report.json["divergence"]
    assert (divergence["step"], divergence["component"], divergence["tensors"]) == (5, "params", ["params.b"])
    assert divergence["first_visible_in_loss"] == 7
    assert report.json["environment"] == [["torch", "2.13", "2.12"]]
    text = render(report, "text")
    assert "the traces depart at step 5, first in params" in text
    assert "params.b" in text
    assert max(map(len, text.splitlines())) <= 80
    assert render(report, "github").count("\n") == 1


def test_ranks_are_compared_each_with_its_own(one: Path, tmp_path: Path) -> None:
    write(one, *(step(n) for n in range(1, 9)), name="r1-1.jsonl", head={**HEAD, "rank": 1})
    other = write(tmp_path / "two", *(step(n) for n in range(1, 9)))
    assert compare_traces(one, other).exit_code == 0
    odd = [step(n, data="x") if n > 3 else step(n) for n in range(1, 9)]
    write(other, *(step(n, data="y") if n > 5 else step(n) for n in range(1, 9)))
    write(other, *odd, name="r1-1.jsonl", head={**HEAD, "rank": 1})
    divergence: Any = compare_traces(one, other).json["divergence"]
    assert (divergence["rank"], divergence["step"]) == (1, 4)


def test_what_one_side_does_not_record_is_told_and_not_compared(one: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "two", *(step(n, ema=f"e{n}") for n in range(1, 9)))
    for sides in ((one, other), (other, one)):
        report = compare_traces(*sides)
        assert report.exit_code == 0
        assert "not compared: ema" in render(report, "text")


def test_generators_that_nobody_seeds_are_left_out(one: Path, tmp_path: Path) -> None:
    write(one, *(step(n, **{"rng.numpy": f"a{n}"}) for n in range(1, 9)))
    other = write(tmp_path / "two", *(step(n, **{"rng.numpy": f"b{n}"}) for n in range(1, 9)))
    report = compare_traces(one, other)
    assert report.exit_code == 0
    assert "the generators of numpy are never seeded" in " ".join(render(report, "text").split())


def test_generators_that_nobody_uses_are_left_out_where_more_differs(one: Path, tmp_path: Path) -> None:
    write(one, *(step(n, **{"rng.numpy": "a", "rng.torch": f"a{n}"}) for n in range(1, 9)))
    moved = (step(n, data="x", **{"rng.numpy": "b", "rng.torch": f"b{n}"}) for n in range(1, 9))
    divergence: Any = compare_traces(one, write(tmp_path / "two", *moved)).json["divergence"]
    assert divergence["fields"] == ["data", "rng.torch"]


def test_nothing_in_common_is_no_comparison(one: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no step in common"):
        compare_traces(one, write(tmp_path / "two", step(20)))


# --- odd files -------------------------------------------------------------------------------------------

FIRST = json.dumps(HEAD).encode() + b"\n"
ODD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "an empty file"),
    "binary": (bytes(range(256)) * 9, "line 1 is not JSON"),
    "one binary line": (b"\x80\x02}q\x00.", "does not say ckpttool.trace/1"),
    "other json": (b'{"hello": 1}\n', "does not say ckpttool.trace/1"),
    "a list": (b"[1, 2]\n", "does not say ckpttool.trace/1"),
    "newer": (FIRST.replace(b"trace/1", b"trace/2"), "version 2, and this ckpttool reads version 1: .*upgrade"),
    "strange version": (FIRST.replace(b"trace/1", b"trace/x"), "version x, and this ckpttool reads version 1$"),
    "damaged middle": (FIRST + b'{"kind": "st\n{"kind": "end"}\n', "line 2 is not JSON"),
    "not an object": (FIRST + b"7\n" + b"8\n", "line 2 is no object"),
    "a step that is no number": (FIRST + b'{"kind": "step", "step": "x"}\n', "none of a trace"),
    "a rank that is no number": (FIRST.replace(b'"rank": 0', b'"rank": "a"'), "none of a trace"),
    "deep": (FIRST + b"[" * 100_000 + b"\n{}\n", "line 2"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_files_are_told_for_what_they_are(tmp_path: Path, name: str) -> None:
    content, complaint = ODD[name]
    (tmp_path / "r0-1.jsonl").write_bytes(content)
    with pytest.raises(TraceError, match=complaint):
        read_trace(tmp_path)
    done = CliRunner().invoke(main, ["determinism", "compare", str(tmp_path), str(tmp_path)])
    assert done.exit_code == 2
    assert "Traceback" not in done.output


def test_a_last_line_that_was_cut_off_is_left_out(one: Path, tmp_path: Path) -> None:
    whole = (one / "r0-1.jsonl").read_bytes()
    for cut in range(len(FIRST), len(whole), 37):
        (tmp_path / "r0-1.jsonl").write_bytes(whole[:cut])
        (process,) = read_trace(tmp_path)
        assert len(process.steps) == whole[:cut].count(b"\n") - 1 + (whole[cut : cut + 1] == b"\n")


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes, headed: bool) -> None:
    folder = tmp_path_factory.mktemp("odd")
    (folder / "r0-1.jsonl").write_bytes((FIRST if headed else b"") + data)
    with contextlib.suppress(TraceError):
        assert len(read_trace(folder)) == 1


def test_folders_and_missing_traces_are_told(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no trace here"):
        read_trace(tmp_path)
    (tmp_path / "r0-1.jsonl").mkdir()
    with pytest.raises(TraceError, match="directory"):
        read_trace(tmp_path)


def test_a_process_that_died_as_it_began_is_left_out(one: Path) -> None:
    (one / "r0-2.jsonl").touch()
    assert len(read_trace(one)) == 1


# --- recording -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["/nonexistent/trainer"], "no such file"),
        ([sys.executable, "-c", "print(1)"], r"no optimizer step was seen \(the command ended with 0\)"),
        ([sys.executable, "-c", "raise SystemExit(3)"], "ended with 3"),
    ],
)
def test_what_records_nothing_is_told(tmp_path: Path, words: list[str], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        record(words, tmp_path / "trace")


def test_a_trace_is_not_written_over(one: Path) -> None:
    with pytest.raises(UsageError, match="a trace here already"):
        record([sys.executable, "-c", ""], one)


@pytest.mark.slow
def test_ranks_of_a_launcher_are_recorded_and_compared_each(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    recorder = ["ckpttool", "determinism", "record", "--steps", "3", "--trace"]
    script = str(Path(__file__).with_name("ranks.py"))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    for name, mode in (("around", "good"), ("within", "other-dropout")):
        (tmp_path / f"out-{name}").mkdir()
        trained = [script, str(tmp_path / f"out-{name}"), mode]
        words = [sys.executable, "-m", *recorder, str(tmp_path / name), "--", *torchrun, *trained]
        if name == "within":  # one recorder for each process
            words = [*torchrun, "-m", *recorder, str(tmp_path / name), "--", sys.executable, *trained]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        ranks = [(p.rank, len(p.steps), p.ended) for p in read_trace(tmp_path / name)]
        assert ranks == [(0, 3, "killed after step 3"), (1, 3, "killed after step 3")]
    report = compare_traces(tmp_path / "around", tmp_path / "within")
    divergence: Any = report.json["divergence"]
    assert (report.exit_code, report.json["ranks"]) == (1, 2)
    assert (divergence["step"], divergence["rank"], divergence["component"]) == (1, 1, "rng")


@pytest.mark.slow
def test_two_recorded_runs_are_compared(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    run: Callable[..., Any] = lambda *words: CliRunner().invoke(main, ["determinism", *words])  # noqa: E731
    for name, mode in (("a", "good"), ("b", "good"), ("c", "unseeded")):
        (tmp_path / f"out-{name}").mkdir()
        command = [sys.executable, str(SCRIPT), str(tmp_path / f"out-{name}"), mode]
        done = run("record", "--trace", str(tmp_path / name), "--steps", "6", "--full", "--", *command)
        assert done.exit_code == 0, done.output
    assert run("compare", str(tmp_path / "a"), str(tmp_path / "b")).exit_code == 0
    done = run("compare", str(tmp_path / "a"), str(tmp_path / "c"), "--json")
    assert done.exit_code == 1
    divergence = json.loads(done.output)["divergence"]
    assert divergence["step"] == 1
    assert "params.0.weight" in divergence["tensors"]
