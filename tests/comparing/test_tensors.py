"""Changes of tensors from pairs: every kind that applies, one change for a prefix, ties over paired keys."""

from __future__ import annotations

from typing import Any, Literal

from ckpttool.changes import Change, Difference, How, Pair, Pairing, Side
from ckpttool.comparing.sharing import moved_ahead
from ckpttool.comparing.tensors import EQUAL, Outcome, tensor_changes
from ckpttool.model import Checkpoint
from ckpttool.testing.trees import T, checkpoint_of

REWRITTEN = Outcome(False, False, Difference(12, 12, 1, 1, 0.5))


def sides(checkpoint: Checkpoint, section: str = "weights") -> dict[str, Side]:
    return {e.key: Side(e.key, e.path, e.index, section) for e, _ in checkpoint.tensors()}


def changes(
    before: Any,
    after: Any,
    *pairs: tuple[str, str, How],
    outcome: Outcome = EQUAL,
    sections: tuple[str, str] = ("weights", "weights"),
    ordered: bool = True,
) -> list[Change]:
    a, b = checkpoint_of(before), checkpoint_of(after)
    ours, theirs = sides(a, sections[0]), sides(b, sections[1])
    made = tuple(Pair(ours.pop(x), theirs.pop(y), how) for x, y, how in pairs)
    pairing = Pairing(made, tuple(ours.values()), tuple(theirs.values()))
    outcomes = {(p.a.index, p.b.index): outcome for p in made}
    return tensor_changes(a, b, pairing, outcomes, ordered)


def test_equal_tensors_are_no_change() -> None:
    assert changes({"w": T()}, {"w": T()}, ("w", "w", "name")) == []


def test_all_kinds_that_apply_are_told_and_the_first_names_it() -> None:
    (one,) = changes(
        {"w": T((4,))},
        {"v": T((2, 2), "float16")},
        ("w", "v", "inferred"),
        outcome=REWRITTEN,
        sections=("weights", "ema"),
    )
    assert one.kinds == ("renamed", "moved", "retyped", "reshaped", "rewritten")
    assert (one.kind, one.key, one.old_key, one.section) == ("renamed", "v", "w", "ema")


def test_what_is_within_the_tolerance_is_no_change() -> None:
    close = Outcome(False, True, Difference(12, 12, 1, 0, 1e-9))
    assert changes({"w": T()}, {"w": T()}, ("w", "w", "name"), outcome=close) == []


def test_what_could_not_be_compared_is_no_change_either() -> None:
    assert changes({"w": T()}, {"w": T()}, ("w", "w", "name"), outcome=Outcome(None, False, why="gone")) == []


def test_only_one_side_has_it() -> None:
    found = changes({"a": T()}, {"b": T((2,))})
    assert [(c.kind, c.key) for c in found] == [("removed", "a"), ("added", "b")]
    assert found[0].after is None
    assert isinstance(found[1].after, dict)
    assert found[1].after["shape"] == [2]


def test_a_prefix_is_one_change() -> None:
    names = [f"{i}.weight" for i in range(5)]
    before, after = {n: T() for n in names}, {f"module.{n}": T() for n in names}
    (one,) = changes(before, after, *((n, f"module.{n}", "prefix") for n in names))
    assert (one.kind, one.key, one.old_key, one.facts["count"]) == ("renamed", "module.*", "*", 5)


def test_a_prefix_does_not_hide_what_was_rewritten() -> None:
    pairs: list[tuple[str, str, How]] = [(n, f"module.{n}", "prefix") for n in ("a.w", "b.w")]
    before, after = {n: T() for n, _, _ in pairs}, {n: T() for _, n, _ in pairs}
    found = changes(before, after, *pairs, outcome=REWRITTEN)
    assert [(c.kinds, c.key) for c in found] == [
        (("renamed",), "module.*"), (("rewritten",), "module.a.w"), (("rewritten",), "module.b.w")
    ]  # fmt: skip


def test_sections_that_changed_their_role_are_moved_as_one() -> None:
    pairs: list[tuple[str, str, How]] = [(f"model.{n}", f"ema.{n}", "name") for n in ("a.w", "b.w")]
    before, after = {"model": {"a.w": T(), "b.w": T()}}, {"ema": {"a.w": T(), "b.w": T()}}
    (one,) = changes(before, after, *pairs, sections=("weights", "ema"))
    assert (one.kind, one.key, one.old_key) == ("moved", "ema.*", "model.*")


def test_ties_made_and_undone() -> None:
    tied, apart = {"e": T(tie="x"), "h": T(tie="x"), "o": T()}, {"e": T(), "h": T(), "o": T()}
    both: list[tuple[str, str, How]] = [(k, k, "name") for k in tied]
    for before, after, word in ((tied, apart, "no longer shares"), (apart, tied, "now shares")):
        found = changes(before, after, *both)
        assert [(c.kinds, c.key) for c in found] == [(("retied",), "e"), (("retied",), "h")]
        assert word in found[0].note


def test_a_tie_to_what_was_removed_is_not_told_twice() -> None:
    found = changes({"e": T(tie="x"), "h": T(tie="x")}, {"e": T()}, ("e", "e", "name"))
    assert [c.kind for c in found] == ["removed"]


def test_another_order_is_one_change_and_only_where_order_is_kept() -> None:
    keys: list[tuple[str, str, How]] = [(k, k, "name") for k in "abc"]
    before, after = {"m": {k: T() for k in "abc"}}, {"m": {k: T() for k in "cab"}}
    pairs: list[tuple[str, str, How]] = [(f"m.{x}", f"m.{y}", how) for x, y, how in keys]
    (one,) = changes(before, after, *pairs)
    assert (one.kind, one.key, one.facts["moved"]) == ("reordered", "m.*", 1)
    assert changes(before, after, *pairs, ordered=False) == []


def test_bit_rot_is_marked() -> None:
    rotten = Outcome(False, False, REWRITTEN.difference, agreed=True)
    (one,) = changes({"w": T()}, {"w": T()}, ("w", "w", "name"), outcome=rotten)
    assert one.note.startswith("bit rot")


def test_as_few_as_possible_have_moved() -> None:
    cases: list[tuple[list[int], Literal[0, 1, 2, 3]]] = [
        ([], 0),
        ([0, 1, 2], 0),
        ([2, 0, 1], 1),
        ([1, 0, 3, 2], 2),
        ([3, 2, 1, 0], 3),
    ]
    for order, moved in cases:
        assert moved_ahead(order) == moved
