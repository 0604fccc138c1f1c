"""What each operation makes of small tensors, and what it says where it does not fit."""

from __future__ import annotations

import numpy as np
import pytest

from ckpttool import ops
from ckpttool.dtypes import DTYPES
from ckpttool.expressions import Applied, Form, Leaf, Op, OpError
from ckpttool.ops.simplifying import simplify

FLOAT, HALF, LONG = DTYPES["float32"], DTYPES["bfloat16"], DTYPES["int64"]
MATRIX = Form(FLOAT, (4, 6))


def moved(op: Op, *arrays: list[object]) -> list[object]:
    """Outputs as lists."""
    given = [np.array(a, "u4") for a in arrays]
    forms = tuple(Form(FLOAT, a.shape) for a in given)
    return [a.tolist() for a in op.compute(given, forms)]


def test_rotary_halves_as_transformers_permutes_them() -> None:
    """``w.view(heads, dim // heads // 2, 2, dim).transpose(1, 2).reshape(dim, dim)``: pairs become halves."""
    op = ops.ViewPermute((1, 2, 2, -1), (0, 2, 1, 3))
    assert moved(op, [[0], [1], [2], [3]]) == [[[0], [2], [1], [3]]]


def test_interleaved_attention_becomes_blocks() -> None:
    """GPT-NeoX keeps q, k, v of each head together."""
    op = ops.ViewPermute((2, 3, 1, -1), (1, 0, 2, 3))
    assert moved(op, [[0], [1], [2], [3], [4], [5]]) == [[[0], [3], [1], [4], [2], [5]]]


def test_the_name_is_the_class_s() -> None:
    assert ops.Roll.name == "roll"
    assert repr(ops.Roll(0, 1)) == "Roll(dim=0, shift=1)"


def test_background_row_goes_last() -> None:
    assert moved(ops.Roll(0, -1), [7, 1, 2]) == [[1, 2, 7]]
    assert moved(ops.Reorder(0, (1, 2, 0)), [7, 1, 2]) == [[1, 2, 7]]


def test_experts_are_packed() -> None:
    assert moved(ops.Stack(0), [1, 2], [3, 4]) == [[[1, 2], [3, 4]]]
    assert moved(ops.Concat(-1), [[1], [2]], [[3], [4]]) == [[[1, 3], [2, 4]]]


def test_open_sizes_are_what_is_left() -> None:
    assert ops.Split(sizes=(1, -1), dim=1).forms((MATRIX,)) == (Form(FLOAT, (4, 1)), Form(FLOAT, (4, 5)))
    assert ops.Reshape((2, -1)).forms((MATRIX,)) == (Form(FLOAT, (2, 12)),)


def test_slices_that_are_all_of_it() -> None:
    head, tail = ops.Slice(0, 0, 1), ops.Slice(0, 1, None)
    assert ops.tiles([head, tail], MATRIX)
    assert not ops.tiles([tail, head], MATRIX)
    assert not ops.tiles([head], MATRIX)
    assert not ops.tiles([head, ops.Slice(1, 1, None)], MATRIX)


def test_colours_become_one() -> None:
    (made,) = ops.Sum(1).compute([np.arange(6, dtype="f4").reshape(2, 3)], (Form(FLOAT, (2, 3)),))
    assert made.tolist() == [[3.0], [12.0]]
    assert made.dtype == np.float32


def test_a_padded_vocabulary_is_cut_back() -> None:
    op = ops.Pad(0, 6)
    assert op.inverse((MATRIX,)) == ops.Slice(0, 0, 4)
    assert not op.decodes
    assert ops.Pad(0, 6, "mean").decodes
    (made,) = ops.Pad(1, 3, "mean").compute([np.array([[1, 2], [3, 5]], "f4")], (Form(FLOAT, (2, 2)),))
    assert made.tolist() == [[1, 2, 1.5], [3, 5, 4]]


@pytest.mark.parametrize(
    ("op", "what", "through"),
    [
        (ops.Transpose(), "follow", ops.Transpose()),
        (ops.Slice(0, 1), "follow", ops.Slice(0, 1)),
        (ops.Pad(0, 9, "mean"), "follow", ops.Pad(0, 9)),
        (ops.Cast(HALF), "stay", None),
        (ops.Scale(2), "are dropped", None),
        (ops.Repeat((2, 1)), "are dropped", None),
        (ops.Interpolate((2, 2)), "are dropped", None),
        (ops.ResizePatches((2, 2)), "are dropped", None),
    ],
)
def test_what_becomes_of_moments(op: ops.Moves | ops.Mixes, what: str, through: Op | None) -> None:
    assert ops.moments_of(op) == what
    leaf = Leaf("w")
    expected = leaf if what == "stay" else None if through is None else Applied(through, (leaf,))
    assert ops.for_moments(Applied(op, (leaf,))) == expected


def test_moments_of_new_tensors_do_not_exist() -> None:
    new = Applied(ops.Fill((2, 6), FLOAT), ())
    assert ops.for_moments(new) is None
    assert ops.for_moments(Applied(ops.Concat(), (Leaf("w"), new))) is None


