"""What each preset makes of names, held against a written list: ``golden/<name>.txt``. No tensor, no file, no torch.

A line is a key that no rule speaks of (``head.weight [3, 8]``), or keys in, an arrow and keys out. Nothing on the
right is a drop, nothing on the left a new key; a star says that elements move or values are computed. Before that
stand what the checkpoint records (``fact``), what the user says (``set``), and how far the way back leads (``back``):
all of it unless it says ``no``, or names the keys that are lost. ``some rules`` says that guards exclude each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from ckpttool.dtypes import DTYPES
from ckpttool.expressions import Form, Leaf, form_of
from ckpttool.migration import RuleError, RuleFile, load, rewrite
from ckpttool.migration.reach import Wishes
from ckpttool.migration.scopes import metadata_at
from ckpttool.model import Checkpoint
from ckpttool.plan import Plan
from ckpttool.profiles import lay_out
from ckpttool.rewriting import Named, Names, Rewriting
from ckpttool.testing.trees import T, checkpoint_of
from ckpttool.tree import fields, lookup
from ckpttool.verbs.migrate_parts import parts_of, planned
from ckpttool.verbs.presets import presets
from ckpttool.verbs.writable import Writable
from ckpttool.writing.compare import first_difference

HERE = Path(__file__).parent
KEY = re.compile(r"([^\s,]+)(?: \[([\d, ]*)\])?")
TEXTS = {preset.name: preset.text for preset in presets()} | {
    path.stem: path.read_text(encoding="utf-8") for path in sorted((HERE / "rules").glob("*.yaml"))
}


@dataclass
class Golden:
    """A golden file, read."""

    forms: dict[str, Form | None] = field(default_factory=dict)
    outputs: dict[str, tuple[frozenset[str], bool]] = field(default_factory=dict)
    untouched: set[str] = field(default_factory=set)
    facts: dict[str, str | int | float] = field(default_factory=dict)
    settings: dict[str, int] = field(default_factory=dict)
    lost: frozenset[str] | None = frozenset()
    every_rule: bool = True

    @property
    def names(self) -> Names:
        return Names(tuple(Named(name, form) for name, form in self.forms.items()), facts=self.facts)


def number(text: str) -> str | int | float:
    if not re.fullmatch(r"\d+(\.\d+)?", text):
        return text
    return float(text) if "." in text else int(text)


def read(name: str) -> Golden:
    golden = Golden()
    for line in (HERE / "golden" / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        word, _, rest = line.partition(" ")
        if word == "fact":
            key, _, value = rest.partition(" = ")
            golden.facts[key] = number(value)
        elif word == "set":
            key, _, value = rest.partition(" = ")
            golden.settings[key] = int(value)
        elif word == "back":
            golden.lost = None if rest == "no" else frozenset(rest.removeprefix("up to ").split())
        elif line == "some rules":
            golden.every_rule = False
        else:
            add_line(golden, line)
    return golden


def add_line(golden: Golden, line: str) -> None:
    left, arrow, right = line.partition("->")
    sources = list(keys(left))
    for key, shape in sources:
        form = None if shape is None else Form(DTYPES["float32"], shape)
        if key not in golden.forms or form is not None:
            golden.forms[key] = form
    if not arrow:
        golden.untouched.add(sources[0][0])
        golden.outputs[sources[0][0]] = (frozenset({sources[0][0]}), False)
    for key, _ in keys(right.replace(" *", "")):
        golden.outputs[key] = (frozenset(name for name, _ in sources), right.endswith("*"))


def keys(text: str) -> Iterator[tuple[str, tuple[int, ...] | None]]:
    for found in KEY.finditer(text):
        sizes = found[2]
        yield (found[1], None if sizes is None else tuple(int(size) for size in sizes.split(",") if size.strip()))


def forward(name: str, golden: Golden) -> tuple[RuleFile, Rewriting]:
    rules = load(TEXTS[name], name)
    return rules, rewrite(rules, golden.names, golden.settings)


def named(golden: Golden, rewriting: Rewriting) -> tuple[Named, ...]:
    """The result's keys, with their forms."""
    forms = {key: form for key, form in golden.forms.items() if form is not None}
    return tuple(
        Named(o.name, form_of(o.expression, forms) if set(o.inputs) <= set(forms) else None) for o in rewriting.outputs
    )


def test_every_preset_has_its_list() -> None:
    assert {path.stem for path in (HERE / "golden").glob("*.txt")} == set(TEXTS)


@pytest.mark.parametrize("name", TEXTS)
def test_names_become_those_on_the_list(name: str) -> None:
    golden = read(name)
    _, made = forward(name, golden)
    found = {o.name: (frozenset(o.inputs), not isinstance(o.expression, Leaf)) for o in made.outputs}
    assert found == golden.outputs
    assert set(made.untouched) == golden.untouched


@pytest.mark.parametrize("name", TEXTS)
def test_every_rule_fires(name: str) -> None:
    golden = read(name)
    _, made = forward(name, golden)
    idle = [rule.text for rule in made.rules if rule.hits == 0]
    assert idle == [] if golden.every_rule else len(idle) < len(made.rules)


