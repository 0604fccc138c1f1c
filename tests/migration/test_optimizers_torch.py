"""Train, save, migrate the file, load into the new architecture, go on: with the losses of the old one.

The new model has other names and another order of parameters, a fused projection where the old one had three, and a
linear layer whose weight is stored transposed. Everything but the fused and the transposed product is the same
arithmetic; those two let sums run in another order, hence a few ulps.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ckpttool.dtypes import DTYPES
from ckpttool.expressions import Applied, Leaf
from ckpttool.formats import describe
from ckpttool.migration.errors import MigrationError
from ckpttool.migration.moments import Read
from ckpttool.migration.planning import plan
from ckpttool.migration.reach import Wishes
from ckpttool.ops import Concat, Fill, Split, Transpose
from ckpttool.plan import Plan
from ckpttool.profiles import lay_out
from ckpttool.profiles.parameters import is_buffer
from ckpttool.rewriting import Dropped, Names, Output, Rewriting
from ckpttool.verbs.reading import counter
from ckpttool.writing.apply import apply

torch: ModuleType = pytest.importorskip("torch", reason="torch is not installed")
WIDTH, STEPS, ULPS = 6, 4, 64

OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.05),
    "SGD momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "SGD nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "Adam amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01),
    "NAdam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "RAdam": lambda p: torch.optim.RAdam(p, lr=0.01),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
    "RMSprop centered": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01, initial_accumulator_value=0.1),
    "Adadelta": lambda p: torch.optim.Adadelta(p),
    "Rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
    "ASGD": lambda p: torch.optim.ASGD(p, lr=0.01, t0=2),
    "Adamax": lambda p: torch.optim.Adamax(p, lr=0.01),
}


class Conv1D(torch.nn.Module):
    """A linear layer that stores its weight as (inputs, outputs), as GPT-2 does."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(inputs, outputs))
        self.bias = torch.nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Any) -> Any:
        return torch.addmm(self.bias, x, self.weight)


class Old(torch.nn.Module):
    """Three projections, a linear layer, a tied head."""

    def __init__(self, tied: bool = True) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(11, WIDTH)
        self.q = torch.nn.Linear(WIDTH, WIDTH)
        self.k = torch.nn.Linear(WIDTH, WIDTH)
        self.v = torch.nn.Linear(WIDTH, WIDTH)
        self.norm = torch.nn.BatchNorm1d(WIDTH)
        self.mlp = torch.nn.Linear(WIDTH, WIDTH)
        self.head = torch.nn.Linear(WIDTH, 11, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, x: Any) -> Any:
        h = self.embed(x)
        h = torch.softmax(self.q(h) * self.k(h), -1) * self.v(h)
        return self.head(torch.relu(self.mlp(self.norm(h))))


class New(torch.nn.Module):
    """The same function: one projection, a transposed layer, other names; the norm comes first."""

    def __init__(self, tied: bool = True) -> None:
        super().__init__()
        self.ln = torch.nn.BatchNorm1d(WIDTH)
        self.wte = torch.nn.Embedding(11, WIDTH)
        self.qkv = torch.nn.Linear(WIDTH, 3 * WIDTH)
        self.fc = Conv1D(WIDTH, WIDTH)
        self.lm_head = torch.nn.Linear(WIDTH, 11, bias=False)
        if tied:
            self.lm_head.weight = self.wte.weight

    def forward(self, x: Any) -> Any:
        h = self.wte(x)
        q, k, v = self.qkv(h).split(WIDTH, -1)
        h = torch.softmax(q * k, -1) * v
        return self.lm_head(torch.relu(self.fc(self.ln(h))))


def forward(names: Names) -> Rewriting:
    """Old to new, keys in the new model's order."""
    norm = [f"{k}" for k in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]
    fused = [Output(f"qkv.{p}", Applied(Concat(0), tuple(Leaf(f"{x}.{p}") for x in "qkv"))) for p in ("weight", "bias")]
    return Rewriting((
        *(Output(f"ln.{k}", Leaf(f"norm.{k}")) for k in norm),
        Output("wte.weight", Leaf("embed.weight")),
        *fused,
        Output("fc.weight", Applied(Transpose(), (Leaf("mlp.weight"),))),
        Output("fc.bias", Leaf("mlp.bias")),
        Output("lm_head.weight", Leaf("head.weight")),
    ))  # fmt: skip


