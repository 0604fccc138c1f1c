"""A peak of memory is this process's own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ckpttool.testing.peaks import peak_megabytes

CHILD = """
import sys
from ckpttool.testing.peaks import peak_megabytes
before = peak_megabytes()
held = bytearray(b"x" * (int(sys.argv[1]) << 20))
print(before, peak_megabytes() - before)
"""


def child(megabytes: int) -> tuple[float, float]:
    done = subprocess.run([sys.executable, "-c", CHILD, str(megabytes)], check=True, capture_output=True, text=True)
    before, more = map(float, done.stdout.split())
    return before, more


@pytest.mark.skipif(not peak_megabytes(), reason="this platform does not say")
def test_it_grows_with_what_is_held() -> None:
    assert child(0)[1] < 10
    assert 90 < child(50)[1] < 115  # the literal and its copy


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a child may start with its parent's peak")
def test_a_child_does_not_start_with_the_peak_of_its_parent() -> None:
    held = bytearray(b"x" * (200 << 20))
    assert child(0)[0] < 100 < len(held) >> 20
