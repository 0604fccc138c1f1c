"""The emitter against CPython's pickler, byte for byte, and against the machine that reads what it writes."""

from __future__ import annotations

import math
import pickle
import struct
import zlib
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from ckpttool.dtypes import DTYPES
from ckpttool.errors import WriteFailed
from ckpttool.formats import describe, describe_source
from ckpttool.formats.pickle_emitter import emit
from ckpttool.formats.pickled import Reading, lift_arrays, read_pickle
from ckpttool.limits import DEFAULT
from ckpttool.model import Call, Checkpoint, Global, Mapping, Node, Sequence, Span, Storage, Tensor, Value
from ckpttool.source import Memory, open_source
from ckpttool.testing.canonical import canonical

FLOAT = DTYPES["float32"]


def described(data: bytes, *, legacy: bool = False) -> Checkpoint:
    """A pickle's tree, as the readers of torch's files describe it."""
    reading = Reading("<memory>", DEFAULT)
    tree = read_pickle(reading, data, "pickle", modules=legacy)
    nodes, storages = lift_arrays(reading, tuple(reading.storages), "pickle")
    return Checkpoint("<memory>", "pickle", nodes, tree.root, storages, globals=tuple(reading.globals))


def again(checkpoint: Checkpoint, **how: Any) -> Checkpoint:
    return described(emit(checkpoint, **how), **how)


def no_bytes(span: Span) -> bytes:
    raise AssertionError(span)


def form(checkpoint: Checkpoint) -> Any:
    return canonical(checkpoint, no_bytes)


# --- as CPython's own pickler does it --------------------------------------------------------------------

SHARED = [1, 2]
STRING = "a string"
NUMBERS = [
    0, 1, 255, 256, 65_535, 65_536, -1, -128, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**63, -(2**63),
    2**100, -(2**100), 0.0, -0.0, math.inf, 1e-310, 1 + 2j, complex(-0.0, math.inf),
]  # fmt: skip
PLAIN = [
    None, True, False, "", "é", "😀", "\ud800", "x" * 300, b"", b"a", b"\xff\x00", bytes(range(256)),
    (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], [1], [1, 2], [()], {}, {1: 2}, {1: 2, 3: 4},
    set(), {1}, frozenset(), frozenset({3}), OrderedDict(), OrderedDict({1: 2}), OrderedDict({1: 2, 3: 4}),
    defaultdict(list), defaultdict(None, {1: 2}), defaultdict(int, {1: [2], 3: []}), Counter(), Counter("aab"),
    deque(), deque([1]), deque([1, 2]), [SHARED, SHARED], {"a": STRING, "b": STRING},
    [STRING, (STRING,), {STRING: STRING}], Fraction(1, 3), [OrderedDict, len, Fraction], range(3), slice(1, 2, None),
    bytearray(b"ab"),
]  # fmt: skip


@pytest.mark.parametrize("value", NUMBERS + PLAIN, ids=lambda value: repr(value)[:30])
def test_values_are_spelled_as_cpython_spells_them(value: Any) -> None:
    data = pickle.dumps(value, 2)
    assert emit(described(data)) == data


@pytest.mark.parametrize("count", [999, 1000, 1001, 1002, 2000, 2001])
@pytest.mark.parametrize("kind", [list, tuple, dict, OrderedDict, deque, set, Counter])
def test_batches_are_cut_where_cpython_cuts_them(kind: Any, count: int) -> None:
    pairs = kind in (dict, OrderedDict, Counter)
    value = kind(dict.fromkeys(range(count))) if pairs else kind(range(count))
    data = pickle.dumps(value, 2)
    assert emit(described(data)) == data


def test_memo_slots_beyond_a_byte_are_spelled_as_cpython_spells_them() -> None:
    items = [[i] for i in range(400)]
    data = pickle.dumps([items, items[::-1]], 2)
    assert emit(described(data)) == data


@pytest.mark.parametrize("bits", [0x7FF8000000000001, 0xFFF0000000000123, 0x7FF4DEADBEEF0001])
def test_every_bit_of_a_nan_survives(bits: int) -> None:
    data = b"\x80\x02G" + bits.to_bytes(8, "big") + b"."
    assert emit(described(data)) == data


