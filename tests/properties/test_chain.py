"""The laws of chains on whole training states: there and back is the identity, one write is all steps one by one, and
training goes on as if nothing had happened."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from ckpttool.errors import CkpttoolError
from ckpttool.formats import describe
from ckpttool.stamps import stamps_of
from ckpttool.verbs.diff import diff
from ckpttool.verbs.migrate import migrate
from ckpttool.writing.compare import first_difference

torch: ModuleType = pytest.importorskip("torch", reason="torch is not installed")

CODE = """
import numpy as np

import ckpttool

@ckpttool.migration("{from_}", "{to}")
def up(keys):
    for name in keys.find("*weight"):
        if len(keys[name].shape or ()) == 2:
            keys["py{to}." + name] = keys.pop(name).map(lambda w: w[::-1], moves=True)

@up.down
def down(keys):
    for name in keys.find("py{to}.*"):
        keys[name.removeprefix("py{to}.")] = keys.pop(name).map(lambda w: w[::-1], moves=True)
"""


@pytest.fixture(autouse=True, scope="module")
def unflushed() -> Iterator[None]:
    """Flushing takes most of the time, and is tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        patch.setenv("SOURCE_DATE_EPOCH", "1700000000")
        yield


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@st.composite
def states(draw: st.DrawFn) -> dict[str, Any]:
    """Weights with biases, an average of them, and an AdamW of named parameters that has made steps."""
    count = draw(st.integers(1, 3))
    shapes: dict[str, tuple[int, ...]] = {}
    for i in range(count):
        shapes[f"layers.{i}.weight"] = (2 * draw(st.integers(1, 3)), draw(st.integers(1, 3)))
        shapes[f"layers.{i}.bias"] = shapes[f"layers.{i}.weight"][:1]
    parameters = {k: torch.nn.Parameter(torch.rand(s)) for k, s in shapes.items()}
    optimizer = torch.optim.AdamW(list(parameters.items()))
    for _ in range(draw(st.integers(0, 2))):
        for parameter in parameters.values():
            parameter.grad = torch.rand(parameter.shape)
        optimizer.step()
    weights = {k: p.detach() for k, p in parameters.items()}
    average = {k: p.detach() / 3 for k, p in parameters.items()}
    return {"model": weights, "ema": average, "optimizer": optimizer.state_dict(), "version": draw(st.just(0))}


STEPS = {
    "rename": "- rename: '{rest...}'\n  to: 'n{to}.{rest...}'\n",
    "turn": "- transpose: '{rest...}.weight'\n",
    "split": "- split: '{rest...}.layers.0.weight'\n  into: ['{rest...}.part.{to}.a', '{rest...}.part.{to}.b']\n"
    "  dim: 0\n  optional: true\n",
}


@st.composite
def chains(draw: st.DrawFn) -> list[str]:
    """The kinds of steps; a step in Python or one that renames comes first, so that patterns find a prefix."""
    rest = draw(st.lists(st.sampled_from(["rename", "turn", "code"]), max_size=3))
    return ["rename", *rest]


def write(kinds: list[str], here: Path) -> None:
    (here / "m").mkdir()
    for number, kind in enumerate(kinds):
        to = str(number + 1)
        if kind == "code":
            text = CODE.replace("{from_}", str(number)).replace("{to}", to)
            (here / "m" / f"{number}.py").write_text(text)
            continue
        body = STEPS[kind].replace("{to}", to)
        (here / "m" / f"{number}.yaml").write_text(f"ckpttool: 1\nfrom: {number}\nto: {to}\nrules:\n{body}")


def moved(here: Path, source: str, output: str, to: int, start: str = "") -> dict[str, Any]:
    report = migrate(here / source, here / output, chain=here / "m", to_version=str(to), from_version=start)
    return dict(report.data)


@settings(deadline=None, max_examples=15)
@given(states(), chains())
def test_there_and_back_is_the_identity(state: dict[str, Any], kinds: list[str]) -> None:
    with folder() as here:
        write(kinds, here)
        torch.save(state, here / "a.pt")
        there = moved(here, "a.pt", "b.pt", len(kinds), "0")
        torch.load(here / "b.pt", weights_only=True)
        assert there["lossless"]
        moved(here, "b.pt", "c.pt", 0)
        assert diff(here / "a.pt", here / "c.pt").data["identical"]
        assert first_difference(describe(here / "a.pt"), describe(here / "c.pt")) == ""
        assert stamps_of(describe(here / "c.pt")) == ()


@settings(deadline=None, max_examples=15)
@given(states(), chains(), st.data())
def test_one_write_is_all_steps_one_by_one(state: dict[str, Any], kinds: list[str], data: st.DataObject) -> None:
    with folder() as here:
        write(kinds, here)
        torch.save(state, here / "0.pt")
        moved(here, "0.pt", "whole.pt", len(kinds), "0")
        for number in range(len(kinds)):
            moved(here, f"{number}.pt", f"{number + 1}.pt", number + 1, "0" if not number else "")
        last = here / f"{len(kinds)}.pt"
        assert diff(last, here / "whole.pt").data["identical"]
        assert first_difference(describe(last), describe(here / "whole.pt")) == ""
        assert stamps_of(describe(last)) == stamps_of(describe(here / "whole.pt"))
        stop = data.draw(st.integers(0, len(kinds)))
        moved(here, "whole.pt", "back.pt", stop)
        assert diff(here / f"{stop}.pt", here / "back.pt").data["identical"]


