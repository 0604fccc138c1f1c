"""safetensors, against its own library where that is installed, and defect by defect."""

from __future__ import annotations

import json
import math
import time
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from ckpttool.checks import rules
from ckpttool.dtypes import SAFETENSORS
from ckpttool.formats import safetensors
from ckpttool.formats.strict_json import nested_deeper, parse
from ckpttool.limits import DEFAULT, Limits
from ckpttool.model import Checkpoint, Span
from ckpttool.source import LocalFile, Memory

Header = dict[str, Any]


def whole(header: Header | str | bytes, body: bytes = b"", pad: int = 8) -> bytes:
    text = header if isinstance(header, bytes) else (header if isinstance(header, str) else json.dumps(header)).encode()
    text += b" " * (-len(text) % pad)
    return len(text).to_bytes(8, "little") + text + body


def entry(dtype: str = "F32", shape: tuple[int, ...] = (2,), start: int = 0, stop: int = 8, **more: Any) -> Header:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop], **more}


def read(data: bytes) -> Checkpoint:
    return safetensors.read(Memory(data, "x.safetensors"), DEFAULT)


def rules_of(checkpoint: Checkpoint) -> list[str]:
    return [damage.rule for damage in checkpoint.damage]


def errors_of(checkpoint: Checkpoint) -> list[str]:
    known = rules()
    return [rule for rule in rules_of(checkpoint) if known[rule].severity == "error"]


SOUND = whole({"a": entry(), "b": entry(start=8, stop=16)}, bytes(16))


# --- defects ---------------------------------------------------------------------------------------------