def test_integers_longer_than_255_bytes() -> None:
    for value in (2**2100, -(2**2100)):
        assert pickle.loads(emit(tree(Value(value)))) == value


def test_cycles_come_back() -> None:
    ring: list[Any] = [1]
    ring.append(ring)
    knot: Any = ([], {})
    knot[0].append(knot)
    knot[1]["self"] = knot
    deep: Any = ([], 1, 2, 3, 4)
    deep[0].append(deep)
    for value in (ring, knot, deep, {"k": knot, "r": ring}):
        data = pickle.dumps(value, 2)
        assert emit(described(data)) == data


class Holder:
    """Holds itself through its state, as modules do."""

    def __init__(self) -> None:
        self.me = self
        self.inside = {self}


class Odd(list[Any]):
    def __reduce__(self) -> Any:
        return Odd, (), {"a": 1}, iter(list(self)), iter([("k", "v"), ("l", "w")])

    def __setitem__(self, key: Any, value: Any) -> None: ...


def test_objects_with_items_keys_and_states() -> None:
    for value in (Holder(), Odd([1, 2]), Odd([1]), [Odd(), Odd()]):
        data = pickle.dumps(value, 2)
        assert emit(described(data)) == data


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02(cmod\nName\nq\x00K\x01oq\x01.",  # OBJ
        b"\x80\x02(K\x01K\x02imod\nName\nq\x00.",  # INST
        b"\x80\x02(K\x01K\x02imod\nName\nq\x00}q\x01K\x01K\x02sb.",
        b"\x80\x02cmod\nName\nq\x00K\x01\x85q\x01}q\x02X\x01\x00\x00\x00kq\x03K\x02s\x92q\x04.",  # NEWOBJ_EX
        b"\x80\x02cmod\nName\nq\x00)\x81q\x01.",
        b"\x80\x02X\x03\x00\x00\x00pidq\x00Qq\x01.",  # BINPERSID
        b"\x80\x02\x82\x07.", b"\x80\x02\x83\x00\x07.", b"\x80\x02\x84\x00\x00\x07\x00.",  # EXT
        b"\x80\x02\x82\x07K\x01\x85q\x00Rq\x01.",
    ],
)  # fmt: skip
def test_operations_are_kept(data: bytes) -> None:
    assert emit(described(data)) == data


def test_names_that_need_a_path_are_spelled_with_protocol_4() -> None:
    data = pickle.dumps([Inner.Most, {1}, b"x", 2j], 4)
    emitted = emit(described(data))
    assert emitted[:2] == b"\x80\x04"
    assert pickle.loads(emitted) == [Inner.Most, {1}, b"x", 2j]


class Inner:
    class Most:
        pass


# --- trees that no file has yet --------------------------------------------------------------------------


def tree(*nodes: Node, storages: tuple[Storage, ...] = ()) -> Checkpoint:
    """An arena whose root is its last node."""
    return Checkpoint("x", "torch-zip", nodes, len(nodes) - 1, storages)


@st.composite
def arenas(draw: st.DrawFn) -> Checkpoint:
    """Trees of every kind of node; containers that can hold themselves sometimes do."""
    count = draw(st.integers(1, 14))
    storages = tuple(Storage(str(i), FLOAT, 16, device=d) for i, d in enumerate(("cpu", "cuda:0", "meta")))
    nodes = [draw(_node(place, count)) for place in range(count)]
    return tree(*nodes, storages=storages)