# --- training goes on ----------------------------------------------------------------------------------------


class Old(torch.nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.q = torch.nn.Linear(4, 4)
        self.k = torch.nn.Linear(4, 4)
        self.out = torch.nn.Linear(8, 2)

    def forward(self, x: Any) -> Any:
        return self.out(torch.tanh(torch.cat([self.q(x), self.k(x)], -1)))


class New(torch.nn.Module):  # type: ignore[misc, name-defined]
    """The projections in one, and a bias that the head had before it was stored the other way round."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Linear(4, 8)
        self.head = torch.nn.Parameter(torch.zeros(8, 2))
        self.shift = torch.nn.Parameter(torch.zeros(2))

    def forward(self, x: Any) -> Any:
        return torch.tanh(self.body(x)) @ self.head + self.shift


RENAMES = (
    "- concat: ['q.{weight|bias}', 'k.{weight|bias}']\n  into: 'body.{weight|bias}'\n  dim: 0\n  sizes: [4, 4]\n"
    "- rename: 'out.weight'\n  to: 'head'\n- rename: 'out.bias'\n  to: 'shift'\n"
)
TURNED = """
import ckpttool

@ckpttool.migration("b", "c")
def up(keys):
    keys["head"] = keys["head"].map(lambda w: w.T, shape=keys["head"].shape[::-1], moves=True)

@up.down
def down(keys):
    keys["head"] = keys["head"].map(lambda w: w.T, shape=keys["head"].shape[::-1], moves=True)
"""


def losses(model: Any, optimizer: Any, steps: int, seed: int) -> list[float]:
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(steps):
        x, y = torch.rand(16, 4, generator=generator), torch.rand(16, 2, generator=generator)
        loss = torch.nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


@pytest.mark.parametrize("kind", ["AdamW", "SGD"])
def test_training_goes_on_with_the_same_losses(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    wishes = {"lr": 0.05, **({"momentum": 0.9} if kind == "SGD" else {})}
    old = Old()
    optimizer = getattr(torch.optim, kind)(old.named_parameters(), **wishes)
    losses(old, optimizer, 5, 1)
    torch.save({"model": old.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "a.pt")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "1.yaml").write_text(f"ckpttool: 1\nfrom: a\nto: b\nrules:\n{RENAMES}")
    (tmp_path / "m" / "2.py").write_text(TURNED)
    new = New()
    torch.save(new.state_dict(), tmp_path / "target.pt")
    migrate(tmp_path / "a.pt", tmp_path / "b.pt", chain=tmp_path / "m", from_version="a", to=tmp_path / "target.pt")
    state = torch.load(tmp_path / "b.pt", weights_only=True)
    new.load_state_dict(state["model"])
    resumed = getattr(torch.optim, kind)(new.named_parameters(), **wishes)
    resumed.load_state_dict(state["optimizer"])
    expected, found = losses(old, optimizer, 5, 2), losses(new, resumed, 5, 2)
    assert found == pytest.approx(expected, rel=1e-5)
    migrate(tmp_path / "b.pt", tmp_path / "c.pt", chain=tmp_path / "m", to_version="a", to=tmp_path / "a.pt")
    assert diff(tmp_path / "a.pt", tmp_path / "c.pt").data["identical"]


def test_a_function_may_use_torch(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "1.py").write_text(
        "import torch\nimport ckpttool\n\n@ckpttool.migration('1', '2')\ndef up(keys):\n"
        "    keys['w'] = keys['w'].map(lambda w: torch.from_numpy(w.copy()).mul(2).bfloat16())\n"
        "    keys['new'] = torch.ones(3, dtype=torch.bfloat16)\n"
    )
    before = torch.rand(4, 4).bfloat16()
    torch.save({"w": before}, tmp_path / "a.pt")
    migrate(tmp_path / "a.pt", tmp_path / "b.pt", chain=tmp_path / "m", from_version="1")
    after = torch.load(tmp_path / "b.pt", weights_only=True)
    assert after["w"].dtype == torch.bfloat16
    assert torch.equal(after["w"], before * 2)
    assert torch.equal(after["new"], torch.ones(3, dtype=torch.bfloat16))


def test_a_failed_step_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "1.py").write_text(
        "import ckpttool\n\n@ckpttool.migration('1', '2')\ndef up(keys):\n"
        "    keys['w'] = keys['w'].map(lambda w: 1 / 0)\n"
    )
    torch.save({"w": torch.rand(4)}, tmp_path / "a.pt")
    before = (tmp_path / "a.pt").read_bytes()
    with pytest.raises(CkpttoolError, match="ZeroDivisionError"):
        migrate(tmp_path / "a.pt", chain=tmp_path / "m", from_version="1", in_place=True)
    assert (tmp_path / "a.pt").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pt", "m"]