WIDE, LONG_ROW = Form(FLOAT, (4, 7)), Form(FLOAT, (6,))
PACKED = Form(DTYPES["quint4x2"], (4, 6))
COMPLEX = Form(DTYPES["complex64"], (4, 6))


@pytest.mark.parametrize(
    ("op", "inputs", "words"),
    [
        (ops.Permute((0,)), (MATRIX,), "1 axes given, the tensor has 2"),
        (ops.Permute((0, 0)), (MATRIX,), r"axes \[0, 0\] are not each of 0 to 1 once"),
        (ops.Transpose(0, 2), (MATRIX,), r"dimension 2 of a tensor with 2 \(4 × 6\)"),
        (ops.Reshape((5, -1)), (MATRIX,), "24 elements cannot be divided into 5 × -1"),
        (ops.Reshape((5, 5)), (MATRIX,), "24 elements do not fit 5 × 5, which has 25"),
        (ops.Reshape((-1, -1)), (MATRIX,), "at most 1 size"),
        (ops.ViewPermute((7, -1), (1, 0)), (MATRIX,), "24 elements cannot be divided into 7 × -1"),
        (ops.Split(sections=3), (MATRIX,), "has 4 rows, which 3 equal sections"),
        (ops.Split(sizes=(1, 2)), (MATRIX,), "sizes add up to 3, dimension 0 has 4 rows"),
        (ops.Split(sizes=(9, -1)), (MATRIX,), "sizes add up to 9, dimension 0 has 4 rows"),
        (ops.Split(), (MATRIX,), "one of the two"),
        (ops.Unstack(0, 3), (MATRIX,), "has 4 rows, 3 are expected"),
        (ops.Concat(0), (MATRIX, WIDE), "input 1 is 4 × 7, the first one 4 × 6"),
        (ops.Concat(0), (MATRIX, Form(HALF, (4, 6))), "input 1 is bfloat16, the first one float32"),
        (ops.Concat(0), (), "takes one or more inputs, is given 0"),
        (ops.Stack(0), (MATRIX, WIDE), "input 1 is 4 × 7, the first one 4 × 6"),
        (ops.Squeeze((1,)), (MATRIX,), "dimension 1 of 4 × 6 has size 6, not 1"),
        (ops.Reorder(0, (0, 1)), (MATRIX,), "2 rows given, the tensor has 4"),
        (ops.Slice(0, step=0), (MATRIX,), "step 0 is below 1"),
        (ops.Pad(0, 3), (MATRIX,), "has 4 rows, more than the 3"),
        (ops.Pad(0, 9, "mean"), (Form(FLOAT, (0, 6)),), "0 rows have no mean, 9 are asked for"),
        (ops.Add(), (MATRIX, WIDE), "4 × 6 and 4 × 7 have no common shape"),
        (ops.Multiply(), (Form(LONG, (4, 6)), MATRIX), "a result of int64 cannot hold float32"),
        (ops.MatMul(), (MATRIX, MATRIX), "4 × 6 times 4 × 6 is no product"),
        (ops.MergeLowRank(), (MATRIX, Form(FLOAT, (2, 6)), Form(FLOAT, (5, 2))), "B × A is 5 × 6, the weight 4 × 6"),
        (ops.FoldWeightNorm(), (Form(FLOAT, (6, 1)), MATRIX), "g is 6 × 1, v needs 4 × 1"),
        (ops.Interpolate((0, 2)), (MATRIX,), "cannot resample 4 rows to 0"),
        (ops.ResizePatches((0, 2)), (MATRIX,), "cannot resample 4 rows to 0"),
        (ops.ResizePatches((2, 2), dims=(0, -2)), (MATRIX,), "name one twice"),
        (ops.ResizePositions((3, 3)), (MATRIX,), "4 embeddings less 1 are 3, which do not fill a square grid"),
        (ops.Expand((4, 5)), (MATRIX,), "4 × 6 does not expand to 4 × 5"),
        (ops.Repeat((2,)), (MATRIX,), r"\[2\] times a tensor of 2 dimensions"),
        (ops.Cast(FLOAT), (COMPLEX,), "complex64 are 2 numbers each, of float32 1"),
        (ops.Cast(FLOAT), (Form(DTYPES["qint8"], ()),), "elements of qint8 cannot be computed with"),
        (ops.Fill((2,), DTYPES["uint8"], 300), (), "300 is not one of uint8's integers from 0 to 255"),
        (ops.Fill((2,), LONG, 0.5), (), "0.5 is not one of int64's integers"),
        (ops.Arange(300, dtype=DTYPES["uint8"]), (), "299 is not one of uint8's integers from 0 to 255"),
        (ops.Transpose(), (PACKED,), "quint4x2 have 4 bits, and only whole bytes of 8"),
        (ops.Transpose(), (MATRIX, MATRIX), "takes 1 input, is given 2"),
    ],
)
def test_errors_say_both_numbers(op: Op, inputs: tuple[Form, ...], words: str) -> None:
    with pytest.raises(OpError, match=words) as raised:
        op.forms(inputs)
    assert str(raised.value).startswith(op.name)