@st.composite
def _node(draw: st.DrawFn, place: int, count: int) -> Node:
    before = st.integers(0, place - 1) if place else st.nothing()
    several = st.lists(before, max_size=5).map(tuple) if place else st.just(())
    later = st.lists(st.integers(0, count - 1), max_size=5).map(tuple)
    state = st.none() | st.integers(0, count - 1)
    scalars = st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats() | st.complex_numbers()
    kind = draw(st.sampled_from("value list tuple set dict OrderedDict Counter defaultdict call tensor global".split()))
    if kind == "value":
        return Value(draw(scalars | st.text(max_size=3) | st.binary(max_size=3)))
    if kind == "list":
        return Sequence(draw(st.sampled_from(["list", "deque"])), draw(later), draw(state))
    if kind in ("tuple", "set"):
        return Sequence(draw(st.sampled_from(["set", "frozenset"])) if kind == "set" else kind, draw(several))
    if kind in ("dict", "OrderedDict"):
        keys = draw(several)
        values = draw(st.lists(st.integers(0, count - 1), min_size=len(keys), max_size=len(keys)))
        return Mapping(kind, keys, tuple(values), draw(state))
    if kind in ("Counter", "defaultdict"):
        keys = draw(several)
        return Mapping(kind, keys, keys)
    if kind == "call":
        how = draw(st.sampled_from(["REDUCE", "NEWOBJ", "OBJ", "INST"]))
        keys = draw(several)
        return Call(how, "mod", draw(st.sampled_from("AB")), draw(several), draw(state), draw(later), keys, keys)
    if kind == "global":
        return Global("mod", draw(st.sampled_from("AB")))
    form = draw(st.sampled_from(["", "_v2"]))
    home, grad = draw(st.integers(0, 2)), draw(st.booleans()) and bool(form)
    return Tensor(
        FLOAT, (2, 1), (1, 1), draw(st.integers(0, 2)), home, grad, form=f"torch._utils._rebuild_tensor{form}"
    )


@given(arenas())
def test_any_tree_reads_as_itself(checkpoint: Checkpoint) -> None:
    nodes = tuple(_stated(checkpoint.nodes, node) for node in checkpoint.nodes)
    checkpoint = Checkpoint("x", "torch-zip", nodes, checkpoint.root, checkpoint.storages)
    assert form(again(checkpoint)) == form(checkpoint)
    assert form(again(checkpoint, legacy=True)) == form(checkpoint)


def _stated(nodes: tuple[Node, ...], node: Node) -> Node:
    """A state that is None is no state, for whoever reads it."""
    state = getattr(node, "state", None)
    if state is None or nodes[state] != Value(None):
        return node
    return replace(node, state=None)  # type: ignore[type-var]


def test_depth_and_width_are_no_limit() -> None:
    nodes: list[Node] = [Value(1)]
    nodes += [Sequence("list" if place % 2 else "tuple", (place,)) for place in range(50_000)]
    assert len(emit(tree(*nodes))) > 50_000


def test_what_holds_itself_without_a_container_is_refused() -> None:
    with pytest.raises(WriteFailed, match="no pickle can build"):
        emit(tree(Sequence("tuple", (1,)), Sequence("tuple", (0,))))
    with pytest.raises(WriteFailed, match="no pickle can build"):
        emit(tree(Call("REDUCE", "m", "n", (0,))))


def test_what_no_pickle_has_is_refused() -> None:
    for bad in (Mapping("ChainMap", (), ()), Sequence("bag", ()), Call("HOW", "m", "n", ())):
        with pytest.raises(WriteFailed):
            emit(tree(bad))
    with pytest.raises(WriteFailed, match="lacks the call"):
        emit(tree(Tensor(FLOAT, (1,), (), 0, None, layout="sparse_coo")))
    with pytest.raises(WriteFailed, match="no tree"):
        emit(Checkpoint("x", "torch-zip"))


# --- tensors ---------------------------------------------------------------------------------------------


def test_a_storage_seen_as_two_types_is_untyped() -> None:
    two = (Tensor(FLOAT, (2,), (1,), 0, 0), Tensor(DTYPES["int16"], (4,), (1,), 0, 0), Sequence("list", (0, 1)))
    found = again(tree(*two, storages=(Storage("0", FLOAT, 8),)))
    tensors = [node for node in found.nodes if isinstance(node, Tensor)]
    assert [(t.dtype.name, t.shape, t.storage) for t in tensors] == [("float32", (2,), 0), ("int16", (4,), 0)]
    assert found.storages[0].nbytes == 8


