"""The laws of infer: what is certain is true, contents lead back to the edits, written rules do what the pairs say."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
from hypothesis import given, strategies as st
from numpy.typing import NDArray

from ckpttool import describe
from ckpttool.migration import load, rewrite
from ckpttool.migration.inference import Inference
from ckpttool.migration.scopes import names_of
from ckpttool.migration.target import target_of, weights_of
from ckpttool.migration.towards import towards
from ckpttool.profiles import lay_out
from ckpttool.rewriting import Names
from ckpttool.testing.plain import tensor
from ckpttool.testing.writers import torch_file
from ckpttool.verbs.diff_sides import target as side_at
from ckpttool.verbs.infer import evidence_of
from ckpttool.verbs.inventory import Selection

Array: TypeAlias = "NDArray[np.float32]"
Weights: TypeAlias = "dict[str, Array]"

D = 6
SHAPES = {
    "attn.q": (D, D), "attn.k": (D, D), "attn.v": (D, D), "attn.out": (D, D),
    "mlp.up": (4 * D, D), "mlp.down": (D, 4 * D), "norm1": (D,), "norm2": (D,),
}  # fmt: skip
WORDS = {
    "layers": "h", "attn": "self_attn", "q": "query", "k": "key", "v": "value", "out": "o_proj", "mlp": "ffn",
    "up": "fc1", "down": "fc2", "norm1": "input_norm", "norm2": "post_norm", "embed": "wte", "head": "lm_head",
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """Two state dicts and the truth: what each new key is made of, old keys in order and what is done to them."""

    old: Weights
    new: Weights
    truth: dict[str, tuple[tuple[str, ...], str]] = field(default_factory=dict)


@st.composite
def models(draw: st.DrawFn) -> Weights:
    """Layers of like shapes; some tensors are constant, as a fresh model's norms and biases are."""
    random = np.random.default_rng(draw(st.integers(0, 2**31)))
    constant_norms, zero_biases, biases = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    found: Weights = {"embed.weight": random.standard_normal((11, D), dtype=np.float32)}
    for layer in range(draw(st.integers(1, 4))):
        for module, shape in SHAPES.items():
            name = f"layers.{layer}.{module}"
            norm = module.startswith("norm")
            weight = random.standard_normal(shape, dtype=np.float32)
            found[f"{name}.weight"] = np.ones(shape, np.float32) if norm and constant_norms else weight
            if biases or norm:
                bias = random.standard_normal(shape[0], dtype=np.float32)
                found[f"{name}.bias"] = np.zeros(shape[0], np.float32) if zero_biases else bias
    tied = draw(st.booleans())
    found["head.weight"] = found["embed.weight"].copy() if tied else random.standard_normal((11, D), dtype=np.float32)
    return found


Edit: TypeAlias = "Callable[[st.DrawFn, Case], Case]"


def _renamed(case: Case, name: Callable[[str], str | None]) -> Case:
    pairs = [(key, new) for key in case.new if (new := name(key)) is not None]
    return Case(case.old, {new: case.new[key] for key, new in pairs}, {n: case.truth[k] for k, n in pairs})


def rename_words(draw: st.DrawFn, case: Case) -> Case:
    words = draw(st.sets(st.sampled_from(sorted(WORDS)), min_size=1))
    chosen = {word: WORDS[word] for word in words}
    return _renamed(case, lambda key: ".".join(chosen.get(word, word) for word in key.split(".")))


def prefix(draw: st.DrawFn, case: Case) -> Case:
    head = draw(st.sampled_from(["module.", "model.", "_orig_mod.module.", "net.body."]))
    return _renamed(case, lambda key: head + key)


def layers_of(case: Case) -> list[str]:
    """The numbers of layers, under whatever name."""
    found = {word for key in case.new for word in key.split(".") if word.isdecimal()}
    return sorted(found, key=int)


def _renumbered(case: Case, numbers: dict[str, str | None]) -> Case:
    def name(key: str) -> str | None:
        words = [numbers.get(word, word) for word in key.split(".")]
        return None if None in words else ".".join(word or "" for word in words)

    return _renamed(case, name)


