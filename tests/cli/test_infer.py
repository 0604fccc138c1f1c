"""ckpttool infer: options, streams, exit codes, and the model that a user names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from click.testing import Result

from ckpttool.migration import load
from ckpttool.testing.plain import tensor
from ckpttool.testing.writers import torch_file

Run: TypeAlias = Callable[..., Result]
FIXTURES = Path(__file__).parents[2] / "fixtures"
MLP, DDP = FIXTURES / "mlp.pth", FIXTURES / "ddp.pth"


def save(path: Path, shapes: dict[str, tuple[int, ...]], seed: int = 0) -> Path:
    """A state dict whose tensors differ from each other."""
    found = {}
    for at, (name, shape) in enumerate(shapes.items()):
        count = 1
        for size in shape:
            count *= size
        data = b"".join(bytes([(at * 31 + n * 7 + seed) % 251, n % 256, at, 63]) for n in range(count))
        found[name] = tensor(shape, data)
    path.write_bytes(torch_file(found))
    return path


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two layers under two names."""
    old = {f"layers.{i}.fc.weight": (4, 6) for i in range(2)}
    new = {f"h.{i}.up.weight": (4, 6) for i in range(2)}
    return save(tmp_path / "old.pth", old), save(tmp_path / "new.pth", new)


def test_help_lists_the_options_and_exit_statuses(run: Run) -> None:
    text = run("infer", "--help").stdout
    for option in "--output --to-model --no-content --cast --jobs --format --json --report".split():
        assert option in text
    assert "Exit status:" in text


def test_json_follows_the_contract(run: Run, pair: tuple[Path, Path]) -> None:
    result = run("infer", *pair, "--json")
    data = json.loads(result.stdout)
    assert result.exit_code == data["exit_code"] == 0
    assert data["schema"] == "ckpttool.infer/1"
    assert data["ambiguous"] == []
    assert [(one["from"], one["to"], one["confidence"]) for one in data["pairs"]] == [
        ("layers.0.fc.weight", "h.0.up.weight", "certain"),
        ("layers.1.fc.weight", "h.1.up.weight", "certain"),
    ]
    assert all(one["why"] for one in data["pairs"])
    assert [one["hits"] for one in data["rules"]] == [2]


def test_the_rules_are_written_and_can_be_read(run: Run, pair: tuple[Path, Path], tmp_path: Path) -> None:
    result = run("infer", *pair, "-o", "rules.yaml")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "2 keys found: 2 certain, 0 likely" in result.stdout
    rules = load((tmp_path / "rules.yaml").read_text(), "rules.yaml")
    assert [rule.text for rule in rules.rules] == ["rename 'layers.{i}.fc.weight' to 'h.{i}.up.weight'"]


def test_rules_to_stdout_stand_alone(run: Run, pair: tuple[Path, Path]) -> None:
    assert run("infer", *pair, "-o", "-").stdout.startswith("ckpttool: 1\n")


def test_a_file_of_keys_is_a_target(run: Run) -> None:
    assert run("inspect", DDP, "--keys", "keys.json").exit_code == 0
    data = json.loads(run("infer", MLP, "keys.json", "--json").stdout)
    assert {one["to"] for one in data["pairs"]} == {"module." + one["from"] for one in data["pairs"]}
    assert {one["confidence"] for one in data["pairs"]} == {"certain"}
    assert data["exit_code"] == 0


def test_equals_among_equals_are_asked_about(run: Run, tmp_path: Path) -> None:
    old = save(tmp_path / "a.pth", {"one.weight": (5, 5), "two.weight": (5, 5)})
    new = save(tmp_path / "b.pth", {"left.weight": (5, 5), "right.weight": (5, 5)})
    result = run("infer", old, new, "--no-content", "--json")
    data = json.loads(result.stdout)
    assert result.exit_code == 1
    assert data["pairs"] == []
    (asked,) = data["ambiguous"]
    assert sorted(asked["to"]) == ["left.weight", "right.weight"]
    assert sorted(asked["candidates"]) == ["one.weight", "two.weight"]
    assert '- rename: "one.weight"' in asked["rules"]
    assert "to be asked about" in run("infer", old, new, "--no-content").stdout


