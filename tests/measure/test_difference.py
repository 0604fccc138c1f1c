"""``differences`` against a naive oracle, over element types, layouts, executors and both implementations."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import xxhash
from hypothesis import HealthCheck, given, settings, strategies as st

from ckpttool.changes import Difference, Tolerance
from ckpttool.comparing.recorded import recorded
from ckpttool.dtypes import DTYPES
from ckpttool.measure import compiled, two
from ckpttool.measure.deltas import merged, tally
from ckpttool.measure.difference import differences
from ckpttool.measure.digests import digests
from ckpttool.measure.leaves import LEAF
from ckpttool.measure.values import floats
from ckpttool.source import Memory

FLOATS = ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz"]
quiet = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def width(dtype: str) -> int:
    return DTYPES[dtype].itemsize


def pair_of(maker, path: Path, a: np.ndarray, b: np.ndarray, x: str, y: str | None = None, **how: bool):
    """Two checkpoints of one tensor each, given as the unsigned integers of their bits."""
    made = []
    for number, (bits, dtype) in enumerate(((a, x), (b, y or x))):
        side = type(maker)(path / f"side{number}")
        raw = bits.byteswap().tobytes() if how.get("swapped") and number else bits.tobytes()
        storage = side.storage(raw, dtype, deflate=how.get("deflate", False) and bool(number),
                               swapped=how.get("swapped", False) and bool(number))  # fmt: skip
        side.tensor("t", storage, dtype, (len(raw) // width(dtype),))
        made.append(side.checkpoint())
    return made


def compare(a, b, **options) -> Difference:
    return differences(a, b, [(1, 1)], **options)[1, 1]


def numbers(bits: np.ndarray, dtype: str) -> list[float]:
    return floats(bits, DTYPES[dtype]).tolist()


def naive(a: np.ndarray, b: np.ndarray, dtype: str, near: Tolerance) -> Difference:
    """What the documentation says of real floats of one type, element by element."""
    x, y = numbers(a, dtype), numbers(b, dtype)
    changed = [i for i in range(len(x)) if a[i] != b[i]]
    both = [i for i in range(len(x)) if math.isfinite(x[i]) and math.isfinite(y[i])]
    apart = {i: abs(x[i] - y[i]) for i in both}
    ulps = {i: steps(int(a[i]), int(b[i]), 8 * width(dtype)) for i in both}

    def far(i: int) -> bool:
        if near.bitwise:
            return True
        if i not in apart:
            return not (math.isnan(x[i]) and math.isnan(y[i]))
        within = apart[i] <= near.atol + near.rtol * max(abs(x[i]), abs(y[i]))
        return not (within or (near.ulp and ulps[i] <= near.ulp))

    squares = [math.fsum(v * v for v in (side[i] for i in both)) for side in (x, y)]
    length = math.sqrt(squares[0]) * math.sqrt(squares[1])
    return Difference(
        len(x), len(x), len(changed), sum(map(far, changed)),
        max(apart.values(), default=0.0),
        math.fsum(apart.values()) / max(len(both), 1),
        max((apart[i] / max(abs(x[i]), abs(y[i])) for i in both if apart[i]), default=0.0),
        math.sqrt(math.fsum(d * d for d in apart.values()) / max(len(both), 1)),
        math.fsum(x[i] * y[i] for i in both) / length if length else None,
        max(ulps.values(), default=0),
        changed[0] if changed else None,
        sum(math.isnan(q) and not math.isnan(p) for p, q in zip(x, y, strict=True)),
        sum(math.isnan(p) and not math.isnan(q) for p, q in zip(x, y, strict=True)),
        sum(math.isinf(q) and not math.isinf(p) for p, q in zip(x, y, strict=True)),
        sum(math.isinf(p) and not math.isinf(q) for p, q in zip(x, y, strict=True)),
        math.sqrt(max(squares) / len(both)) if both and max(squares) > 1e-300 else None,
    )  # fmt: skip


def steps(a: int, b: int, bits: int) -> int:
    """Numbers of the grid between two patterns, both zeros being one."""
    sign = 1 << bits - 1
    p, q = (-(v - sign) if v & sign else v for v in (a, b))
    return abs(p - q)


EXACT = "numel compared changed beyond max_abs max_rel max_ulp first new_nan lost_nan new_inf lost_inf".split()


def same(found: Difference, expected: Difference) -> None:
    assert {f: getattr(found, f) for f in EXACT} == {f: getattr(expected, f) for f in EXACT}
    for name in ("mean_abs", "rms"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-12, abs=1e-300), name
    if found.changed:
        assert found.scale == (None if expected.scale is None else pytest.approx(expected.scale, rel=1e-12))
        assert found.cosine == (None if expected.cosine is None else pytest.approx(expected.cosine, abs=1e-12))


@st.composite
def patterns(draw: st.DrawFn, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Two runs of any bits that have most elements in common; of float64 only such that squares fit."""
    kind = f"u{width(dtype)}"
    seed, numel = draw(st.integers(0, 2**32 - 1)), draw(st.integers(1, 400))
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 2 ** (8 * width(dtype)), numel, dtype=kind)
    if dtype == "float64":
        a = (rng.standard_normal(numel) * 10.0 ** rng.integers(-60, 60, numel)).view(kind)
    b = a.copy()
    for place in draw(st.lists(st.integers(0, numel - 1), max_size=6)):
        b[place] = draw(st.sampled_from([int(a[place]) ^ 1, int(a[-1]), int(a[0]) ^ 3, 0]))
    special = draw(st.sampled_from([0, 2 ** (8 * width(dtype) - 1), special_of(dtype), special_of(dtype) | 1]))
    a[draw(st.integers(0, numel - 1))] = special
    b[draw(st.integers(0, numel - 1))] = special
    return a, b


