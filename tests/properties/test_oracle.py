"""What is described is what the real loaders load: for every sound fixture, and for generated checkpoints."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given

from ckpttool.formats import describe_source
from ckpttool.source import Memory
from ckpttool.testing import strategies
from ckpttool.testing.oracle import differences
from ckpttool.testing.samples import FILES

torch: ModuleType = pytest.importorskip("torch", reason="torch is not installed")

FIXTURES = Path(__file__).parents[2] / "fixtures"
SUFFIXES = {".pth", ".pt", ".bin", ".ckpt", ".tar", ".safetensors"}
# A rebuilt class decides what these load as; a deflated record has no bytes to compare with.
OUTSIDE = {"module.pth", "legacy_module.pth", "deflated.pth", "jagged.pth", "dtensor.pth"}


def loadable() -> list[str]:
    """The fixtures that one of the two loaders may be asked for, by path."""
    found = [p for p in sorted(FIXTURES.rglob("*")) if p.suffix in SUFFIXES and "damaged" not in p.parts]
    return [p.relative_to(FIXTURES).as_posix() for p in found if p.name not in OUTSIDE]


def load(data: bytes, name: str = "") -> Any:
    """What the real loader gives; these are our own files, so torch may run what they name."""
    if name.endswith(".safetensors"):
        return pytest.importorskip("safetensors.torch", reason="safetensors is not installed").load(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(io.BytesIO(data), weights_only=False)


def described(data: bytes, loaded: Any) -> list[str]:
    source = Memory(data)
    return differences(describe_source(source), source, loaded)


@pytest.mark.parametrize("name", loadable())
def test_fixtures_are_described_as_they_load(name: str) -> None:
    data = (FIXTURES / name).read_bytes()
    try:
        loaded = load(data, name)
    except Exception as error:  # the loader refuses it, or needs a framework: nothing to compare with
        pytest.skip(f"the loader refuses it: {type(error).__name__}")
    if not isinstance(loaded, (dict, list, tuple, torch.Tensor)):
        pytest.skip(f"loads as a {type(loaded).__name__}")
    if name.endswith(".safetensors"):  # the library sorts names, the file does not
        loaded = {key: loaded[key] for key in safetensors_order(data)}
    assert described(data, loaded) == []


def safetensors_order(data: bytes) -> list[str]:
    checkpoint = describe_source(Memory(data))
    return [entry.key for entry, _ in checkpoint.tensors()]


def saved(value: Any, *, legacy: bool) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(value, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


@given(strategies.trees() | strategies.checkpoints())
def test_generated_checkpoints_are_described_as_they_load(value: Any) -> None:
    data = saved(value, legacy=False)
    assert described(data, load(data)) == []


OLD = strategies.dtypes(strategies.TYPED)


@given(strategies.trees(elements=OLD) | strategies.checkpoints(elements=OLD))
def test_so_are_those_of_the_old_format(value: Any) -> None:
    data = saved(value, legacy=True)
    assert described(data, load(data)) == []


@given(strategies.torch_files() | strategies.legacy_files())
def test_files_written_without_torch_load_and_are_described_alike(data: bytes) -> None:
    assert described(data, load(data)) == []


@given(strategies.safetensors_files())
def test_safetensors_files_load_and_are_described_alike(data: bytes) -> None:
    loaded = load(data, ".safetensors")
    assert described(data, {key: loaded[key] for key in safetensors_order(data)}) == []


@given(strategies.optimizers())
def test_optimizers_have_state_that_loads_again(optimizer: Any) -> None:
    data = saved(optimizer.state_dict(), legacy=False)
    optimizer.load_state_dict(load(data))
    assert described(data, load(data)) == []


def test_the_oracle_notices_a_changed_byte_and_a_changed_name() -> None:
    data = FILES["torch-zip"]()
    loaded = load(data)
    assert described(data, loaded) == []
    loaded["model"]["hidden.bias"][0] += 1
    assert any("hidden.bias: other bytes" in line for line in described(data, loaded))
    loaded["model"]["renamed"] = loaded["model"].pop("hidden.bias")
    assert any("key" in line for line in described(data, loaded))


def test_the_oracle_notices_another_container_and_a_lost_tie() -> None:
    tied = torch.zeros(3)
    data = saved({"a": tied, "b": tied}, legacy=False)
    assert described(data, {"a": tied, "b": tied}) == []
    assert described(data, [tied, tied]) != []
    two = saved({"a": tied, "b": tied.clone()}, legacy=False)
    assert described(two, {"a": tied, "b": tied}) != []