def backward(names: Names) -> Rewriting:
    """New to old."""
    norm = [f"{k}" for k in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]
    cut = [
        Output(f"{x}.{p}", Applied(Split(sections=3), (Leaf(f"qkv.{p}"),), i))
        for i, x in enumerate("qkv")
        for p in ("weight", "bias")
    ]
    return Rewriting((
        Output("embed.weight", Leaf("wte.weight")),
        *cut,
        *(Output(f"norm.{k}", Leaf(f"ln.{k}")) for k in norm),
        Output("mlp.weight", Applied(Transpose(), (Leaf("fc.weight"),))),
        Output("mlp.bias", Leaf("fc.bias")),
        Output("head.weight", Leaf("lm_head.weight")),
    ))  # fmt: skip


def batches(seed: int) -> list[tuple[Any, Any]]:
    random = torch.Generator().manual_seed(seed)
    return [tuple(torch.randint(11, (16,), generator=random) for _ in range(2)) for _ in range(STEPS)]


def train(model: Any, optimizer: Any, seed: int) -> list[float]:
    losses = []
    for x, y in batches(seed):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def migrate(source: Path, destination: Path, rewrite: Callable[[Names], Rewriting], **more: Any) -> Plan:
    checkpoint = describe(source)
    read: Read = counter
    found = plan(
        checkpoint,
        lay_out(checkpoint),
        rewrite,
        trains=lambda name, tensor: not is_buffer(name, tensor),
        read=read,
        **more,
    )
    apply(found.draft, destination)
    return found


def save(model: Any, optimizer: Any, path: Path) -> Path:
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 1}, path)
    return path


def resumed(path: Path, model: Any, make: Callable[[Any], Any], groups: Callable[[Any], Any]) -> tuple[Any, Any]:
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"], strict=True)
    optimizer = make(groups(model))
    optimizer.load_state_dict(state["optimizer"])
    return model, optimizer


def everything(model: Any) -> Any:
    return model.parameters()


def by_decay(model: Any) -> Any:
    matrices = [p for p in model.parameters() if p.dim() > 1]
    return [{"params": matrices, "weight_decay": 0.01}, {"params": [p for p in model.parameters() if p.dim() < 2]}]


def named(model: Any) -> Any:
    listed = list(model.named_parameters())
    bias = [(n, p) for n, p in listed if p.dim() < 2]
    return [{"params": bias, "weight_decay": 0.01}, {"params": [(n, p) for n, p in listed if p.dim() > 1]}]


def close(a: list[float], b: list[float]) -> bool:
    eps = torch.finfo(torch.float32).eps
    return all(abs(x - y) <= ULPS * eps * max(abs(x), abs(y)) for x, y in zip(a, b, strict=True))


CASES = [(name, groups) for groups in (everything, by_decay, named) for name in OPTIMIZERS]
CASES.remove(("SGD", by_decay))  # without state or names nothing tells who is in which group


