"""Work grows with the number of tensors, not with its square: calls are counted, which no load on a machine changes."""

from __future__ import annotations

import random
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

from ckpttool.dtypes import DTYPES
from ckpttool.expressions import Form
from ckpttool.pairing import guesses, near
from ckpttool.pairing.named import Counts, ones
from ckpttool.pairing.parts import _wholes
from ckpttool.testing.plain import Tensor, tensor
from ckpttool.testing.writers import torch_file
from ckpttool.verbs.infer import infer

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


def operations(work: Callable[[], object], rooms: tuple[str, ...]) -> int:
    """How many operations of the interpreter are done in modules of these rooms: loops that call nothing count too."""
    count = 0

    def seen(frame: FrameType, event: str, arg: object) -> object:
        nonlocal count
        count += event == "opcode"
        return seen

    def entered(frame: FrameType, event: str, arg: object) -> object:
        if not frame.f_globals.get("__name__", "").startswith(rooms):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return seen

    sys.settrace(entered)
    try:
        work()
    finally:
        sys.settrace(None)
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


def flat(layer: int, rows: int = 4) -> Tensor:
    """A matrix with one value: its content proves nothing."""
    return tensor((rows, 4), struct.pack("<f", layer) * (4 * rows))


def drawn(seed: str, rows: int = 4) -> Tensor:
    rng = random.Random(seed)
    return tensor((rows, 4), struct.pack(f"<{4 * rows}f", *(rng.gauss(0, 1) for _ in range(4 * rows))))


def cut(layer: int) -> dict[str, Tensor]:
    """A matrix in two, and the biases beside them."""
    whole = drawn(f"{layer}", 8).storage.data
    zeros = tensor((4,), bytes(16))
    parts = {f"b.{layer}.{name}.weight": tensor((4, 4), whole[at:][:64]) for name, at in (("k", 0), ("q", 64))}
    return parts | {f"b.{layer}.{name}.bias": zeros for name in "kq"}


ROOMS = ("ckpttool.pairing", "ckpttool.migration", "ckpttool.measure")

SIDES = {
    "nothing is proved": (
        lambda layer: {f"a.{layer}.weight": flat(layer)},
        lambda layer: {f"b.{layer}.weight": flat(layer)},
    ),
    "all is the same": (lambda layer: {f"a.{layer}.weight": flat(1)}, lambda layer: {f"b.{layer}.weight": flat(1)}),
    "all is proved": (
        lambda layer: {f"a.{layer}.weight": drawn(f"{layer}")},
        lambda layer: {f"b.{layer}.weight": drawn(f"{layer}")},
    ),
    "nothing is alike": (
        lambda layer: {f"a.{layer}.weight": drawn(f"{layer}")},
        lambda layer: {f"b.{layer}.weight": drawn(f"other {layer}")},
    ),
    "all is cut": (
        lambda layer: {f"a.{layer}.in.weight": drawn(f"{layer}", 8), f"a.{layer}.in.bias": tensor((8,), bytes(32))},
        cut,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SIDES)
def test_the_search_for_partners(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Up to so many are weighed against each other by intent.
    monkeypatch.setattr(near, "CROWD", 8)
    monkeypatch.setattr(guesses, "CROWD", 8)

    def work(number: int) -> int:
        paths = [tmp_path / f"{number}{side}.pt" for side in "ab"]
        for path, made in zip(paths, SIDES[name], strict=True):
            path.write_bytes(torch_file({k: v for layer in range(number) for k, v in made(layer).items()}))
        return operations(lambda: infer(*paths), ROOMS)

    work(2)  # what is imported for the first time is not counted
    few, many = work(15), work(120)
    assert many < 9 * few  # eight times as many tensors; what is quadratic grows by 64
