"""Work grows with the number of tensors, not with its square: calls are counted, which no load on a machine changes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType

from ckpttool.dtypes import DTYPES
from ckpttool.expressions import Form
from ckpttool.pairing.named import Counts, ones
from ckpttool.pairing.parts import _wholes

FORM = Form(DTYPES["float32"], (2, 2))


def calls(work: Callable[[], object]) -> int:
    """How many functions are called, those of C included."""
    count = 0

    def seen(frame: FrameType, event: str, arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def test_candidates_for_parts_are_sorted_once() -> None:
    def work(number: int) -> int:
        entries = ones((f"layers.{i}.weight", FORM) for i in range(number))
        return calls(lambda: _wholes(entries, entries))

    assert work(800) < 10 * work(100)


def test_lists_of_numbers_are_compared_once() -> None:
    class Number(str):
        compared = 0
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            Number.compared += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    old, new = (ones((f"layers.{i}.weight", FORM) for i in range(100)) for _ in range(2))
    counts = Counts((old, new))
    for side in counts._sides:
        for numbers in side.values():
            texts = list(numbers)
            numbers.clear()
            numbers.update(Number(text) for text in texts)
    assert all(counts.agree(couple) and not counts.shrink(couple) for couple in zip(old, new, strict=True))
    assert Number.compared <= 400
