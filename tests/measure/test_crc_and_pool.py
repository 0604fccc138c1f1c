"""The CRC of pieces, and order and bounds of parallel work."""

from __future__ import annotations

import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, strategies as st

from ckpttool.measure import crc
from ckpttool.pool import ordered_map


@given(first=st.binary(max_size=300), second=st.binary(max_size=300))
def test_the_checksum_of_two_pieces_is_that_of_both_together(first: bytes, second: bytes) -> None:
    whole = zlib.crc32(first + second)
    assert crc.crc32(second, crc.crc32(first)) == whole
    for combine in (crc.combine, crc.combine_portably):
        assert combine(zlib.crc32(first), zlib.crc32(second), len(second)) == whole


def test_pieces_of_any_length_combine() -> None:
    size = 5_000_003
    assert crc.combine_portably(zlib.crc32(b"a"), zlib.crc32(bytes(size)), size) == zlib.crc32(b"a" + bytes(size))


@pytest.mark.parametrize("window", [1, 2, 100])
def test_results_come_in_order(window: int) -> None:
    with ThreadPoolExecutor(4) as executor:
        assert list(ordered_map(str, range(50), executor, window=window)) == [str(i) for i in range(50)]
    assert list(ordered_map(str, range(5))) == list("01234")


def test_no_more_than_a_window_is_under_way() -> None:
    taken = 0

    def items():
        nonlocal taken
        while True:
            taken += 1
            yield taken

    with ThreadPoolExecutor(2) as executor:
        results = ordered_map(abs, items(), executor, window=3)
        assert [next(results) for _ in range(10)] == list(range(1, 11))
        assert taken <= 13
        results.close()


def test_an_exception_stands_where_its_result_would_and_cancels_the_rest() -> None:
    begun = []
    gate = threading.Event()

    def work(i: int) -> int:
        begun.append(i)
        if i == 1:
            raise RuntimeError("1")
        gate.wait(0.01)
        return i

    with ThreadPoolExecutor(1) as executor:
        results = ordered_map(work, range(1000), executor, window=500)
        assert next(results) == 0
        with pytest.raises(RuntimeError):
            next(results)
    assert len(begun) < 510
