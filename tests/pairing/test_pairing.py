"""Which tensors stand for each other: by name, by prefix, by content, by parts; what is left unsaid."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from ckpttool.changes import Pairing
from ckpttool.pairing import pair
from ckpttool.pairing.names import WRAPPERS
from ckpttool.profiles import lay_out
from ckpttool.testing.trees import T, checkpoint_of
from ckpttool.verbs.inventory import items

Values = Mapping[str, "np.ndarray[Any, Any]"]


def values(names: Sequence[str], shape: tuple[int, ...] = (4, 8), seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name in names}


def text_of(array: Any) -> str:
    return hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=16).hexdigest()


def paired(a: Mapping[str, Any], b: Mapping[str, Any], *, infer: bool = True, cuts: bool = True) -> Pairing:
    """Pair two trees whose leaves are arrays, as content; or ``T``, whose content nobody knows."""
    sides = []
    for tree in (a, b):
        checkpoint = checkpoint_of(bare(tree))
        layout = lay_out(checkpoint)
        found = items(checkpoint, layout)
        flat = leaves(tree)
        sides.append((checkpoint, layout, found, {item.index: flat[item.path] for item in found}))

    def content(side: str, wanted: Sequence[int]) -> dict[int, str]:
        known = sides[side == "b"][3]
        return {i: text_of(known[i]) for i in wanted if isinstance(known[i], np.ndarray)}

    def slices(side: str, index: int, dim: int, wanted: Sequence[tuple[int, int]]) -> list[str]:
        array = sides[side == "b"][3][index]
        if not isinstance(array, np.ndarray):
            return [f"{side} {index} {cut}" for cut in wanted]
        return [text_of(np.take(array, range(*cut), axis=dim)) for cut in wanted]

    (ca, la, ia, _), (cb, lb, ib, _) = sides
    return pair(ca, cb, la, lb, ia, ib, content, slices=slices if cuts else None, infer=infer)


def bare(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: bare(value) for key, value in tree.items()}
    return T(tree.shape, str(tree.dtype)) if isinstance(tree, np.ndarray) else tree


def leaves(tree: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    if not isinstance(tree, dict):
        return {path: tree}
    return {p: leaf for key, value in tree.items() for p, leaf in leaves(value, (*path, key)).items()}


def said(found: Pairing) -> dict[tuple[str, str], tuple[str, float]]:
    return {(p.a.key, p.b.key): (p.how, p.score) for p in found.pairs}


NAMES = [f"layers.{i}.{m}.{leaf}" for i in range(3) for m in ("attn", "mlp") for leaf in ("weight", "bias")]
MODEL = values([*NAMES, "head.weight"])


def test_equal_names_are_pairs_whatever_their_shape() -> None:
    found = paired({"w": T((4, 3)), "old": T((2, 2))}, {"w": T((5, 3), "int64"), "new": T((9,))})
    assert said(found) == {("w", "w"): ("name", 1.0)}
    assert [s.key for s in found.only_a] == ["old"]
    assert [s.key for s in found.only_b] == ["new"]


def test_content_is_not_asked_for_what_names_have_settled() -> None:
    checkpoint = checkpoint_of({"w": T(), "old": T((2, 2))})
    other = checkpoint_of({"w": T(), "new": T((9,))})
    layouts = lay_out(checkpoint), lay_out(other)
    both = items(checkpoint, layouts[0]), items(other, layouts[1])

    def never(side: str, wanted: Sequence[int]) -> dict[int, str]:
        pytest.fail(f"asked for {wanted} of {side}")

    assert len(pair(checkpoint, other, *layouts, *both, never).pairs) == 1


@pytest.mark.parametrize("stack", [s for n in (1, 2) for s in permutations(sorted(WRAPPERS), n)], ids=".".join)
def test_wrappers_are_one_change(stack: tuple[str, ...]) -> None:
    front = "".join(f"{word}." for word in stack)
    found = paired({front + k: T(v.shape) for k, v in MODEL.items()}, {k: T(v.shape) for k, v in MODEL.items()})
    assert said(found) == {(front + k, k): ("prefix", 1.0) for k in MODEL}
    assert found.prefixes == ((front, ""),)


def test_wrappers_in_the_middle_and_on_both_sides() -> None:
    inner = {"_fsdp_wrapped_module." + k.replace("attn.", "attn._checkpoint_wrapped_module."): k for k in MODEL}
    found = paired({k: T() for k in inner}, {"module._orig_mod." + k: T() for k in MODEL})
    assert set(said(found).values()) == {("prefix", 1.0)}
    assert {(p.a.key, p.b.key) for p in found.pairs} == {(k, "module._orig_mod." + v) for k, v in inner.items()}
    assert len(found.prefixes) == 1


def test_a_segment_that_only_ends_like_a_wrapper_is_none() -> None:
    found = paired({"text_module.fc": T((7, 7))}, {"text_fc": T((7, 7), "int64")})
    assert not found.pairs


@pytest.mark.parametrize("front", ["model.", "net.backbone.", "model._orig_mod."])
def test_any_prefix_that_all_names_have_is_one_change(front: str) -> None:
    found = paired({"epoch": 1, "state_dict": {front + k: T() for k in MODEL}}, {k: T() for k in MODEL})
    assert len(found.pairs) == len(MODEL)
    assert {how for how, _ in said(found).values()} == {"prefix"}
    assert found.prefixes == ((front, ""),)


def test_layers_that_came_and_went_are_no_prefix() -> None:
    found = paired(
        {f"layers.0.{x}.w": T((i, 2)) for i, x in enumerate("abcd", 3)},
        {f"layers.7.{x}.w": T((i, 2)) for i, x in enumerate("abcd", 3)},
    )
    assert found.prefixes == ()
    assert all(p.score < 1 for p in found.pairs)


def test_another_root_or_section_keeps_the_name() -> None:
    small = {k: T() for k in MODEL}
    found = paired({"model": small, "epoch": 1}, {"state_dict": small, "epoch": 1})
    assert {(h, s) for h, s in said(found).values()} == {("name", 1.0)}
    assert all(p.a.path[0] == "model" and p.b.path[0] == "state_dict" for p in found.pairs)


def test_content_that_several_have_is_never_certain() -> None:
    zero = np.zeros(64, np.float32)
    a = {"x.weight": MODEL["head.weight"], "x.bias": zero, "y.bias": zero}
    b = {"p.weight": MODEL["head.weight"], "p.bias": zero, "q.bias": zero}
    found = said(paired(a, b))
    assert found["x.weight", "p.weight"] == ("content", 1.0)
    assert found["x.bias", "p.bias"][1] < 1
    assert all(s < 1 for (k, _), (_, s) in found.items() if k.endswith("bias"))


def test_one_value_over_and_over_proves_nothing() -> None:
    found = paired({"old.scale": np.ones(64, np.float32)}, {"new.shift": np.ones(64, np.float32)})
    assert all(p.score < 1 for p in found.pairs)


@pytest.mark.parametrize("sizes", [(8, 8, 8), (16, 4, 4), (5, 12)])
@pytest.mark.parametrize("dim", [0, 1])
def test_split_and_concatenated_where_content_proves_it(sizes: tuple[int, ...], dim: int) -> None:
    rng = np.random.default_rng(3)
    a: dict[str, Any] = {}
    b: dict[str, Any] = {}
    for layer in range(2):
        shapes = [(size, 6) if dim == 0 else (6, size) for size in sizes]
        parts = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
        a[f"h.{layer}.in_proj.weight"] = np.concatenate(parts, axis=dim)
        a[f"h.{layer}.in_proj.bias"] = np.zeros(sum(sizes), np.float32)
        for name, part, size in zip("qkv", parts, sizes, strict=False):
            b[f"h.{layer}.{name}.weight"] = part
            b[f"h.{layer}.{name}.bias"] = np.zeros(size, np.float32)
    found, mirror = paired(a, b, infer=False), paired(b, a, infer=False)
    whole = [p for p in found.pairs if p.score == 1.0]
    names = [(f"h.{i}.in_proj.weight", f"h.{i}.{n}.weight") for i in range(2) for n in "qkv"[: len(sizes)]]
    assert [(p.a.key, p.b.key) for p in whole] == names
    assert {p.how for p in found.pairs} == {"split"}
    assert {p.how for p in mirror.pairs} == {"concat"}
    assert {(k2, k1) for k1, k2 in said(mirror)} == set(said(found))
    zeros = {(p.a.key, p.b.key): p.score for p in found.pairs if p.a.key.endswith("bias")}
    assert set(zeros) == {(x.replace("weight", "bias"), y.replace("weight", "bias")) for x, y in names}
    assert max(zeros.values()) < 1


def test_experts_that_were_stacked() -> None:
    parts = values([f"experts.{i}.w" for i in range(6)], (4, 5))
    found = paired(parts, {"experts.w": np.stack(list(parts.values()))})
    assert [(p.a.key, p.how, p.score) for p in found.pairs] == [(k, "concat", 1.0) for k in parts]


def test_a_part_that_differs_proves_nothing() -> None:
    parts = values(["q", "k", "v"])
    whole = np.concatenate(list(parts.values()))
    whole[9, 1] += 1
    assert not [p for p in paired({"w": whole}, parts).pairs if p.how in ("split", "concat")]


def test_a_key_that_stands_twice_finds_itself() -> None:
    from ckpttool.model import Checkpoint, Mapping as Node, Tensor, Value

    tensor = next(node for node in checkpoint_of({"w": T()}).nodes if isinstance(node, Tensor))
    twice = Checkpoint("x", "torch-zip", (Value("w"), tensor, tensor, Node("dict", (0, 0), (1, 2))), 3)
    found = items(twice, lay_out(twice))
    result = pair(twice, twice, lay_out(twice), lay_out(twice), found, found, lambda side, wanted: {})
    assert [(p.a.index, p.b.index) for p in result.pairs] == [(1, 1), (2, 2)]


WORDS = st.sampled_from("enc dec attn mlp fc norm gate up down conv proj stem".split())
OLD = st.lists(st.tuples(WORDS, st.integers(0, 3), WORDS), min_size=1, max_size=14, unique=True)


@st.composite
def scripts(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """A model, the same with renamed, dropped, added, rewritten and constant tensors in another order; the truth."""
    old = [f"{a}.{n}.{b}.weight" for a, n, b in draw(OLD)]
    kinds = st.sampled_from(["rename", "rename", "drop", "add", "rewrite", "zero", "keep"])
    a, b, truth = {}, {}, {}
    for at, name in enumerate(old):
        kind = draw(kinds)
        content = np.random.default_rng(at).normal(size=(6, 4)).astype(np.float32)
        content = np.zeros_like(content) if kind == "zero" else content
        new = name if kind == "keep" else f"new{draw(st.integers(0, 2))}.{draw(WORDS)}.{at}.weight"
        if kind != "add":
            a[name] = content
        if kind != "drop":
            b[new] = content + 1 if kind == "rewrite" else content
        if kind in ("rename", "keep"):
            truth[name] = new
    return a, dict(draw(st.permutations(list(b.items())))), truth


@given(scripts())
@settings(max_examples=3 * settings().max_examples)
def test_a_rename_script_is_recovered_by_content(script: tuple[Any, Any, dict[str, str]]) -> None:
    a, b, truth = script
    found = paired(a, b)
    certain = {(p.a.key, p.b.key) for p in found.pairs if p.score == 1.0}
    assert certain == set(truth.items())
    assert sorted([p.a.key for p in found.pairs] + [s.key for s in found.only_a]) == sorted(a)
    assert sorted([p.b.key for p in found.pairs] + [s.key for s in found.only_b]) == sorted(b)


@given(scripts(), st.booleans())
def test_the_sides_may_change_places(script: tuple[Any, Any, Any], cuts: bool) -> None:
    a, b, _ = script
    there, back = paired(a, b, cuts=cuts), paired(b, a, cuts=cuts)
    assert {(y, x): v for (x, y), v in said(there).items()} == said(back)
    assert (there.only_a, there.only_b) == (back.only_b, back.only_a)
    assert there.prefixes == tuple((x, y) for y, x in back.prefixes)


@given(scripts(), st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter_for_what_is_certain(script: tuple[Any, Any, Any], random: Any) -> None:
    a, b, _ = script
    mixed = list(a.items())
    random.shuffle(mixed)
    first, second = paired(a, b, infer=False), paired(dict(mixed), b, infer=False)
    assert said(first) == said(second)
    assert {s.key for s in first.only_a} == {s.key for s in second.only_a}


@given(scripts(), st.randoms(use_true_random=False))
def test_unrelated_keys_change_nothing(script: tuple[Any, Any, Any], random: Any) -> None:
    a, b, _ = script
    more = values([f"unrelated.{i}" for i in range(5)], (3, 3))
    both = []
    for tree in (a, b):
        keys = [*tree, *more]
        random.shuffle(keys)
        rest = iter(tree)
        # The script's own keys stay in their order; the others stand anywhere between.
        both.append({k: {**tree, **more}[k] for k in (key if key in more else next(rest) for key in keys)})
    with_more = said(paired(both[0], both[1]))
    assert {k: v for k, v in with_more.items() if k[0] not in more} == said(paired(a, b))


def test_equal_shapes_by_the_thousand_stay_linear() -> None:
    a = {f"a{i}.x": T((3,)) for i in range(4000)}
    b = {f"b{i}.y": T((3,)) for i in range(4000)}
    start = time.perf_counter()
    paired(a, b)
    assert time.perf_counter() - start < 10