def renumber(draw: st.DrawFn, case: Case) -> Case:
    layers = layers_of(case)
    order = draw(st.permutations(layers))
    step = draw(st.integers(0, 2))
    return _renumbered(case, {old: str(int(new) + step) for old, new in zip(layers, order, strict=True)})


def prune(draw: st.DrawFn, case: Case) -> Case:
    """Some layers go, the others close ranks."""
    layers = layers_of(case)
    kept = draw(st.sets(st.sampled_from(layers), min_size=1))
    left = iter(range(len(kept)))
    return _renumbered(case, {old: str(next(left)) if old in kept else None for old in layers})


def swap(draw: st.DrawFn, case: Case) -> Case:
    """Two modules change names."""
    one, other = draw(st.sampled_from([("q", "k"), ("k", "v"), ("q", "out")]))
    names = {one: other, other: one}
    return _renamed(case, lambda key: ".".join(names.get(word, word) for word in key.split(".")))


def reorder(draw: st.DrawFn, case: Case) -> Case:
    keys = draw(st.permutations(list(case.new)))
    return Case(case.old, {key: case.new[key] for key in keys}, {key: case.truth[key] for key in keys})


def transpose(draw: st.DrawFn, case: Case) -> Case:
    """Some kinds of matrices are stored the other way around."""
    kinds = draw(st.sets(st.sampled_from(["q", "out", "up", "down"]), min_size=1))
    new, truth = dict(case.new), dict(case.truth)
    for key, (olds, how) in case.truth.items():
        if olds and olds[0].split(".")[-2] in kinds and case.new[key].ndim == 2 and how == "":
            new[key], truth[key] = np.ascontiguousarray(case.new[key].T), (olds, "transpose")
    return Case(case.old, new, truth)


def split(draw: st.DrawFn, case: Case) -> Case:
    """A matrix becomes two or three."""
    count = draw(st.sampled_from([2, 3]))
    kind = draw(st.sampled_from(["up", "q"]))
    new: Weights = {}
    truth = {}
    for key, array in case.new.items():
        olds, how = case.truth[key]
        module, _, leaf = key.rpartition(".")
        if len(olds) != 1 or olds[0].split(".")[-2] != kind or how:
            new[key], truth[key] = array, case.truth[key]
            continue
        for part, piece in enumerate(np.split(array, count)):
            name = f"{module}_{'abc'[part]}.{leaf}"
            new[name], truth[name] = piece.copy(), (olds, f"split {part}")
    return Case(case.old, new, truth)


def concat(draw: st.DrawFn, case: Case) -> Case:
    """Queries, keys and values become one."""
    parts: dict[tuple[str, ...], dict[str, str]] = {}
    for key, (olds, how) in case.truth.items():
        words = olds[0].split(".") if olds else ["", ""]
        if words[-2] in ("q", "k", "v") and not how and len(olds) == 1:
            parts.setdefault((*words[:-2], words[-1]), {})[words[-2]] = key
    new, truth = dict(case.new), dict(case.truth)
    for (*module, leaf), found in parts.items():
        if set(found) == {"q", "k", "v"}:
            name = ".".join([*module, "qkv", leaf])
            arrays = [new.pop(found[word]) for word in "qkv"]
            new[name] = np.concatenate(arrays)
            truth[name] = (tuple(truth.pop(found[word])[0][0] for word in "qkv"), "concat")
    return Case(case.old, new, truth)


def grow(draw: st.DrawFn, case: Case) -> Case:
    """The new model has something of its own."""
    shape = draw(st.sampled_from([(D, D), (D,), (11, D), (5, 5)]))
    fresh = np.random.default_rng(5).standard_normal(shape, dtype=np.float32)
    return Case(case.old, {**case.new, "extra.weight": fresh}, {**case.truth, "extra.weight": ((), "")})


def train(draw: st.DrawFn, case: Case) -> Case:
    """Every number moves a little."""
    random = np.random.default_rng(draw(st.integers(0, 99)))
    new = {k: a + 0.02 * random.standard_normal(a.shape).astype(np.float32) for k, a in case.new.items()}
    return Case(case.old, new, case.truth)