def special_of(dtype: str) -> int:
    found = DTYPES[dtype]
    return ((1 << found.exponent) - 1) << found.mantissa


tolerances = st.one_of(
    st.just(Tolerance()),
    st.builds(Tolerance, st.sampled_from([0.0, 1e-6, 0.5]), st.sampled_from([0.0, 1e-3]), st.sampled_from([0, 1, 9])),
)  # fmt: skip


@pytest.fixture(params=["compiled", "numpy"])
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "numpy":
        monkeypatch.setattr(compiled, "_library", lambda: None)
    elif not compiled.compiled(DTYPES["float32"]):
        pytest.skip("the package was built without a compiler")
    return request.param


@pytest.mark.parametrize("dtype", FLOATS)
@quiet
@given(data=st.data())
def test_floats_differ_as_documented(maker, tmp_path, implementation, dtype, data) -> None:
    a, b = data.draw(patterns(dtype))
    near = data.draw(tolerances)
    found = compare(*pair_of(maker, tmp_path, a, b, dtype), tolerance=near)
    same(found, naive(a, b, dtype, near))


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@quiet
@given(data=st.data())
def test_both_implementations_agree_to_the_bit(dtype, data) -> None:
    if not compiled.compiled(DTYPES[dtype]):
        pytest.skip("the package was built without a compiler")
    kind = f"u{width(dtype)}"
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    numel = data.draw(st.sampled_from([1, 63, 64, 65, 1023, 1024, 1025, LEAF - 1, LEAF, LEAF + 1]))
    a = rng.integers(0, 2 ** (8 * width(dtype)), numel, dtype=kind)
    b = np.where(rng.random(numel) < data.draw(st.sampled_from([0.0, 0.01, 1.0])), rng.permutation(a), a)
    near = data.draw(tolerances)
    mine = compiled.tally(a, b, DTYPES[dtype], near, 5)
    leaves = range(0, numel, LEAF)
    parts = [tally(a[i : i + LEAF], b[i : i + LEAF], DTYPES[dtype], DTYPES[dtype], near, 5 + i) for i in leaves]
    theirs = merged(parts)
    assert [struct.pack("<5d", *leaf) for leaf in mine.sums if not any(map(math.isnan, leaf))] == [
        struct.pack("<5d", *leaf) for leaf in theirs.sums if not any(map(math.isnan, leaf))
    ]
    for name in EXACT[1:]:
        found = "compared" if name == "numel" else name
        assert getattr(mine, found) == getattr(theirs, found), found


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("place", [0, 1, LEAF - 1, LEAF, 3 * LEAF + 16])
def test_one_ulp_anywhere_is_found(maker, tmp_path, implementation, dtype, place) -> None:
    a = np.full(3 * LEAF + 17, 0x33, f"u{width(dtype)}")
    b = a.copy()
    b[place] += 1
    found = compare(*pair_of(maker, tmp_path, a, b, dtype))
    assert (found.changed, found.first, found.max_ulp) == (1, place, 1)
    assert compare(*pair_of(maker, tmp_path, a, b, dtype), tolerance=Tolerance(ulp=1)).beyond == 0


