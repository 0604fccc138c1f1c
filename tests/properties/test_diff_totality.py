"""Any two files are compared, whatever they hold: an answer, never an exception; and nothing differs from itself."""

from __future__ import annotations

import random
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from ckpttool.errors import ExitCode, Unreadable
from ckpttool.formats import describe_source
from ckpttool.render import render
from ckpttool.report import Report
from ckpttool.source import Memory
from ckpttool.testing import strategies
from ckpttool.testing.edit import edited
from ckpttool.testing.mutations import mutated
from ckpttool.testing.plain import tensor
from ckpttool.testing.samples import FILES
from ckpttool.verbs.diff import diff

FIXTURES = Path(__file__).parents[2] / "fixtures"
PATHS = sorted(
    path.relative_to(FIXTURES).as_posix()
    for path in [*FIXTURES.rglob("*.*"), *FIXTURES.iterdir()]
    if path.suffix not in {".py", ".md"} and (path.is_file() or path.parent == FIXTURES)
)
SEEDS = st.integers(0, 2**32)


def compared(a: bytes, b: bytes) -> Report:
    """The report on two files in memory."""
    sources = Memory(a, "a"), Memory(b, "b")
    return diff(*((describe_source(source), source) for source in sources))


@pytest.mark.parametrize("name", PATHS)
def test_no_fixture_differs_from_itself(name: str) -> None:
    try:
        report = diff(FIXTURES / name, FIXTURES / name)
    except Unreadable:
        pytest.skip("a folder without a checkpoint")
    assert report.json["changes"] == []
    assert report.exit_code != ExitCode.FINDINGS


@pytest.mark.parametrize("number", range(20))
def test_any_two_fixtures_get_an_answer(number: int) -> None:
    a, b = random.Random(number).sample(PATHS, 2)
    try:
        report = diff(FIXTURES / a, FIXTURES / b)
    except Unreadable:
        pytest.skip("a folder without a checkpoint")
    assert render(report, "text")


@given(strategies.files())
def test_no_file_differs_from_itself(data: bytes) -> None:
    assert compared(data, data).json["changes"] == []


@given(strategies.files(), strategies.files())
def test_any_two_files_get_an_answer(a: bytes, b: bytes) -> None:
    forth, back = compared(a, b), compared(b, a)
    assert forth.exit_code == back.exit_code
    assert forth.json["identical"] == back.json["identical"]
    assert {render(forth, form) == "" for form in ("text", "markdown", "html", "json")} == {False}


@given(strategies.files(), SEEDS)
def test_so_do_a_file_and_a_mutation_of_it(data: bytes, seed: int) -> None:
    bad = mutated(data, random.Random(seed)) or b"\0"
    for a, b in ((data, bad), (bad, data)):
        report = compared(a, b)
        assert render(report, "text")
        assert (report.exit_code == ExitCode.OK) is (report.json["close"] is True)


@pytest.mark.parametrize("kind", FILES)
def test_other_processes_come_to_the_same(tmp_path: Path, kind: str) -> None:
    data = FILES[kind]()
    key = "hidden.bias"

    def change(state: dict[str, dict[str, object]]) -> None:
        (state if kind == "safetensors" else state["model"])[key] = tensor((32,), bytes(128))  # type: ignore[assignment]

    (tmp_path / "a").write_bytes(data)
    (tmp_path / "b").write_bytes(edited(data, change))
    alone = diff(tmp_path / "a", tmp_path / "b")
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        assert diff(tmp_path / "a", tmp_path / "b", executor=pool).json == alone.json
    assert alone.exit_code == ExitCode.FINDINGS
