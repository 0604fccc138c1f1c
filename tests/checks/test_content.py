"""The judges of content: each on a checkpoint with its fault, and silent on the same one without."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from ckpttool.checks import rules
from ckpttool.dtypes import DTYPES
from ckpttool.layout import Layout, Section
from ckpttool.measure import measure
from ckpttool.measures import PAGE
from ckpttool.model import (
    Call,
    Checkpoint,
    Checksum,
    Damage,
    Extent,
    Mapping,
    Node,
    Sequence,
    Span,
    Storage,
    Tensor,
    Value,
)
from ckpttool.rules import Context
from ckpttool.source import Memory

RNG = np.random.default_rng(0)


class File:
    """A file in memory: tensors by name, each in a record of its own, parts of other tensors hidden."""

    def __init__(self, crc: bool = True) -> None:
        self.data = bytearray(100)
        self.crc = crc
        self.nodes: list[Node] = []
        self.storages: list[Storage] = []
        self.extents: list[Extent] = []
        self.named: dict[str, int] = {}

    def put(self, name: str, values: np.ndarray, dtype: str = "", shown: bool = True) -> int:
        kind = dtype or values.dtype.name
        span = Span("<memory>", len(self.data), len(self.data) + values.nbytes)
        self.data += values.tobytes()
        checksum = Checksum("crc32", zlib.crc32(values.tobytes())) if self.crc and values.nbytes else None
        record = f"data/{len(self.storages)}"
        self.extents.append(Extent(record, span, checksum))
        self.storages.append(Storage(record, DTYPES[kind], values.nbytes, span, checksum, record=record))
        stride = tuple(s // values.itemsize for s in values.strides)
        return self.node(Tensor(DTYPES[kind], values.shape, stride, 0, len(self.storages) - 1), name if shown else "")

    def node(self, node: Node, name: str = "") -> int:
        self.nodes.append(node)
        if name:
            self.named[name] = len(self.nodes) - 1
        return len(self.nodes) - 1

    def flip(self, record: int, offset: int, new: bytes) -> None:
        start = self.extents[record].span.start + offset
        self.data[start : start + len(new)] = new

    def context(self, section: str = "weights") -> Context:
        nodes = [*self.nodes, *map(Value, self.named)]
        keys = tuple(range(len(self.nodes), len(nodes)))
        nodes.append(Mapping("dict", keys, tuple(self.named.values())))
        root = len(nodes) - 1
        found = Checkpoint("<memory>", "torch-zip", tuple(nodes), root, tuple(self.storages), tuple(self.extents))
        layout = Layout((Section(section, (), root),))
        return Context(found, layout, measure(found, sources=[Memory(bytes(self.data))]))


def judged(name: str, context: Context) -> list[Damage]:
    found = list(rules()[name].judge(context))
    assert {d.rule for d in found} <= {name}
    return found


def weights(*shape: int, dtype: str = "float32") -> np.ndarray:
    return (RNG.standard_normal(shape) * 0.02).astype(dtype)


def with_value(value: float, dtype: str = "float32") -> File:
    file = File()
    values = weights(40, 40, dtype=dtype)
    values[3, 4] = values[7, 8] = value
    file.put("layer.weight", values)
    file.put("other.weight", weights(40, 40))
    return file


HEALTHY = with_value(0.5)
SIMPLE: list[tuple[str, Callable[[], File], str]] = [
    ("nan", lambda: with_value(np.nan), "2 of 1600 elements are NaN, the first at index 124"),
    ("infinity", lambda: with_value(-np.inf), "2 of 1600 elements are infinite, the first at index 124"),
    ("half-overflow", lambda: with_value(-70000.0), "the greatest magnitude is 70000, float16 ends at 65504"),
]


@pytest.mark.parametrize(("name", "make", "message"), SIMPLE, ids=[s[0] for s in SIMPLE])
def test_values_that_should_not_be_there(name, make, message) -> None:
    (damage,) = judged(name, make().context())
    assert (damage.where, damage.message) == ("layer.weight", message)


@pytest.mark.parametrize(
    "name",
    "nan infinity half-overflow all-zero constant denormal-garbage bool-bytes content-unread crc-mismatch "
    "crc-not-recorded zero-run sparse-index nested-bounds quantizer-parameters duplicate-content".split(),
)
def test_a_healthy_checkpoint_is_met_with_silence(name) -> None:
    assert judged(name, HEALTHY.context()) == []
    assert judged(name, replace(HEALTHY.context(), measures=None)) == []


def test_infinities_on_purpose_are_left_alone() -> None:
    file = File()
    file.put("attn.causal_mask", np.triu(np.full((30, 30), -np.inf, "f4")))
    file.put("observer.min_val", np.full(3, np.inf, "f4"))
    assert judged("infinity", file.context()) == []
    best = File()
    best.put("early_stopping.score", np.full((), np.inf, "f4"))
    assert judged("infinity", best.context("other")) == []
    assert len(judged("infinity", best.context("weights"))) == 1


def test_many_bad_tensors_are_counted() -> None:
    file = File()
    for i in range(30):
        file.put(f"w{i}", np.full(3, np.nan, "f4"))
    found = judged("nan", file.context())
    assert len(found) == 21
    assert found[-1].facts["count"] == 30


@pytest.mark.parametrize(("name", "value"), [("all-zero", 0.0), ("constant", 0.25)])
def test_flat_matrices(name, value) -> None:
    file = File()
    file.put("a.weight", np.full((16, 16), value, "f4"))
    assert judged(name, file.context()) == []  # nothing here was trained
    file.put("b.weight", weights(16, 16))
    for innocent in ("a.bias", "norm.weight", "lora_B.default.mask"):
        file.put(innocent, np.full(300, value, "f4"))
    file.put("small.weight", np.full((3, 3), value, "f4"))
    assert [d.where for d in judged(name, file.context())] == ["a.weight"]
    assert judged(name, file.context("optimizer")) == []


def test_an_adapter_that_begins_at_zero_is_left_alone() -> None:
    file = File()
    file.put("b.weight", weights(16, 16))
    file.put("q.lora_B.default.weight", np.zeros((16, 16), "f4"))
    assert judged("all-zero", file.context()) == []


def test_swapped_bytes_look_like_garbage() -> None:
    file = File()
    file.put("w", weights(100, 100).byteswap())
    file.put("v", weights(100, 100) * np.float32(1e-36))
    assert [d.where for d in judged("denormal-garbage", file.context())] == ["w"]


def test_boolean_bytes() -> None:
    file = File()
    file.put("m", np.array([0, 1, 2, 255], "u1"), "bool")
    assert judged("bool-bytes", file.context())[0].message == "2 of 4 bytes are neither 0 nor 1"


def test_unread_content_is_named_with_its_reason() -> None:
    file = File()
    file.put("a", weights(10))
    file.put("b", weights(10))
    del file.data[-5:]
    found = judged("content-unread", file.context())
    assert [d.where for d in found] == ["b", "data/1"]
    assert "ends at byte" in found[0].message
    assert found[1].message == "only 35 of its 40 bytes could be read"


# --- checksums -----------------------------------------------------------------------------------------


def test_a_contradicted_record_names_its_tensors_and_what_is_intact() -> None:
    file = File()
    file.put("a.weight", weights(10))
    tied = file.node(replace(file.nodes[0], offset=1, shape=(9,)), "a.view")
    assert tied
    file.put("b.weight", weights(10))
    file.flip(0, 3, b"\x99")
    (damage,) = judged("crc-mismatch", file.context())
    assert damage.where == "a.weight"
    assert damage.message.endswith("2 tensors are in it; 1 of 3 tensors are intact (CRC verified)")
    assert damage.facts["tensors"] == ["a.weight", "a.view"]
    assert damage.facts["have"] != damage.facts["needs"]


def test_missing_checksums_are_one_finding() -> None:
    file = File(crc=False)
    file.put("a", weights(10))
    file.put("empty", np.zeros(0, "f4"))
    assert [d.facts for d in judged("crc-not-recorded", file.context())] == [{"records": 1, "unrecorded": 1}]
    other = replace(file.context().checkpoint, format="safetensors")
    assert judged("crc-not-recorded", replace(file.context(), checkpoint=other)) == []


# --- pages of zeros ------------------------------------------------------------------------------------


def lost_pages(name: str, columns: int, *, crc: bool, section: str = "weights", first: int = 7) -> list[Damage]:
    file = File(crc)
    file.put(name, weights(64 * PAGE // (4 * columns), columns))
    file.flip(0, first * PAGE - file.extents[0].span.start, bytes(2 * PAGE))
    return judged("zero-run", file.context(section))


@pytest.mark.parametrize("crc", [True, False])
def test_lost_pages_of_a_dense_weight(crc) -> None:
    (damage,) = lost_pages("a.weight", 96, crc=crc)
    assert damage.facts["ranges"] == [[7 * PAGE, 9 * PAGE]]
    assert "8192 of its" in damage.message


def test_zeros_that_rows_explain_need_a_checksum_to_be_damage() -> None:
    for name, section in (("embed.weight", "weights"), ("0.exp_avg", "optimizer")):
        assert lost_pages(name, 96, crc=False, section=section) == []
        assert len(lost_pages(name, 96, crc=True, section=section)) == 1
    assert lost_pages("a.weight", 96, crc=False, first=1) == []  # at the beginning: padding
    pruned = File(crc=False)
    rows = weights(64, 2500)
    rows[20] = rows[40] = 0
    pruned.put("a.weight", rows)
    assert judged("zero-run", pruned.context()) == []


def test_zeros_that_a_checksum_proves_or_that_are_everywhere_are_fine() -> None:
    proved = File()
    values = weights(64, 1024)
    values[10:30] = 0
    proved.put("a.weight", values)
    assert judged("zero-run", proved.context()) == []
    sparse = File(crc=False)
    values = weights(64, 1000)
    values[RNG.random(values.shape) < 0.5] = 0
    values[20:30, 500:] = 0
    values[25] = 0
    sparse.put("a.weight", values)
    assert judged("zero-run", sparse.context()) == []


# --- geometry that rests on content --------------------------------------------------------------------


def sparse(layout: str, shape: tuple[int, ...], **parts: np.ndarray) -> list[Damage]:
    file = File()
    indices = tuple((name, file.put(name, values, shown=False)) for name, values in parts.items())
    file.node(Tensor(DTYPES["float32"], shape, (), 0, None, layout=layout, parts=indices), "s")
    return judged("sparse-index", file.context())


I8 = "int64"


@pytest.mark.parametrize(
    ("indices", "values", "ok"),
    [
        ([[0, 3], [1, 4]], 2, True),
        ([[0, 4], [1, 4]], 2, False),
        ([[0, 3], [-1, 4]], 2, False),
        ([[0, 3], [1, 4]], 3, False),
    ],
)
def test_coordinates(indices, values, ok) -> None:
    found = sparse("sparse_coo", (4, 5), indices=np.array(indices, I8), values=weights(values))
    assert [d.where for d in found] == ([] if ok else ["s"])


@pytest.mark.parametrize(
    ("compressed", "plain", "ok"),
    [
        ([0, 1, 1, 3], [4, 0, 2], True),
        ([0, 2, 1, 3], [4, 0, 2], False),
        ([0, 1, 1, 2], [4, 0, 2], False),
        ([1, 1, 1, 3], [4, 0, 2], False),
        ([0, 1, 3], [4, 0, 2], False),
        ([0, 1, 1, 3], [5, 0, 2], False),
    ],
)
def test_compressed_rows(compressed, plain, ok) -> None:
    parts = {"compressed": np.array(compressed, I8), "plain": np.array(plain, I8), "values": weights(3)}
    assert (sparse("sparse_csr", (3, 5), **parts) == []) == ok
    assert (sparse("sparse_csc", (5, 3), **parts) == []) == ok
    parts["values"] = weights(3, 2, 3)
    assert (sparse("sparse_bsr", (6, 15), **parts) == []) == ok


@pytest.mark.parametrize(("offsets", "ok"), [([0, 6], True), ([0, 7], False), ([-1, 6], False)])
def test_nested_components(offsets, ok) -> None:
    file = File()
    parts = {
        "buffer": weights(12),
        "sizes": np.array([[2, 3], [3, 2]], I8),
        "strides": np.array([[3, 1], [2, 1]], I8),
        "offsets": np.array(offsets, I8),
    }
    indices = tuple((name, file.put(name, values, shown=False)) for name, values in parts.items())
    file.node(Tensor(DTYPES["float32"], (12,), (), 0, None, layout="nested", parts=indices), "n")
    assert (judged("nested-bounds", file.context()) == []) == ok


@pytest.mark.parametrize(("offsets", "ok"), [([0, 2, 9], True), ([0, 5, 2], False), ([0, 2, 10], False)])
def test_jagged_offsets(offsets, ok) -> None:
    file = File()
    parts = (
        ("0._values", file.put("v", weights(9, 4), shown=False)),
        ("0._offsets", file.put("o", np.array(offsets, I8), shown=False)),
    )
    file.node(Tensor(DTYPES["float32"], (9, 4), (), 0, None, layout="jagged", parts=parts), "j")
    assert (judged("nested-bounds", file.context()) == []) == ok


def quantized(scale: float, zero: int) -> list[Damage]:
    file = File()
    values = file.put("q", np.zeros(4, "u1"), "quint8")
    args = tuple(file.node(Value(x)) for x in (None, 0, None, None))
    quantizer = file.node(Sequence("tuple", tuple(file.node(Value(x)) for x in ("affine", scale, zero))))
    call = file.node(Call("REDUCE", "torch._utils", "_rebuild_qtensor", (*args, quantizer)))
    file.nodes[values] = replace(file.nodes[values], layout="quantized", call=call)
    return judged("quantizer-parameters", file.context())


def test_quantizers() -> None:
    assert quantized(0.5, 255) == []
    for scale, zero in ((float("nan"), 0), (0.0, 0), (-1.0, 0), (float("inf"), 0), (0.5, 256), (0.5, -1)):
        assert len(quantized(scale, zero)) == 1


@pytest.mark.parametrize(
    ("scales", "zeros", "ok"),
    [([0.5, 1.0], [0, 3], True), ([0.5, 0.0], [0, 3], False), ([0.5, -2.0], [0, 3], False),
     ([np.nan, 1.0], [0, 3], False), ([0.5, 1.0], [0, 300], False)],
)  # fmt: skip
def test_quantizers_with_a_scale_for_each_channel(scales, zeros, ok) -> None:
    file = File()
    values = file.put("q", np.zeros((2, 4), "u1"), "quint8")
    parts = (
        ("quantizer[1]", file.put("s", np.array(scales), shown=False)),
        ("quantizer[2]", file.put("z", np.array(zeros, I8), shown=False)),
    )
    file.nodes[values] = replace(file.nodes[values], layout="quantized", parts=parts)
    assert (judged("quantizer-parameters", file.context()) == []) == ok


# --- the same bytes twice ------------------------------------------------------------------------------


def test_duplicates_are_content_in_two_storages() -> None:
    file = File()
    same = weights(200, 100)
    file.put("a", same)
    file.put("b", same)
    file.node(file.nodes[0], "tied to a")
    file.put("zero", np.zeros((200, 100), "f4"))
    file.put("zero too", np.zeros((200, 100), "f4"))
    file.put("small", same[:10])
    file.put("small too", same[:10])
    (damage,) = judged("duplicate-content", file.context())
    assert damage.where == "a"
    assert damage.facts == {"nbytes": 80_000, "copies": 2, "tensors": ["a", "b"]}
