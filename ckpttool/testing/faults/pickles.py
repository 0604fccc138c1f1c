"""Pickles that run code, exhaust a reader, or mean different things to different readers.

The tree of the file stays what it was wherever possible: the hostile operations come first and leave nothing.
"""

from __future__ import annotations

import io
import random
import struct
import tarfile
from collections.abc import Callable

from ckpttool.testing.edit import edited
from ckpttool.testing.faults.registry import add, fault
from ckpttool.testing.faults.spans import record
from ckpttool.testing.plain import Call, Global
from ckpttool.testing.zips import read_records, replaced, torch_zip

ZIP = "torch-zip"


def text(value: str) -> bytes:
    """The operation that pushes a string."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def named(dotted: str) -> bytes:
    """The operation that asks for a global."""
    module, _, name = dotted.rpartition(".")
    return f"c{module}\n{name}\n".encode()


def call(dotted: str, *args: bytes) -> bytes:
    """The operations that call a global."""
    return named(dotted) + b"(" + b"".join(args) + b"tR"


def big(value: int) -> bytes:
    """The operation that pushes an integer of up to 8 bytes."""
    return b"\x8a\x08" + struct.pack("<q", value)


DOUBLED = b"K\x01" + b"q\xf0h\xf0\x86" * 40
"""Pushes a tuple of forty levels that unfolds to 2^40 leaves."""


def _repickled(change: Callable[[bytes], bytes]) -> Callable[[bytes, random.Random], bytes]:
    def apply(data: bytes, rng: random.Random) -> bytes:
        place = record(data, "data.pkl")
        return torch_zip(replaced(read_records(data), "data.pkl", change(data[place.start : place.stop])))

    return apply


def _first(name: str, rule: str, about: str, operations: bytes) -> None:
    """Operations before the file's own, their result dropped."""
    add(name, rule, (ZIP,), about, _repickled(lambda own: own[:2] + operations + b"0" + own[2:]))


def _instead(name: str, rule: str, about: str, operations: bytes) -> None:
    """Operations in place of the file's own."""
    add(name, rule, (ZIP,), about, _repickled(lambda own: b"\x80\x02" + operations + b"."))


# --- code ------------------------------------------------------------------------------------------------

SYSTEM = text("true")

_first("os-system", "unsafe-global", "a shell command, its result dropped", call("posix.system", SYSTEM))
_first("nt-system", "unsafe-global", "the same for Windows", call("nt.system", SYSTEM))
_first("python2-eval", "unsafe-global", "eval under its name in Python 2", call("__builtin__.eval", SYSTEM))
_first("nested-load", "unsafe-global", "a second loader inside", call("torch.load", SYSTEM))
_first("load-from-bytes", "unsafe-global", "torch's own nested loader", call("torch.storage._load_from_bytes", SYSTEM))
_first("hub-load", "unsafe-global", "code fetched from the network", call("torch.hub.load", SYSTEM))
_first("dotted-name", "unsafe-global", "a name reached through an attribute", call("torch.os.system", SYSTEM))
_first("pip-main", "unsafe-global", "a gadget of pip", call("pip.main", b"]"))
_first("resolve-name", "unsafe-global", "a gadget of pkgutil", call("pkgutil.resolve_name", text("os:system")))
_first("bare-global", "unsafe-global", "a name only mentioned: importing it runs code", named("antigravity.fly"))
_first(
    "stack-global",
    "unsafe-global",
    "a name put together on the stack, from the memo",
    text("posix") + b"q\xf0" + b"0h\xf0" + text("system") + b"\x93(" + SYSTEM + b"tR",
)
_first("inst-call", "unsafe-global", "a call spelled with INST", b"(" + SYSTEM + b"iposix\nsystem\n")
_first("obj-call", "unsafe-global", "a call spelled with OBJ", b"(" + named("posix.system") + SYSTEM + b"o")
_first(
    "newobj-ex-call",
    "unsafe-global",
    "a call spelled with NEWOBJ_EX",
    named("subprocess.Popen") + b"(" + SYSTEM + b"t}\x92",
)
_first("own-class", "needs-code", "an object of the project's own class", named("my_project.config.Config") + b")\x81")
_first("extension-code", "foreign-opcode", "an opcode that stands for a name registered elsewhere", b"\x82\x01")


