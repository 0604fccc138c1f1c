"""``measure`` against a naive oracle, for every executor and way of cutting the work."""

from __future__ import annotations

import math
import zlib
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from ckpttool.errors import Unreadable
from ckpttool.measure import measure, statistics
from ckpttool.measures import PAGE, Measures, TensorMeasure
from ckpttool.model import Checkpoint
from ckpttool.source import Memory


def spoiled(numel: int, seed: int = 0, dtype: str = "float32") -> np.ndarray:
    """Normal values with NaN, both infinities, zeros of both signs and extremes here and there."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(numel).astype(dtype)
    for value in (np.nan, np.inf, -np.inf, 0.0, -0.0):
        values[rng.integers(0, numel, 3)] = value
    return values


def naive(values: np.ndarray) -> TensorMeasure:
    """What the documentation says, computed with no cleverness."""
    flat = values.reshape(-1)
    bad = ~np.isfinite(flat)
    finite = np.abs(flat[~bad])
    return TensorMeasure(
        numel=flat.size,
        nan=int(np.isnan(flat).sum()),
        inf=int(np.isinf(flat).sum()),
        first_bad=int(np.argmax(bad)) if bad.any() else None,
        abs_max=float(finite.max()) if finite.size else 0.0,
        abs_min=float(finite.min()) if finite.size else 0.0,
        constant=len({x.tobytes() for x in flat}) == 1,
        all_zero=bool((flat == 0).all()),
    )


FIELDS = ("numel", "nan", "inf", "first_bad", "abs_max", "abs_min", "constant", "all_zero")


def same(found: TensorMeasure, expected: TensorMeasure) -> None:
    assert {f: getattr(found, f) for f in FIELDS} == {f: getattr(expected, f) for f in FIELDS}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("deflate", [False, True])
def test_floats_are_measured_as_numpy_sees_them(maker, dtype, swapped, deflate) -> None:
    values = spoiled(5000, dtype=dtype)
    maker.array("bad", values, swapped=swapped, deflate=deflate)
    maker.array("good", values[np.isfinite(values)], swapped=swapped, deflate=deflate)
    maker.array("negative", -np.abs(values[np.isfinite(values)]) - np.asarray(1, dtype), swapped=swapped)
    found = measure(maker.checkpoint(), block=PAGE, unit=4 * PAGE)
    same(found.tensors[1], naive(values))
    same(found.tensors[3], naive(values[np.isfinite(values)]))
    same(found.tensors[5], naive(-np.abs(values[np.isfinite(values)]) - np.asarray(1, dtype)))


def test_every_extent_gets_its_checksum(maker) -> None:
    for n in (0, 1, 4095, 4096, 100_000):
        maker.storage(np.random.default_rng(n).bytes(n), deflate=n == 4095)
    checkpoint = maker.checkpoint()
    found = measure(checkpoint, block=PAGE, unit=4 * PAGE)
    for extent in checkpoint.extents:
        assert found.spans[extent.name].read == extent.size
        assert found.spans[extent.name].crc32 == extent.checksum.value


def test_bfloat16(maker) -> None:
    wide = spoiled(3000)
    wide = (wide.view(np.uint32) & 0xFFFF0000).view(np.float32)
    kept = (wide.view(np.uint32) >> 16).astype(np.uint16)
    maker.tensor("w", maker.storage(kept.tobytes()), "bfloat16", (3000,))
    same(measure(maker.checkpoint()).tensors[1], naive(wide))


# name, code of NaN, code of infinity or None, code and value of the greatest number
EIGHT_BITS = [
    ("float8_e4m3fn", 0x7F, None, 0xFE, 448.0),
    ("float8_e5m2", 0xFE, 0xFC, 0x7B, 57344.0),
    ("float8_e4m3fnuz", 0x80, None, 0xFF, 240.0),
    ("float8_e5m2fnuz", 0x80, None, 0x7F, 57344.0),
    ("float8_e8m0fnu", 0xFF, None, 0xFE, 2.0**127),
]


@pytest.mark.parametrize(("dtype", "nan", "inf", "code", "greatest"), EIGHT_BITS)
def test_eight_bit_floats(maker, dtype, nan, inf, code, greatest) -> None:
    infinite = [] if inf is None else [inf]
    maker.tensor("all", maker.storage(bytes(range(256))), dtype, (256,))
    maker.tensor("good", maker.storage(bytes([1, code, 2])), dtype, (3,))
    maker.tensor("bad", maker.storage(bytes([1, 2, nan, *infinite, code])), dtype, (4 + len(infinite),))
    found = measure(maker.checkpoint())
    assert (found.tensors[3].nan, found.tensors[3].inf, found.tensors[3].abs_max) == (0, 0, greatest)
    bad = found.tensors[5]
    assert (bad.nan, bad.inf, bad.first_bad, bad.abs_max) == (1, len(infinite), 2, greatest)
    assert found.tensors[1].nan == {"float8_e4m3fn": 2, "float8_e5m2": 6}.get(dtype, 1)
    assert found.tensors[1].inf == (2 if inf else 0)


def test_eight_bit_floats_have_the_values_that_torch_gives_them(maker, torch) -> None:
    codes = torch.arange(256, dtype=torch.uint8)
    for dtype, *_ in EIGHT_BITS:
        maker.tensor(dtype, maker.storage(bytes(range(256))), dtype, (256,))
    found = statistics(maker.checkpoint(), range(1, 10, 2))
    for at, (dtype, *_) in enumerate(EIGHT_BITS):
        values = codes.view(getattr(torch, dtype)).to(torch.float64)
        finite = values[values.isfinite()]
        mine = found[2 * at + 1]
        assert (mine.nan, mine.inf) == (int(values.isnan().sum()), int(values.isinf().sum()))
        assert (mine.minimum, mine.maximum) == (finite.min().item(), finite.max().item())
        assert mine.mean == pytest.approx(finite.mean().item(), abs=1e-9)


def test_complex_elements_are_pairs(maker) -> None:
    values = np.array([1 + 2j, complex(np.nan, np.inf), complex(0, -np.inf), 0], "complex64")
    maker.array("c", values)
    maker.array("same", np.full(9, 1 + 2j, "complex128"))
    found = measure(maker.checkpoint())
    assert (found.tensors[1].nan, found.tensors[1].inf, found.tensors[1].first_bad) == (1, 1, 1)
    assert (found.tensors[1].numel, found.tensors[1].abs_max, found.tensors[1].sampled) == (4, 2.0, 8)
    assert found.tensors[3].constant
    assert not found.tensors[1].constant


def test_integers_and_booleans(maker) -> None:
    maker.array("zero", np.zeros(10_000, "int64"))
    maker.array("same", np.full(10_000, -7, "int32"))
    maker.array("mixed", np.arange(10_000, dtype="int16"))
    maker.tensor("flags", maker.storage(bytes([0, 1, 1, 2, 255])), "bool", (5,))
    found = measure(maker.checkpoint(), block=PAGE, unit=PAGE).tensors
    assert [(m.constant, m.all_zero) for m in found.values()] == [
        (True, True),
        (True, False),
        (False, False),
        (False, False),
    ]
    assert found[7].odd == 2


def test_constants_that_differ_only_between_blocks_are_no_constant(maker) -> None:
    values = np.concatenate([np.ones(1024, "f4"), np.full(1024, 2, "f4")])
    maker.data = bytearray(PAGE)  # so that the halves fill a block each
    maker.array("w", values)
    found = measure(maker.checkpoint(), block=PAGE, unit=PAGE).tensors[1]
    assert not found.constant


VIEWS = [
    ("slice", (10, 20), (200, 1), 7),
    ("columns", (50, 3), (200, 1), 4),
    ("transposed", (200, 100), (1, 200), 0),
    ("permuted", (5, 100, 40), (40, 200, 1), 0),
    ("every other", (100, 100), (200, 2), 1),
    ("expanded", (7, 50), (0, 3), 2),
    ("windows", (30, 8), (2, 1), 11),
    ("far apart", (19,), (1000,), 500),
    ("one", (), (), 123),
]


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize(("name", "shape", "stride", "offset"), VIEWS, ids=[v[0] for v in VIEWS])
def test_views_are_measured_by_their_logical_content(maker, name, shape, stride, offset, deflate) -> None:
    values = spoiled(20_000, seed=3)
    storage = maker.storage(values.tobytes(), deflate=deflate)
    maker.tensor(name, storage, "float32", shape, stride, offset)
    steps = tuple(4 * s for s in stride)
    content = np.lib.stride_tricks.as_strided(values[offset:], shape, steps)
    for block in (PAGE, 1 << 20):
        same(measure(maker.checkpoint(), block=block, unit=1 << 20).tensors[1], naive(content))
    summary = statistics(maker.checkpoint(), [1])[1]
    finite = content[np.isfinite(content)].astype(float)
    assert summary.numel == content.size
    assert summary.mean == pytest.approx(finite.mean(), rel=1e-12)


def test_a_view_that_repeats_its_storage_without_end_is_left_unread(maker) -> None:
    storage = maker.storage(bytes(4096))
    maker.tensor("bomb", storage, "float32", (1 << 9, 1 << 9), (1, 1))
    maker.tensor("expanded", storage, "float32", (1 << 40, 1024), (0, 1))
    found = measure(maker.checkpoint())
    assert "more than once" in found.unread[1]
    assert found.tensors[3] == TensorMeasure(1 << 50, constant=True, all_zero=True, sampled=1024, zeros=1024)
    assert statistics(maker.checkpoint(), [3]) == {}


def test_many_views_of_one_storage_do_not_multiply_the_work(maker) -> None:
    storage = maker.storage(bytes(1 << 20))
    for i in range(200):
        maker.tensor(f"v{i}", storage, "uint8", ((1 << 20) - i,))
        maker.tensor(f"w{i}", storage, "uint8", (1 << 20,))
    found = measure(maker.checkpoint())
    assert all(maker.index(f"w{i}") in found.tensors for i in range(200))  # one view, however many names
    assert 100 < len(found.unread) < 200


def test_several_tensors_of_one_storage(maker) -> None:
    values = spoiled(9000, seed=5)
    storage = maker.storage(values.tobytes())
    maker.tensor("left", storage, "float32", (4000,))
    maker.tensor("right", storage, "float32", (5000,), offset=4000)
    maker.tensor("overlap", storage, "float32", (3000,), offset=3000)
    found = measure(maker.checkpoint(), block=PAGE, unit=2 * PAGE).tensors
    same(found[1], naive(values[:4000]))
    same(found[3], naive(values[4000:]))
    same(found[5], naive(values[3000:6000]))


def test_elements_that_straddle_blocks_and_do_not_align(maker) -> None:
    for shift in (1, 2, 3, 7):
        maker.data += bytes(shift)
        values = spoiled(6000, seed=shift, dtype="float64")
        maker.array(f"w{shift}", values)
    found = measure(maker.checkpoint(), block=PAGE, unit=PAGE)
    for shift in (1, 2, 3, 7):
        same(found.tensors[maker.index(f"w{shift}")], naive(spoiled(6000, seed=shift, dtype="float64")))


def test_packed_and_quantized_elements_are_bytes(maker) -> None:
    maker.tensor("four", maker.storage(bytes(100)), "quint4x2", (200,))
    maker.tensor("floats", maker.storage(bytes([5]) * 6), "float4_e2m1fn", (3, 4))
    maker.tensor("scaled", maker.storage(bytes(range(40))), "qint32", (10,))
    found = measure(maker.checkpoint()).tensors
    assert found[1] == TensorMeasure(200, constant=True, all_zero=True)
    assert found[3] == TensorMeasure(12, constant=True)
    assert found[5] == TensorMeasure(10)


def test_inline_storages_and_empty_tensors(maker) -> None:
    values = spoiled(100)
    storage = maker.storage(values.tobytes())
    maker.inline(storage, values.tobytes())
    maker.tensor("inline", storage, "float32", (100,))
    maker.tensor("view", storage, "float32", (20, 3), (5, 1))
    maker.tensor("empty", storage, "float32", (0, 3))
    found = measure(maker.checkpoint())
    same(found.tensors[1], naive(values))
    same(found.tensors[3], naive(np.lib.stride_tricks.as_strided(values, (20, 3), (20, 4))))
    assert found.tensors[5] == TensorMeasure(0)


def test_samples_tell_tiny_from_huge(maker) -> None:
    garbage = np.random.default_rng(1).bytes(40_000)
    maker.tensor("garbage", maker.storage(garbage), "float32", (10_000,))
    maker.array("fine", np.random.default_rng(1).standard_normal(10_000).astype("f4"))
    found = measure(maker.checkpoint(), block=PAGE, unit=PAGE).tensors
    assert found[1].tiny > 0.05 * found[1].sampled < 20 * found[1].huge
    assert (found[3].tiny, found[3].huge, found[3].zeros) == (0, 0, 0)
    assert found[1].sampled == found[3].sampled == math.ceil(10_000 / 9)


# --- pages of zeros ------------------------------------------------------------------------------------


def test_zero_pages_are_whole_pages_of_the_file(maker) -> None:
    raw = bytearray(np.random.default_rng(0).integers(1, 255, 20 * PAGE, dtype="u1").tobytes())
    storage = maker.storage(bytes(raw))
    base = maker.storages[storage].span.start
    maker.damage(storage, 3 * PAGE - base, bytes(2 * PAGE))  # two pages of the file
    maker.damage(storage, 9 * PAGE - base + 1, bytes(2 * PAGE - 1))  # one page, and one that lacks a byte
    for block in (PAGE, 4 * PAGE, 1 << 20):
        found = measure(maker.checkpoint(), block=block, unit=1 << 20).spans["data/0"]
        assert found.zero_runs == ((3 * PAGE, 5 * PAGE), (10 * PAGE, 11 * PAGE))


def test_at_most_64_runs_are_kept_however_the_file_is_cut(maker) -> None:
    raw = (bytes([1]) * PAGE + bytes(PAGE)) * 100
    maker.data = bytearray(PAGE)
    maker.storage(raw)
    runs = {
        measure(maker.checkpoint(), block=b, unit=u).spans["data/0"].zero_runs
        for b, u in ((PAGE, PAGE), (PAGE, 8 * PAGE), (1 << 20, 1 << 20))
    }
    assert [len(r) for r in runs] == [64]


# --- files that end early, or do not read --------------------------------------------------------------


def test_a_file_that_ends_early_says_how_much_there_was(maker) -> None:
    maker.array("first", spoiled(1000))
    maker.array("second", spoiled(1000))
    checkpoint = maker.checkpoint()
    start = maker.storages[1].span.start
    maker.cut(start + 1234)
    found = measure(checkpoint)
    assert found.spans["data/1"].read == 1234
    assert 1 in found.tensors
    assert f"ends at byte {start + 1234}" in found.unread[3]
    assert statistics(checkpoint, [3]) == {}


def test_a_file_that_is_not_there_is_a_result(maker) -> None:
    maker.array("w", spoiled(10))
    found = measure(maker.checkpoint(write=False))
    assert found.unread == {1: "no such file or directory"}
    assert found.spans == {}


class Failing(Memory):
    """A source whose disk gives up at some byte."""

    fails_at = 0

    def readinto(self, start: int, buffer: memoryview) -> int:
        if start + len(buffer) > self.fails_at:
            raise Unreadable(self.name, "read failed: Input/output error")
        return super().readinto(start, buffer)


def test_a_read_that_fails_in_the_middle_is_a_result(maker) -> None:
    maker.array("first", spoiled(1000))
    maker.array("second", spoiled(50_000))
    checkpoint = maker.checkpoint()
    source = Failing(bytes(maker.data), str(maker.path))
    source.fails_at = 5 * PAGE
    found = measure(checkpoint, sources=[source], block=PAGE, unit=2 * PAGE)
    assert 1 in found.tensors
    assert found.unread[3] == "read failed: Input/output error"
    assert 0 < found.spans["data/1"].read < 200_000


@pytest.mark.parametrize("how", ["cut", "garbage", "longer", "shorter"])
def test_deflated_records_that_do_not_inflate_as_declared(maker, how) -> None:
    raw = spoiled(5000).tobytes()
    storage = maker.storage(raw, deflate=True)
    maker.tensor("w", storage, "float32", (5000,))
    if how == "garbage":
        maker.damage(storage, 3000, bytes([255]) * 2000)
    checkpoint = maker.checkpoint()
    if how == "cut":
        maker.cut(maker.storages[storage].span.start + 5000)
    if how in ("longer", "shorter"):
        size = len(raw) - 400 if how == "longer" else len(raw) + 400
        extent = checkpoint.extents[0]
        changed = type(extent)(extent.name, extent.span, extent.checksum, "deflate", size)
        checkpoint = Checkpoint(
            checkpoint.source, "torch-zip", checkpoint.nodes, checkpoint.root, checkpoint.storages, (changed,)
        )
    found = measure(checkpoint, block=PAGE)
    span = found.spans["data/0"]
    if how == "garbage":
        assert span.read != 20_000 or span.crc32 != zlib.crc32(raw)
        return
    assert {"longer": span.read == 19_601, "shorter": span.read == 20_000, "cut": span.read < 20_000}[how]
    assert (1 in found.tensors) == (how == "shorter")


# --- the same for every way of running it --------------------------------------------------------------


@pytest.fixture
def mixed(maker) -> Checkpoint:
    for seed, numel in enumerate((5, 1000, 70_000, 33_333)):
        maker.array(f"w{seed}", spoiled(numel, seed), deflate=seed == 3)
    storage = maker.storage(spoiled(40_000, 9).tobytes())
    maker.tensor("t", storage, "float32", (100, 200), (1, 150), 3)
    maker.tensor("u", storage, "float32", (200, 200), (1, 200))
    maker.data += bytes(5 * PAGE)
    return maker.checkpoint()


@pytest.mark.parametrize("pool", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_results_do_not_depend_on_the_executor(mixed, pool: type[Executor]) -> None:
    checkpoint = mixed
    expected = measure(checkpoint)
    with pool(2) as executor:
        assert measure(checkpoint, executor=executor, unit=16 * PAGE, block=PAGE) == expected
        assert measure(checkpoint, executor=executor, window=1) == expected
        assert statistics(checkpoint, range(12), executor=executor) == statistics(checkpoint, range(12))


def full(found: Measures) -> tuple[object, ...]:
    return dict(found.spans), dict(found.tensors), dict(found.unread), found.nbytes


@given(block=st.integers(1, 40), many=st.integers(1, 9))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
def test_results_do_not_depend_on_block_and_unit(mixed, block, many) -> None:
    found = measure(mixed, block=block * PAGE, unit=many * block * PAGE)
    assert full(found) == full(measure(mixed))


def test_progress_reaches_the_total(mixed) -> None:
    calls: list[tuple[int, int]] = []
    measure(mixed, progress=lambda done, total: calls.append((done, total)), unit=PAGE, block=PAGE)
    assert calls[-1][0] == calls[-1][1] > 0
    assert calls == sorted(calls)


def test_nothing_stays_open(mixed) -> None:
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    measure(mixed)
    statistics(mixed, range(12))
    assert not before or len(list(Path("/proc/self/fd").iterdir())) == before
