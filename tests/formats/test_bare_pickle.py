"""Plain pickles: one or several in a row, of every protocol, and what is none."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from ckpttool.formats import bare_pickle, describe, describe_source
from ckpttool.model import Checkpoint, Value
from ckpttool.source import Memory

VALUE = {"epoch": 3, "names": ["a", "b"], "lr": 0.1}


def read(data: bytes) -> Checkpoint:
    return describe_source(Memory(data, "x.pkl"))


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_is_known_and_read(protocol: int) -> None:
    checkpoint = read(pickle.dumps(VALUE, protocol))
    assert checkpoint.format == "pickle"
    found: dict[str, Any] = {e.key: e.node.value for e in checkpoint.entries() if isinstance(e.node, Value)}
    assert found == {"epoch": 3, "names.0": "a", "names.1": "b", "lr": 0.1}
    assert not [d for d in checkpoint.damage if d.rule != "foreign-opcode"]


def test_several_pickles_in_a_row_are_counted_and_their_names_gathered() -> None:
    checkpoint = read(pickle.dumps(VALUE, 4) + pickle.dumps(1, 2) + b"\x80\2cos\nsystem\n.")
    assert checkpoint.metadata["pickles"] == 3
    assert "os.system" in {g.dotted for g in checkpoint.globals}
    assert "trailing-bytes" not in {d.rule for d in checkpoint.damage}


def test_bytes_after_the_last_pickle_are_counted() -> None:
    (damage,) = (d for d in read(pickle.dumps(VALUE, 2) + b"\xff\xff").damage if d.rule == "trailing-bytes")
    assert damage.facts["bytes"] == 2


def test_every_prefix_of_a_binary_pickle_is_reported() -> None:
    data = pickle.dumps(VALUE, 2)
    for length in range(2, len(data)):
        checkpoint = read(data[:length])
        assert checkpoint.kind or "truncated" in {d.rule for d in checkpoint.damage}, length


@pytest.mark.parametrize(
    "data", [b"", b"\x80", b"just text\n", b"(a list)", b"Import notes", b"[1, 2]\n", b"N", b"K", b".", b"GIF89a"]
)
def test_texts_that_begin_like_a_pickle_are_none(data: bytes) -> None:
    assert not bare_pickle.sniff(Memory(data))
    assert read(data).kind


@given(data=st.binary(max_size=100))
def test_any_bytes_are_described(data: bytes) -> None:
    for start in (b"", b"\x80\2", b"\x80\4", b"(", b"PK\3\4", b"\x80\2\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."):
        checkpoint = read(start + data)
        assert checkpoint.kind or checkpoint.root is not None or checkpoint.damage


def test_a_real_model_zoo_file_shows_its_arrays(fixtures_dir: Path) -> None:
    checkpoint = describe(fixtures_dir / "arrays.pkl")
    assert checkpoint.format == "pickle"
    assert any(True for _ in checkpoint.tensors())