ANY: list[Edit] = [rename_words, prefix, renumber, prune, swap, reorder, transpose, split, concat, grow]
NAMES_ONLY: list[Edit] = [rename_words, prefix, prune, reorder, split, concat, grow]
"""Edits that leave no name with another tensor than before, but for layers that closed ranks."""


@st.composite
def cases(draw: st.DrawFn, edits: list[Edit], *, trained: bool = False, max_size: int = 4) -> Case:
    """A model and the same after an edit script."""
    old = draw(models())
    case = Case(old, dict(old), {name: ((name,), "") for name in old})
    for edit in draw(st.lists(st.sampled_from(edits), max_size=max_size, unique=True)):
        case = edit(draw, case)
    return train(draw, case) if trained else case


# --- finding and judging ---------------------------------------------------------------------------------------


def found_in(case: Case, *, content: bool = True) -> tuple[Inference, Names]:
    with tempfile.TemporaryDirectory() as here:
        paths = []
        for name, weights in (("old.pt", case.old), ("new.pt", case.new)):
            path = Path(here) / name
            path.write_bytes(torch_file({k: tensor(a.shape, a.tobytes()) for k, a in weights.items()}))
            paths.append(path)
        a, b = (describe(path) for path in paths)
        ours = lay_out(a)
        scope = weights_of(a, ours)
        names = names_of(a, scope, {})
        sides = [side_at(path, "", Selection()) for path in paths]
        evidence = evidence_of(sides[0], scope, sides[1]) if content else None
        return towards(names, target_of(b, lay_out(b)), evidence), names


def wrong(case: Case, found: Inference) -> Iterator[str]:
    """Certain links that are not what was done. Old keys of equal content are one and the same here."""
    for link in found.links:
        if link.confidence != "certain":
            continue
        for part, new in enumerate(link.new):
            olds, how = case.truth[new]
            said = (f"{'transpose ' if link.axes else ''}{link.op.name if link.op else ''}").strip()
            said += f" {part}" if said == "split" else ""
            alike = len(olds) == len(link.old) and all(
                x == y or np.array_equal(case.old[x], case.old[y]) for x, y in zip(olds, link.old, strict=True)
            )
            if not alike or said != how:
                yield f"{link} but {new} is {how or 'the same as'} {olds}"


def written_is_found(found: Inference, names: Names) -> None:
    """The file of rules, read and applied, makes of every old key what the pairs say, and of no other anything.

    Keys that are still asked about are left out: under their old names they may stand in the way.
    """
    asked = {name for one in found.questions for name in one.candidates}
    settled = Names(tuple(one for one in names.items if one.name not in asked))
    made = rewrite(load(found.rules, "rules.yaml"), settled)
    said = {new: set(link.old) for link in found.links for new in link.new}
    assert {one.name: set(one.inputs) for one in made.outputs} == said
    assert {one.name for one in made.dropped} == set(found.unused)
    assert {one.name: set(one.inputs) for one in found.rewriting.outputs} == said


@given(cases(ANY))
def test_with_contents_nothing_wrong_is_certain(case: Case) -> None:
    found, names = found_in(case)
    assert list(wrong(case, found)) == []
    written_is_found(found, names)


@given(cases(ANY, trained=True))
def test_after_training_nothing_wrong_is_certain(case: Case) -> None:
    found, names = found_in(case)
    assert list(wrong(case, found)) == []
    written_is_found(found, names)


@given(cases(NAMES_ONLY))
def test_without_contents_nothing_wrong_is_certain(case: Case) -> None:
    found, names = found_in(case, content=False)
    assert list(wrong(case, found)) == []
    written_is_found(found, names)


@given(cases(ANY))
def test_every_content_of_its_own_is_found(case: Case) -> None:
    """What no other tensor equals and is not one row over and over has to be found, and to be certain."""
    found, _ = found_in(case)
    sure = {new for link in found.links for new in link.new if link.confidence == "certain"}
    for new, (olds, _) in case.truth.items():
        arrays = [case.old[old] for old in olds]
        telling = all(array.ndim == 2 and array.size >= 16 for array in arrays) and case.new[new].size >= 16
        alone = all(sum(np.array_equal(array, other) for other in case.old.values()) == 1 for array in arrays)
        if olds and telling and alone:
            assert new in sure
