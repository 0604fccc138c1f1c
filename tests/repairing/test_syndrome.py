"""The bit that was flipped, from two checksums alone."""

from __future__ import annotations

import zlib

from hypothesis import given, strategies as st

from ckpttool.repairing.syndrome import flipped_bit, mimicry, power, times

ORDER = (1 << 32) - 1
ONE, X = 1 << 31, 1 << 30


@given(data=st.binary(min_size=1, max_size=4096), at=st.integers(0, 1 << 20), bit=st.integers(0, 7))
def test_a_single_flipped_bit_is_named(data: bytes, at: int, bit: int) -> None:
    at %= len(data)
    bad = bytearray(data)
    bad[at] ^= 1 << bit
    assert flipped_bit(zlib.crc32(data), zlib.crc32(bad), len(data)) == (at, bit)


def test_a_bit_far_from_the_end_of_512_mebibytes() -> None:
    """The difference that the very first bit makes, carried over the whole length by squaring."""
    nbytes = (1 << 29) - 1
    assert flipped_bit(power(X, 8 * nbytes - 1 + 32), 0, nbytes) == (0, 0)


@given(data=st.binary(min_size=2, max_size=512), noise=st.binary(min_size=2, max_size=64))
def test_other_damage_is_rarely_taken_for_a_bit(data: bytes, noise: bytes) -> None:
    bad = noise + data[len(noise) :] if len(noise) < len(data) else noise[: len(data)]
    found = flipped_bit(zlib.crc32(data), zlib.crc32(bad), len(data))
    changed = sum((a ^ b).bit_count() for a, b in zip(data, bad, strict=True))
    if changed != 1 and found is not None:
        mended = bytearray(bad)
        mended[found[0]] ^= 1 << found[1]
        assert zlib.crc32(mended) == zlib.crc32(data)
    assert (found is not None) or changed != 1


def test_equal_checksums_name_no_bit_and_long_records_none_either() -> None:
    assert flipped_bit(7, 7, 100) is None
    assert flipped_bit(7, 8, 1 << 29) is None
    assert flipped_bit(7, 8, 0) is None


def test_the_polynomial_is_primitive() -> None:
    """x has the full order: no proper divisor of it leads back to 1, so no two bits look the same."""
    assert power(X, ORDER) == ONE
    assert all(power(X, ORDER // prime) != ONE for prime in (3, 5, 17, 257, 65537))
    assert times(X, ONE) == X


def test_the_odds_grow_with_the_length() -> None:
    assert mimicry(1 << 20) == 8 * (1 << 20) / 2**32
    assert mimicry(1 << 29) == 1.0
