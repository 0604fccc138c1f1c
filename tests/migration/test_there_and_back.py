"""Real modules and optimizers, migrated and back through the verb: the file of before, bit for bit."""

from __future__ import annotations

import argparse
import zipfile
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ckpttool.formats import describe
from ckpttool.verbs.migrate import migrate
from ckpttool.writing.compare import first_difference

torch: ModuleType = pytest.importorskip("torch", reason="torch is not installed")


def attention() -> Any:
    """A model whose layers keep one projection for queries, keys and values."""
    layer = {"c_attn": torch.nn.Linear(4, 12), "norm": torch.nn.BatchNorm1d(4), "act": torch.nn.ReLU()}
    layers = [torch.nn.ModuleDict(layer), torch.nn.ModuleDict({**layer, "c_attn": torch.nn.Linear(4, 12)})]
    return torch.nn.ModuleDict({"h": torch.nn.ModuleList(layers), "head": torch.nn.Linear(4, 3)})


def saved(model: Any, path: Path, kind: str = "AdamW", **settings: Any) -> Path:
    """Three steps of training, and the state after them."""
    optimizer = getattr(torch.optim, kind)(model.parameters(), **settings)
    for _ in range(3):
        for parameter in model.parameters():
            parameter.grad = torch.rand_like(parameter)
        optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}, path)
    return path


def same(a: Path, b: Path) -> None:
    assert first_difference(describe(a), describe(b)) == ""
    one, other = torch.load(a, weights_only=True), torch.load(b, weights_only=True)
    assert list(one["model"]._metadata.items()) == list(other["model"]._metadata.items())
    assert all(torch.equal(one["model"][k], other["model"][k]) for k in one["model"])
    for ident, state in one["optimizer"]["state"].items():
        assert all(
            torch.equal(torch.as_tensor(v), torch.as_tensor(other["optimizer"]["state"][ident][k]))
            for k, v in state.items()
        )


SPLIT = """
ckpttool: 1
rules:
- split: "h.{i}.c_attn.{weight|bias}"
  into: ["h.{i}.q.{weight|bias}", "h.{i}.k.{weight|bias}", "h.{i}.v.{weight|bias}"]
  dim: 0
"""


def test_a_split_and_the_way_back_is_the_identity_with_every_recorded_version(tmp_path: Path) -> None:
    source = saved(attention(), tmp_path / "a.pt")
    (tmp_path / "rules.yaml").write_text(SPLIT)
    migrate(source, tmp_path / "b.pt", rules=tmp_path / "rules.yaml")
    modules = torch.load(tmp_path / "b.pt", weights_only=True)["model"]._metadata
    assert "h.0.c_attn" not in modules
    assert {"h.0.q", "h.0.k", "h.1.v", "h.0.act", "h.0.norm"} <= modules.keys()
    migrate(tmp_path / "b.pt", tmp_path / "c.pt", rules=tmp_path / "rules.yaml", reverse=True)
    same(source, tmp_path / "c.pt")


def test_stages_that_undo_each_other_copy_and_need_no_state_of_their_own(tmp_path: Path) -> None:
    source = saved(attention(), tmp_path / "a.pt", "Adafactor")
    (tmp_path / "rules.yaml").write_text(
        "ckpttool: 1\nstages:\n"
        '- - split: "h.{i}.c_attn.weight"\n    into: ["h.{i}.q", "h.{i}.k", "h.{i}.v"]\n    dim: 0\n'
        '- - concat: ["h.{i}.q", "h.{i}.k", "h.{i}.v"]\n    into: "h.{i}.qkv.weight"\n    dim: 0\n'
        '  - rename: "h.{i}.c_attn.bias"\n    to: "h.{i}.qkv.bias"\n'
    )
    report = migrate(source, tmp_path / "b.pt", rules=tmp_path / "rules.yaml")
    assert report.data["lossless"] is True
    assert describe(tmp_path / "b.pt").storages[0].checksum == describe(source).storages[0].checksum
    plan: Any = report.data["plan"]
    assert {step["op"] for step in plan} <= {"rename", "metadata", "groups", "renumber"}
    migrate(tmp_path / "b.pt", tmp_path / "c.pt", rules=tmp_path / "rules.yaml", reverse=True)
    same(source, tmp_path / "c.pt")


def test_a_module_of_which_nothing_is_left_leaves_no_version(tmp_path: Path) -> None:
    source = saved(attention(), tmp_path / "a.pt")
    (tmp_path / "rules.yaml").write_text('ckpttool: 1\nrules:\n- drop: "head.{rest...}"\n')
    migrate(source, tmp_path / "b.pt", rules=tmp_path / "rules.yaml")
    modules = torch.load(tmp_path / "b.pt", weights_only=True)["model"]._metadata
    assert "head" not in modules
    assert "h.0.act" in modules


def test_compressed_archives_are_computed_with_as_any_others(tmp_path: Path) -> None:
    plain = saved(attention(), tmp_path / "a.pt")
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(tmp_path / "z.pt", "w", zipfile.ZIP_DEFLATED) as new:
        for record in old.infolist():
            new.writestr(record.filename, old.read(record.filename))
    (tmp_path / "rules.yaml").write_text(SPLIT)
    for name in ("a", "z"):
        migrate(tmp_path / f"{name}.pt", tmp_path / f"{name}2.pt", rules=tmp_path / "rules.yaml")
    same(tmp_path / "a2.pt", tmp_path / "z2.pt")


def test_views_strides_order_and_unknown_objects_stay_as_they_were(tmp_path: Path) -> None:
    base = torch.arange(24.0)
    weights = OrderedDict(
        {"z.first": base[:12].view(3, 4), "z.second": base[12:].view(4, 3).t(), "a.tied": torch.rand(2, 2)}
    )
    weights["b.tied"] = weights["a.tied"]
    state = {
        "model": weights,
        "args": argparse.Namespace(width=3, deep=[(1, {"x": None})]),
        "view": base[3:5],
        "seen": {1: "one", 2: 2.5, "names": ["z.first"]},
    }
    torch.save(state, tmp_path / "a.pt")
    (tmp_path / "rules.yaml").write_text('ckpttool: 1\nrules:\n- rename: "z.{rest...}"\n  to: "m.y.{rest...}"\n')
    migrate(tmp_path / "a.pt", tmp_path / "b.pt", rules=tmp_path / "rules.yaml")
    found = torch.load(tmp_path / "b.pt", weights_only=False)
    assert list(found["model"]) == ["m.y.first", "m.y.second", "a.tied", "b.tied"]
    assert found["model"]["m.y.second"].stride() == (1, 3)
    assert found["model"]["m.y.first"].untyped_storage().data_ptr() == found["view"].untyped_storage().data_ptr()
    assert found["model"]["a.tied"] is found["model"]["b.tied"]
    assert (found["args"], found["seen"]) == (state["args"], state["seen"])
    migrate(tmp_path / "b.pt", tmp_path / "c.pt", rules=tmp_path / "rules.yaml", reverse=True)
    assert first_difference(describe(tmp_path / "a.pt"), describe(tmp_path / "c.pt")) == ""
