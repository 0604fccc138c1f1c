"""Numbers of every element type, rounded to every other as torch rounds them: bit for bit, but for what a NaN holds."""

from __future__ import annotations

import warnings
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ckpttool.dtypes import DTYPES, DType
from ckpttool.expressions import OpError
from ckpttool.testing.strategies.geometry import SAVED
from ckpttool.writing import elements
from ckpttool.writing.elements import carrier, decode, encode


def samples(dtype: DType) -> np.ndarray:
    """Bits of elements: every upper half of a float32 with tails that make and break ties, else random ones."""
    random = np.random.default_rng(0)
    upper = np.arange(1 << 16, dtype="u4") << 16
    if dtype.name == "float32":
        tails = (0, 1, 0x7FFF, 0x8000, 0x8001, random.integers(0, 1 << 16, 1 << 16).astype("u4"))
        return np.concatenate([upper | tail for tail in tails])
    if dtype.name == "float64":
        with np.errstate(invalid="ignore"):
            near = np.concatenate([upper, upper | 0x8000]).view("f4").astype("f8")
        return np.concatenate([near, near * (1 + 2**-40), near * (1 - 2**-40)]).view("u8")
    raw = random.integers(0, 256, dtype.itemsize << 16).astype("u1")
    raw = raw & 1 if dtype.kind == "bool" else raw
    return raw.view(carrier(dtype))


def castable(old: DType, new: DType) -> bool:
    return old != new and not (old.kind == "complex" != new.kind)


def fitting(numbers: np.ndarray, new: DType) -> np.ndarray:
    """Which floats an integer type has a value for."""
    low, past = (-(2.0 ** (new.bits - 1)), 2.0 ** (new.bits - 1)) if new.kind == "int" else (0, 2.0**new.bits)
    with np.errstate(invalid="ignore"):
        whole = np.trunc(numbers.astype("f8"))
    found: np.ndarray = (whole >= low) & (whole < past)
    return found


def parts(bits: np.ndarray, dtype: DType) -> tuple[np.ndarray, np.ndarray]:
    """Real numbers as bits, and which of them are NaN."""
    width = dtype.itemsize // (2 if dtype.kind == "complex" else 1)
    numbers = decode(bits, dtype)
    if dtype.kind == "complex":
        numbers = numbers.view(f"f{numbers.itemsize // 2}")
    return bits.view(f"u{width}"), np.isnan(numbers)


@pytest.mark.parametrize("name", SAVED)
def test_every_cast_is_that_of_torch(torch: ModuleType, name: str) -> None:
    old = DTYPES[name]
    bits = samples(old)
    numbers = decode(bits, old)
    for new in (DTYPES[other] for other in SAVED):
        if not castable(old, new):
            continue
        kept = bits
        if old.kind == "float" and new.kind in ("int", "uint"):
            kept = bits[fitting(numbers, new)]
        made, made_nan = parts(encode(decode(kept, old), new), new)
        wanted, wanted_nan = parts(by_torch(torch, kept, old, new), new)
        assert np.array_equal(made_nan, wanted_nan), new.name
        assert np.array_equal(made[~made_nan], wanted[~made_nan]), new.name


def by_torch(torch: Any, bits: np.ndarray, old: DType, new: DType) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # complex32 is experimental
        given = torch.from_numpy(bits.copy().view("u1")).view(getattr(torch, old.name))
        made = given.to(getattr(torch, new.name))
        found: np.ndarray = made.view(torch.uint8).numpy().view(carrier(new))
    return found


@pytest.mark.parametrize("name", [n for n in SAVED if n != "bool"])
def test_decoding_and_encoding_changes_nothing(name: str) -> None:
    dtype = DTYPES[name]
    bits = samples(dtype)
    made, nan = parts(encode(decode(bits, dtype), dtype), dtype)
    there, nan_there = parts(bits, dtype)
    # e8m0 has no sign, and an infinite float8_e4m3fn does not exist: all other values come back.
    assert np.array_equal(nan, nan_there)
    assert np.array_equal(made[~nan], there[~nan])


@pytest.mark.parametrize("name", ["bfloat16", "float8_e5m2", "complex32", "int8"])
def test_blocks_do_not_show(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dtype = DTYPES[name]
    bits = samples(dtype)[:600].reshape(20, 30).T
    whole = decode(bits, dtype), encode(decode(bits, dtype), dtype)
    monkeypatch.setattr(elements, "BLOCK", 7)
    pieces = decode(bits, dtype), encode(decode(bits, dtype), dtype)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(whole, pieces, strict=True))


def test_known_values() -> None:
    def codes(values: list[float], name: str) -> list[int]:
        found: list[int] = encode(np.array(values, "f4"), DTYPES[name]).tolist()
        return found

    assert codes([1.0, 1 + 2**-8, 1 + 3 * 2**-8, -2.0, 3.4e38], "bfloat16") == [0x3F80, 0x3F80, 0x3F82, 0xC000, 0x7F80]
    assert codes([448, 500, np.inf, -500, np.nan], "float8_e4m3fn") == [0x7E, 0x7E, 0x7E, 0xFE, 0x7F]
    assert codes([57344, 61440, -0.0, np.inf], "float8_e5m2") == [0x7B, 0x7C, 0x80, 0x7C]
    assert codes([240, 1e9, -0.0], "float8_e4m3fnuz") == [0x7F, 0x80, 0]
    assert codes([1, 1.5, 1.4, 0], "float8_e8m0fnu") == [127, 128, 127, 0]


def test_a_nan_stays_one_in_every_float() -> None:
    """One whose only digits are the last ones would become infinity, were it cut off."""
    faint = np.array([0x7F800001, 0xFF800001], "u4").view("f4")
    for name in ("bfloat16", "float16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e8m0fnu"):
        assert np.isnan(decode(encode(faint, DTYPES[name]), DTYPES[name])).all(), name


@pytest.mark.parametrize(
    ("value", "name", "words"),
    [
        (float("nan"), "int32", "nan is outside of int32, from -2147483648 to 2147483647"),
        (300.0, "uint8", "300.0 is outside of uint8, from 0 to 255"),
        (-1.0, "uint16", "-1.0 is outside of uint16, from 0 to 65535"),
        (2.0**63, "int64", "outside of int64"),
    ],
)
def test_what_an_integer_cannot_say(value: float, name: str, words: str) -> None:
    with pytest.raises(OpError, match=words):
        encode(np.array([1.0, value]), DTYPES[name])
    assert encode(np.array([-0.9, 1.9]), DTYPES[name]).tolist() == [0, 1]