HUGE = 1 << 62
DEFECTS: dict[str, tuple[bytes, list[str]]] = {
    "sound": (SOUND, []),
    "no tensors": (whole({}), []),
    "metadata": (whole({"__metadata__": {"format": "pt"}, "a": entry()}, bytes(8)), []),
    "order of keys is free": (whole({"a": entry(start=8, stop=16), "b": entry()}, bytes(16)), []),
    "empty tensor": (whole({"a": entry(shape=(0, 3), stop=0)}), []),
    "cut in the length": (SOUND[:5], ["truncated"]),
    "cut in the header": (SOUND[:40], ["truncated"]),
    "cut in the data": (SOUND[:-1], ["truncated"]),
    "one byte more": (SOUND + b"\0", ["unowned-bytes"]),
    "hole": (whole({"a": entry(start=4, stop=12)}, bytes(12)), ["unowned-bytes"]),
    "overlap": (whole({"a": entry(), "b": entry(start=4, stop=12)}, bytes(12)), ["header-ambiguous"]),
    "same bytes twice": (whole({"a": entry(), "b": entry()}, bytes(8)), ["header-ambiguous"]),
    "empty tensor inside another": (
        whole({"a": entry(), "b": entry(shape=(0,), start=4, stop=4)}, bytes(8)),
        ["header-ambiguous"],
    ),
    "key twice": (whole('{"a":%s,"a":%s}' % ((json.dumps(entry()),) * 2), bytes(8)), ["header-ambiguous"]),
    "field twice": (
        whole('{"a":{"dtype":"F32","dtype":"I32","shape":[2],"data_offsets":[0,8]}}', bytes(8)),
        ["header-ambiguous"],
    ),
    "deep": (whole(b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"), ["header-ambiguous"]),
    "unclosed": (whole(b'{"a":' + b"[" * 200_000), ["header-ambiguous"]),
    "integer of 10,000 digits": (whole(b'{"a":' + b"9" * 10_000 + b"}"), ["header-ambiguous"]),
    "not a number": (whole(b'{"a":NaN}'), ["header-ambiguous"]),
    "shape overflows": (whole({"a": entry(shape=(HUGE, HUGE))}, bytes(8)), ["header-ambiguous"]),
    "overflow before a zero": (whole({"a": entry(shape=(HUGE, HUGE, 0), stop=0)}), ["header-ambiguous"]),
    "bits overflow": (whole({"a": entry(shape=(HUGE,))}, bytes(8)), ["header-ambiguous"]),
    "offset past 64 bits": (whole({"a": entry(start=1 << 70, stop=(1 << 70) + 8)}), ["header-ambiguous"]),
    "backwards": (whole({"a": entry(start=8, stop=0)}, bytes(8)), ["header-malformed"]),
    "shape and bytes differ": (whole({"a": entry(shape=(3,))}, bytes(8)), ["storage-size"]),
    "half a byte": (whole({"a": entry("F4", (3,), 0, 2)}, bytes(2)), ["storage-size"]),
    "unknown dtype": (whole({"a": entry("F31")}, bytes(8)), ["storage-declaration"]),
    "dtype is a number": (whole({"a": entry(7)}, bytes(8)), ["storage-declaration"]),  # type: ignore[arg-type]
    "negative size": (whole({"a": entry(shape=(-2, -1))}, bytes(8)), ["invalid-shape"]),
    "size is a float": (whole({"a": entry(shape=(2.0,))}, bytes(8)), ["invalid-shape"]),  # type: ignore[arg-type]
    "size is true": (whole({"a": entry(shape=(True, 2))}, bytes(8)), ["invalid-shape"]),
    "offset is a float": (whole({"a": entry(stop=8.0)}, bytes(8)), ["header-malformed"]),  # type: ignore[arg-type]
    "three offsets": (whole({"a": {**entry(), "data_offsets": [0, 4, 8]}}, bytes(8)), ["header-malformed"]),
    "no shape": (whole({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, bytes(8)), ["header-malformed"]),
    "entry is a list": (whole({"a": [1]}), ["header-malformed"]),
    "not JSON": (whole(b'{"a":'), ["header-malformed"]),
    "not an object": (whole(b'["a"]'), ["header-malformed"]),
    "empty header": ((0).to_bytes(8, "little") + b'{"a":1}', ["header-malformed"]),
    "not UTF-8": (whole(b'{"\xff":1}'), ["header-malformed"]),
    "half a surrogate pair": (whole(b'{"__metadata__":{"a":"\\ud800"}}'), ["header-malformed"]),
    "byte order mark": (whole(b"\xef\xbb\xbf{}"), ["header-malformed"]),
    "leading space": (whole(b" {}"), ["header-malformed"]),
    "NUL padding": (whole(b"{}" + b"\0" * 6), ["header-malformed"]),
    "metadata number": (whole({"__metadata__": {"a": 1}}), ["header-malformed"]),
    "metadata list": (whole({"__metadata__": []}), ["header-malformed"]),
    "metadata null": (whole({"__metadata__": None}), ["header-odd"]),
    "unaligned": (whole({"a": entry()}, bytes(8), pad=1), ["header-odd"]),
    "newline padding": (whole(b"{}" + b"\n" * 6), ["header-odd"]),
    "field of its own": (whole({"a": entry(note=1)}, bytes(8)), ["header-odd"]),
    "length in the other byte order": (SOUND[:8][::-1] + SOUND[8:], ["byte-swapped-size"]),
    "length past the library's bound": ((100_000_001).to_bytes(8, "little") + SOUND[8:], ["over-limit"]),
    "length of 2^60": ((1 << 60).to_bytes(8, "little") + SOUND[8:], ["over-limit"]),
}  # fmt: skip


@pytest.mark.parametrize("name", DEFECTS)
def test_each_defect_is_named(name: str) -> None:
    data, expected = DEFECTS[name]
    assert rules_of(read(data)) == expected


@pytest.mark.parametrize("name", DEFECTS)
def test_the_library_agrees_about_errors(name: str) -> None:
    library = pytest.importorskip("safetensors", reason="safetensors is not installed")
    data, _ = DEFECTS[name]
    # Where the format's text is stricter than its library: it takes a key twice if both mean the same.
    stricter = name in ("leading space", "key twice")
    assert bool(errors_of(read(data))) == (refused(library, data) or stricter)


def refused(library: Any, data: bytes) -> bool:
    try:
        library.deserialize(data)
    except library.SafetensorError:
        return True
    return False


def test_every_defect_is_reported_and_sound_tensors_are_kept() -> None:
    header = {"a": entry(), "b": entry("F31", start=8, stop=16), "c": entry(shape=(-1,), start=16, stop=20)}
    checkpoint = read(whole({**header, "d": entry(start=20, stop=28, x=0)}, bytes(28)))
    assert rules_of(checkpoint) == ["storage-declaration", "invalid-shape", "header-odd"]
    assert [storage.key for storage in checkpoint.storages] == ["a", "d"]


def test_truncation_says_what_is_complete() -> None:
    (damage,) = read(SOUND[:-4]).damage
    assert damage.facts == {"needs": len(SOUND), "have": len(SOUND) - 4, "complete": 1, "tensors": 2, "first": "b"}
    assert damage.message.startswith("4 of 16 bytes of tensors are missing: 1 of 2 tensors are complete, 'b'")


def test_a_lost_tensor_has_no_span_and_a_cut_one_keeps_it() -> None:
    start = len(SOUND) - 16
    lost, cut = read(SOUND[: start + 8]), read(SOUND[: start + 9])
    assert lost.storages[1].span is None
    assert cut.storages[1].span == Span("x.safetensors", start + 8, start + 16)


def test_all_bytes_of_a_sound_file_are_owned() -> None:
    spans = sorted((e.span.start, e.span.stop) for e in read(SOUND).extents)
    assert spans[0][0] == 0
    assert spans[-1][1] == len(SOUND)
    assert all(before[1] == after[0] for before, after in pairwise(spans))


def test_metadata_stays_apart_from_what_the_reader_says() -> None:
    found = read(whole({"__metadata__": {"crc_recorded": "yes"}})).metadata
    assert found == {"crc_recorded": False, "metadata": {"crc_recorded": "yes"}}


def test_the_header_bound_is_the_smaller_one() -> None:
    checkpoint = safetensors.read(Memory(SOUND), Limits(json_bytes=10))
    assert rules_of(checkpoint) == ["over-limit"]


# --- sniffing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "name", "expected"),
    [
        (SOUND, "model.pt", True),
        (whole({}), "noname", True),
        ((1 << 60).to_bytes(8, "little") + SOUND[8:], "x", True),
        (SOUND[:8] + b"\x80\x81" + SOUND[10:], "x.safetensors", True),
        (SOUND[:8] + b"\x80\x81" + SOUND[10:], "x", False),
        (b'{"a":   {"b": 1}}', "x.safetensors", False),
        (b"<!DOCTYPE html>", "x.safetensors", False),
        (b"PK\x03\x04" + bytes(60), "x.safetensors", False),
        (bytes(100), "x.safetensors", False),
        (b"", "x.safetensors", False),
    ],
)
def test_sniff(data: bytes, name: str, expected: bool) -> None:
    assert safetensors.sniff(Memory(data, name)) is expected


# --- laws ------------------------------------------------------------------------------------------------

CODES = sorted(SAFETENSORS)
names = st.text(max_size=12).filter(lambda n: n != "__metadata__" and n.isprintable())


@st.composite
def files(draw: st.DrawFn) -> tuple[bytes, dict[str, tuple[str, list[int], bytes]]]:
    """A sound file and its tensors by name: code, shape, bytes."""
    tensors: dict[str, tuple[str, list[int], bytes]] = {}
    header: Header = {}
    body = b""
    for name in draw(st.lists(names, unique=True, max_size=5)):
        code = draw(st.sampled_from(CODES))
        shape = draw(st.lists(st.integers(0, 3), max_size=3))
        bits = math.prod(shape) * SAFETENSORS[code].bits
        if bits % 8:
            shape, bits = [*shape, 8], bits * 8
        content = draw(st.binary(min_size=bits // 8, max_size=bits // 8))
        header[name] = {"dtype": code, "shape": shape, "data_offsets": [len(body), len(body) + len(content)]}
        tensors[name] = (code, shape, content)
        body += content
    shuffled = draw(st.permutations(list(header.items())))
    return whole(dict(shuffled), body), tensors


@given(files())
def test_what_was_written_is_what_is_read(made: tuple[bytes, dict[str, tuple[str, list[int], bytes]]]) -> None:
    data, tensors = made
    checkpoint = read(data)
    assert errors_of(checkpoint) == []
    assert contents(checkpoint, data) == {
        name: (SAFETENSORS[code].name, shape, content) for name, (code, shape, content) in tensors.items()
    }


def contents(checkpoint: Checkpoint, data: bytes) -> dict[str, tuple[str, list[int], bytes]]:
    found = {}
    for entry, tensor in checkpoint.tensors():
        assert tensor.storage is not None
        assert tensor.contiguous
        span = checkpoint.storages[tensor.storage].span
        assert span is not None
        found[entry.key] = (tensor.dtype.name, list(tensor.shape), data[span.start : span.stop])
    return found


@given(files())
def test_the_library_reads_the_same(made: tuple[bytes, dict[str, tuple[str, list[int], bytes]]]) -> None:
    library = pytest.importorskip("safetensors", reason="safetensors is not installed")
    data, _ = made
    theirs = {
        name: (SAFETENSORS[info["dtype"]].name, info["shape"], bytes(info["data"]))
        for name, info in library.deserialize(data)
    }
    assert contents(read(data), data) == theirs


BASE = whole({"__metadata__": {"format": "pt"}, "a": entry(), "é": entry("BF16", (2, 2), 8, 16)}, bytes(16))


@given(st.lists(st.tuples(st.integers(0, len(BASE) - 1), st.integers(0, 255)), min_size=1, max_size=3))
@example([(8, ord(" "))])
def test_no_mutation_raises_and_what_the_library_refuses_is_an_error(edits: list[tuple[int, int]]) -> None:
    data = bytearray(BASE)
    for at, byte in edits:
        data[at] = byte
    checkpoint = read(bytes(data))
    # Without the library this still holds the reader to raising nothing.
    if find_spec("safetensors") and refused(import_module("safetensors"), bytes(data)):
        assert errors_of(checkpoint)


@given(st.binary(max_size=80))
def test_any_bytes_have_an_answer(data: bytes) -> None:
    assert read(data).nbytes == len(data)


@given(st.integers(0, len(SOUND) - 1))
def test_every_cut_is_an_error(length: int) -> None:
    assert errors_of(read(SOUND[:length]))


@given(st.recursive(st.text(alphabet='a[]{}"\\', max_size=4), lambda inner: st.lists(inner, max_size=3), max_leaves=20))
def test_depth_is_counted_outside_of_strings(value: Any) -> None:
    deepest = depth_of(value)
    data = json.dumps(value).encode()
    assert not nested_deeper(data, deepest)
    assert deepest == 0 or nested_deeper(data, deepest - 1)


def depth_of(value: Any) -> int:
    return 1 + max(map(depth_of, value), default=0) if isinstance(value, list) else 0


@given(
    st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner), max_leaves=20)
)
def test_strict_json_reads_what_json_wrote(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return
    assert parse(json.dumps(value).encode()).value == value


# --- real files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp.safetensors", "dtypes.safetensors", "peft/adapter_model.safetensors"])
def test_real_files_hold_what_the_library_reads(fixtures_dir: Path, name: str) -> None:
    source = LocalFile(fixtures_dir / name)
    assert safetensors.sniff(source)
    checkpoint = safetensors.read(source, DEFAULT)
    data = (fixtures_dir / name).read_bytes()
    assert checkpoint.damage == ()
    library = pytest.importorskip("safetensors", reason="safetensors is not installed")
    theirs = {
        key: (SAFETENSORS[info["dtype"]].name, info["shape"], bytes(info["data"]))
        for key, info in library.deserialize(data)
    }
    assert contents(checkpoint, data) == theirs


UNSEEN = {"F01_payload_flip", "F02_key_flip", "F03_dtype_same_width", "F04_shape_permuted"}
"""Changes that leave a sound file of a format without checksums."""


def test_corpus(corpora_dir: Path) -> None:
    manifest = json.loads((corpora_dir / "manifest.json").read_text())
    known = rules()
    for path in sorted(corpora_dir.glob("F*.safetensors")):
        source = LocalFile(path)
        if not source.size:
            continue
        expected = manifest[path.name]["expect"]
        assert safetensors.sniff(source), path.name
        found = [known[damage.rule] for damage in safetensors.read(source, DEFAULT).damage]
        severities = {rule.severity for rule in found}
        if expected == "malicious":
            assert any(rule.axis in ("safety", "hostile") for rule in found if rule.severity == "error"), path.name
        elif expected == "corrupt":
            assert "error" in severities or path.stem in UNSEEN, path.name
        elif expected == "suspicious" and path.stem != "F34_bool_byte":
            assert severities & {"error", "warning"}, path.name
        elif expected == "benign":
            assert not severities & {"error", "warning"}, path.name


# --- size ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [20_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_many_tensors(count: int) -> None:
    header = {f"layers.{i}.weight": entry(shape=(1,), start=4 * i, stop=4 * i + 4) for i in range(count)}
    data = whole(header, bytes(4 * count))
    started = time.process_time()
    checkpoint = read(data)
    assert len(checkpoint.storages) == count
    assert checkpoint.damage == ()
    # About a second for 100,000; a step that is quadratic in the tensors takes minutes.
    assert time.process_time() - started < count / 5000
