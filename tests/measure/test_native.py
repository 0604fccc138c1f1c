"""The compiled pass and NumPy give the same answers, for any bytes."""

from __future__ import annotations

import ctypes
import random
import shutil
import struct
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from ckpttool.dtypes import DTYPES, DType
from ckpttool.measure import measure, native
from ckpttool.measures import Measures
from ckpttool.model import Checkpoint, Extent, Mapping, Span, Storage, Tensor, Value

SOURCE = Path(native.__file__).with_name("_sweep.c")
KINDS = [d for d in DTYPES.values() if d.bits % 8 == 0]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ctypes.CDLL]:
    """The pass as it is in the tree, compiled for this test alone; skips where nothing can compile it."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    built = tmp_path_factory.mktemp("native") / "_sweep.so"
    flags = ["-O3", "-std=gnu11", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *flags, "-o", str(built), str(SOURCE)], check=True)
    patch = pytest.MonkeyPatch()
    patch.setattr(native, "LIBRARY", built)
    native.library.cache_clear()
    found = native.library()
    if found is None:
        pytest.skip("this processor lacks what the compiled pass needs")
    yield found
    patch.undo()
    native.library.cache_clear()


def both(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, **options: int) -> tuple[Measures, Measures]:
    fast = measure(checkpoint, **options)
    with monkeypatch.context() as patch:
        patch.setattr(native, "library", lambda: None)
        return fast, measure(checkpoint, **options)


def checkpoint_of(path: Path, parts: list[tuple[DType, int]]) -> Checkpoint:
    """Tensors one behind the other in a file, with a byte between them so that most are unaligned."""
    nodes: list[Value | Tensor | Mapping] = []
    storages, extents, at = [], [], 0
    for number, (dtype, numel) in enumerate(parts):
        span = Span(str(path), at, at + dtype.nbytes(numel))
        storages.append(Storage(str(number), dtype, span.nbytes, span, record=str(number)))
        extents.append(Extent(str(number), span))
        nodes.append(Tensor(dtype, (numel,), (1,), 0, number))
        at = span.stop + 1
    keys = tuple(range(len(nodes), 2 * len(nodes)))
    nodes += [Value(str(number)) for number in range(len(parts))]
    nodes.append(Mapping("dict", keys, tuple(range(len(parts)))))
    return Checkpoint(str(path), "test", tuple(nodes), len(nodes) - 1, tuple(storages), tuple(extents))


def content(rng: random.Random, nbytes: int, flavour: str) -> bytes:
    if flavour == "zeros":
        return bytes(nbytes)
    if flavour == "constant":
        return bytes([rng.randrange(256)]) * nbytes
    if flavour == "pages":  # random bytes with zeroed pages in them
        data = bytearray(rng.randbytes(nbytes))
        for _ in range(3):
            start = rng.randrange(max(1, nbytes // 4096)) * 4096
            data[start : start + 8192] = bytes(len(data[start : start + 8192]))
        return bytes(data)
    if flavour == "floats":
        return b"".join(struct.pack("<f", rng.gauss(0, 1)) for _ in range(nbytes // 4 + 1))[:nbytes]
    return rng.randbytes(nbytes)


@settings(max_examples=3 * settings().max_examples)
@given(
    parts=st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 3000)), min_size=1, max_size=6),
    flavour=st.sampled_from(["zeros", "constant", "pages", "floats", "random"]),
    seed=st.integers(0, 2**32),
    cut=st.integers(0, 2000),
)
def test_the_answers_are_the_same(library, tmp_path_factory, parts, flavour, seed, cut):
    path = tmp_path_factory.mktemp("x") / "data"
    checkpoint = checkpoint_of(path, parts)
    total = checkpoint.extents[-1].span.stop
    path.write_bytes(content(random.Random(seed), max(0, total - (cut if seed % 3 == 0 else 0)), flavour))
    fast, slow = both(checkpoint, pytest.MonkeyPatch(), unit=8192, block=4096)
    assert fast == slow


def test_large_runs_cross_blocks_and_units(library, tmp_path, monkeypatch):
    rng = random.Random(7)
    parts = [(DTYPES[name], 400_001) for name in ("float32", "bfloat16", "float64", "complex64", "uint8", "bool")]
    checkpoint = checkpoint_of(tmp_path / "data", parts)
    (tmp_path / "data").write_bytes(content(rng, checkpoint.extents[-1].span.stop, "pages"))
    fast, slow = both(checkpoint, monkeypatch)
    assert fast == slow
    assert any(span.zero_runs for span in fast.spans.values())


def test_real_fixtures_measure_the_same(library, fixtures_dir, monkeypatch):
    from ckpttool.formats import describe

    for name in ("training.pth", "dtypes.pth", "layouts.pth", "legacy.pth", "mlp.safetensors", "deflated.pth"):
        fast, slow = both(describe(fixtures_dir / name), monkeypatch)
        assert fast == slow, name


@pytest.mark.parametrize("length", [*range(140), 4096, 262_143, 1_000_003])
def test_its_crc_is_zips(library, length):
    data = random.Random(length).randbytes(length)
    library.ckpttool_crc32.restype = ctypes.c_uint32
    library.ckpttool_crc32.argtypes = [ctypes.c_uint32, ctypes.c_char_p, ctypes.c_int64]
    assert library.ckpttool_crc32(0, data, length) == zlib.crc32(data)
    assert library.ckpttool_crc32(99, data, length) == zlib.crc32(data, 99)
