"""States as leaves: equal where their bits are, and the first element that differs with its distance."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest
from hypothesis import given, strategies as st

from ckpttool.determinism.leaves import Leaf, digest, first_difference, leaves_of

np = pytest.importorskip("numpy")

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(plain)
def test_a_state_equals_itself_and_has_one_digest(value: Any) -> None:
    one, two = leaves_of(value), leaves_of(value)
    assert first_difference(one, two) is None
    assert digest(one) == digest(two)


@given(plain, plain)
def test_what_has_one_digest_has_no_difference(one: Any, two: Any) -> None:
    a, b = leaves_of(one), leaves_of(two)
    assert (digest(a) == digest(b)) == (first_difference(a, b) is None)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (0.0, -0.0), (1, 1.0), (1, True), (None, {}), ([], ()), ([1, [2]], [[1], 2]), ("1", 1), ({"a": 1}, {"b": 1}),
        (np.zeros(3), np.zeros((3, 1))), (np.zeros(2, "f4"), np.zeros(2, "f8")), (random.Random(1), random.Random(2)),
        (np.random.default_rng(1), np.random.default_rng(2)), ({1, 2}, {1, 3}), (range, print),
    ],
)  # fmt: skip
def test_what_is_not_the_same_differs(one: Any, two: Any) -> None:
    if isinstance(one, list) and isinstance(two, tuple):
        assert digest(leaves_of(one)) == digest(leaves_of(two)), "checkpoints in JSON know no tuples"
    else:
        assert digest(leaves_of(one)) != digest(leaves_of(two))


def test_sets_and_dictionaries_have_no_order() -> None:
    assert digest(leaves_of({"a": 1, "b": 2})) == digest(leaves_of({"b": 2, "a": 1}))
    assert digest(leaves_of({"x", "y", "z"})) == digest(leaves_of({"z", "y", "x"}))


def test_cycles_and_depth_come_to_an_end() -> None:
    deep: list[Any] = []
    deep.append(deep)
    assert leaves_of(deep)


@given(st.floats(width=32, allow_nan=False), st.integers(0, 1000))
def test_distances_count_representable_numbers(start: float, steps: int) -> None:
    other = np.float32(start)
    with np.errstate(over="ignore"):  # beyond the largest number
        for _ in range(min(steps, 40)):
            other = np.nextafter(other, np.float32(np.inf))
    if not np.isfinite(other) or not np.isfinite(start):
        return
    found = first_difference({"x": _leaf(start)}, {"x": _leaf(float(other))})
    expected = min(steps, 40)
    same = struct.pack("<f", start) == struct.pack("<f", float(other))
    assert same if found is None else found.ulps == expected


def _leaf(value: float) -> Leaf:
    return Leaf("float32", (), struct.pack("<f", value))


def test_signs_and_zeros_and_nan() -> None:
    def far(one: float, two: float) -> int | None:
        found = first_difference({"x": _leaf(one)}, {"x": _leaf(two)})
        assert found is not None
        return found.ulps

    assert far(0.0, -0.0) == 0
    assert far(-1e-45, 1e-45) == 2
    assert far(1.0, float("nan")) is None
    assert far(1.0, float("inf")) == 0x7F800000 - 0x3F800000


def test_the_first_element_is_named_with_its_index() -> None:
    one = np.arange(12, dtype="f4").reshape(3, 4)
    two = one.copy()
    two[1, 2] = np.nextafter(two[1, 2], np.float32(9))
    two[2, 3] = 0
    found = first_difference(leaves_of(one, "w"), leaves_of(two, "w"))
    assert found is not None
    assert (found.name, found.index, found.ulps, found.odd, found.total) == ("w", (1, 2), 1, 2, 12)
    assert str(found) == "w[1, 2] is 6.00000048, not 6, 1 ulp apart; 2 of 12 elements differ"


def test_what_one_side_lacks_is_absent() -> None:
    one, two = leaves_of({"a": np.zeros(2)}), leaves_of({"b": 1})
    found = first_difference({"a": one["a"]}, {})
    assert str(found) == "a is absent, not float64 [2]"
    assert str(first_difference({}, {"b": two["b"]})) == "b is 1, not absent"


def test_tensors_of_every_kind() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    for dtype in (torch.bfloat16, torch.float16, torch.float64, torch.int8, torch.bool, torch.complex64):
        one = torch.ones(2, 3, dtype=dtype)
        two = one.clone()
        two[1, 1] = 0
        found = first_difference(leaves_of(one), leaves_of(two))
        assert found is not None
        assert (found.index, found.odd) == ((1, 1), 1)
        assert leaves_of(one.t().contiguous().t()) == leaves_of(one), "strides are no content"
    assert leaves_of(torch.empty(0)) != leaves_of(torch.empty(0, 2))
    sparse = torch.eye(3).to_sparse()
    assert leaves_of(sparse) == leaves_of(sparse.clone())
    assert leaves_of(torch.Generator().manual_seed(1)) != leaves_of(torch.Generator().manual_seed(2))
