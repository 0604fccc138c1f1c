"""One reading gives what two would."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import xxhash
from hypothesis import given, settings, strategies as st

from ckpttool.formats import describe
from ckpttool.measure import one_pass, seals
from ckpttool.testing.samples import FILES, FOLDERS, training_state, weights
from ckpttool.testing.writers import legacy_file, safetensors_file, torch_file


@st.composite
def cases(draw: st.DrawFn) -> tuple[bytes, int, list[tuple[int, int]]]:
    size = draw(st.integers(0, 4000))
    edges = sorted(draw(st.lists(st.integers(0, size), max_size=12)))
    spans = [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=False) if a < b]
    return random.Random(size).randbytes(size), draw(st.integers(1, 700)), spans


@given(cases(), st.integers(1, 900), st.integers(1, 300), st.booleans())
@settings(deadline=None)
def test_blocks_and_ranges(
    tmp_path_factory: pytest.TempPathFactory,
    case: tuple[bytes, int, list[tuple[int, int]]],
    stride: int,
    piece: int,
    threads: bool,
) -> None:
    data, block, spans = case
    path = tmp_path_factory.mktemp("x") / "file"
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(3) as executor:
        patch.setattr(one_pass, "STRIDE", stride)
        patch.setattr(one_pass, "_PIECE", piece)
        done: list[int] = []
        blocks, known = one_pass.file_digests(
            str(path), block, spans, executor=executor if threads else None, progress=done.append
        )
    assert blocks == tuple(xxhash.xxh3_128_hexdigest(data[at : at + block]) for at in range(0, len(data), block))
    assert known == {(a, b): xxhash.xxh3_128_hexdigest(data[a:b]) for a, b in spans}
    assert sum(done) == len(data)


@pytest.mark.parametrize("name", sorted({*FILES, *FOLDERS}))
def test_samples(tmp_path: Path, name: str) -> None:
    """Every sample: torch zip, legacy, safetensors, shards, folders, DCP."""
    made = FILES[name]() if name in FILES else FOLDERS[name]()
    files = made if isinstance(made, dict) else {"file": made}
    for file, data in files.items():
        (tmp_path / file).write_bytes(data)
    single = [f for f in files if not f.endswith(".manifest.json")]
    checkpoint = describe(tmp_path / single[0] if len(single) == 1 else tmp_path)
    paths = [(file, 1 << 16) for file in checkpoint.files]
    blocks, tensors = one_pass.sealed_at_once(checkpoint, paths)
    assert tensors == seals.tensor_seals(checkpoint)
    assert blocks == {path: seals.block_digests(path, block) for path, block in paths}


def test_tensors_that_do_not_lie_in_one_piece(tmp_path: Path) -> None:
    for data in (torch_file(training_state()), legacy_file(training_state()), safetensors_file(weights())):
        (tmp_path / "x").write_bytes(data)
        checkpoint = describe(tmp_path / "x")
        _, tensors = one_pass.sealed_at_once(checkpoint, [(str(tmp_path / "x"), 1 << 20)])
        assert tensors == seals.tensor_seals(checkpoint)
