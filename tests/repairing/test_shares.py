"""How much of a cut file comes back: a transformer of 6.8 M parameters with AdamW, 300 tensors and 81.5 MB."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ckpttool.formats import describe
from ckpttool.testing.plain import StateDict, Tensor, tensor
from ckpttool.testing.writers import torch_file
from ckpttool.verbs.repair import repair

pytestmark = pytest.mark.slow

WIDTH, INNER, WORDS, LAYERS = 256, 1024, 4000, 6
LAYER = {
    "self_attn.in_proj_weight": (3 * WIDTH, WIDTH), "self_attn.in_proj_bias": (3 * WIDTH,),
    "self_attn.out_proj.weight": (WIDTH, WIDTH), "self_attn.out_proj.bias": (WIDTH,),
    "linear1.weight": (INNER, WIDTH), "linear1.bias": (INNER,),
    "linear2.weight": (WIDTH, INNER), "linear2.bias": (WIDTH,),
    "norm1.weight": (WIDTH,), "norm1.bias": (WIDTH,), "norm2.weight": (WIDTH,), "norm2.bias": (WIDTH,),
}  # fmt: skip
SHARES = {25: (61, 24.4), 50: (98, 49.8), 75: (223, 74.4), 90: (295, 89.9), 99: (296, 94.9)}
"""Per cent of the file that is left: tensors that come back, and per cent of all payload bytes."""


def shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "embed.weight", (WORDS, WIDTH)
    for layer in range(LAYERS):
        for name, shape in LAYER.items():
            yield f"body.layers.{layer}.{name}", shape
    yield from (("head.weight", (WORDS, WIDTH)), ("head.bias", (WORDS,)))


def checkpoint() -> dict[str, Any]:
    rng = random.Random(5)
    noise = rng.randbytes(1 << 23)

    def drawn(shape: tuple[int, ...]) -> Tensor:
        count = 4
        for size in shape:
            count *= size
        start = rng.randrange((len(noise) - count) // 4) * 4
        return tensor(shape, noise[start : start + count])

    model = StateDict()
    for name, shape in shapes():
        model[name] = drawn(shape)
    state = {
        place: {"step": tensor((), noise[:4]), "exp_avg": drawn(shape), "exp_avg_sq": drawn(shape)}
        for place, (_, shape) in enumerate(shapes())
    }
    group = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01, "amsgrad": False}
    return {"model": model, "optimizer": {"state": state, "param_groups": [{**group, "params": [*state]}]}}


def contents(path: Path) -> dict[str, tuple[int, int]]:
    """The size and checksum of every tensor's bytes, by key."""
    found = describe(path)
    data = path.read_bytes()
    spans = {e.key: found.storages[t.storage].span for e, t in found.tensors() if t.storage is not None}
    return {k: (s.nbytes, zlib.crc32(data[s.start : s.stop])) for k, s in spans.items() if s is not None}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "whole.pth"
    path.write_bytes(torch_file(checkpoint()))
    return path


@pytest.mark.parametrize("cut", SHARES)
def test_all_that_is_left_comes_back(whole: Path, tmp_path: Path, cut: int) -> None:
    data = whole.read_bytes()
    (tmp_path / "cut.pth").write_bytes(data[: len(data) * cut // 100])
    found: Any = repair(tmp_path / "cut.pth", tmp_path / "saved.pth").json
    assert {(one["proof"], one["by"]) for one in found["recovered"]} == {("proved", "checksum")}
    before = contents(whole)
    after = {key.removeprefix("salvaged."): one for key, one in contents(tmp_path / "saved.pth").items()}
    assert len(before) == 300
    assert after.items() <= before.items()
    tensors, share = SHARES[cut]
    total = sum(nbytes for nbytes, _ in before.values())
    assert len(after) >= tensors
    assert round(100 * sum(nbytes for nbytes, _ in after.values()) / total, 1) >= share
