"""A hundred thousand mutations of sound files: a verdict each, in bounded time and memory."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest

from ckpttool.testing.mutations import VERDICTS, Tally, judge, run_batch
from ckpttool.testing.plain import tensor
from ckpttool.testing.writers import legacy_file, safetensors_file, torch_file

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

TOTAL = int(os.environ.get("CKPTTOOL_MUTATIONS", "100000"))
BATCH = 500
MEGABYTES = 400

# Small, so that time goes into verdicts; every kind of record, and storages of two widths.
WEIGHTS = {"w": tensor((2, 3), b"\x00\x00\x80?" * 5 + b"\0\0\0?"), "b": tensor((2,), b"\1\2\3\4", "int16")}
BASES = {
    "a.pth": torch_file({"model": WEIGHTS, "epoch": 3}),
    "b.pth": legacy_file({"model": WEIGHTS, "epoch": 3}),
    "c.safetensors": safetensors_file(WEIGHTS, {"format": "pt"}),
}


def test_every_mutation_gets_a_verdict() -> None:
    batch = partial(run_batch, BASES, count=BATCH)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        tallies = list(pool.map(batch, range(max(1, TOTAL // BATCH))))
    failures = [line for tally in tallies for line in tally.failures]
    assert failures[:20] == [], f"{len(failures)} in all"
    assert max(tally.megabytes for tally in tallies) < MEGABYTES
    counts = {name: sum(tally.verdicts.get(name, 0) for tally in tallies) for name in sorted(VERDICTS)}
    assert sum(counts.values()) == len(tallies) * BATCH
    assert counts["damaged"] > counts["weights-only"] > 0


def test_the_watch_can_fail(tmp_path: Path) -> None:
    for name, data in BASES.items():
        tally = Tally()
        judge(tally, name, tmp_path / name, data, notice=True)
        assert len(tally.failures) == 1  # nothing changed, so nothing is found, and that is reported
        assert "a byte under a checksum changed" in tally.failures[0]
        assert list(tally.verdicts) == ["weights-only"]
