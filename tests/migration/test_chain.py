"""Chains: steps in one line, files read without being run, and where a checkpoint stands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from ckpttool.draft import Held, Input, Made, draft_of
from ckpttool.dtypes import DTYPES
from ckpttool.errors import CkpttoolError
from ckpttool.expressions import Applied, Expression, Form, Leaf, form_of
from ckpttool.formats import describe
from ckpttool.migration.chain_files import code_links, settings_of, yaml_link
from ckpttool.migration.chains import Chain, ChainError, Link, chain_of
from ckpttool.migration.grounding import grounded, substituted
from ckpttool.migration.rule_errors import RuleError
from ckpttool.migration.versions import changed_since, standing, with_value, with_version
from ckpttool.model import Storage, Tensor
from ckpttool.ops import Concat, Split, Transpose
from ckpttool.stamps import Stamp, stamps_of, with_stamps
from ckpttool.testing.plain import tensor
from ckpttool.testing.writers import torch_file
from ckpttool.verbs.chain_run import turned
from ckpttool.writing.evaluate import evaluate

F32 = DTYPES["float32"]


def link(from_: str, to: str, digest: str = "d") -> Link:
    return Link(f"{from_}-{to}.yaml", f"m/{from_}-{to}.yaml", from_, to, digest)


def line(*pairs: str) -> Chain:
    return chain_of([link(*pair.split()) for pair in pairs], "m")


# --- the line ------------------------------------------------------------------------------------------------


@given(st.permutations(["a b", "b c", "c d", "d e"]))
def test_the_order_of_files_does_not_matter(pairs: list[str]) -> None:
    chain = line(*pairs)
    assert chain.versions == ("a", "b", "c", "d", "e")
    assert (chain.head, chain.version("head")) == ("e", "e")
    assert [turn.versions for turn in chain.way("b", "d")] == [("b", "c"), ("c", "d")]
    assert [turn.versions for turn in chain.way("d", "b")] == [("d", "c"), ("c", "b")]
    assert all(turn.back for turn in chain.way("d", "b"))
    assert chain.way("c", "c") == ()


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        (["a b", "a c"], ["two steps lead on from version 'a'", "m/a-b.yaml", "m/a-c.yaml", "no branches"]),
        (["a c", "b c"], ["two steps lead to version 'c'", "m/a-c.yaml", "m/b-c.yaml"]),
        (["a b", "c d"], ["a step is missing", "m/a-b.yaml: 'a' → 'b'", "m/c-d.yaml: 'c' → 'd'"]),
        (["a b", "b a"], ["in a circle", "m/a-b.yaml", "m/b-a.yaml"]),
        (["a a"], ["in a circle", "m/a-a.yaml"]),
        (["a b", "c d", "d c"], ["in a circle", "m/c-d.yaml", "m/d-c.yaml"]),
        ([], ["holds no migrations"]),
        (["a head"], ["'head'"]),
    ],
)
def test_what_is_no_line_names_the_files(pairs: list[str], words: list[str]) -> None:
    with pytest.raises(ChainError) as caught:
        line(*pairs)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_version_that_is_not_there_lists_those_that_are() -> None:
    with pytest.raises(ChainError, match="has no version 'z'; it has 'a', 'b'"):
        line("a b").version("z")
    with pytest.raises(ChainError, match="unstamped"):
        chain_of([link("a", "b")], "m", unstamped="z")


# --- files ---------------------------------------------------------------------------------------------------

RULES = "ckpttool: 1\nabout: x\nfrom: 1\nto: 2\nrules:\n- rename: a\n  to: b\n"
CODE = '''
import nothing_of_that_name
raise SystemExit("never run")

@ckpttool.migration("2", 3)
def up(keys):
    """Told in the docs.

    And more."""

@up.down
def down(keys): ...
'''


def test_rules_say_their_versions_and_a_comment_changes_nothing() -> None:
    one = yaml_link(RULES, "1.yaml", "m/1.yaml")
    assert (one.from_, one.to, one.about) == ("1", "2", "x")
    assert one.digest == yaml_link("# why\n" + RULES, "1.yaml", "m/1.yaml").digest
    assert one.digest != yaml_link(RULES.replace("to: b", "to: c"), "1.yaml", "m/1.yaml").digest
    for key in ("from", "to"):
        text = "".join(row for row in RULES.splitlines(True) if not row.startswith(key))
        with pytest.raises(ChainError, match=f"m/1.yaml – lacks '{key}'"):
            yaml_link(text, "1.yaml", "m/1.yaml")


def test_python_is_read_and_not_run() -> None:
    (one,) = code_links(CODE, "2.py", "m/2.py")
    assert (one.from_, one.to, one.up, one.down) == ("2", "3", "up", "down")
    assert (one.about, one.where) == ("Told in the docs.", "m/2.py:6")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def f(:", "m/2.py:1 – this is not Python"),
        ("def f(): pass", "no function with @ckpttool.migration"),
        ("@ckpttool.migration(A, '2')\ndef f(keys): pass", "m/2.py:1 – the versions are written as texts"),
        ("@ckpttool.migration('1')\ndef f(keys): pass", "written as texts"),
        ("@ckpttool.migration('', '2')\ndef f(keys): pass", "written as texts"),
        ("\0", "this is not Python"),
    ],
)
def test_python_that_is_no_step_says_why(text: str, words: str) -> None:
    with pytest.raises(ChainError) as caught:
        list(code_links(text, "2.py", "m/2.py"))
    assert words in str(caught.value)


def test_settings() -> None:
    assert settings_of("version: {key: meta.arch}\nunstamped: 1\n", "c") == ("meta.arch", "1")
    assert settings_of("version: meta.arch\n", "c") == ("meta.arch", "")
    with pytest.raises(RuleError, match="c:1 – a chain has no 'versoin'; did you mean 'version'"):
        settings_of("versoin: x\n", "c")


# --- where a checkpoint stands -------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    def save(**values: object) -> Path:
        path = tmp_path / "a.pth"
        path.write_bytes(torch_file({"model": {"a": tensor((2,), bytes(8))}, **values}))
        return path

    return save


def test_a_value_goes_before_the_note_and_the_note_before_what_is_told(saved: Callable[..., Path]) -> None:
    chain = chain_of([link("1", "2"), link("2", "3")], "m", "meta.arch", "1")
    bare = describe(saved())
    assert standing(bare, chain).version == "1"
    assert standing(bare, chain, "2").version == "2"
    noted = with_stamps(draft_of(bare), [Stamp("d", from_="2", to="3")]).checkpoint
    assert standing(noted, chain, "2").version == "3"
    assert standing(noted, None).version == "3"
    told = describe(saved(meta={"arch": 2}))
    assert standing(told, chain).version == "2"
    both = with_stamps(draft_of(told), [Stamp("d", from_="2", to="3"), Stamp("e", about="rules")]).checkpoint
    assert (standing(both, chain).version, standing(both, chain).agrees) == ("2", False)


@pytest.mark.parametrize(("old", "new"), [(1, 2), ("v1", "v2"), ("1", "2")])
def test_a_version_is_written_as_it_was_and_nothing_else_changes(
    saved: Callable[..., Path], old: object, new: object
) -> None:
    # The other value is the same object: a pickle spells it once.
    checkpoint = describe(saved(meta={"arch": old, "other": old}))
    after = with_version(draft_of(checkpoint), "meta.arch", str(new)).checkpoint
    values = {e.key: e.node.value for e in after.entries() if hasattr(e.node, "value")}
    assert values == {"meta.arch": new, "meta.other": old}
    assert type(values["meta.arch"]) is type(old)
    assert with_version(draft_of(checkpoint), "nothing.here", "2").checkpoint is checkpoint
    with pytest.raises(ChainError, match="is no plain value"):
        with_value(draft_of(checkpoint), "nothing.here", 2)


def test_notes_are_written_and_read_back() -> None:
    stamps = (
        Stamp("d1", False, "about", "1.yaml", "1", "2", "2026-01-01T00:00:00+00:00", "0.1", (("heads", 4),)),
        Stamp("d2", True),
    )
    checkpoint = describe(Path(__file__).parents[2] / "fixtures" / "training.pth")
    noted = with_stamps(draft_of(checkpoint), stamps).checkpoint
    assert stamps_of(noted) == stamps


def test_going_back_takes_the_step_off_the_note() -> None:
    one, two = Stamp("d", from_="1", to="2"), Stamp("e", from_="2", to="3")
    back = Stamp("x", True, from_="2", to="3")
    assert turned((one, two), back) == (one,)
    assert turned((one,), back) == (one, back)
    assert turned((one, back), two) == (one, back, two)


def test_a_file_that_has_changed_is_found() -> None:
    chain = chain_of([link("1", "2", "new")], "m")
    assert changed_since(chain, [Stamp("new", from_="1", to="2")]) == []
    ((found, stamp),) = changed_since(chain, [Stamp("old", from_="1", to="2"), Stamp("y", about="rules")])
    assert (found.to, stamp.digest) == ("2", "old")


# --- plans on plans ------------------------------------------------------------------------------------------


def given_tensor(name: str, shape: tuple[int, ...], data: bytes) -> Input:
    stride = (shape[1], 1) if len(shape) == 2 else (1,)
    return Input(name, Tensor(F32, shape, stride, 0, 0), Storage("0", F32, len(data), inline=data))


def test_what_is_split_and_joined_again_is_one_input() -> None:
    whole = given_tensor("w", (4, 2), bytes(range(32)))
    split = Split(sections=2)
    form = Form(F32, (2, 2))
    parts = [Made(Applied(split, (Leaf("w"),), i), (whole,), form) for i in range(2)]
    inputs = [given_tensor(name, (2, 2), b"") for name in "ab"]
    expression, under = grounded(Applied(Concat(0), (Leaf("a"), Leaf("b"))), inputs, parts)
    assert under == (whole,)
    made = Made(expression, under, Form(F32, (4, 2)))
    assert bytes(evaluate(made)) == bytes(range(32))


def test_different_tensors_of_one_name_are_told_apart() -> None:
    one, other = (given_tensor("w", (1, 2), bytes([i] * 8)) for i in (1, 2))
    turn = Transpose(0, 1)
    form = Form(F32, (2, 1))
    contents = [Made(Applied(turn, (Leaf("w"),)), (each,), form) for each in (one, other)]
    inputs = [given_tensor(name, (2, 1), b"") for name in "ab"]
    expression, under = grounded(Applied(Concat(0), (Leaf("a"), Leaf("b"))), inputs, contents)
    assert [each.name for each in under] == ["w", "w'"]
    made = Made(expression, under, form_of(expression, {e.name: Form(F32, (1, 2)) for e in under}))
    assert bytes(evaluate(made)) == bytes([1] * 8 + [2] * 8)


def test_bytes_at_hand_are_read_as_they_are() -> None:
    held = Input("h", Tensor(F32, (2,), (1,), 0, 0), Storage("0", F32, 8))
    expression, under = grounded(Leaf("h"), [held], [Held(bytes(range(8)))])
    assert bytes(evaluate(Made(expression, under, Form(F32, (2,))))) == bytes(range(8))


def test_a_view_into_what_is_yet_to_be_computed_is_refused() -> None:
    whole = given_tensor("w", (4, 2), bytes(32))
    made = Made(Applied(Transpose(0, 1), (Leaf("w"),)), (whole,), Form(F32, (2, 4)))
    with pytest.raises(CkpttoolError, match="in two runs"):
        grounded(Leaf("v"), [given_tensor("v", (2, 2), b"")], [made])


@given(st.integers(1, 12))
def test_substitution_is_by_name_and_at_once(depth: int) -> None:
    expression: Expression = Leaf("a")
    for _ in range(depth):
        expression = Applied(Concat(0), (expression, Leaf("b")))
    swapped = substituted(expression, {"a": Leaf("b"), "b": Leaf("a")})
    assert substituted(swapped, {"a": Leaf("b"), "b": Leaf("a")}) == expression
    assert swapped != expression
