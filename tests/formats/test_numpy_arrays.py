"""numpy inside pickles, read without numpy: shapes, orders, byte orders, scalars."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from ckpttool.formats import describe
from ckpttool.formats.arena import Arena
from ckpttool.formats.numpy_arrays import Lifted, lift
from ckpttool.formats.pickle_machine import Machine
from ckpttool.formats.plain_values import CONTAINERS
from ckpttool.model import Call, Checkpoint, Node, Tensor, Value

np = pytest.importorskip("numpy")

CODES = ["?", "b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"]
LEFT_ALONE = [
    np.array([None, "x"], dtype=object),
    np.array(["a", "bc"]),
    np.array([b"a"]),
    np.array([1], dtype="M8[s]"),
    np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f4")]),
]


def arena(data: bytes) -> tuple[list[Node], Lifted]:
    """The nodes before and after."""
    outcome = Machine(data, reducers=CONTAINERS).run()
    made = Arena()
    if outcome.complete:
        made.add(outcome.root, "x.pkl", 0)
    return list(made.nodes), lift(made.nodes, [], "pickle")


def loaded(data: bytes, lifted: Lifted, index: int = 0) -> Any:
    """The array that a tensor of the arena describes, built from the file's bytes."""
    node = lifted.nodes[index]
    assert isinstance(node, Tensor)
    assert node.storage is not None
    storage = lifted.storages[node.storage]
    content = storage.inline if storage.span is None else data[storage.span.start : storage.span.stop]
    assert content is not None
    assert len(content) == storage.nbytes
    name = "bool" if node.dtype.name == "bool" else node.dtype.name
    dtype = np.dtype(name).newbyteorder(">" if storage.swapped else "<")
    flat = np.frombuffer(content, dtype)
    strides = [step * dtype.itemsize for step in node.stride]
    return np.lib.stride_tricks.as_strided(flat, node.shape, strides)


@st.composite
def arrays(draw: st.DrawFn) -> Any:
    code = draw(st.sampled_from(CODES))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
    dtype = np.dtype(code).newbyteorder(draw(st.sampled_from("<>")))
    count = int(np.prod(shape)) * dtype.itemsize
    content = draw(st.binary(min_size=count, max_size=count))
    raw = bytes(b & 1 for b in content) if dtype.kind == "b" else content
    return np.frombuffer(raw, dtype).reshape(shape).copy(order=draw(st.sampled_from("CF")))


@given(arrays(), st.integers(0, 5))
def test_what_was_pickled_is_described(array: Any, protocol: int) -> None:
    data = pickle.dumps(array, protocol)
    _, lifted = arena(data)
    found = loaded(data, lifted)
    assert lifted.damage == ()
    assert (found.shape, found.dtype.name) == (array.shape, array.dtype.name)
    assert found.tobytes() == array.astype(found.dtype).tobytes()


@pytest.mark.parametrize("protocol", range(6))
def test_large_arrays_stay_in_the_file(protocol: int) -> None:
    array = np.arange(5000, dtype="<f4")
    data = pickle.dumps(array, protocol)
    _, lifted = arena(data)
    assert np.array_equal(loaded(data, lifted), array)
    # Protocols below 3 spell bytes as text, which lies nowhere in the file.
    assert (lifted.storages[0].inline is None) == (protocol >= 3)
    assert lifted.storages[0].record == "pickle"


@pytest.mark.parametrize("array", LEFT_ALONE, ids=lambda a: str(a.dtype))
def test_what_is_not_made_of_numbers_stays_a_call(array: Any) -> None:
    before, lifted = arena(pickle.dumps(array, 2))
    assert list(lifted.nodes) == before
    assert isinstance(lifted.nodes[0], Call)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", [np.float64(1.5), np.float32(0.25), np.int64(-3), np.bool_(True), np.complex64(1j)])
def test_scalars_become_values(value: Any, protocol: int) -> None:
    _, lifted = arena(pickle.dumps(value, protocol))
    node = lifted.nodes[0]
    assert isinstance(node, Value)
    assert node.value == value.item()
    assert type(node.value) is type(value.item())
    assert node.call is not None
    assert isinstance(lifted.nodes[node.call], Call)


def test_nothing_is_lost_and_indices_hold() -> None:
    data = pickle.dumps({"a": np.zeros(3), "b": [np.float32(2), "x"]}, 4)
    before, lifted = arena(data)
    assert len(lifted.nodes) == len(before) + 2
    for index, node in enumerate(before):
        now = lifted.nodes[index]
        call = now.call if isinstance(now, (Tensor, Value)) and now != node else None
        assert now == node or (call is not None and lifted.nodes[call] == node)


def test_an_array_whose_bytes_do_not_fit_is_damage() -> None:
    data = pickle.dumps(np.zeros(4, "<f4"), 2)
    wrong = data.replace(b"K\x04\x85", b"K\x05\x85")
    assert wrong != data
    before, lifted = arena(wrong)
    (damage,) = lifted.damage
    assert (damage.rule, damage.facts) == ("storage-size", {"needs": 20, "have": 16})
    assert list(lifted.nodes) == before


@given(st.data())
def test_no_mutation_raises(data: st.DataObject) -> None:
    content = bytearray(pickle.dumps({"a": np.arange(3.0), "s": np.float32(1)}, data.draw(st.integers(0, 5))))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    arena(bytes(content))


def test_names_of_both_numpy_generations_are_known() -> None:
    data = pickle.dumps(np.zeros(2), 2)
    new, old = b"numpy._core.multiarray", b"numpy.core.multiarray"
    spelled = data.replace(new, old) if new in data else data.replace(old, new)
    assert isinstance(arena(spelled)[1].nodes[0], Tensor)
    stranger = spelled.replace(b"numpy.core", b"numpy.cord").replace(b"numpy._core", b"numpy._cord")
    assert isinstance(arena(stranger)[1].nodes[0], Call)


def test_detectron2s_zoo(fixtures_dir: Path) -> None:
    data = (fixtures_dir / "arrays.pkl").read_bytes()
    _, lifted = arena(data)
    checkpoint = Checkpoint("x", "pickle", lifted.nodes, 0, lifted.storages)
    found = {entry.key: (tensor.dtype.name, tensor.shape) for entry, tensor in checkpoint.tensors()}
    theirs = pickle.loads(data)["model"]
    assert found == {f"model.{key}": (array.dtype.name, array.shape) for key, array in theirs.items()}
    for entry, _ in checkpoint.tensors():
        assert np.array_equal(loaded(data, lifted, entry.index), theirs[entry.key.removeprefix("model.")])


def test_readers_lift(fixtures_dir: Path) -> None:
    first = next(describe(fixtures_dir / "arrays.pkl").tensors())
    assert first[0].key == "model.backbone.stem.conv1.weight"


def test_lifting_twice_changes_nothing() -> None:
    _, lifted = arena(pickle.dumps({"a": np.zeros(3), "b": np.float32(2)}, 4))
    assert lift(lifted.nodes, lifted.storages, "pickle") == lifted


PYTHON_2 = (
    b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02\x85"
    b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
    b"U\x08\x00\x00\x80?\x00\x00\x00\xc0tb."
)


def test_arrays_of_python_2_hold_their_bytes_as_text() -> None:
    assert loaded(PYTHON_2, arena(PYTHON_2)[1]).tolist() == [1.0, -2.0]
