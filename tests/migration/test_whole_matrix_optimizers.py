"""Optimizers whose state is not element-wise: exact under other names and in another order, else it is left behind.

Adafactor keeps rows and columns, Muon makes each step of a whole matrix, LBFGS keeps vectors over all parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ckpttool.formats import describe
from ckpttool.report import Report
from ckpttool.verbs.migrate import migrate

torch: ModuleType = pytest.importorskip("torch", reason="torch is not installed")
if not hasattr(torch.optim, "Muon"):
    pytest.skip("torch 2.9 and later have Muon", allow_module_level=True)

OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=0.05),
    "Muon": lambda p: torch.optim.Muon(p, lr=0.05),
    "LBFGS": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=2, history_size=3),
}


class Net(torch.nn.Module):
    """Two linear layers without biases, under two names."""

    def __init__(self, first: str, second: str, *, late: bool = False) -> None:
        super().__init__()
        layers = {first: torch.nn.Linear(5, 8, bias=False), second: torch.nn.Linear(8, 4, bias=False)}
        for name in reversed(layers) if late else layers:
            setattr(self, name, layers[name])
        self.names = (first, second)

    def forward(self, x: Any) -> Any:
        first, second = (getattr(self, name) for name in self.names)
        return second(torch.relu(first(x)))


class Halves(torch.nn.Module):
    """The same function with the first layer in two parts."""

    def __init__(self) -> None:
        super().__init__()
        self.a = torch.nn.Linear(5, 4, bias=False)
        self.b = torch.nn.Linear(5, 4, bias=False)
        self.down = torch.nn.Linear(8, 4, bias=False)

    def forward(self, x: Any) -> Any:
        return self.down(torch.relu(torch.cat([self.a(x), self.b(x)], -1)))


def train(model: Any, optimizer: Any, seed: int) -> list[float]:
    random = torch.Generator().manual_seed(seed)
    losses: list[float] = []
    for _ in range(3):
        x, y = torch.randn(6, 5, generator=random), torch.randn(6, 4, generator=random)

        def closure(x: Any = x, y: Any = y) -> Any:
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(model(x), y)
            loss.backward()
            return loss

        losses.append(optimizer.step(closure).item())
    return losses


def trained(name: str, path: Path, *, named: bool = False) -> tuple[Any, Any]:
    torch.manual_seed(3)
    model = Net("up", "down")
    optimizer = OPTIMIZERS[name](model.named_parameters() if named else model.parameters())
    train(model, optimizer, 1)
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
    return model, optimizer


def moved(path: Path, text: str, **more: Any) -> Report:
    rules = path.parent / "rules.yaml"
    rules.write_text(f"ckpttool: 1\nrules:\n{text}")
    return migrate(path, path.parent / "b.pt", rules=rules, **more)


def resumed(path: Path, model: Any, name: str, *, named: bool = False) -> tuple[Any, Any]:
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"], strict=True)
    optimizer = OPTIMIZERS[name](model.named_parameters() if named else model.parameters())
    optimizer.load_state_dict(state["optimizer"])
    return model, optimizer


def said(report: Report) -> list[str]:
    plan: Any = report.data["plan"]
    return [step["lossy"] for step in plan if step["lossy"]]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_under_other_names_training_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    model, optimizer = trained(name, tmp_path / "a.pt")
    report = moved(tmp_path / "a.pt", '- rename: "up.weight"\n  to: "fc.weight"\n')
    assert said(report) == []
    assert train(*resumed(tmp_path / "b.pt", Net("fc", "down"), name), 2) == train(model, optimizer, 2)


@pytest.mark.parametrize("name", ["Adafactor", "Muon"])
def test_in_another_order_too(name: str, tmp_path: Path) -> None:
    model, optimizer = trained(name, tmp_path / "a.pt")
    torch.save(Net("fc", "down", late=True).state_dict(), tmp_path / "new.pt")
    report = moved(tmp_path / "a.pt", '- rename: "up.weight"\n  to: "fc.weight"\n', to=tmp_path / "new.pt")
    assert said(report) == []
    new = Net("fc", "down", late=True)
    assert train(*resumed(tmp_path / "b.pt", new, name), 2) == train(model, optimizer, 2)


def test_the_vectors_of_lbfgs_do_not_follow_another_order(tmp_path: Path) -> None:
    trained("LBFGS", tmp_path / "a.pt", named=True)
    torch.save(Net("fc", "down", late=True).state_dict(), tmp_path / "new.pt")
    report = moved(tmp_path / "a.pt", '- rename: "up.weight"\n  to: "fc.weight"\n', to=tmp_path / "new.pt")
    assert any("LBFGS keeps one vector over all parameters" in why for why in said(report))
    new = Net("fc", "down", late=True)
    train(*resumed(tmp_path / "b.pt", new, "LBFGS", named=True), 2)


WORDS = {
    "Adafactor": "cannot follow through split",
    "Muon": "Muon makes its step of whole matrices",
    "LBFGS": "LBFGS keeps one vector over all parameters",
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_split_leaves_the_state_behind_and_says_so(name: str, tmp_path: Path) -> None:
    named = name == "LBFGS"
    trained(name, tmp_path / "a.pt", named=named)
    report = moved(tmp_path / "a.pt", '- split: "up.weight"\n  into: ["a.weight", "b.weight"]\n  dim: 0\n')
    assert any(WORDS[name] in why for why in said(report))
    state = torch.load(tmp_path / "b.pt", weights_only=True)["optimizer"]["state"]
    kept = [] if name == "LBFGS" else [2]
    assert list(state) == kept, "what was not split keeps its state"
    train(*resumed(tmp_path / "b.pt", Halves(), name, named=named), 2)


@pytest.mark.parametrize("name", ["Adafactor", "Muon"])
def test_a_transpose_leaves_the_state_behind_too(name: str, tmp_path: Path) -> None:
    trained(name, tmp_path / "a.pt")
    report = moved(tmp_path / "a.pt", '- transpose: "up.weight"\n')
    assert said(report)
    state = torch.load(tmp_path / "b.pt", weights_only=True)["optimizer"]["state"]
    assert list(state) == [1]
    assert not describe(tmp_path / "b.pt").damage
