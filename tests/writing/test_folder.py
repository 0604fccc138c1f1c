"""A Trainer's folder through migrate: what changes is written anew, all else copied, and training goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ckpttool.errors import CkpttoolError
from ckpttool.formats import describe
from ckpttool.verbs.chain import chain_check, chain_history
from ckpttool.verbs.migrate import migrate

torch: ModuleType = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")

SIZES = (4, 6, 6, 6, 3)


def model(names: str, turned: str = "") -> Any:
    """Layers in the order of ``names``, z first: not in the order of the alphabet."""
    layers = {name: torch.nn.Linear(i, o) for name, i, o in zip(names, SIZES[:-1], SIZES[1:], strict=True)}
    return torch.nn.ModuleDict(layers)


def grouped(net: Any) -> Any:
    """AdamW over two groups, as the Trainer has it: with and without weight decay."""
    decayed = [p for p in net.parameters() if p.dim() > 1]
    plain = [p for p in net.parameters() if p.dim() < 2]
    return torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": plain}])


def train(net: Any, optimizer: Any, order: str, seed: int) -> list[float]:
    random = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(3):
        h = torch.randn(5, 4, generator=random)
        for name in order:
            h = torch.tanh(net[name](h))
        optimizer.zero_grad()
        loss = h.square().sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.fixture
def trainer(tmp_path: Path) -> Callable[..., tuple[Path, Any, Any]]:
    def make(shards: int = 0) -> tuple[Path, Any, Any]:
        from safetensors.torch import save_file

        torch.manual_seed(2)
        folder = tmp_path / "checkpoint-3"
        folder.mkdir()
        net = model("zyxa")
        optimizer = grouped(net)
        train(net, optimizer, "zyxa", 1)
        weights = net.state_dict()
        if shards:
            keys = list(weights)
            names = [f"model-{i + 1:05d}-of-{shards:05d}.safetensors" for i in range(shards)]
            table = {key: names[i % shards] for i, key in enumerate(keys)}
            for name in names:
                save_file({k: weights[k] for k in keys if table[k] == name}, folder / name)
            total = sum(t.nbytes for t in weights.values())
            index = {"metadata": {"total_size": total}, "weight_map": table}
            (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        else:
            save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        torch.save(optimizer.state_dict(), folder / "optimizer.pt")
        torch.save({"last_epoch": 3, "_last_lr": [0.1]}, folder / "scheduler.pt")
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": 3, "epoch": 1.0}))
        (folder / "tokenizer.json").write_text('{"model": "bpe"}')
        (tmp_path / "rules.yaml").write_text(
            'ckpttool: 1\nrules:\n- rename: "{z|y|x|a}.{rest...}"\n  to: "{b|c|d|e}.{rest...}"\n'
        )
        return folder, net, optimizer

    return make


def test_what_changes_is_written_anew_and_all_else_is_the_same(trainer: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    source, net, _ = trainer()
    report = migrate(source, tmp_path / "new", rules=tmp_path / "rules.yaml")
    assert report.json["written"]
    names = sorted(path.name for path in source.iterdir())
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == names
    same = [n for n in names if (source / n).read_bytes() == (tmp_path / "new" / n).read_bytes()]
    assert same == [name for name in names if name != "model.safetensors"]
    found = load_file(tmp_path / "new" / "model.safetensors")
    assert all(torch.equal(found["b" + k[1:]], v) for k, v in net.state_dict().items() if k[0] == "z")
    assert not describe(tmp_path / "new").damage


def test_an_index_stays_an_index_and_its_shards_as_small_as_asked_for(trainer: Any, tmp_path: Path) -> None:
    source, net, _ = trainer(2)
    migrate(source, tmp_path / "new", rules=tmp_path / "rules.yaml", max_shard_size="200")
    index = json.loads((tmp_path / "new" / "model.safetensors.index.json").read_text())
    assert len(index["weight_map"]) == len(net.state_dict())
    assert len(set(index["weight_map"].values())) > 2
    assert not describe(tmp_path / "new").damage
    migrate(tmp_path / "new", tmp_path / "again", rules=tmp_path / "rules.yaml")
    for path in (tmp_path / "new").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_sorted_weights_need_a_model_that_tells_the_order(trainer: Any, tmp_path: Path) -> None:
    source, _, optimizer = trainer()
    torch.save(model("bcde").state_dict(), tmp_path / "target.pt")
    rules = tmp_path / "turn.yaml"
    rules.write_text((tmp_path / "rules.yaml").read_text() + '- roll: "y.weight"\n  dim: 0\n  shift: 1\n')
    with pytest.raises(CkpttoolError, match="safetensors sorts its keys"):
        migrate(source, tmp_path / "new", rules=rules)
    migrate(source, tmp_path / "new", rules=rules, to=tmp_path / "target.pt", assume_order=True)
    state = torch.load(tmp_path / "new" / "optimizer.pt", weights_only=True)["state"]
    old = optimizer.state_dict()["state"]
    assert torch.equal(state[1]["exp_avg"], old[1]["exp_avg"].roll(1, 0))
    assert all(torch.equal(state[i]["exp_avg"], old[i]["exp_avg"]) for i in state if i != 1)


def test_folders_are_never_replaced_and_parts_below_are_refused(trainer: Any, tmp_path: Path) -> None:
    source, _, _ = trainer()
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "x").write_text("x")
    with pytest.raises(CkpttoolError, match="never replaced"):
        migrate(source, tmp_path / "there", rules=tmp_path / "rules.yaml")
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["x"]


STEP = 'ckpttool: 1\nfrom: "1"\nto: "2"\nrules:\n- rename: "{z|y|x|a}.{rest...}"\n  to: "{b|c|d|e}.{rest...}"\n'
IDLE = 'ckpttool: 1\nfrom: "2"\nto: "3"\nrules:\n- rename: "gone"\n  to: "went"\n  optional: true\n'


@pytest.mark.parametrize("shards", [0, 2])
def test_a_folder_remembers_its_migrations(trainer: Any, tmp_path: Path, shards: int) -> None:
    source, _, _ = trainer(shards)
    chain = tmp_path / "chain"
    chain.mkdir()
    (chain / "1.yaml").write_text(STEP)
    (chain / "2.yaml").write_text(IDLE)
    migrate(source, tmp_path / "two", chain=chain, from_version="1", to_version="2")
    assert chain_history(tmp_path / "two").data["version"] == "2"
    assert chain_check([tmp_path / "two"], chain).exit_code == 1
    # a step that finds nothing to do changes the record alone
    migrate(tmp_path / "two", tmp_path / "three", chain=chain)
    assert chain_history(tmp_path / "three").data["version"] == "3"
    assert chain_check([tmp_path / "three"], chain).exit_code == 0
    migrate(tmp_path / "three", tmp_path / "one", chain=chain, to_version="1")
    assert chain_history(tmp_path / "one").data["migrations"] == []
    for path in [] if shards else source.iterdir():
        assert path.read_bytes() == (tmp_path / "one" / path.name).read_bytes(), path.name


def test_rules_that_would_match_again_are_refused_for_folders_too(trainer: Any, tmp_path: Path) -> None:
    source, _, _ = trainer()
    rules = tmp_path / "swap.yaml"
    rules.write_text('ckpttool: 1\nrules:\n- rename: "y.{rest...}"\n  to: "x.{rest...}"\n'
                     '- rename: "x.{rest...}"\n  to: "y.{rest...}"\n')  # fmt: skip
    migrate(source, tmp_path / "new", rules=rules)
    with pytest.raises(CkpttoolError, match="already migrated"):
        migrate(tmp_path / "new", tmp_path / "again", rules=rules)