@pytest.mark.parametrize("how", [{}, {"swapped": True}, {"deflate": True}, {"swapped": True, "deflate": True}])
def test_layout_does_not_matter(maker, tmp_path, how) -> None:
    rng = np.random.default_rng(1)
    a = rng.standard_normal(2 * LEAF + 5).astype("f4")
    b = a.copy()
    b[[7, LEAF, -1]] += np.float32(0.25)
    plain = compare(*pair_of(maker, tmp_path, a.view("u4"), b.view("u4"), "float32"))
    assert plain.changed == 3
    assert compare(*pair_of(maker, tmp_path, a.view("u4"), b.view("u4"), "float32", **how)) == plain


def test_strides_do_not_matter(maker, tmp_path) -> None:
    values = np.random.default_rng(2).standard_normal((300, 500)).astype("f4")
    other = values + np.float32(0.5)
    sides = [type(maker)(tmp_path / name) for name in "abc"]
    sides[0].array("t", values)
    sides[1].array("t", other)
    sides[2].tensor("t", sides[2].storage(other.T.copy().tobytes(), "float32"), "float32", (300, 500), (1, 300))
    a, b, c = (side.checkpoint() for side in sides)
    assert compare(a, b) == compare(a, c)
    assert compare(b, c).equal
    assert digests(b, [1]) == digests(c, [1]) != digests(a, [1])


def test_no_executor_window_unit_or_block_changes_the_answer(maker, tmp_path, monkeypatch) -> None:
    rng = np.random.default_rng(3)
    a = rng.standard_normal(9 * LEAF + 11).astype("f4")
    b = a.copy()
    b[5 * LEAF :] *= np.float32(1.0001)
    sides = pair_of(maker, tmp_path, a.view("u4"), b.view("u4"), "float32")
    expected = compare(*sides)
    assert expected.first == 5 * LEAF
    with ThreadPoolExecutor(3) as threads, ProcessPoolExecutor(2) as processes:
        for options in ({"executor": threads}, {"executor": processes}, {"unit": LEAF}, {"unit": 3 * LEAF}):
            assert compare(*sides, **options) == expected
        assert compare(*sides, executor=threads, unit=2 * LEAF, window=1) == expected
    monkeypatch.setattr(two, "BLOCK", 4 * LEAF)
    assert compare(*sides) == expected


@pytest.mark.parametrize(("x", "y"), [("bfloat16", "float32"), ("float16", "float32"), ("float16", "bfloat16"),
                                      ("float8_e5m2", "float16"), ("float32", "float64")])  # fmt: skip
def test_exact_copies_in_another_type_are_equal(maker, tmp_path, x, y) -> None:
    bits = np.arange(0, 1 << min(16, 8 * width(x)), 7).astype(f"u{width(x)}")
    if x == "float32":
        bits = bits << 16
    if (x, y) == ("float16", "bfloat16"):
        bits = bits & 0xFF00  # few enough digits for either
        keep = np.abs(floats(bits, DTYPES[x])) >= 2.0**-14
        bits = bits[keep]
    values = floats(bits, DTYPES[x])
    with np.errstate(all="ignore"):
        wide = values.astype("f4").view("u4") >> 16 if y == "bfloat16" else values.astype(f"f{width(y)}")
    wide = wide.astype("u2") if y == "bfloat16" else wide.view(f"u{width(y)}")
    found = compare(*pair_of(maker, tmp_path, bits, wide, x, y))
    assert (found.changed, found.compared, found.max_ulp) == (0, len(bits), 0)
    wide[9] ^= 1
    assert compare(*pair_of(maker, tmp_path, bits, wide, x, y)).first == 9


@pytest.mark.parametrize(
    ("a", "x", "b", "y", "changed", "distance"),
    [
        ([2**62, 5], "int64", [2**62 + 1, 5], "int64", 1, 1.0),
        ([-(2**63), 0], "int64", [2**64 - 1, 0], "uint64", 1, 2.0**63 + 2.0**64),
        ([-1, 3], "int8", [255, 3], "uint8", 1, 256.0),
        ([-1, 3], "int8", [-1, 3], "int64", 0, 0.0),
        ([0, 1], "bool", [0, 1], "int32", 0, 0.0),
        ([2**53 + 1, 1], "int64", [2.0**53, 1.0], "float64", 1, 0.0),
        ([2**63 - 1, 1], "int64", [2.0**63, 1.0], "float64", 1, 0.0),
        ([7, 1], "int32", [7.0, 1.5], "float32", 1, 0.5),
        ([200, 1], "quint8", [100, 1], "quint8", 1, 100.0),
        ([-100, 1], "qint8", [100, 1], "qint8", 1, 200.0),
    ],
)
def test_whole_numbers_are_compared_exactly(maker, tmp_path, a, x, b, y, changed, distance) -> None:
    kinds = {"bool": "u1", "quint8": "u1", "qint8": "i1"}
    left, right = np.array(a, kinds.get(x, x)), np.array(b, kinds.get(y, y))
    sides = (left.view(f"u{left.itemsize}"), right.view(f"u{right.itemsize}"))
    found = compare(*pair_of(maker, tmp_path, *sides, x, y))
    assert (found.changed, found.max_abs, found.max_ulp) == (changed, distance, None)
    mirrored = compare(*pair_of(maker, tmp_path, *sides[::-1], y, x))
    assert (mirrored.changed, mirrored.max_abs) == (changed, distance)