@fault("protocol-4", "foreign-opcode", ZIP)
def protocol_4(data: bytes, rng: random.Random) -> bytes:
    """A pickle of protocol 4, which torch refuses to load safely."""
    return _repickled(lambda own: b"\x80\x04\x8c\x04text\x94.")(data, rng)


@fault("trailing-pickle", "trailing-pickle", ZIP)
def trailing_pickle(data: bytes, rng: random.Random) -> bytes:
    """A second pickle behind the first one's end."""
    return _repickled(lambda own: own + b"\x80\x02" + call("posix.system", SYSTEM) + b".")(data, rng)


# --- structure -------------------------------------------------------------------------------------------

_first("integer-name", "pickle-type-confusion", "a name that is a number", b"K\x01K\x02\x93")
_first("call-of-list", "pickle-type-confusion", "a call of something that is no name", b"](tR")
_first("setitem-on-number", "pickle-type-confusion", "an entry set on a number", b"K\x01K\x01K\x01s")
_first(
    "shadowed-items",
    "build-hazard",
    "attributes that shadow a dict's own methods",
    named("collections.OrderedDict") + b")R}" + text("items") + b"K\x01sb",
)
_first("bytearray-bomb", "malformed-call", "64 GiB asked for by one call", call("builtins.bytearray", big(1 << 36)))
_first(
    "tensor-bomb", "malformed-call", "a tensor of 2^36 elements by one call", call("torch.FloatTensor", big(1 << 36))
)
_first("lost-memo", "pickle-malformed", "a memo entry that was never made", b"h\xfe")
_first("memo-index", "pickle-odd", "a memo index of two thousand million", b"Nr\xff\xff\xff\x7f")
_first("long-string", "pickle-malformed", "a string longer than the file", b"X\xff\xff\xff\x7f")
_first("long-integer", "over-limit", "an integer of 64 KiB", b"\x8b\0\0\1\0" + bytes(65536))
_first("stack-underflow", "pickle-malformed", "a call without arguments", b"R")
_first("foreign-id", "persistent-id", "a persistent id that is no storage", b"(" + text("module") + b"K\1tQ")
_instead(
    "hash-bomb", "hash-bomb", "a dict whose key unfolds to 2^40 leaves: torch never returns", b"}" + DOUBLED + b"K\x01s"
)
_instead("too-many-leaves", "too-many-leaves", "a tuple that unfolds to 2^40 leaves", DOUBLED)
_instead("too-deep", "too-deep", "lists nested ten thousand deep", b"]" * 10_000 + b"a" * 9_999)
_instead("own-ancestor", "cyclic-tree", "a list that holds itself", b"]q\x00h\x00a")
_instead(
    "doubled-key",
    "duplicate-key",
    "a key set twice: the second one wins, unseen",
    b"}(" + text("weight") + b"K\x01" + text("weight") + b"K\x02u",
)


@fault("cut-pickle", "pickle-malformed", ZIP)
def cut_pickle(data: bytes, rng: random.Random) -> bytes:
    """A pickle that stops in the middle, with a checksum that says it is whole."""
    return _repickled(lambda own: own[: len(own) // 2])(data, rng)


@fault("left-on-stack", "pickle-odd", ZIP)
def left_on_stack(data: bytes, rng: random.Random) -> bytes:
    """A value below the tree that nothing uses."""
    return _repickled(lambda own: own[:2] + b"N" + own[2:])(data, rng)


@fault("entries-of-call", "needs-code", ZIP)
def entries_of_call(data: bytes, rng: random.Random) -> bytes:
    """The tree sits inside an object of a framework's class."""
    target = Global("my_project.training", "State")
    return edited(data, lambda value: Call(target, (), value if isinstance(value, dict) else None, how="NEWOBJ"))


@fault("tar-layout", "tar-layout", ZIP, "torch-legacy")
def tar_layout(data: bytes, rng: random.Random) -> bytes:
    """The layout of torch 0.1: a tar, which torch no longer loads safely."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as opened:
        for name, content in (("storages", b"\x80\x02K\0."), ("tensors", b"\x80\x02K\0."), ("pickle", b"\x80\x02}.")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
    return file.getvalue()