@pytest.mark.parametrize("op", [ops.Interpolate((7, 9), antialias=True), ops.Interpolate((2, 3), "bilinear")])
def test_a_constant_image_stays_constant(op: ops.Interpolate) -> None:
    image = np.full((4, 6), 2.5, "f4")
    (made,) = op.compute([image], (MATRIX,))
    assert np.allclose(made, 2.5, rtol=1e-6)


@pytest.mark.parametrize("size", [(9, 7), (2, 3), (8, 2)])
def test_a_resized_patch_sees_in_resized_pixels_what_it_saw(size: tuple[int, int]) -> None:
    """Exactly where pixels become more; what comes nearest, by the normal equations, where they become fewer."""
    kernel = np.random.default_rng(1).standard_normal((4, 6)).astype("f4")
    (made,) = ops.ResizePatches(size).compute([kernel], (MATRIX,))
    pixels = np.eye(24).reshape(24, 4, 6)
    (resized,) = ops.Interpolate(size).compute([pixels], (Form(DTYPES["float64"], pixels.shape),))
    matrix = resized.reshape(24, -1)
    lacking = kernel.reshape(-1) - matrix @ made.reshape(-1)
    assert np.allclose(matrix.T @ lacking, 0, atol=1e-5)
    assert np.allclose(lacking, 0, atol=1e-5) == (size == (9, 7))


def test_what_a_rule_and_its_inverse_undo_is_not_done() -> None:
    forms = {"w": MATRIX}
    turned = Applied(ops.Transpose(), (Leaf("w"),))
    assert simplify(Applied(ops.Transpose(0, 1), (turned,)), forms) == Leaf("w")
    assert simplify(Applied(ops.Cast(FLOAT), (Leaf("w"),)), forms) == Leaf("w")
    assert simplify(Applied(ops.Roll(0, 1), (Applied(ops.Roll(0, 3), (Leaf("w"),)),)), forms) == Leaf("w")


def test_rounding_is_not_undone() -> None:
    """What went through bfloat16 has lost digits: going back to float32 is not the input."""
    there = Applied(ops.Cast(HALF), (Leaf("w"),))
    assert simplify(Applied(ops.Cast(FLOAT), (there,)), {"w": MATRIX}) != Leaf("w")


def test_an_unknown_input_is_named() -> None:
    with pytest.raises(OpError, match="no input named 'v'"):
        simplify(Leaf("v"), {"w": MATRIX})


@pytest.mark.parametrize("op", [ops.Roll(1, 2), ops.Reorder(1, (2, 0, 1, 5, 3, 4)), ops.Permute((1, 2, 0))])
def test_three_cycles_are_undone(op: Op) -> None:
    """Orders that are not their own inverses, so that applying one twice would show."""
    form = Form(FLOAT, (2, 6, 3))
    array = np.arange(36, dtype="u4").reshape(form.shape)
    back = op.inverse((form,))
    assert back is not None
    assert np.array_equal(back.compute(op.compute([array], (form,)), op.forms((form,)))[0], array)


def test_orders_follow_each_other() -> None:
    forms = {"w": Form(FLOAT, (2, 3, 4))}
    twice = Applied(ops.Permute((0, 2, 1)), (Applied(ops.Permute((1, 2, 0)), (Leaf("w"),)),))
    assert simplify(twice, forms) == Applied(ops.Permute((1, 0, 2)), (Leaf("w"),))
    rows = Applied(ops.Reorder(1, (1, 0, 2)), (Applied(ops.Reorder(1, (1, 2, 0)), (Leaf("w"),)),))
    assert simplify(rows, forms) == Applied(ops.Reorder(1, (2, 1, 0)), (Leaf("w"),))


def test_parts_are_joined_only_in_their_order() -> None:
    forms = {"w": MATRIX}
    halves = tuple(Applied(ops.Split(sections=2), (Leaf("w"),), part) for part in range(2))
    assert simplify(Applied(ops.Concat(), halves), forms) == Leaf("w")
    for other in (halves[::-1], halves[:1] * 2):
        kept = Applied(ops.Concat(), other)
        assert simplify(kept, forms) == kept
    aside = Applied(ops.Concat(1), halves)
    assert simplify(aside, forms) == aside


def test_parts_are_found_only_where_the_cuts_agree() -> None:
    forms = {"a": MATRIX, "b": Form(FLOAT, (2, 6))}
    joined = Applied(ops.Concat(), (Leaf("a"), Leaf("b")))
    assert simplify(Applied(ops.Split(sizes=(4, 2)), (joined,), 1), forms) == Leaf("b")
    halves = Applied(ops.Split(sizes=(3, 3)), (joined,), 1)
    assert simplify(halves, forms) == halves
