"""The pickle machine, against Python's own pickler and opcode by opcode."""

from __future__ import annotations

import pickle
import pickletools
import struct
import sys
import time
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from ckpttool.formats.arena import Arena
from ckpttool.formats.pickle_machine import _OPCODES, Machine, Outcome
from ckpttool.formats.plain_values import CONTAINERS
from ckpttool.formats.stack import BytesAt, CallOf, DictOf, ListOf, Named
from ckpttool.limits import Limits
from ckpttool.model import Checkpoint
from ckpttool.source import Memory
from ckpttool.testing.thaw import thaw


def run(data: bytes, start: int = 0, **more: Any) -> Outcome:
    return Machine(data, start, reducers=CONTAINERS, **more).run()


def rebuilt(data: bytes) -> Any:
    """The pickle's value by way of the machine and the arena."""
    outcome = run(data)
    assert outcome.complete, outcome.problems
    assert outcome.end == len(data)
    arena = Arena()
    root = arena.add(outcome.root, "x", 0)
    return thaw(Checkpoint("x", "pickle", tuple(arena.nodes), root), Memory(data, "x"))


def spelled(value: Any) -> Any:
    """A value as something whose equality tells types, signs of zero and NaN apart."""
    if isinstance(value, dict):
        return (type(value), [(spelled(k), spelled(v)) for k, v in value.items()])
    if isinstance(value, (set, frozenset)):
        return (type(value), sorted(map(repr, value)))
    if isinstance(value, (list, tuple)):
        return (type(value), [spelled(x) for x in value])
    return (type(value), repr(value))


def problems(data: bytes, **more: Any) -> list[str]:
    return [p.rule for p in run(data, **more).problems]


SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**1000), 2**1000) | st.floats() | st.complex_numbers()
    | st.text(max_size=300) | st.text(st.characters(), max_size=20) | st.binary(max_size=300)
)  # fmt: skip
HASHABLE = st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.binary(max_size=20)
VALUES = st.recursive(
    SCALARS | st.sets(HASHABLE, max_size=5) | st.frozensets(HASHABLE, max_size=5),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(HASHABLE | st.tuples(st.integers(), st.text(max_size=3)), inner, max_size=5)
    ),
    max_leaves=25,
)


@pytest.mark.parametrize("protocol", range(6))
@given(value=VALUES)
@example(value="é\n\\ \x00 \udc80 \U0001f600")
@example(value=["x" * 5000, b"y" * 5000, "\\u0041"])
@example(value=[0, 255, 256, 65535, 65536, -1, 2**31 - 1, -(2**31), 2**31, 2**2000, -(2**2000)])
@example(value=list(range(2500)))
@example(value=dict.fromkeys(range(2500)))
def test_every_protocol_gives_back_what_python_pickled(protocol: int, value: Any) -> None:
    assert spelled(rebuilt(pickle.dumps(value, protocol))) == spelled(value)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("batch", [400, 1400])
def test_what_takes_several_frames_is_whole(protocol: int, batch: int) -> None:
    """Python begins a frame after every 64 KB, wherever it is: in the middle of a dict, say."""
    value = {"inner": {f"{'n' * 100}{i}": [i, "text"] for i in range(batch)}, "after": 1}
    data = pickle.dumps(value, protocol)
    assert protocol < 4 or data.count(b"\x95") > 0
    assert rebuilt(data) == value
    assert problems(data) == []


@pytest.mark.parametrize("protocol", range(6))
def test_sharing_survives(protocol: int) -> None:
    shared = [1]
    found = rebuilt(pickle.dumps([shared, (shared,), {"a": shared}], protocol))
    assert found[0] is found[1][0] is found[2]["a"]


@given(text=st.text(st.characters(max_codepoint=255), max_size=40))
@example(text="'\"\\\n\t\x80\xff")
def test_strings_of_python_2_are_read_as_latin_1(text: str) -> None:
    raw = text.encode("latin-1")
    short, long = b"U" + bytes([len(raw)]) + raw + b".", b"T" + struct.pack("<i", len(raw)) + raw + b"."
    quoted = b"S" + repr(raw)[1:].encode("latin-1") + b"\n."
    assert run(short).root == run(long).root == run(quoted).root == text


def test_every_opcode_of_every_protocol_is_handled() -> None:
    assert set(_OPCODES) == {op.code for op in pickletools.opcodes}


@given(data=st.binary(max_size=200), start=st.integers(0, 5))
def test_any_bytes_end_in_an_outcome(data: bytes, start: int) -> None:
    outcome = run(data, start)
    assert outcome.complete or outcome.problems
    assert 0 <= outcome.end <= max(len(data), start)


