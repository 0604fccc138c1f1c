"""A pickle that is cut anywhere can be ended: what is read then is a part of what was written, never anything else."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from typing import Any

from hypothesis import given, strategies as st

from ckpttool.formats.closing import Closed, closing
from ckpttool.limits import DEFAULT
from ckpttool.source import Memory

LEAVES = st.none() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9) | st.binary(max_size=40)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(max_size=5), inner, max_size=5)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3).map(OrderedDict)
    ),
    max_leaves=20,
)


def is_part(part: Any, whole: Any) -> bool:
    if isinstance(whole, dict):
        return isinstance(part, dict) and all(k in whole and is_part(v, whole[k]) for k, v in part.items())
    if isinstance(whole, list):
        return isinstance(part, list) and len(part) <= len(whole) and all(map(is_part, part, whole))
    return bool(part == whole)


def started(data: bytes) -> Any:
    found = closing(data, 0, DEFAULT)
    if found is None:
        return None
    end = Closed(Memory(data), found)
    return pickle.loads(end.read(0, end.size))


@given(value=st.dictionaries(st.text(max_size=5), VALUES, max_size=6), protocol=st.integers(1, 5), data=st.data())
def test_a_cut_pickle_is_read_as_a_part_of_itself(value: Any, protocol: int, data: st.DataObject) -> None:
    text = pickle.dumps(value, protocol)
    at = data.draw(st.integers(0, len(text) - 1))
    found = started(text[:at])
    assert found is None or is_part(found, value)


def test_what_was_whole_is_kept() -> None:
    value = {"first": list(range(2000)), "second": {str(n): [n, n + 1] for n in range(50)}, "last": bytes(9000)}
    for protocol in range(2, 6):
        text = pickle.dumps(value, protocol)
        found = started(text[: len(text) - 5000])
        assert found["first"] == value["first"]
        assert found["second"] == value["second"]
        assert "last" not in found


def test_a_whole_pickle_needs_no_end() -> None:
    assert closing(pickle.dumps({"a": 1}), 0, DEFAULT) is None
    assert closing(b"", 0, DEFAULT) is None
    assert closing(b"\x80\x02", 0, DEFAULT) is None
