"""State dicts of pickled modules, compared with those that torch itself gives."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ckpttool.errors import UsageError
from ckpttool.verbs.repair import repair

# torch warns of what it will not write for ever, and of sources that it does not find.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def nets(torch: ModuleType) -> ModuleType:
    """Classes that can be pickled by name."""
    nn = torch.nn
    made = type(sys)("ckpttool_test_nets")

    class Block(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 4)
            self.norm = nn.BatchNorm1d(4)
            self.register_buffer("passing", torch.ones(2), persistent=False)
            self.register_buffer("kept", torch.arange(2))
            self.register_buffer("none", None)
            self.scale = nn.Parameter(torch.randn(5))
            self.register_parameter("absent", None)
            self.plain = torch.ones(3)

    class Net(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(7, 3)
            self.block = Block()
            self.layers = nn.ModuleList([nn.Conv2d(1, 2, 3).to(memory_format=torch.channels_last), nn.GRU(3, 4, 2)])
            self.head = nn.Linear(3, 7)
            self.head.weight = self.embedding.weight
            self.again = self.block
            self.dict = nn.ParameterDict({"a": nn.Parameter(torch.zeros(2))})
            self.old = nn.utils.spectral_norm(nn.Linear(3, 3))

    for cls in (Block, Net):
        cls.__module__, cls.__qualname__ = made.__name__, cls.__name__
        setattr(made, cls.__name__, cls)
    sys.modules[made.__name__] = made
    return made


def extracted(torch: ModuleType, path: Path, **wishes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    target = path.with_name("weights.pth")
    report = repair(path, target, extract_weights=True, **wishes).json
    return torch.load(target if report["written"] else path, weights_only=True), report


def assert_same_state(torch: ModuleType, found: dict[str, Any], meant: dict[str, Any]) -> None:
    assert list(found) == list(meant)
    for name, tensor in meant.items():
        assert type(found[name]) is torch.Tensor
        assert torch.equal(found[name], tensor)
        assert (found[name].dtype, found[name].stride()) == (tensor.dtype, tensor.stride())
        assert not found[name].requires_grad
    assert ties(found) == ties(meant)


def ties(state: dict[str, Any]) -> list[list[str]]:
    homes: dict[int, list[str]] = {}
    for name, tensor in state.items():
        homes.setdefault(tensor.untyped_storage().data_ptr(), []).append(name)
    return sorted(homes.values())


@pytest.mark.parametrize("how", [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}], ids=str)
@pytest.mark.parametrize("inside", [False, True])
def test_a_module_becomes_its_state_dict(
    torch: ModuleType, nets: ModuleType, tmp_path: Path, how: dict[str, Any], inside: bool
) -> None:
    net = nets.Net()
    value = {"epoch": 3, "model": net, "optimizer": torch.optim.SGD(net.parameters(), lr=0.1).state_dict()}
    torch.save(value if inside else net, tmp_path / "in.pth", **how)
    found, report = extracted(torch, tmp_path / "in.pth")
    assert_same_state(torch, found, net.state_dict())
    assert report["exit_code"] == 0
    assert report["lost"] == []
    net.load_state_dict(found)


def test_wrappers_keep_their_names(torch: ModuleType, nets: ModuleType, tmp_path: Path) -> None:
    net = torch.nn.DataParallel(nets.Net())
    torch.save(net, tmp_path / "in.pth")
    found, _ = extracted(torch, tmp_path / "in.pth")
    assert_same_state(torch, found, net.state_dict())


def test_types_without_a_storage_class(torch: ModuleType, tmp_path: Path) -> None:
    net = torch.nn.Linear(3, 2).to(torch.float8_e4m3fn)
    torch.save(net, tmp_path / "in.pth")
    found, _ = extracted(torch, tmp_path / "in.pth")
    assert found["weight"].dtype == torch.float8_e4m3fn
    assert torch.equal(found["weight"].view(torch.uint8), net.weight.detach().view(torch.uint8))


def test_scripts(torch: ModuleType, tmp_path: Path) -> None:
    nn = torch.nn
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Sequential(nn.Linear(2, 2)))
    scripted = torch.jit.script(net)
    torch.jit.save(scripted, tmp_path / "in.pt")
    found, report = extracted(torch, tmp_path / "in.pt")
    assert_same_state(torch, found, scripted.state_dict())
    assert report["lost"] == []


def test_sanitize_alone_says_what_scripts_need(torch: ModuleType, tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), tmp_path / "in.pt")
    with pytest.raises(UsageError, match="--extract-weights"):
        repair(tmp_path / "in.pt", tmp_path / "out.pth", sanitize=True)


def test_sections(torch: ModuleType, tmp_path: Path) -> None:
    net = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    ema = {name: tensor * 2 for name, tensor in net.state_dict().items()}
    value = {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "ema": ema, "epoch": 1}
    torch.save(value, tmp_path / "in.pth")
    for name, meant in (("weights", net.state_dict()), ("ema", ema)):
        target = tmp_path / f"{name}.pth"
        repair(tmp_path / "in.pth", target, sections=[name])
        assert_same_state(torch, torch.load(target, weights_only=True), meant)
    repair(tmp_path / "in.pth", tmp_path / "o.pth", sections=["optimizer"])
    assert list(torch.load(tmp_path / "o.pth", weights_only=True)) == ["state", "param_groups"]
    repair(tmp_path / "in.pth", tmp_path / "two.pth", sections=["weights", "ema"])
    assert list(torch.load(tmp_path / "two.pth", weights_only=True)) == ["model", "ema"]
    with pytest.raises(UsageError, match="has no section 'scaler'"):
        repair(tmp_path / "in.pth", sections=["scaler"])


def test_weights_alone_are_left_alone(torch: ModuleType, tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "in.pth")
    assert repair(tmp_path / "in.pth", extract_weights=True).json["sound"]
