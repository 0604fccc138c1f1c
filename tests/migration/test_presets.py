"""What each preset makes of names, held against a written list: ``golden/<name>.txt``. No tensor, no file, no torch.

A line is a key that no rule speaks of (``head.weight [3, 8]``), or keys in, an arrow and keys out. Nothing on the
right is a drop, nothing on the left a new key; a star says that elements move or values are computed. Before that
stand what the checkpoint records (``fact``), what the user says (``set``), and how far the way back leads (``back``):
all of it unless it says ``no``, or names the keys that are lost. ``some rules`` says that guards exclude each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from ckpttool.dtypes import DTYPES
from ckpttool.expressions import Form, Leaf, form_of
from ckpttool.migration import RuleError, RuleFile, load, rewrite
from ckpttool.rewriting import Named, Names, Rewriting
from ckpttool.verbs.presets import presets

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
        yield (
            found[1],
            None if sizes is None else tuple(int(size) for size in sizes.split(",") if size.strip()),
        )


def forward(name: str, golden: Golden) -> tuple[RuleFile, Rewriting]:
    rules = load(TEXTS[name], name)
    return rules, rewrite(rules, golden.names, golden.settings)


def named(golden: Golden, rewriting: Rewriting) -> tuple[Named, ...]:
    """The result's keys, with their forms."""
    forms = {key: form for key, form in golden.forms.items() if form is not None}
    return tuple(
        Named(o.name, form_of(o.expression, forms) if set(o.inputs) <= set(forms) else None)
        for o in rewriting.outputs
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
    found = {
        o.name: form_of(o.expression, forms) if set(o.inputs) <= set(forms) else None for o in back.outputs
    }
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
