"""Keys of the whole tree under new names: in which container they land, and where they stand there."""

from __future__ import annotations

from typing import Any

from ckpttool.migration import load, rewrite
from ckpttool.migration.planning import plan
from ckpttool.migration.reach import Wishes
from ckpttool.profiles import lay_out
from ckpttool.testing.trees import T, checkpoint_of
from ckpttool.tree import child_named, lookup

Path = tuple[str, ...]


def moved(value: Any, *pairs: tuple[str, str]) -> list[Path]:
    """The paths of a tree's leaves after renames that stand in one stage, in their order."""
    lines = [f"- rename: '{old}'\n  to: '{new}'\n  in: tree" for old, new in pairs]
    rules = load("\n".join(["ckpttool: 1", "rules:", *lines]), "rules")
    checkpoint = checkpoint_of(value)
    made = plan(checkpoint, lay_out(checkpoint), lambda names: rewrite(rules, names), wishes=Wishes(whole=True))
    return [entry.path for entry in made.draft.checkpoint.entries()]


def test_a_key_with_dots_keeps_what_is_below_it() -> None:
    """Lightning's loops: one key of many words, and dicts below it."""
    tree = {"loops": {"fit": {"batch.loop.progress": {"step": {"total": 4}}, "other": 1}}}
    assert moved(tree, ("loops.fit.batch.loop.{rest...}", "loops.fit.auto.{rest...}")) == [
        ("loops", "fit", "auto.progress", "step", "total"),
        ("loops", "fit", "other"),
    ]


def test_a_container_under_a_new_name_keeps_what_is_below_it() -> None:
    tree = {"a": {"x": {"y": 1}}, "b": 2}
    assert moved(tree, ("a.{rest...}", "c.{rest...}")) == [("c", "x", "y"), ("b",)]


def test_a_key_lands_in_the_container_that_its_name_begins_with() -> None:
    tree = {"model": {"fc.w": T((2,))}, "ema": {"module.fc.w": T((2,))}}
    assert moved(tree, ("model.{rest...}", "old.{rest...}"), ("ema.module.{rest...}", "model.{rest...}")) == [
        ("old", "fc.w"),
        ("model", "fc.w"),
    ]


def test_containers_that_change_places_stand_as_they_stood() -> None:
    tree = {
        "meta": 1,
        "model": {"fc.w": T((2,)), "fc.b": T((3,))},
        "optimizer": {"lr": 0.1},
        "ema": {"steps": 2, "module.fc.w": T((2,)), "module.fc.b": T((3,))},
    }
    pairs = [("model.{rest...}", "ema.module.{rest...}"), ("ema.module.{rest...}", "model.{rest...}")]
    before = [entry.path for entry in checkpoint_of(tree).entries()]
    assert moved(tree, *pairs) == before


def test_an_empty_dict_moves() -> None:
    tree = {"loops": {"batch.state": {}, "n": 1}}
    checkpoint = checkpoint_of(tree)
    rules = load("ckpttool: 1\nrules:\n- rename: loops.batch.state\n  to: loops.auto.state\n  in: tree\n", "rules")
    made = plan(checkpoint, lay_out(checkpoint), lambda names: rewrite(rules, names), wishes=Wishes(whole=True))
    found = made.draft.checkpoint
    assert found.root is not None
    loops = lookup(found, found.root, "loops")
    assert loops is not None
    assert [child_named(found, found.nodes[loops], key) is not None for key in ("auto.state", "n")] == [True, True]
