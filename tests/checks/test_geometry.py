"""Judges of geometry, on hand-built checkpoints and against brute force."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import example, given, strategies as st

from ckpttool.checks import rule_of
from ckpttool.dtypes import DTYPES
from ckpttool.layout import Layout
from ckpttool.model import Checkpoint, Extent, Mapping, Node, Span, Storage, Tensor, Value
from ckpttool.rules import Context

F32 = DTYPES["float32"]
BYTE = DTYPES["uint8"]


def made(
    values: dict[str, Node], storages: tuple[Storage, ...] = (), layout: str = "torch-zip", **more: object
) -> Checkpoint:
    """A checkpoint whose root is a dict of ``values``."""
    keys = tuple(range(1, 1 + len(values)))
    below = tuple(range(1 + len(values), 1 + 2 * len(values)))
    nodes = (Mapping("dict", keys, below), *(Value(k) for k in values), *values.values())
    return Checkpoint("x.pt", layout, nodes, 0, storages, **more)


def storage(nbytes: int = 64, **more: object) -> Storage:
    return Storage(**{"key": "0", "dtype": F32, "nbytes": nbytes, "span": Span("x.pt", 0, nbytes)} | more)


def tensor(shape=(4,), stride=(1,), offset=0, dtype=F32, at=0, **more: object) -> Tensor:
    return Tensor(dtype, tuple(shape), tuple(stride), offset, at, **more)


def judged(name: str, checkpoint: Checkpoint):
    found = rule_of(name)
    return list(found.judge(Context(checkpoint, Layout())))


def one(name: str, checkpoint: Checkpoint):
    (damage,) = judged(name, checkpoint)
    assert damage.rule == name
    return damage


GEOMETRY = [
    "storage-missing", "storage-size", "view-out-of-bounds", "invalid-shape", "expanded-view",
    "overlapping-view", "huge-meta", "duplicate-key", "huge-allocation",
]  # fmt: skip


@pytest.mark.parametrize("name", GEOMETRY)
def test_an_ordinary_checkpoint_is_silent(name):
    values = {
        "weight": tensor((4, 4), (4, 1)),
        "transposed": tensor((4, 4), (1, 4)),
        "row": tensor((4,), (1,), 12),
        "scalar": tensor((), (), 15),
        "empty": tensor((0, 1 << 40), (1, 1), 16),
        "mask": tensor((4, 1000), (1, 0)),
        "meta": Tensor(F32, (1 << 30, 16), (16, 1), 0, None, layout="meta"),
        "sparse": Tensor(F32, (5, 5), (), 0, None, layout="sparse_coo"),
        "step": Value(3),
    }
    for layout in ("torch-zip", "torch-legacy"):
        assert judged(name, made(values, (storage(),), layout, nbytes=1000)) == []


# --- storages --------------------------------------------------------------------------------------------


def test_a_storage_without_bytes_names_its_tensors():
    lost = storage(span=None)
    damage = one("storage-missing", made({"a": tensor(), "b": tensor(offset=4)}, (lost,)))
    assert damage.where == "a"
    assert "64 bytes" in damage.message
    assert "2 tensors" in damage.message
    assert damage.facts["tensors"] == ["a", "b"]


def test_a_storage_of_no_bytes_still_needs_its_record():
    # torch.load: "failed locating file data/0: file not found"
    assert one("storage-missing", made({"a": tensor((0,))}, (storage(0, span=None),)))


def test_inline_bytes_and_meta_storages_are_not_missing():
    assert judged("storage-missing", made({}, (storage(4, span=None, inline=b"1234"),))) == []
    assert judged("storage-missing", made({}, (storage(4, span=None, device="meta"),))) == []


def test_a_missing_storage_that_nothing_uses_is_named_itself():
    assert one("storage-missing", made({}, (storage(span=None, key="7\x1b"),))).where == "storage 7\\x1b"


@pytest.mark.parametrize(("present", "way"), [(16, "48 too few"), (100, "36 too many")])
def test_a_storage_of_another_size_says_which_way(present, way):
    damage = one("storage-size", made({"w": tensor()}, (storage(span=Span("x.pt", 0, present)),)))
    assert damage.where == "w"
    assert way in damage.message
    assert ("mmap=True" in damage.message) == (present < 64)
    assert damage.facts == {"storage": "0", "declared": 64, "present": present}


def test_a_compressed_record_counts_what_it_inflates_to():
    packed = storage(span=Span("x.pt", 0, 10), record="x/data/0")
    for size, findings in ((64, 0), (60, 1)):
        extent = Extent("x/data/0", Span("x.pt", 0, 10), method="deflate", size=size)
        assert len(judged("storage-size", made({}, (packed,), extents=(extent,)))) == findings


def test_inline_bytes_are_counted_too():
    assert one("storage-size", made({}, (storage(64, span=None, inline=b"123"),))).facts["present"] == 3


def test_a_small_legacy_file_that_asks_for_gigabytes():
    huge = (storage(1 << 36),)
    damage = one("huge-allocation", made({"w": tensor()}, huge, "torch-legacy", nbytes=400))
    assert damage.where == "w"
    assert damage.facts == {"declared": 1 << 36, "file": 400}
    assert judged("huge-allocation", made({"w": tensor()}, huge, "torch-zip", nbytes=400)) == []


def test_a_cut_legacy_file_is_not_called_hostile():
    half = made({"w": tensor()}, (storage(1 << 30),), "torch-legacy", nbytes=1 << 29)
    assert judged("huge-allocation", half) == []


# --- views -----------------------------------------------------------------------------------------------


@st.composite
def views(draw):
    rank = draw(st.integers(0, 3))
    numbers = st.integers(0, 5)
    shape = tuple(draw(numbers) for _ in range(rank))
    stride = tuple(draw(numbers) for _ in range(rank))
    return shape, stride, draw(st.integers(0, 20))


def addressed(shape, stride, offset) -> list[int]:
    """Every element that the view reaches, the slow way."""
    return [
        offset + sum(i * step for i, step in zip(index, stride, strict=True))
        for index in itertools.product(*map(range, shape))
    ]


@given(views(), st.integers(0, 40), st.sampled_from(["float32", "uint8", "quint4x2", "float6_e2m3fn"]))
@example(((4, 4), (4, 1), 0), 16, "float32")
@example(((0, 5), (9, 9), 20), 0, "float32")
@example(((2,), (1,), 1), 1, "quint4x2")
def test_a_view_is_out_of_bounds_exactly_if_it_addresses_outside(view, numel, name):
    shape, stride, offset = view
    dtype = DTYPES[name]
    nbytes = dtype.nbytes(numel)
    outside = any((at + 1) * dtype.bits > nbytes * 8 for at in addressed(*view))
    found = judged("view-out-of-bounds", made({"v": tensor(shape, stride, offset, dtype)}, (storage(nbytes),)))
    assert [d.where for d in found] == (["v"] if outside else [])


@given(views())
@example(((3, 2), (2, 3), 0))
@example(((2, 3), (3, 2), 0))
@example(((4, 4), (2, 1), 0))
@example(((2, 2), (1, 1), 0))
def test_an_overlap_is_never_invented_and_in_two_dimensions_never_missed(view):
    shape, stride, _ = view
    kept = [(n, step) for n, step in zip(shape, stride, strict=True) if step]
    shape, stride = tuple(n for n, _ in kept), tuple(step for _, step in kept)
    reached = addressed(shape, stride, 0)
    overlaps = len(set(reached)) < len(reached)
    found = judged("overlapping-view", made({"v": tensor(shape, stride)}, (storage(4096),)))
    if found:
        assert overlaps
    if overlaps and len(shape) <= 2:
        assert found


@pytest.mark.parametrize(
    ("shape", "stride", "offset"), [((4,), (1,), -1), ((4,), (-1,), 3), ((0,), (1,), -1), ((4,), (1,), 13)]
)
def test_what_torch_refuses_is_out_of_bounds(shape, stride, offset):
    assert one("view-out-of-bounds", made({"v": tensor(shape, stride, offset)}, (storage(),))).where == "v"


def test_an_empty_view_addresses_nothing():
    assert judged("view-out-of-bounds", made({"v": tensor((0,), (-1,), 99)}, (storage(),))) == []


def test_both_sizes_are_in_the_message():
    damage = one("view-out-of-bounds", made({"v": tensor((20,))}, (storage(),)))
    assert "needs 80 bytes of float32, and its storage has 64" in damage.message
    assert damage.facts == {"needs": 80, "have": 64, "offset": 0}


# --- shapes ----------------------------------------------------------------------------------------------

IMPOSSIBLE = [
    ((-4,), (1,), 0),
    ((4, 4), (4,), 0),
    ((1 << 63,), (1,), 0),
    ((4,), (1 << 63,), 0),
    ((4,), (1,), 1 << 63),
    ((1 << 32, 1 << 32), (0, 0), 0),
    ((2, 2), (1 << 62, 1 << 62), 0),
]


@pytest.mark.parametrize(("shape", "stride", "offset"), IMPOSSIBLE)
def test_an_impossible_shape_is_one_finding_and_no_other_rule_trips(shape, stride, offset):
    checkpoint = made({"v": tensor(shape, stride, offset)}, (storage(),))
    assert one("invalid-shape", checkpoint).where == "v"
    for name in GEOMETRY:
        assert name == "invalid-shape" or judged(name, checkpoint) == []


def test_shapes_without_a_storage_are_looked_at_too():
    for layout in ("meta", "sparse_coo", "subclass"):
        bad = Tensor(F32, (-1,), (1,), 0, None, layout=layout)
        assert one("invalid-shape", made({"v": bad}))


def test_a_shape_of_any_length_and_size_is_judged_at_once():
    shape = (1 << 2000,) * 100_000
    start = time.perf_counter()
    damage = one("invalid-shape", made({"v": tensor(shape, shape)}, (storage(),)))
    assert time.perf_counter() - start < 2
    assert len(damage.message) < 500


# --- large and shared ------------------------------------------------------------------------------------


def test_a_bomb_of_stride_zero_is_a_warning_with_both_sizes():
    damage = one("expanded-view", made({"v": tensor((1 << 40,), (0,))}, (storage(),)))
    assert damage.facts == {"logical": 1 << 42, "stored": 64}


@pytest.mark.parametrize(
    ("shape", "stride", "nbytes"), [((1 << 24,), (0,), 4), ((1 << 26,), (0,), 1 << 26), ((1, 1 << 26), (0, 1), 1 << 28)]
)
def test_ordinary_broadcasting_is_silent(shape, stride, nbytes):
    assert judged("expanded-view", made({"v": tensor(shape, stride)}, (storage(nbytes),))) == []


def test_a_sliding_window_overlaps():
    assert "twice" in one("overlapping-view", made({"v": tensor((4, 4), (2, 1))}, (storage(),))).message


def test_more_elements_than_the_span_holds_overlap():
    # No two of the three dimensions meet by themselves.
    assert one("overlapping-view", made({"v": tensor((2, 2, 2), (1, 2, 3))}, (storage(),)))


def test_a_trillion_elements_without_bytes():
    def meta(numel: int) -> Checkpoint:
        return made({"v": Tensor(F32, (numel,), (1,), 0, None, layout="meta")})

    assert one("huge-meta", meta(1 << 40)).facts["numel"] == 1 << 40
    assert judged("huge-meta", meta((1 << 40) - 1)) == []


# --- keys and places -------------------------------------------------------------------------------------


def test_a_key_set_twice_is_named_once_with_its_place():
    outer, inner = Mapping("dict", (1,), (2,)), Mapping("dict", (3, 4, 3), (5, 5, 5))
    nodes = (outer, Value("model"), inner, Value("w"), Value("w"), Value(1))
    damage = one("duplicate-key", Checkpoint("x.pt", "torch-zip", nodes, 0))
    assert damage.where == "model.w"
    assert "'w'" in damage.message


def test_different_keys_of_equal_look_are_not_duplicates():
    nodes = (Mapping("dict", (1, 2), (3, 3)), Value("1"), Value(1), Value(None))
    assert judged("duplicate-key", Checkpoint("x.pt", "torch-zip", nodes, 0)) == []


def test_a_tensor_reached_by_many_paths_is_judged_once_under_its_first():
    bad = tensor((99,))
    nodes = (Mapping("dict", (1, 2), (3, 3)), Value("a"), Value("b"), Mapping("dict", (4,), (5,)), Value("w"), bad)
    damage = one("view-out-of-bounds", Checkpoint("x.pt", "torch-zip", nodes, 0, (storage(),)))
    assert damage.where == "a.w"


def test_a_parameter_and_what_it_wraps_count_once():
    outer = tensor((99,), parts=(("data", 3),))
    nodes = (Mapping("dict", (1,), (2,)), Value("w"), outer, tensor((99,)))
    assert one("view-out-of-bounds", Checkpoint("x.pt", "torch-zip", nodes, 0, (storage(),))).where == "w"


def test_the_parts_of_a_tensor_are_judged_under_their_own_names():
    outer = Tensor(F32, (9, 9), (), 0, None, layout="sparse_coo", parts=(("values", 3),))
    nodes = (Mapping("dict", (1,), (2,)), Value("w"), outer, tensor((99,)))
    damage = one("view-out-of-bounds", Checkpoint("x.pt", "torch-zip", nodes, 0, (storage(),)))
    assert damage.where == "w.values"


def test_a_tensor_that_no_path_leads_to_is_judged():
    nodes = (Value(None), tensor((99,)))
    assert one("view-out-of-bounds", Checkpoint("x.pt", "torch-zip", nodes, 0, (storage(),))).where == "<node 1>"


def test_many_findings_end_in_a_count():
    found = judged("view-out-of-bounds", made({f"w{i}": tensor((99,)) for i in range(50)}, (storage(),)))
    assert [d.where for d in found[:2]] == ["w0", "w1"]
    assert len(found) == 21
    assert found[-1].facts == {"count": 50, "shown": 20}
    assert "50 tensors in all" in found[-1].message


def test_a_long_key_repeated_by_depth_stays_short():
    depth = 300
    containers = tuple(Mapping("dict", (depth,), (i + 1,)) for i in range(depth - 1))
    nodes = (*containers, Mapping("dict", (depth,), (depth + 1,)), Value("k" * 100_000), tensor((99,)))
    damage = one("view-out-of-bounds", Checkpoint("x.pt", "torch-zip", nodes, 0, (storage(),)))
    assert len(damage.where) < 10_000


def test_a_cycle_does_not_stop_the_search_for_a_place():
    nodes = (Mapping("dict", (1, 2), (0, 3)), Value("self"), Value("w"), tensor((99,)))
    assert one("view-out-of-bounds", Checkpoint("x.pt", "torch-zip", nodes, 0, (storage(),))).where == "w"
