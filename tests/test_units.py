"""Numbers read well and stay true."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from ckpttool.units import plural, real, shape, short_count, size, sparkline


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.00 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (97_490_000, "97.5 MB"),
        (2 * 10**12, "2.00 TB"),
        (10**21, "1000 EB"),
    ],
)
def test_sizes(nbytes: int, text: str) -> None:
    assert size(nbytes) == text


def test_counts() -> None:
    assert short_count(999) == "999"
    assert short_count(124_439_808) == "124 M"
    assert plural(1, "tensor") == "1 tensor"
    assert plural(1200, "entry", "entries") == "1,200 entries"


def test_shapes_and_reals() -> None:
    assert shape(()) == "scalar"
    assert shape((3, 224, 224)) == "3×224×224"
    assert [real(float(v)) for v in ("nan", "inf", "-inf", "0.5")] == ["NaN", "inf", "-inf", "0.5"]


@given(st.floats())
def test_reals_are_short(value: float) -> None:
    assert len(real(value)) <= 11


@given(st.lists(st.integers(0, 10**9), max_size=40).map(tuple))
def test_a_bin_that_holds_anything_shows(bins: tuple[int, ...]) -> None:
    drawn = sparkline(bins)
    assert [mark != " " for mark in drawn] == [bool(n) for n in bins] if any(bins) else drawn == ""
