"""What is recognised as a whole comes out as the machine makes it, opcode by opcode."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, strategies as st

from ckpttool.formats.arena import Arena
from ckpttool.formats.dense_tensors import LEAST, DenseTensors
from ckpttool.formats.pickle_machine import Machine
from ckpttool.formats.torch_values import TorchValues
from ckpttool.limits import Limits
from ckpttool.model import Tensor


def read(data: bytes, whole: bool, operations: int = 100_000) -> tuple[list[object], int]:
    """Everything that a run leaves behind, and how many tensors were recognised."""
    values = TorchValues()
    dense, hits = DenseTensors(values), []

    def counting(*state: Any) -> Any:
        found = dense(*state)
        hits.extend([found] if found is not None else [])
        return found

    more: dict[str, Any] = {"recognise": counting} if whole else {}
    machine = Machine(
        data, reducers=values.reducers, persistent=values.persistent, limits=Limits(operations=operations), **more
    )
    outcome = machine.run()
    arena = Arena()
    root = arena.add(outcome.root, "x", 0) if outcome.complete else None
    names = [(n.module, n.name, n.mentions, n.calls, n.odd_calls) for n in outcome.names.values()]
    memo = Arena()
    memoized = memo.add(tuple(machine.memo[k] for k in sorted(machine.memo)), "x", 0)
    left = [root, arena.nodes, names, outcome.problems, values.problems, values.storages, outcome.complete]
    return [*left, outcome.end, outcome.cut, sorted(machine.memo), memo.nodes, memoized], len(hits)


def number(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    return b"M" + struct.pack("<H", value) if 0 <= value < 65536 else b"J" + struct.pack("<i", value)


class Writer:
    """Spells tensors as ``torch.save`` does; ``memo`` says from which slot it counts."""

    def __init__(self, memo: int = 0) -> None:
        self.memo = memo
        self.known: dict[bytes, int] = {}
        self.data = bytearray(b"\x80\x02}")
        self.put()
        self.data += b"("

    def put(self) -> None:
        slot = self.memo
        self.memo += 1
        self.data += b"q" + bytes([slot]) if slot < 256 else b"r" + struct.pack("<I", slot)

    def shared(self, spelled: bytes) -> None:
        slot = self.known.get(spelled)
        if slot is None:
            self.known[spelled] = self.memo
            self.data += spelled
            self.put()
        else:
            self.data += b"h" + bytes([slot]) if slot < 256 else b"j" + struct.pack("<I", slot)

    def text(self, text: str) -> bytes:
        return b"X" + struct.pack("<I", len(text)) + text.encode()

    def sizes(self, values: tuple[int, ...]) -> None:
        if not values:
            self.data += b")"
            return
        inner = b"".join(map(number, values))
        self.data += inner + bytes([0x84 + len(values)]) if len(values) < 4 else b"(" + inner + b"t"
        self.put()

    def tensor(
        self, key: str, cls: str, numel: int, offset: int, size: tuple[int, ...], step: tuple[int, ...], view: bool
    ) -> None:
        self.data += self.text(f"name {key}")
        self.put()
        self.shared(b"ctorch._utils\n_rebuild_tensor_v2\n")
        self.data += b"(("
        self.shared(self.text("storage"))
        self.shared(b"ctorch\n" + cls.encode() + b"\n")
        self.data += self.text(key)
        self.put()
        self.shared(self.text("cpu"))
        self.data += number(numel) + (b"Nt" if view else b"t")
        self.put()
        self.data += b"Q" + number(offset)
        self.sizes(size)
        self.sizes(step)
        self.data += b"\x89"
        self.shared(b"ccollections\nOrderedDict\n")
        self.data += b")R"
        self.put()
        self.data += b"t"
        self.put()
        self.data += b"R"
        self.put()

    def done(self) -> bytes:
        return bytes(self.data + b"u.")


small = st.sampled_from([0, 1, 2, 3, 4, 255, 256, 65535, 65536, 2**31 - 1])
shapes = st.lists(small, max_size=6).map(tuple)
tensors = st.tuples(
    st.integers(0, 12).map(str), st.sampled_from(["FloatStorage", "LongStorage", "QUInt4x2Storage", "Strange"]),
    small, small | st.just(-3), shapes, shapes, st.booleans(),
)  # fmt: skip


@st.composite
def pickles(draw: Callable[..., Any]) -> bytes:
    writer = Writer(draw(st.sampled_from([0, 200, 250, 300])))
    likeness = draw(st.lists(tensors, min_size=1, max_size=3))
    for one in draw(st.lists(st.sampled_from(likeness) | tensors, min_size=1, max_size=12)):
        writer.tensor(*one)
    return writer.done()


@given(pickles())
def test_the_answers_are_the_same(data: bytes) -> None:
    assert read(data, whole=True)[0] == read(data, whole=False)[0]


@given(pickles(), st.data())
def test_the_answers_are_the_same_for_damaged_pickles(data: bytes, draw: Any) -> None:
    damaged = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 3))):
        damaged[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(
            st.integers(0, 255) | st.sampled_from(b"(NtqrhjXKMJ)R\x85\x86\x87Q0.")
        )
    cut = bytes(damaged[: draw.draw(st.integers(1, len(data)) | st.just(len(data)))])
    assert read(cut, whole=True)[0] == read(cut, whole=False)[0]


@given(pickles(), st.integers(0, 300))
def test_the_limit_of_operations_falls_on_the_same_one(data: bytes, operations: int) -> None:
    assert read(data, True, operations)[0] == read(data, False, operations)[0]


def test_the_limit_counts_the_operations_of_columns() -> None:
    writer = Writer(300)
    for i in range(2 * LEAST):
        writer.tensor(str(i), "FloatStorage", 6, 0, (2, 3), (3, 1), False)
    data = writer.done()
    answers = [read(data, whole, most)[0] for most in range(300) for whole in (True, False)]
    assert answers[::2] == answers[1::2]
    assert answers[0][3]
    assert not answers[-1][3]


@pytest.mark.parametrize("memo", [0, 300])
@pytest.mark.parametrize("size", [(), (3,), (3, 4), (3, 4, 5), (3, 4, 5, 6)])
def test_what_torch_writes_is_recognised(memo: int, size: tuple[int, ...]) -> None:
    writer = Writer(memo)
    for i in range(5):
        writer.tensor(str(i), "FloatStorage", 360, 0, size, size, False)
    (left, hits) = read(writer.done(), whole=True)
    assert left == read(writer.done(), whole=False)[0]
    # The first one brings the names along, so it is spelled differently.
    assert hits == 4
    assert sum(type(node) is Tensor for node in left[1]) == 5  # type: ignore[attr-defined]


@pytest.mark.parametrize("count", [6, 12, 2500])
def test_long_state_dicts_are_recognised_in_runs(count: int) -> None:
    writer = Writer(300)
    for i in range(count):
        writer.tensor(str(i), "FloatStorage" if i % 3 else "LongStorage", i % 7, 0, (i % 7,), (1,), i == count - 1)
    left, hits = read(writer.done(), whole=True)
    assert left == read(writer.done(), whole=False)[0]
    assert hits <= 6
    assert sum(type(node) is Tensor for node in left[1]) == count  # type: ignore[attr-defined]


@pytest.mark.parametrize("wrong", [b"X\x05\0\0\0name 5", b"X\x07\0\0\0name 5", b"X\x06\0\0\0nam\xe9 5"])
def test_a_name_of_another_length_ends_a_run(wrong: bytes) -> None:
    writer = Writer(300)
    for i in range(10):
        writer.tensor(str(i), "FloatStorage", 16, 0, (16,), (1,), False)
    data = writer.done().replace(b"X\x06\0\0\0name 5", wrong)
    assert read(data, whole=True)[0] == read(data, whole=False)[0]


def test_slots_out_of_order_end_a_run() -> None:
    writer = Writer(300)
    for i in range(10):
        writer.memo += i == 5
        writer.tensor(str(i), "FloatStorage", 16, 0, (16,), (1,), False)
    data = writer.done()
    assert read(data, whole=True)[0] == read(data, whole=False)[0]


def test_a_slot_that_is_written_before_it_is_read_is_left_to_the_machine() -> None:
    writer = Writer()
    for i in range(2):
        writer.tensor(str(i), "FloatStorage", 16, 0, (16,), (1,), False)
    hooks = writer.known[b"ccollections\nOrderedDict\n"]
    data = writer.done()
    key = data.rindex(b"X\x01\0\0\x001q") + 7
    hostile = data[:key] + bytes([hooks]) + data[key + 1 :]
    left, hits = read(hostile, whole=True)
    assert hits == 0
    assert left == read(hostile, whole=False)[0]
