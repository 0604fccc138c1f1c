"""What the interop tests share: frameworks by name, a tiny network, and the comparison with what a loader gives."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

from ckpttool import describe, verify
from ckpttool.cli import main
from ckpttool.model import Tensor
from ckpttool.source import LocalFile

SITE = Path(__file__).parent / "site"

Content = dict[str, tuple[str, tuple[int, ...], bytes]]


@pytest.fixture(scope="session", autouse=True)
def offline() -> Iterator[None]:
    """No framework asks a server for anything, and none uses more threads than the tests were given."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        patch.setenv("TOKENIZERS_PARALLELISM", "false")
        yield


@pytest.fixture(scope="session", autouse=True)
def torchvision_imports() -> Iterator[None]:
    """Where torchvision's operators do not load, it is imported without them, in the processes that tests start too."""
    with pytest.MonkeyPatch.context() as patch:
        if find_spec("torch") is not None and find_spec("torchvision") is not None:
            try:
                importlib.import_module("torchvision")
            except RuntimeError:
                for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
                    del sys.modules[name]
                patch.syspath_prepend(SITE)
                patch.setenv("PYTHONPATH", str(SITE), prepend=os.pathsep)
                importlib.import_module("torchvision_operators")
                importlib.import_module("torchvision")
        yield


@pytest.fixture(scope="session")
def framework(offline: None, torch: ModuleType) -> Callable[[str], ModuleType]:
    """Import a framework by name. In tox's environment one that is missing fails; elsewhere it skips."""

    def get(name: str) -> ModuleType:
        if os.environ.get("CKPTTOOL_REQUIRE_TORCH"):
            return importlib.import_module(name)
        return pytest.importorskip(name, reason=f"{name} is not installed")

    return get


@pytest.fixture
def network(torch: ModuleType) -> Any:
    """Four parameters and three buffers, no two parameters of one shape."""
    torch.manual_seed(7)
    nn = torch.nn
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5, affine=False), nn.ReLU(), nn.Linear(5, 3))


@pytest.fixture(scope="session")
def step(torch: ModuleType) -> Callable[[Any, Any], None]:
    """One training step."""

    def go(model: Any, optimizer: Any) -> None:
        def loss() -> Any:
            optimizer.zero_grad()
            found = model(torch.ones(4, 6).cumsum(0)).square().mean()
            found.backward()
            return found

        optimizer.step(loss)

    return go


@pytest.fixture(scope="session")
def same(torch: ModuleType) -> Callable[[Path, Any], None]:
    """Assert that a file as described is what its loader gave: containers, order, values, sharing, bytes."""
    from ckpttool.testing.oracle import differences

    def check(path: Path, loaded: Any) -> None:
        source = LocalFile(str(path))
        try:
            assert differences(describe(path), source, loaded) == []
        finally:
            source.close()

    return check


@pytest.fixture(scope="session")
def content() -> Callable[[Path], Content]:
    """The tensors of a checkpoint in one or many files: dtype, shape and bytes by the innermost key."""

    def read(path: Path) -> Content:
        checkpoint = describe(path)
        found: Content = {}
        for entry, tensor in checkpoint.tensors():
            assert tensor.storage is not None
            assert tensor.contiguous
            found[entry.path[-1]] = (
                tensor.dtype.name,
                tensor.shape,
                _bytes(checkpoint.storages[tensor.storage].span, tensor),
            )
        return found

    return read


def _bytes(span: Any, tensor: Tensor) -> bytes:
    start = span.start + tensor.dtype.nbytes(tensor.offset)
    with Path(span.source).open("rb") as file:
        file.seek(start)
        return file.read(tensor.nbytes)


@pytest.fixture(scope="session")
def as_content(torch: ModuleType) -> Callable[[dict[str, Any]], Content]:
    """The same of a state dict as a loader gives it."""

    def spell(state: dict[str, Any]) -> Content:
        found: Content = {}
        for key, tensor in state.items():
            flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
            name = str(tensor.dtype).removeprefix("torch.")
            found[key] = (name, tuple(tensor.shape), flat.numpy().tobytes())
        return found

    return spell


@pytest.fixture(scope="session")
def judged() -> Callable[..., dict[str, Any]]:
    """Verify one path, which has to be one target: its JSON, with ``exit_code`` and the findings' ``names``."""

    def check(path: Path, **wishes: Any) -> dict[str, Any]:
        report = verify([path], **wishes).json
        (target,) = report["targets"]  # type: ignore[misc, union-attr]
        assert isinstance(target, dict)
        findings: Any = target["findings"]
        return {**target, "exit_code": report["exit_code"], "names": {f["name"] for f in findings}}

    return check


Migrate = Callable[..., Path]


@pytest.fixture
def migrate(tmp_path: Path) -> Migrate:
    """Run the command on a file, in this process: the migrated one. Arguments are options, named ones given values."""

    def run(source: Path, preset: str, *options: str, output: Path | None = None, **given: Any) -> Path:
        made = output or tmp_path / f"{source.stem}-{len(list(tmp_path.iterdir()))}{source.suffix}"
        settings = [part for name, value in given.items() for part in ("--set", f"{name}={value}")]
        rules = ["--rules", preset] if preset.endswith(".yaml") else ["--preset", preset]
        command = ["migrate", str(source), "-o", str(made), *rules, *settings, *options]
        done = CliRunner().invoke(main, command, prog_name="ckpttool")
        assert done.exit_code == 0, f"{done.output}{done.exception!r}"
        return made

    return run


@pytest.fixture(scope="session")
def equal(torch: ModuleType) -> Callable[[Any, Any], bool]:
    """Whether two loaded objects are the same, bit for bit: kinds, order of keys, values, element types, shapes."""

    def same(one: Any, other: Any) -> bool:
        if isinstance(one, torch.Tensor):
            return (
                (one.dtype, one.shape) == (other.dtype, other.shape)
                and type(one) is type(other)
                and torch.equal(bits(one), bits(other))
            )
        if isinstance(one, dict):
            return (
                type(one) is type(other) and list(one) == list(other) and all(same(v, other[k]) for k, v in one.items())
            )
        if isinstance(one, list | tuple):
            return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
        return type(one) is type(other) and one == other

    def bits(tensor: Any) -> Any:
        return tensor.detach().contiguous().reshape(-1).view(torch.uint8)

    return same


@pytest.fixture(scope="session")
def train(torch: ModuleType) -> Callable[..., list[float]]:
    """Train a model some steps on fixed batches: the losses. ``loss`` takes the model and a step's number."""

    def go(model: Any, optimizer: Any, loss: Callable[[Any, int], Any], steps: range) -> list[float]:
        losses = []
        model.train()
        for number in steps:
            optimizer.zero_grad()
            found = loss(model, number)
            found.backward()
            optimizer.step()
            losses.append(float(found))
        return losses

    return go