def test_what_nothing_leads_to_is_1(run: Run, pair: tuple[Path, Path], tmp_path: Path) -> None:
    more = save(tmp_path / "more.pth", {"h.0.up.weight": (4, 6), "head.weight": (9, 9)})
    result = run("infer", pair[0], more)
    assert result.exit_code == 1
    assert "nothing leads to: head.weight" in result.stdout


def test_text_fits_80_columns(run: Run, pair: tuple[Path, Path]) -> None:
    assert max(map(len, run("infer", *pair).stdout.splitlines())) <= 80


@pytest.mark.parametrize("new", ["page.html.pth", "empty.pth", "gone.pth"])
def test_what_is_no_checkpoint_is_2(run: Run, new: str) -> None:
    assert run("infer", MLP, FIXTURES / new).exit_code == 2


def test_usage_is_2(run: Run) -> None:
    for arguments in ([MLP], [MLP, DDP, "--to-model", "a:b"], [MLP, "--to-model", "nothing"]):
        result = run("infer", *arguments)
        assert result.exit_code == 2
        assert "error:" in result.stderr


FACTORIES = """
class Tensor:
    def __init__(self, *shape): self.shape, self.dtype = shape, "torch.float32"

class Model:
    def __init__(self): self.weight = Tensor(4, 6); self.mean = Tensor(3)
    def state_dict(self): return {"a.weight": self.weight, "b.weight": self.weight, "mean": self.mean}
    def named_parameters(self, prefix, recurse, remove_duplicate):
        yield "a.weight", self.weight
        yield "b.weight", self.weight

def breaks(): raise RuntimeError("no such\\nconfig")
def number(): return 5
"""


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A user's module in the current folder."""
    name = f"factories_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    return name


def test_a_model_tells_keys_order_and_ties(factories: str) -> None:
    from ckpttool.verbs.models import model_target

    target = model_target(f"{factories}:Model")
    assert [name for name, _ in target.keys] == ["a.weight", "b.weight", "mean"]
    assert (target.parameters, target.ties) == (("a.weight",), (("a.weight", "b.weight"),))
    assert target.buffers == ("mean",)
    assert target.forms["a.weight"].shape == (4, 6)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("breaks", "RuntimeError: no such\\nconfig"),
        ("number", "gave a int, not a model"),
        ("missing", "AttributeError"),
        ("FACTORY.x", "AttributeError"),
    ],
)
def test_errors_of_user_code_are_one_line(run: Run, factories: str, name: str, told: str) -> None:
    result = run("infer", MLP, "--to-model", f"{factories}:{name}")
    assert result.exit_code == 2
    assert told in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_module_that_is_not_there(run: Run) -> None:
    result = run("infer", MLP, "--to-model", "surely.not.there:make")
    assert (result.exit_code, "ModuleNotFoundError" in result.stderr) == (2, True)


def test_a_real_model_on_the_meta_device(run: Run, torch: object, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(
        "import torch\n"
        "def build():\n"
        "    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))\n"
        "    assert net[0].weight.is_meta\n"
        "    return net\n"
    )
    old = {"module.0.weight": (3, 4), "module.0.bias": (3,), "module.1.weight": (3,), "module.1.bias": (3,)}
    old |= {"module.1.running_mean": (3,), "module.1.running_var": (3,)}
    data = json.loads(run("infer", save(tmp_path / "old.pth", old), "--to-model", "nets:build", "--json").stdout)
    assert data["missing"] == ["1.num_batches_tracked"]
    assert {one["confidence"] for one in data["pairs"]} == {"certain"}