def test_a_type_without_a_storage_class_is_untyped_and_its_tensor_says_its_type() -> None:
    kind = DTYPES["float8_e4m3fn"]
    found = again(tree(Tensor(kind, (2,), (1,), 0, 0), storages=(Storage("0", kind, 2),)))
    assert found.nodes[0] == Tensor(kind, (2,), (1,), 0, 0, form="torch._utils._rebuild_tensor_v3")


def test_a_parameter_needs_no_call() -> None:
    node = Tensor(FLOAT, (2,), (1,), 0, 0, True, form="torch._utils._rebuild_parameter")
    found = again(tree(node, storages=(Storage("0", FLOAT, 8),)))
    tensor = found.nodes[found.root or 0]
    assert isinstance(tensor, Tensor)
    assert (tensor.form, tensor.requires_grad, tensor.shape) == (node.form, True, (2,))
    inner = found.nodes[tensor.parts[0][1]]
    assert inner == Tensor(FLOAT, (2,), (1,), 0, 0, False)


@pytest.mark.parametrize("legacy", [False, True])
def test_devices_and_shared_storages_are_kept(legacy: bool) -> None:
    storages = (Storage("7", FLOAT, 16, device="cuda:1"), Storage("12", FLOAT, 8, device="meta"))
    nodes = [Tensor(FLOAT, (2,), (1,), i, home) for i, home in enumerate((0, 1, 0, 1))]
    checkpoint = tree(*nodes, Sequence("list", (0, 1, 2, 3)), storages=storages)
    found = again(checkpoint, legacy=legacy)
    assert form(found) == form(checkpoint)
    assert [storage.key for storage in found.storages] == ["7", "12"]


def test_a_part_of_a_storage_is_for_the_old_format() -> None:
    part = Tensor(FLOAT, (2,), (1,), 1, 0, form="storage")
    checkpoint = tree(part, storages=(Storage("0", FLOAT, 16),))
    assert again(checkpoint, legacy=True).nodes[0] == part
    with pytest.raises(WriteFailed, match=r"before 1\.6"):
        emit(checkpoint)


# --- numpy -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "|b1", "<c8"])
def test_numpy_arrays_are_kept(tmp_path: Path, protocol: int, order: Any, dtype: str) -> None:
    np = pytest.importorskip("numpy")
    array = np.arange(900).reshape(30, 30).astype(dtype, order=order)
    value = {"a": array, "b": [array, array[:1].copy()], "s": np.float32(2), "state": np.random.get_state(legacy=True)}
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(value, protocol))
    checkpoint = describe(path)
    emitted = emit(checkpoint)
    loaded = pickle.loads(emitted)
    wanted = pickle.loads(path.read_bytes())["a"]
    assert loaded["a"].tobytes() == wanted.tobytes()
    assert (loaded["a"].dtype, loaded["a"].flags.f_contiguous) == (wanted.dtype, wanted.flags.f_contiguous)
    assert loaded["a"] is loaded["b"][0]
    source = open_source(path)
    assert form(described(emitted)) == canonical(checkpoint, lambda span: source.read(span.start, span.nbytes))


def test_numpy_arrays_are_made_anew_where_they_changed() -> None:
    np = pytest.importorskip("numpy")
    checkpoint = described(pickle.dumps([np.arange(6, dtype=">i4"), np.arange(6, dtype=">i4").reshape(2, 3)], 2))
    nodes = tuple(
        replace(n, shape=(3, 2), stride=(2, 1), dtype=DTYPES["int64"]) if isinstance(n, Tensor) else n
        for n in checkpoint.nodes
    )
    new = np.arange(10, 16, dtype="<i8")
    emitted = emit(replace(checkpoint, nodes=nodes), arrays={0: new.tobytes(), 1: new[::-1].tobytes()})
    first, second = pickle.loads(emitted)
    assert first.tolist() == [[10, 11], [12, 13], [14, 15]]
    assert second.ravel().tolist() == new[::-1].tolist()
    assert first.dtype == np.dtype("int64")


def test_a_type_that_numpy_lacks_is_refused() -> None:
    np = pytest.importorskip("numpy")
    checkpoint = described(pickle.dumps(np.zeros(2, "<f4"), 2))
    nodes = tuple(replace(n, dtype=DTYPES["bfloat16"]) if isinstance(n, Tensor) else n for n in checkpoint.nodes)
    with pytest.raises(WriteFailed, match="numpy has no bfloat16"):
        emit(replace(checkpoint, nodes=nodes), arrays={0: bytes(4)})