@given(data=st.data())
def test_streams_of_valid_opcodes_end_in_an_outcome_and_an_arena(data: st.DataObject) -> None:
    operands = {"": b"", "1": b"\1", "2": b"\1\0", "4": b"\1\0\0\0", "8": b"\1\0\0\0\0\0\0\0"}
    pieces = [
        *(code.encode("latin-1") for code in _OPCODES if code not in "\x95."),
        *operands.values(), b"cos\nsystem\n", b"K\1", b"X\1\0\0\0a", b"ccollections\nOrderedDict\n", b"1\n", b"(", b"]",
        b"}", b")", b"t", b"R", b"q\0", b"h\0", b"u", b"e",
    ]  # fmt: skip
    stream = b"".join(data.draw(st.lists(st.sampled_from(pieces), max_size=30))) + b"."
    outcome = run(stream)
    if outcome.complete:
        arena = Arena()
        arena.add(outcome.root, "x", 0)


def test_every_prefix_of_a_pickle_says_that_it_ends_early() -> None:
    value = {"a": [1, 2.5, None, "text", b"bytes", (1, 2), {3}, 1 << 70], "b": complex(1, 2)}
    for protocol in range(6):
        data = pickle.dumps(value, protocol)
        for length in range(len(data)):
            outcome = run(data[:length])
            assert not outcome.complete
            assert {p.rule for p in outcome.problems} == {"pickle-malformed"}


# --- nothing is imported, nothing is called ----------------------------------------------------------------

_ACTS = ("import", "os.", "subprocess.", "exec", "compile", "open", "socket.", "shutil.", "pickle.", "ctypes.")
_WATCH: list[str] | None = None


def _watch(event: str, args: object) -> None:
    if _WATCH is not None and event.startswith(_ACTS):
        _WATCH.append(f"{event} {args}")


sys.addaudithook(_watch)

