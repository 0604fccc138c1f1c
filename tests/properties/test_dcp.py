"""Law: how a tensor is cut into chunks changes nothing of what is said of it."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings, strategies as st

from ckpttool.boxes import Box, fits, is_row_run, overlap, run_of_boxes, uncovered
from ckpttool.formats import describe
from ckpttool.measure import measure, statistics
from ckpttool.measure.digests import digests
from ckpttool.model import Checkpoint, Tensor
from ckpttool.testing.dcp import Cuts, dcp_files, rows, whole
from ckpttool.testing.plain import tensor
from ckpttool.verbs.convert import convert
from ckpttool.verbs.diff import diff
from ckpttool.verbs.verify import verify

TYPES = {"float32": "<f4", "float16": "<f2", "int64": "<i8", "complex128": "<c16", "uint8": "u1"}


@st.composite
def cuts(draw: st.DrawFn, shape: tuple[int, ...], depth: int = 3) -> Cuts:
    """A tensor cut in two, and each part again: every way of cutting that shards can come from, and more."""
    found: Cuts = [((0,) * len(shape), shape)]
    for _ in range(draw(st.integers(0, depth)) if shape and 0 not in shape else 0):
        place = draw(st.integers(0, len(found) - 1))
        start, sizes = found.pop(place)
        dim = draw(st.integers(0, len(shape) - 1))
        at = draw(st.integers(0, sizes[dim]))  # 0 and all of it: an empty shard
        low, high = list(sizes), list(sizes)
        low[dim], high[dim] = at, sizes[dim] - at
        after = list(start)
        after[dim] += at
        found += [(start, tuple(low)), (tuple(after), tuple(high))]
    kept = {begin: box for begin, box in found if math.prod(box)}
    return list(kept.items()) or [((0,) * len(shape), shape)]


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    shape = tuple(draw(st.lists(st.integers(0, 6), min_size=0, max_size=4)))
    data = np.random.default_rng(draw(st.integers(0, 99)))
    made = data.standard_normal(shape) * 10
    if made.size and draw(st.booleans()):
        made.flat[draw(st.integers(0, made.size - 1))] = np.nan
    with np.errstate(invalid="ignore"):
        return np.array(made.astype(TYPES[draw(st.sampled_from(sorted(TYPES)))]))


@contextmanager
def written(array: np.ndarray, boxes: Cuts, ranks: int = 3) -> Iterator[Path]:
    value = tensor(array.shape, array.tobytes(), array.dtype.name)
    with tempfile.TemporaryDirectory() as folder:
        for name, data in dcp_files({"w": {"x": value}}, lambda *_: boxes, ranks=ranks).items():
            (Path(folder) / name).write_bytes(data)
        yield Path(folder)


def only(checkpoint: Checkpoint) -> tuple[int, Tensor]:
    ((entry, found),) = checkpoint.tensors()
    assert entry.path == ("w", "x")
    return entry.index, found


def said(folder: Path) -> dict[str, Any]:
    """Everything that is measured of the one tensor."""
    checkpoint = describe(folder)
    assert not checkpoint.damage, checkpoint.damage
    index, found = only(checkpoint)
    measured = measure(checkpoint)
    assert not measured.unread
    one = asdict(measured.tensors[index])
    for sampled in ("sampled", "tiny", "huge", "zeros"):  # taken from places that depend on the cut
        one.pop(sampled)
    numbers = statistics(checkpoint, [index])
    return {
        "form": (found.dtype.name, found.shape),
        "measure": one,
        "digest": digests(checkpoint, [index]),
        "statistics": [asdict(found) for found in numbers.values()],
    }


@given(st.data())
def test_chunks_change_neither_digests_nor_measures(data: st.DataObject) -> None:
    array = data.draw(arrays())
    boxes = data.draw(cuts(array.shape))
    with written(array, boxes) as cut, written(array, whole(tensor(array.shape, array.tobytes()))) as plain:
        one, other = said(cut), said(plain)
    assert list(one.pop("digest").values()) == list(other.pop("digest").values())
    assert repr(one) == repr(other)  # NaN is not itself


@given(st.data())
def test_chunks_are_no_difference_and_a_whole_file_holds_the_same(data: st.DataObject) -> None:
    array = data.draw(arrays())
    with written(array, data.draw(cuts(array.shape))) as a, written(array, data.draw(cuts(array.shape))) as b:
        assert diff(a, b).exit_code == 0
        convert(a, Path(a) / "out.pth")
        assert diff(b, Path(a) / "out.pth").exit_code == 0


@given(st.data())
def test_a_changed_element_is_found_wherever_it_is(data: st.DataObject) -> None:
    array = data.draw(arrays().filter(lambda a: a.size > 0))
    other = array.copy()
    at = data.draw(st.integers(0, array.size - 1))
    other.flat[at] = 2 if array.flat[at] == 1 else 1
    with written(array, data.draw(cuts(array.shape))) as a, written(other, data.draw(cuts(array.shape))) as b:
        assert diff(a, b).exit_code == 1


@given(st.data())
def test_runs_of_a_tensor_are_boxes_of_it(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 5), max_size=4)))
    total = math.prod(shape)
    first = data.draw(st.integers(0, total))
    stop = data.draw(st.integers(first, total))
    numbers = np.arange(total).reshape(shape)
    boxes = list(run_of_boxes(shape, first, stop))
    got = [
        i for box in boxes for i in numbers[tuple(slice(a, b) for a, b in zip(box.start, box.stop, strict=True))].flat
    ]
    assert got == list(range(first, stop))
    assert len(boxes) <= max(1, 2 * len(shape))


@given(st.data())
def test_boxes_are_held_against_a_plain_count(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    boxes = []
    for _ in range(data.draw(st.integers(1, 5))):
        start = tuple(data.draw(st.integers(0, n - 1)) for n in shape)
        boxes.append(Box(start, tuple(data.draw(st.integers(1, n - s)) for s, n in zip(start, shape, strict=True))))
    held = np.zeros(shape, int)
    for box in boxes:
        held[tuple(slice(a, b) for a, b in zip(box.start, box.stop, strict=True))] += 1
    assert all(fits(box, shape) for box in boxes)
    assert (overlap(boxes) is not None) == bool((held > 1).any())
    if held.max() < 2:
        assert uncovered(boxes, shape) == int((held == 0).sum())
        ordered = np.concatenate(
            [
                np.arange(held.size)
                .reshape(shape)[tuple(slice(a, b) for a, b in zip(box.start, box.stop, strict=True))]
                .ravel()
                for box in sorted(boxes, key=lambda one: one.start)
            ]
        )
        if is_row_run(boxes, shape):
            assert ordered.tolist() == list(range(held.size))


SMALL = dcp_files(
    {"w": tensor((4, 3), bytes(range(48))), "n": {"k": 3, "l": [1, {"a": tensor((2,), bytes(8))}]}},
    lambda name, found: rows(found, 2),
)


@settings(max_examples=3 * settings().max_examples)
@given(st.data())
def test_any_damage_is_a_result(data: st.DataObject) -> None:
    files = dict(SMALL)
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from([".metadata", ".metadata", *sorted(files)]))
        held = bytearray(files.get(name, b""))
        at = data.draw(st.integers(0, len(held)))
        match data.draw(st.sampled_from(["flip", "cut", "drop", "repeat", "lose"])):
            case "flip" if at < len(held):
                held[at] ^= data.draw(st.integers(1, 255))
            case "cut":
                del held[at:]
            case "drop":
                del held[at : at + data.draw(st.integers(1, 64))]
            case "repeat":
                held[at:at] = held[at : at + data.draw(st.integers(1, 64))]
            case "lose":
                files.pop(name, None)
                continue
        files[name] = bytes(held)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        verify([folder])