# --- torch's own files -----------------------------------------------------------------------------------

EQUAL_STRINGS = {
    "mp_rank_00_model_states.pt", "dtensor.pth", "ema_alias.pth", "layouts.pth", "mmengine.pth", "python_values.pth",
    "checkpoint-3.pth.tar", "training_args.bin", "training.pth", "training_next.pth",
}  # fmt: skip
"""Fixtures in which an equal string stands twice: see the emitter's docstring."""


def archives(folder: Path) -> list[Path]:
    found = [p for p in sorted(folder.rglob("*")) if p.is_file() and "damaged" not in p.parts]
    return [p for p in found if p.read_bytes()[:2] == b"PK" and p.suffix != ".distcp"]


def test_pickles_of_archives_come_out_byte_for_byte(fixtures_dir: Path) -> None:
    same, other = 0, set()
    for path in archives(fixtures_dir):
        checkpoint = describe(path)
        if checkpoint.format != "torch-zip" or checkpoint.root is None:
            continue
        record = next(extent for extent in checkpoint.extents if extent.name.endswith("data.pkl"))
        raw = path.read_bytes()[record.span.start : record.span.stop]
        data = raw if record.method == "stored" else zlib.decompress(raw, -zlib.MAX_WBITS)
        if emit(checkpoint) == data:
            same += 1
        else:
            other.add(path.name)
    assert other <= EQUAL_STRINGS
    assert same > 30


def test_every_fixture_reads_as_itself(fixtures_dir: Path) -> None:
    count = 0
    for path in sorted(fixtures_dir.rglob("*")):
        if not path.is_file() or "damaged" in path.parts:
            continue
        checkpoint = describe_source(open_source(path))
        if checkpoint.format in ("torch-zip", "torch-legacy", "pickle") and checkpoint.root is not None:
            source = open_source(path)
            legacy = checkpoint.format == "torch-legacy"
            wanted = canonical(checkpoint, lambda span, source=source: source.read(span.start, span.nbytes))
            assert form(again(checkpoint, legacy=legacy)) == wanted, path
            count += 1
    assert count > 40


def test_the_same_tree_gives_the_same_bytes(fixtures_dir: Path) -> None:
    checkpoint = describe(fixtures_dir / "training.pth")
    assert emit(checkpoint) == emit(checkpoint)


def test_memory_sources_hold_no_blobs_of_protocol_2() -> None:
    data = pickle.dumps(struct.pack(">900d", *range(900)), 2)
    assert emit(described(data)) == data
    assert Memory(data).size > 900


def test_bytes_and_what_is_spelled_as_bytes_are_told_apart() -> None:
    kind, byte = DTYPES["float8_e4m3fn"], DTYPES["uint8"]
    nodes = [Tensor(byte, (2,), (1,), 0, 0), Tensor(kind, (2,), (1,), 0, 1), Tensor(byte, (2,), (1,), 0, 2)]
    storages = (Storage("0", byte, 2), Storage("1", kind, 2), Storage("2", byte, 2))
    for legacy in (False, True):
        found = again(tree(*nodes, Sequence("list", (0, 1, 2)), storages=storages), legacy=legacy)
        assert [n.dtype.name for n in found.nodes if isinstance(n, Tensor)] == ["uint8", "float8_e4m3fn", "uint8"]


def test_tensors_of_other_formats_are_plain_ones() -> None:
    node = Tensor(FLOAT, (2,), (1,), 0, 0, form="safetensors")
    found = again(tree(node, storages=(Storage("0", FLOAT, 8),)))
    assert found.nodes[0] == replace(node, form="torch._utils._rebuild_tensor_v2")


def test_nans_of_different_bits_stay_apart() -> None:
    first, second = (b"G" + bits.to_bytes(8, "big") for bits in (0x7FF8000000000001, 0x7FF8000000000002))
    data = b"\x80\x02" + first + second + b"\x86q\x00."
    assert emit(described(data)) == data