@pytest.mark.parametrize(("dtype", "bits"), [("float4_e2m1fn", 4), ("float6_e2m3fn", 6), ("quint4x2", 4)])
def test_elements_narrower_than_a_byte(maker, tmp_path, dtype, bits) -> None:
    numel = 2 * LEAF + 8
    codes = np.random.default_rng(4).integers(0, 1 << bits, numel)
    other = codes.copy()
    codes[LEAF + 3], other[LEAF + 3] = 3, 4
    sides = []
    for name, values in (("a", codes), ("b", other), ("c", codes)):
        flags = (values[:, None] >> np.arange(bits)) & 1
        side = type(maker)(tmp_path / name)
        storage = side.storage(np.packbits(flags.astype("u1").ravel(), bitorder="little").tobytes(), dtype)
        side.tensor("t", storage, dtype, (numel,))
        sides.append(side.checkpoint())
    found = compare(sides[0], sides[1])
    assert (found.numel, found.compared, found.changed, found.first) == (numel, numel, 1, LEAF + 3)
    step = {"float4_e2m1fn": 0.5, "float6_e2m3fn": 0.125, "quint4x2": 1.0}[dtype]
    assert (found.max_abs, found.max_ulp) == (step, None if dtype == "quint4x2" else 1)
    assert compare(sides[0], sides[2]).equal


def test_complex_elements_count_once(maker, tmp_path) -> None:
    a = np.array([1 + 2j, 3 + 4j, complex(math.nan, 1), 0], "c8")
    b = np.array([1 + 2j, 4 + 5j, complex(1, 1), complex(0, math.inf)], "c8")
    sides = []
    for name, values in (("a", a), ("b", b), ("r", np.array([1, 3, 0, 0], "f4"))):
        side = type(maker)(tmp_path / name)
        side.array("t", values, values.dtype.name)
        sides.append(side.checkpoint())
    found = compare(sides[0], sides[1])
    assert (found.numel, found.changed, found.first, found.max_abs) == (4, 3, 1, 1.0)
    assert (found.lost_nan, found.new_inf) == (1, 1)
    assert compare(sides[0], sides[2]).changed == 3


def test_cosine(maker, tmp_path) -> None:
    def cosine(a: list[float], b: list[float]) -> float | None:
        x, y = (np.array(v, "f4").view("u4") for v in (a, b))
        return compare(*pair_of(maker, tmp_path, x, y, "float32")).cosine

    assert cosine([1, 0], [0, 1]) == 0.0
    assert cosine([1, 2], [-1, -2]) == -1.0
    assert cosine([1, 2], [1, 2]) == 1.0
    assert cosine([0, 0], [0, 1]) is None
    assert cosine([0, 0], [0, 0]) is None
    assert cosine([0, -0.0], [0, 0]) is None


def test_infinities_and_nan_under_a_tolerance(maker, tmp_path, implementation) -> None:
    inf, nan = math.inf, math.nan
    a = np.array([inf, inf, nan, 1, -0.0], "f4").view("u4")
    b = np.array([inf, -inf, nan, nan, 0.0], "f4").view("u4")
    b[2] |= 1  # NaN of other bits
    strict = compare(*pair_of(maker, tmp_path, a, b, "float32"))
    assert (strict.changed, strict.beyond, strict.new_nan) == (4, 4, 1)
    loose = compare(*pair_of(maker, tmp_path, a, b, "float32"), tolerance=Tolerance(rtol=10.0))
    assert (loose.changed, loose.beyond) == (4, 2)


def test_a_side_that_ends_early_is_told(maker, tmp_path) -> None:
    a = np.arange(3 * LEAF, dtype="u4")
    for other in (a, a + np.uint32(1)):
        sides = pair_of(maker, tmp_path, a, other, "float32")
        path = tmp_path / "side1"
        path.write_bytes(path.read_bytes()[: 64 + 4 * (LEAF + 10) + 1])
        found = compare(*sides)
        assert found.compared == LEAF + 10
        assert not found.equal
        assert not found.close
    path.unlink()
    assert compare(*sides).compared == 0


