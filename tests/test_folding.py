"""Folding says the same names in fewer words."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from ckpttool.folding import fold, unfold

words = st.one_of(
    st.sampled_from(["", "a", "b", "weight", "0", "1", "2", "3", "10", "007", "²", "{", "}", ",", "\\", "{a,b}"]),
    st.text(max_size=3),
)
names = st.lists(words, min_size=1, max_size=5).map(".".join)
layers = [f"layers.{i}.attn.{part}.{kind}" for i in range(12) for part in "qkv" for kind in ("weight", "bias")]


def texts(found: list[str]) -> list[str]:
    return [one.text for one in fold((name, None) for name in found)]


@given(st.lists(names, max_size=40))
def test_unfolding_gives_the_names_back(found: list[str]) -> None:
    unfolded = [name for text in texts(found) for name in unfold(text)]
    assert sorted(unfolded) == sorted(set(found))


@given(st.lists(st.tuples(names, st.booleans()), max_size=30))
def test_marks_stay_apart_and_counts_are_exact(found: list[tuple[str, bool]]) -> None:
    folds = fold(found)
    for mark in (True, False):
        mine = {name for name, m in found if m is mark}
        assert {name for one in folds if one.mark is mark for name in unfold(one.text)} == mine
    assert sum(one.count for one in folds) == len(set(found))


def test_layers_fold_to_one_line() -> None:
    assert texts(layers) == ["layers.{0..11}.attn.{q,k,v}.{weight,bias}"]


def test_an_odd_layer_does_not_keep_the_others_apart() -> None:
    assert texts([*layers, "layers.0.bias"]) == ["layers.{0..11}.attn.{q,k,v}.{weight,bias}", "layers.0.bias"]


def test_gaps_stay_visible() -> None:
    assert texts([f"w.{i}" for i in (0, 1, 2, 5, 7, 8)]) == ["w.{0..2,5,7,8}"]


def test_many_words_are_not_crammed_into_braces() -> None:
    many = [f"name_{chr(97 + i)}" for i in range(20)]
    assert texts(many) == many


@pytest.mark.parametrize("name", ["a{b}", "a,b", "a\\b", "a\\", ""])
def test_marks_of_the_grammar_in_names_are_escaped(name: str) -> None:
    (text,) = texts([name])
    assert list(unfold(text)) == [name]


def test_order_is_of_first_appearance() -> None:
    assert texts(["z.0", "a", "z.1", "m.x"]) == ["z.{0,1}", "a", "m.x"]