@pytest.mark.parametrize(("name", "groups"), CASES)
def test_training_goes_on_as_if_nothing_had_happened(name: str, groups: Callable[[Any], Any], tmp_path: Path) -> None:
    torch.manual_seed(1)
    old = Old()
    optimizer = OPTIMIZERS[name](groups(old))
    train(old, optimizer, 2)
    source = save(old, optimizer, tmp_path / "old.pt")
    found = migrate(source, tmp_path / "new.pt", forward, wishes=Wishes(assume_order=True))
    assert [step.op for step in found.steps if step.lossy] in ([], ["reorder"])
    model, again = resumed(tmp_path / "new.pt", New(), OPTIMIZERS[name], groups)
    migrate(tmp_path / "new.pt", tmp_path / "back.pt", backward, wishes=Wishes(assume_order=True))
    first, third = resumed(tmp_path / "back.pt", Old(), OPTIMIZERS[name], groups)
    expected = train(old, optimizer, 3)
    assert train(first, third, 3) == expected
    assert close(train(model, again, 3), expected)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_frozen_parameters_stay_out_and_nothing_has_to_be_assumed(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    old = Old(tied=False)

    def trained(model: Any) -> Any:
        frozen = {"mlp", "fc", "norm", "ln"}
        for key, parameter in model.named_parameters():
            parameter.requires_grad_(key.partition(".")[0] not in frozen)
        return [(key, parameter) for key, parameter in model.named_parameters() if parameter.requires_grad]

    optimizer = OPTIMIZERS[name](trained(old))
    train(old, optimizer, 2)
    found = migrate(save(old, optimizer, tmp_path / "old.pt"), tmp_path / "new.pt", forward)
    assert [step.op for step in found.steps if step.lossy] in ([], ["reorder"])
    model, again = resumed(tmp_path / "new.pt", New(tied=False), OPTIMIZERS[name], trained)
    assert close(train(model, again, 3), train(old, optimizer, 3))


class Reordered(torch.nn.Module):
    """The old model's arithmetic to the bit, under other names, its parameters in another order."""

    def __init__(self) -> None:
        super().__init__()
        old = Old()
        self.out, self.fc, self.ln = old.head, old.mlp, old.norm
        self.value, self.key, self.query, self.wte = old.v, old.k, old.q, old.embed

    def forward(self, x: Any) -> Any:
        h = self.wte(x)
        h = torch.softmax(self.query(h) * self.key(h), -1) * self.value(h)
        return self.out(torch.relu(self.fc(self.ln(h))))


def reordered(names: Names) -> Rewriting:
    """Old to reordered, keys in the new model's order."""
    modules = {"out": "head", "fc": "mlp", "ln": "norm", "value": "v", "key": "k", "query": "q", "wte": "embed"}
    return Rewriting(
        tuple(
            Output(f"{new}.{item.name.partition('.')[2]}", Leaf(item.name))
            for new, old in modules.items()
            for item in names.items
            if item.name.partition(".")[0] == old
        )
    )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_in_another_order_the_losses_are_the_same_to_the_bit(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    old = Old()
    optimizer = OPTIMIZERS[name](named(old))
    train(old, optimizer, 2)
    source = save(old, optimizer, tmp_path / "old.pt")
    migrate(source, tmp_path / "new.pt", reordered, wishes=Wishes(assume_order=True))
    model, again = resumed(tmp_path / "new.pt", Reordered(), OPTIMIZERS[name], named)
    assert train(model, again, 3) == train(old, optimizer, 3)


class Deeper(Old):
    """The old model with one layer more, which adds nothing at first, and a head of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.extra = torch.nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Any) -> Any:
        h = self.embed(x)
        h = torch.softmax(self.q(h) * self.k(h), -1) * self.v(h)
        h = torch.relu(self.mlp(self.norm(h)))
        return self.head(h + self.extra(h))


def deeper(names: Names) -> Rewriting:
    float32 = DTYPES["float32"]
    outputs = [Output(item.name, Leaf(item.name)) for item in names.items]
    new = [
        Output("extra.weight", Applied(Fill((WIDTH, WIDTH), float32), ())),
        Output("extra.bias", Applied(Fill((WIDTH,), float32), ())),
    ]
    return Rewriting((*outputs, *new))


def shallower(names: Names) -> Rewriting:
    kept = tuple(Output(i.name, Leaf(i.name)) for i in names.items if not i.name.startswith("extra."))
    return Rewriting(kept, tuple(Dropped(i.name) for i in names.items if i.name.startswith("extra.")))


@pytest.mark.parametrize("groups", [everything, by_decay, named])
@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "SGD"])
def test_added_layers_start_without_state_and_dropped_ones_leave(
    name: str, groups: Callable[[Any], Any], tmp_path: Path
) -> None:
    torch.manual_seed(1)
    old = Old()
    optimizer = OPTIMIZERS[name](groups(old))
    train(old, optimizer, 2)
    source = save(old, optimizer, tmp_path / "old.pt")
    assert migrate(source, tmp_path / "new.pt", deeper).lossless
    model, again = resumed(tmp_path / "new.pt", Deeper(), OPTIMIZERS[name], groups)
    if groups is by_decay and name != "Adagrad":
        # Nothing tells which of two groups each of two parameters without state is in.
        with pytest.raises(MigrationError, match="more than one way"):
            migrate(tmp_path / "new.pt", tmp_path / "back.pt", shallower)
        return
    found = migrate(tmp_path / "new.pt", tmp_path / "back.pt", shallower)
    assert not found.lossless
    first, third = resumed(tmp_path / "back.pt", Old(), OPTIMIZERS[name], groups)
    expected = train(old, optimizer, 3)
    assert train(model, again, 3)[0] == expected[0]
    assert train(first, third, 3) == expected


def test_an_averaged_model_moves_along(tmp_path: Path) -> None:
    torch.manual_seed(1)
    old = Old()
    average = torch.optim.swa_utils.AveragedModel(old)
    average.update_parameters(old)
    torch.save({"model": old.state_dict(), "ema": average.state_dict()}, tmp_path / "old.pt")
    migrate(tmp_path / "old.pt", tmp_path / "new.pt", forward)
    state = torch.load(tmp_path / "new.pt", weights_only=True)
    model = torch.optim.swa_utils.AveragedModel(New())
    model.load_state_dict(state["ema"], strict=True)
    x = batches(5)[0][0]
    assert model.n_averaged == 1
    model.eval()
    average.eval()
    assert torch.allclose(model(x), average(x), atol=1e-5)