def test_what_cannot_be_compared_is_told(maker, tmp_path) -> None:
    a, b = pair_of(maker, tmp_path, np.arange(8, dtype="u4"), np.arange(8, dtype="u4"), "float32")
    node = a.nodes[1]
    wrong = type(node)(node.dtype, (9,), (1,), 0, 0)
    broken = type(a)(a.source, a.format, (a.nodes[0], wrong, a.nodes[2]), a.root, a.storages, a.extents)
    found = differences(broken, b, [(1, 1)])[1, 1]
    assert (found.numel, found.compared, found.equal) == (9, 0, False)


def test_one_file_against_itself_needs_little_reading(maker, tmp_path) -> None:
    maker.array("t", np.ones(4 * LEAF, "f4"))
    maker.array("zeros", np.zeros(4 * LEAF, "f4"))
    checkpoint = maker.checkpoint()
    read = 0

    class Counted(Memory):
        def readinto(self, start: int, buffer: memoryview) -> int:
            nonlocal read
            read += len(buffer)
            return super().readinto(start, buffer)

    source = Counted(maker.path.read_bytes(), checkpoint.source)
    found = differences(checkpoint, checkpoint, [(1, 1), (3, 3)], sources=[source])
    assert found[1, 1].equal
    assert found[1, 1].cosine == 1.0
    assert found[3, 3].cosine is None
    assert read < 6 * LEAF * 4
    maker.cut(100)
    assert differences(checkpoint, checkpoint, [(3, 3)])[3, 3].compared == 0


@pytest.mark.parametrize("kept", [0, 64, 1000, 10**6])
def test_many_small_tensors_are_told_apart_even_in_a_short_file(maker, tmp_path, kept) -> None:
    sides = [type(maker)(tmp_path / name) for name in "ab"]
    for side in sides:
        for number in range(40):
            side.array(str(number), np.full(5, number + (number == 7 and side is sides[1]), "f4"))
    a, b = (side.checkpoint() for side in sides)
    sides[1].cut(kept)
    found = differences(a, b, [(2 * n + 1, 2 * n + 1) for n in range(40)])
    for number, (_, second) in enumerate(found):
        span = b.storages[number].span
        assert span is not None
        there = min(5, max(0, kept - span.start) // 4)
        assert found[second, second].compared == there
        assert found[second, second].changed == (there if number == 7 else 0)


def test_the_scale_is_the_larger_side_s_root_mean_square(maker, tmp_path) -> None:
    a, b = np.array([3, 4], "f4").view("u4"), np.array([0, 0], "f4").view("u4")
    for sides in ((a, b), (b, a)):
        found = compare(*pair_of(maker, tmp_path, *sides, "float32"))
        assert found.scale == pytest.approx(math.sqrt(12.5))
        assert found.rms == found.scale


def test_nothing_in_it_is_equal(maker, tmp_path) -> None:
    none = np.zeros(0, "u4")
    assert compare(*pair_of(maker, tmp_path, none, none, "float32")).equal


def test_progress_ends_at_the_whole(maker, tmp_path) -> None:
    a = np.arange(5 * LEAF, dtype="u4")
    told: list[tuple[int, int]] = []
    compare(*pair_of(maker, tmp_path, a, a[::-1].copy(), "int32"), progress=lambda *told_: told.append(told_))
    assert told[-1] == (2 * a.nbytes, 2 * a.nbytes)


def test_recorded_speaks_of_whole_storages_only(maker) -> None:
    values = np.arange(12, dtype="f4")
    maker.array("whole", values)
    maker.tensor("part", 0, "float32", (6,))
    maker.tensor("turned", 0, "float32", (3, 4), (1, 3))
    maker.array("swapped", values, swapped=True)
    checkpoint = maker.checkpoint()
    found = recorded(checkpoint, range(len(checkpoint.nodes)))
    assert list(found) == [maker.index("whole")]
    assert found[1][0] == "crc32"
    assert found[1][2:] == (48, "float32")


def test_digests_are_of_the_content_alone(maker) -> None:
    values = np.arange(LEAF + 3, dtype="f4")
    maker.array("a", values)
    maker.array("b", values, swapped=True)
    maker.array("c", values, deflate=True)
    maker.array("d", values[::-1].copy())
    found = digests(maker.checkpoint(), [1, 3, 5, 7])
    assert found[1] == found[3] == found[5] == xxhash.xxh3_128(values.tobytes()).hexdigest() != found[7]
