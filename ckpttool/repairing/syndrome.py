"""Which single bit was flipped, told by the checksum alone: a discrete logarithm in the field that CRC-32 computes in.

A flipped bit adds x^k to the message, k bits before its end, so the checksums differ by x^(k+32) modulo the polynomial.
That is primitive: all powers up to 2^32 - 1 differ, so the bit is unique in up to 512 MiB. The group's order is the
product of five small primes, and the logarithm is put together from those modulo each (Pohlig and Hellman).
"""

from __future__ import annotations

from functools import cache

ORDER = (1 << 32) - 1
PRIMES = (3, 5, 17, 257, 65537)
_POLYNOMIAL = 0xEDB88320
_ONE = 1 << 31
"""x^0 in the reflected order of bits that zip uses."""

_X = 1 << 30


def flipped_bit(recorded: int, found: int, nbytes: int) -> tuple[int, int] | None:
    """The byte's index and the bit (0 the lowest) whose flip explains two CRC-32 values; None if no single one does.

    ``nbytes`` is the length of the content, less than 512 MiB. Constant cost, some ten milliseconds; reads nothing.
    """
    syndrome = recorded ^ found
    if not syndrome or not 0 < nbytes < 1 << 29:
        return None
    behind = (_logarithm(syndrome) - 32) % ORDER
    if behind >= 8 * nbytes:
        return None
    return nbytes - 1 - behind // 8, 7 - behind % 8


def mimicry(nbytes: int) -> float:
    """The probability that other damage to as many bytes looks like a single flipped bit."""
    return min(1.0, 8 * nbytes / 2**32)


def times(a: int, b: int) -> int:
    """The product in the field."""
    product = 0
    while b:
        if b & _ONE:
            product ^= a
        b = b << 1 & 0xFFFFFFFF
        a = a >> 1 ^ (_POLYNOMIAL if a & 1 else 0)
    return product


def power(base: int, exponent: int) -> int:
    """A power in the field."""
    result = _ONE
    while exponent:
        if exponent & 1:
            result = times(result, base)
        base = times(base, base)
        exponent >>= 1
    return result


def _logarithm(value: int) -> int:
    """The k with x^k = ``value``, put together from what it is modulo each prime (Chinese remainders)."""
    total = 0
    for prime in PRIMES:
        cofactor = ORDER // prime
        rest = _small_logarithm(prime, power(value, cofactor))
        total += rest * cofactor * pow(cofactor, -1, prime)
    return total % ORDER


def _small_logarithm(prime: int, value: int) -> int:
    """The logarithm in the subgroup of a prime's order: baby steps, giant steps."""
    steps, baby, giant = _steps(prime)
    for count in range(steps + 1):
        if value in baby:
            return (baby[value] + count * steps) % prime
        value = times(value, giant)
    raise AssertionError("every element of the group is a power of its generator")


@cache
def _steps(prime: int) -> tuple[int, dict[int, int], int]:
    generator = power(_X, ORDER // prime)
    steps = int(prime**0.5) + 1
    baby: dict[int, int] = {}
    current = _ONE
    for exponent in range(steps):
        baby.setdefault(current, exponent)
        current = times(current, generator)
    return steps, baby, power(generator, prime - steps % prime)