@pytest.mark.parametrize("name", TEXTS)
def test_the_way_back_leads_to_the_same_names_and_shapes(name: str) -> None:
    """Where something is lost, either the inverse says so, or what it gives lacks it."""
    golden = read(name)
    rules, made = forward(name, golden)
    result = Names(named(golden, made), facts=golden.facts)
    try:
        back = rewrite(rules.inverse(), result, golden.settings)
    except RuleError:
        assert golden.lost is None
        return
    forms = {one.name: one.form for one in result.items if one.form is not None}
    found = {o.name: form_of(o.expression, forms) if set(o.inputs) <= set(forms) else None for o in back.outputs}
    wanted = {key: form for key, form in golden.forms.items() if key not in (golden.lost or ())}
    assert (found == wanted) == (golden.lost is not None), "the golden file claims otherwise"


@pytest.mark.parametrize("name", TEXTS)
def test_a_second_run_changes_nothing_or_is_announced(name: str) -> None:
    """``repeats`` is what the command asks a stamp for; without it, the rules must leave their own result alone."""
    golden = read(name)
    rules, made = forward(name, golden)
    again = Names(named(golden, made), facts=golden.facts)
    try:
        changes = rewrite(rules, again, golden.settings).changes
    except RuleError:
        changes = True
    assert made.repeats or not changes


@pytest.mark.parametrize("name", [preset.name for preset in presets()])
def test_a_preset_says_what_becomes_of_moments(name: str) -> None:
    notes = yaml.safe_load(TEXTS[name])["notes"]
    assert re.search(r"[Mm]oment|buffer|optimizer|average cannot be continued", notes)


@pytest.mark.parametrize("preset", presets(), ids=lambda preset: preset.name)
def test_the_header_is_on_lines_of_its_own(preset: object) -> None:
    """``--list-presets`` shows ``about`` whole, and the order of the head is one for all."""
    head = [line.split(":")[0] for line in TEXTS[preset.name].splitlines()[:4]]  # type: ignore[attr-defined]
    assert head == ["ckpttool", "about", "source", "notes"]


# --- the way back as a law: of a plan that says nothing is lost, the inverse gives the same tree again -------------


def modules_of(keys: Iterable[str]) -> list[str]:
    """Every module in a model's order, with some that have no keys: before, behind and inside of those that have."""
    tree: dict[str, Any] = {}
    for key in keys:
        node = tree
        for word in key.split(".")[:-1]:
            node = node.setdefault(word, {})
    return list(_walked("", tree))


def _walked(name: str, tree: dict[str, Any]) -> Iterable[str]:
    head = f"{name}." if name else ""
    yield name
    yield from [f"{head}act"] if tree else [f"{head}inner"] if name else []
    for word, below in tree.items():
        yield from _walked(f"{head}{word}", below)
    yield from [f"{head}drop"] if tree else []


def checkpoint(forms: dict[str, Any], facts: dict[str, Any]) -> Checkpoint:
    weights: dict[str, Any] = {key: T(() if form is None else form.shape) for key, form in forms.items()}
    weights["_metadata"] = {name: {"version": 1} for name in modules_of(forms)}
    root: dict[str, Any] = {"model": weights}
    for key, value in facts.items():
        *path, last = key.split(".")
        node = root
        for word in path:
            node = node.setdefault(word, {})
        node[last] = value
    return checkpoint_of(root)


def plan(source: Checkpoint, rules: RuleFile, golden: Golden) -> Plan:
    return planned(Writable(source, lay_out(source)), parts_of(rules, golden.settings), Wishes(), None)


def holds(source: Checkpoint, rules: RuleFile, golden: Golden) -> Plan:
    """The law on one checkpoint; the plan of the way there."""
    there = plan(source, rules, golden)
    try:
        inverse = rules.inverse()
    except RuleError:
        return there
    if there.lossless:
        back = plan(there.draft.checkpoint, inverse, golden)
        assert first_difference(source, back.draft.checkpoint) == ""
        assert recorded(source) == recorded(back.draft.checkpoint)
        assert [key.key for key, _ in source.tensors()] == [key.key for key, _ in back.draft.checkpoint.tensors()]
    return there


def recorded(checkpoint: Checkpoint) -> list[str]:
    at = metadata_at(checkpoint, lookup(checkpoint, checkpoint.root, "model") or 0)
    return list(fields(checkpoint, at))


@pytest.mark.parametrize("name", TEXTS)
def test_what_loses_nothing_comes_back_as_it_was(name: str) -> None:
    golden, rules = read(name), load(TEXTS[name], name)
    made = holds(checkpoint(golden.forms, golden.facts), rules, golden)
    model = lookup(made.draft.checkpoint, made.draft.checkpoint.root, "model")
    if model is None:
        return
    prefix = "model."
    forms = {
        key.key[len(prefix) :]: tensor for key, tensor in made.draft.checkpoint.tensors() if key.key.startswith(prefix)
    }
    try:
        back = rules.inverse()
    except RuleError:
        return
    holds(checkpoint(forms, golden.facts), back, golden)


KEPT = ["llama-hf-to-torchtune", "llama-meta-to-hf", "vit-timm-to-hf", "whisper-openai-to-hf", "vit-hf-4-to-5"]


@pytest.mark.parametrize("name", KEPT)
def test_records_of_modules_without_keys_survive(name: str) -> None:
    golden, rules = read(name), load(TEXTS[name], name)
    forms = {key: form for key, form in golden.forms.items() if "rope" not in key and "rotary" not in key}
    assert plan(checkpoint(forms, golden.facts), rules, golden).lossless