ATTACKS = {
    "GLOBAL": b"cposix\nsystem\nX\5\0\0\0false\x85R.",
    "STACK_GLOBAL": b"\x80\4\x8c\5posix\x8c\6system\x93\x8c\5false\x85R.",
    "INST": b"(X\5\0\0\0falseiposix\nsystem\n.",
    "OBJ": b"(cposix\nsystem\nX\5\0\0\0falseo.",
    "NEWOBJ": b"cantigravity\nX\n)\x81.",
    "NEWOBJ_EX": b"\x80\4cantigravity\nX\n)}\x92.",
    "BUILD": b"cantigravity\nX\n)\x81}X\x0c\0\0\0__setstate__cposix\nsystem\nsb.",
    "EXT1": b"\x82\1)R.",
    "EXT4": b"\x84\1\0\0\0)R.",
    "PERSID": b"Pposix system\n.",
    "dotted": b"\x80\4\x8c\2re\x8c\x1atemplate.__globals__.items\x93)R.",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_is_imported_or_called(name: str) -> None:
    global _WATCH
    before = set(sys.modules)
    _WATCH = []
    try:
        outcome = run(ATTACKS[name])
    finally:
        seen, _WATCH = _WATCH, None
    assert seen == []
    assert set(sys.modules) == before
    assert outcome.complete
    assert outcome.names


def test_the_watch_can_fail() -> None:
    global _WATCH
    _WATCH = []
    try:
        pickle.loads(b"cposix\ngetpid\n)R.")
        compile("1", "x", "eval")
    finally:
        seen, _WATCH = _WATCH, None
    assert seen


def test_calls_that_are_popped_still_count() -> None:
    outcome = run(b"cos\nsystem\nX\2\0\0\0ls\x85R0N.")
    named = outcome.names["os", "system"]
    assert outcome.root is None
    assert outcome.complete
    assert (named.mentions, named.calls, named.odd_calls) == (1, 1, 1)
    assert outcome.foreign_opcodes == {"POP": 20}


def test_a_known_call_counts_as_odd_only_with_arguments_that_no_writer_gives() -> None:
    outcome = run(b"(cbuiltins\nbytearray\n\x8a\5\0\0\0\0\x10\x85Rcbuiltins\nset\n]\x85Rt.")
    assert outcome.names["builtins", "bytearray"].odd_calls == 1
    assert outcome.names["builtins", "bytearray"].largest == 1 << 36
    assert outcome.names["builtins", "set"].odd_calls == 0


# --- opcodes one by one ------------------------------------------------------------------------------------


def call(data: bytes) -> CallOf:
    root = run(data).root
    assert type(root) is CallOf
    return root


def test_calls_keep_how_they_are_made() -> None:
    for how in ("INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"):
        assert call(ATTACKS[how]).how == how
    assert call(ATTACKS["GLOBAL"]).how == "REDUCE"
    made = call(b"\x80\4cm\nC\nK\1\x85}X\1\0\0\0aK\2s\x92}X\1\0\0\0bK\3sb.")
    assert made.args[0] == 1
    assert made.args[1].flat == ["a", 2]
    assert made.state.flat == ["b", 3]


def test_objects_may_be_filled_like_lists_and_dicts() -> None:
    made = call(b"cm\nC\n)\x81(K\1K\2eX\1\0\0\0aK\3s.")
    assert (made.items, made.flat) == ([1, 2], ["a", 3])


def test_extensions_are_names_of_their_own() -> None:
    for code, data in ((7, b"\x82\7."), (0x207, b"\x83\7\2."), (0x1000007, b"\x84\7\0\0\1.")):
        outcome = run(data)
        assert (outcome.root.module, outcome.root.name) == ("copyreg extension", str(code))
        assert "EXT" in outcome.foreign_opcodes


def test_persistent_ids_reach_the_format_that_knows_them() -> None:
    assert run(b"X\2\0\0\0idQ.", persistent=lambda pid: f"<{pid}>").root == "<id>"
    assert run(b"Pid\n.", persistent=lambda pid: f"<{pid}>").root == "<id>"
    unknown = call(b"X\2\0\0\0idQ.")
    assert (unknown.how, unknown.args) == ("PERSID", ("id",))


def test_pop_takes_a_mark_where_the_stack_is_empty() -> None:
    assert run(b"K\1(0.").root == 1
    assert run(b"K\1(K\2K\3" + b"1.").root == 1
    assert run(b"K\1" + b"2\x86.").root == (1, 1)


def test_large_byte_strings_stay_in_the_file() -> None:
    for protocol in (3, 4, 5):
        data = pickle.dumps(b"z" * 5000, protocol)
        root = run(data).root
        assert type(root) is BytesAt
        assert data[root.start : root.stop] == b"z" * 5000
    root = run(pickle.dumps(bytearray(b"z" * 5000), 5)).root
    assert type(root) is BytesAt


def test_memo_slots_in_all_spellings() -> None:
    for put, get in ((b"q\7", b"h\7"), (b"r\0\1\0\0", b"j\0\1\0\0"), (b"p300\n", b"g300\n"), (b"\x94", b"h\0")):
        pair = run(b"]" + put + get + b"\x86.").root
        assert pair[0] is pair[1]


# --- malformed streams -------------------------------------------------------------------------------------

MALFORMED = {
    "nothing": b"",
    "stop on an empty stack": b".",
    "unknown opcode": b"\xff.",
    "no such memo slot": b"h\1.",
    "text operand without its end": b"I12",
    "not a number": b"Itwelve\n.",
    "string without quotes": b"Sabc\n.",
    "string longer than the file": b"X\xff\xff\xff\xffabc.",
    "bytes longer than the file": b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
    "negative length": b"T\xff\xff\xff\xffabc.",
    "not UTF-8": b"X\1\0\0\0\xff.",
    "no mark": b"K\1t.",
    "too few values": b"K\1\x87.",
    "key without value": b"}(K\1u.",
    "dict of a key without value": b"(K\1d.",
    "frame longer than the file": b"\x80\4\x95\xff\0\0\0\0\0\0\0N.",
    "frame inside a frame": b"\x80\4\x95\x0b\0\0\0\0\0\0\0\x95\1\0\0\0\0\0\0\0NN.",
    "operand across a frame's end": b"\x80\4\x95\2\0\0\0\0\0\0\0X\1\0\0\0a.",
    "OBJ without a class": b"(o.",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_streams_are_reported(name: str) -> None:
    assert "pickle-malformed" in problems(MALFORMED[name])


CONFUSED = {
    "call of a number": b"K\1)R.",
    "arguments in a list": b"cm\nC\n]R.",
    "append to a dict": b"}K\1a.",
    "item set on a list": b"]K\1K\2s.",
    "item set on a tuple": b")K\1K\2s.",
    "append to what torch built": b"ctorch\nSize\n)\x85RK\1a.",
    "state of a number": b"K\1}b.",
    "global whose name is a number": b"\x80\4X\1\0\0\0mK\1\x93.",
    "class of a keyword call": b"\x80\4cm\nC\n]}\x92.",
    "buffer outside of the file": b"\x80\5\x97.",
}


@pytest.mark.parametrize("name", CONFUSED)
def test_values_of_the_wrong_type_are_reported(name: str) -> None:
    assert "pickle-type-confusion" in problems(CONFUSED[name])


ODD = {
    "protocol of the future": b"\x80\xffN.",
    "values left at STOP": b"NN.",
    "a mark left at STOP": b"(N.",
    "memo slots skipped": b"Nr\xff\xff\xff\x7f.",
    "memo slots skipped in text": b"Np2147483647\n.",
    "state set twice": b"cm\nC\n)\x81}b}b.",
    "an integer wider than torch reads": pickle.dumps(1 << 200, 2),
}


@pytest.mark.parametrize("name", ODD)
def test_what_no_writer_writes_is_odd(name: str) -> None:
    outcome = run(ODD[name])
    assert outcome.complete
    assert [p.rule for p in outcome.problems] == ["pickle-odd"]


def test_replacing_a_containers_methods_is_a_hazard() -> None:
    start = b"ccollections\nOrderedDict\n)R}X\x04\0\0\0"
    assert problems(start + b"keysK\1sb.") == ["build-hazard"]
    assert problems(b"ccollections\nOrderedDict\n)R}X\x09\0\0\0__class__K\1sb.") == ["build-hazard"]
    assert problems(b"ccollections\nOrderedDict\n)R}X\x09\0\0\0_metadata}sb.") == []


def test_offsets_lead_to_the_place() -> None:
    outcome = run(b"NNNN\xff.")
    (problem,) = outcome.problems
    assert "0xff" in problem.message
    assert problem.offset == 5
    assert run(b"N0cos\nsystem\n.").names["os", "system"].offset == 2


def test_torchs_own_opcodes_are_not_foreign_and_others_are() -> None:
    assert run(pickle.dumps({"a": [1, (2.5, None), True]}, 2)).foreign_opcodes == {}
    assert "PROTO 4" in run(pickle.dumps(1, 4)).foreign_opcodes


# --- limits ------------------------------------------------------------------------------------------------

LIMITED = {
    "operations": (b"N0" * 1000 + b"N.", Limits(operations=1000)),
    "wide integers": (pickle.dumps(1 << 8000, 2), Limits()),
    "long decimals": (b"I" + b"9" * 1000 + b"\n.", Limits()),
}


@pytest.mark.parametrize("name", LIMITED)
def test_limits_end_the_run(name: str) -> None:
    data, limits = LIMITED[name]
    outcome = run(data, limits=limits)
    assert not outcome.complete
    assert [p.rule for p in outcome.problems] == ["over-limit"]


def test_problems_are_counted_only_so_far() -> None:
    assert len(run(b"N" + b"r\xff\xff\xff\x7f" * 5000 + b".").problems) <= 100


BIG = 200_000
BOMBS = {
    "one tuple as arguments of many calls": b"(" + b"K\1" * BIG + b"tq\0cm\nf\nq\1(" + b"h\1h\0R" * 20_000 + b"t.",
    "one list as many dicts": b"](" + b"K\1K\2\x86" * BIG + b"eq\0ccollections\nOrderedDict\nq\1("
    + b"h\1h\0\x85R" * 20_000 + b"t.",
    "one list as many sets": b"](" + b"K\1" * BIG + b"eq\0cbuiltins\nset\nq\1(" + b"h\1h\0\x85R" * 20_000 + b"t.",
    "one dict as many counters": b"}(" + b"K\1K\2" * BIG + b"uq\0ccollections\nCounter\nq\1("
    + b"h\1h\0\x85R" * 20_000 + b"t.",
    "nested tuples": b")" + b"\x85" * 300_000 + b".",
    "nested lists": b"]q\0" + b"]q\1h\0a" * 1 + b"]" * 200_000 + b"a" * 199_999 + b".",
    "doubling": b")" + b"2\x86" * 300_000 + b".",
    "doubling keys": b"})" + b"2\x86" * 64 + b"Ns.",
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_small_files_cannot_ask_for_much_work(name: str) -> None:
    began = time.process_time()
    outcome = run(BOMBS[name])
    arena = Arena()
    if outcome.complete:
        arena.add(outcome.root, "x", 0)
    assert time.process_time() - began < 5
    assert sum(sys.getsizeof(getattr(n, "args", ())) for n in arena.nodes) < 1 << 27


def test_types_on_the_stack_are_the_machines_own() -> None:
    outcome = run(b"(]}cm\nC\ncm\nC\n)\x81t.")
    assert [type(x) for x in outcome.root] == [ListOf, DictOf, Named, CallOf]
    assert outcome.root[2] is outcome.root[3].target


def test_a_key_that_never_finishes_hashing_is_seen_in_a_dict_that_is_thrown_away() -> None:
    doubled = b"K\x01" + b"q\x00h\x00\x86" * 40  # each level holds the one below twice
    outcome = Machine(b"\x80\x02}" + doubled + b"K\x01s0N.").run()
    assert outcome.complete
    assert "hash-bomb" in {p.rule for p in outcome.problems}
