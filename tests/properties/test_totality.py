"""Any mutation of any sound file is described and measured, in bounds, and the same however the work is divided."""

from __future__ import annotations

import random
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from ckpttool.formats import describe, describe_source
from ckpttool.measure import measure
from ckpttool.source import Memory
from ckpttool.testing import strategies
from ckpttool.testing.mutations import mutated
from ckpttool.testing.samples import FILES, FOLDERS
from ckpttool.verbs.verify import verify

SEEDS = st.integers(0, 2**32)


@given(strategies.files())
def test_sound_files_have_no_damage(data: bytes) -> None:
    # Rarities that a strategy may draw, which are true and no damage.
    odd = {"not-canonical", "tar-layout", "too-deep"}
    assert {d.rule for d in describe_source(Memory(data), audit=True).damage} <= odd


@given(strategies.files(), SEEDS)
def test_a_mutation_is_described_and_its_entries_end(data: bytes, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(4):
        data = mutated(data, rng) or b"\0"
        checkpoint = describe_source(Memory(data), audit=True)
        bound = 20_000 + 16 * len(checkpoint.nodes)
        assert sum(1 for _ in islice(checkpoint.entries(), bound)) < bound
        assert len(checkpoint.nodes) <= 100_000 + 64 * len(data)


@given(strategies.files(), SEEDS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_measures_do_not_depend_on_how_the_work_is_divided(data: bytes, seed: int) -> None:
    data = mutated(data, random.Random(seed)) or b"\0"
    source = Memory(data)
    checkpoint = describe_source(source)
    whole = measure(checkpoint, sources=[source])
    with ThreadPoolExecutor(2) as pool:
        for block, unit, window in ((4096, 4096, 1), (8192, 16384, 3), (1 << 20, 1 << 20, 64)):
            parts = measure(checkpoint, sources=[source], executor=pool, block=block, unit=unit, window=window)
            # A NaN equals nothing, so what is compared is what would be printed.
            assert repr(parts) == repr(whole)


@pytest.mark.parametrize("kind", FILES)
def test_measures_are_the_same_in_other_processes(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "sample"
    path.write_bytes(FILES[kind]())
    checkpoint = describe(path)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        assert measure(checkpoint, executor=pool, unit=16384, block=4096) == measure(checkpoint)


@pytest.mark.parametrize("kind", [*FILES, *FOLDERS])
def test_findings_do_not_depend_on_threads_or_order(tmp_path: Path, kind: str) -> None:
    files = {"one.pth": FILES[kind]()} if kind in FILES else FOLDERS[kind]()
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, data in files.items():
            # The second copy has a byte of its largest file turned over.
            largest = number and len(data) == max(map(len, files.values()))
            (folder / name).write_bytes(data[:-900] + bytes([data[-900] ^ 1]) + data[-899:] if largest else data)
    paths = [tmp_path / "0", tmp_path / "1"]
    first = verify(paths, jobs=1).json["targets"]
    assert verify(paths, jobs=3).json["targets"] == first
    assert verify(paths[::-1]).json["targets"] == list(reversed(first))  # type: ignore[call-overload]
