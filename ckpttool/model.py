"""The nouns of the whole tool: what a checkpoint is once it has been read. Read this file first.

Everything here is frozen, slotted and picklable. A checkpoint's tree is an *arena*: one flat tuple of
nodes whose children are indices, so sharing, cycles and any depth are plain data, and comparing, hashing,
printing or pickling never recurses. Nothing here touches a file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping as MappingABC
from dataclasses import field
from typing import Literal, TypeAlias

from ckpttool.dtypes import DType
from ckpttool.frozen import dataclass

Json: TypeAlias = "None | bool | int | float | str | list[Json] | dict[str, Json]"
Facts: TypeAlias = "MappingABC[str, Json]"
Scalar: TypeAlias = "None | bool | int | float | complex | str | bytes"
Severity: TypeAlias = Literal["error", "warning", "info"]

MAX_DEPTH = 400
"""Levels that a walk over the tree goes down; deeper trees are reported by the reader and folded."""


# --- where bytes lie -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Span:
    """Where bytes lie: a source's name and a half-open byte range. Not an open handle, so it pickles."""

    source: str
    start: int
    stop: int

    @property
    def nbytes(self) -> int:
        return self.stop - self.start


REPEATED = "repeated://"
"""How the names of sources begin that are nothing but a pattern, again and again."""


def repeated(pattern: bytes, start: int, stop: int) -> Span:
    """A range of a pattern that is repeated as often as needed: made-up content that takes no memory."""
    return Span(f"{REPEATED}{pattern.hex()}/{stop}", start, stop)


@dataclass(frozen=True, slots=True)
class Checksum:
    """A digest that the file itself records. ``algorithm`` names every parameter that affects it."""

    algorithm: str
    value: int


@dataclass(frozen=True, slots=True)
class Storage:
    """A flat run of bytes that tensors look into.

    ``nbytes`` is what the tree declares; ``span`` is where the bytes are, None if the file lacks them.
    ``inline`` holds content that the file spells in another encoding (text-coded pickles). ``swapped``
    says that the bytes are big-endian. ``device`` is the recorded location tag, such as ``cuda:0``.
    """

    key: str
    dtype: DType
    nbytes: int
    span: Span | None = None
    checksum: Checksum | None = None
    device: str = "cpu"
    record: str = ""
    inline: bytes | None = None
    swapped: bool = False


@dataclass(frozen=True, slots=True)
class Extent:
    """A named region of a file: a record of an archive, a header, a shard's data. All of them own the file.

    ``checksum`` is what the file records for the content; None where it records none. ``method`` is ``stored``
    or ``deflate``, where ``span`` is the compressed bytes and ``size`` what the file declares they inflate to.
    """

    name: str
    span: Span
    checksum: Checksum | None = None
    method: str = "stored"
    size: int | None = None


# --- the tree ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Value:
    """A plain value. Large byte strings are left in the file: see ``Blob``.

    ``call`` is the node of the call that the file spells it with (a numpy scalar), None for a literal.
    """

    value: Scalar
    call: int | None = None


@dataclass(frozen=True, slots=True)
class Blob:
    """A byte string that stays where it lies in the file."""

    span: Span


@dataclass(frozen=True, slots=True)
class Global:
    """A name that the file asks to import and does not call: a class, a dtype, a function."""

    module: str
    name: str

    @property
    def dotted(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, slots=True)
class Mapping:
    """A dict of some kind, in order. ``state`` is what BUILD set on it (``_metadata``), ``extra`` its arguments.

    ``keys`` and ``values`` are node indices of equal length; a key set twice stands twice.
    """

    kind: str
    keys: tuple[int, ...]
    values: tuple[int, ...]
    state: int | None = None
    extra: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list, tuple, set, frozenset or deque, in the file's order."""

    kind: str
    items: tuple[int, ...]
    state: int | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """Anything the file asks to build by calling an imported name: kept whole, never run.

    ``how`` is the pickle operation (``REDUCE``, ``NEWOBJ``, ``NEWOBJ_EX``, ``OBJ``, ``INST``, ``EXT``, ``PERSID``).
    ``items`` were appended to the result, ``keys`` and ``values`` set on it, ``state`` handed to BUILD.
    """

    how: str
    module: str
    name: str
    args: tuple[int, ...]
    state: int | None = None
    items: tuple[int, ...] = ()
    keys: tuple[int, ...] = ()
    values: tuple[int, ...] = ()

    @property
    def dotted(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor's descriptor. ``stride`` and ``offset`` count elements of ``dtype``.

    A strided tensor names its ``storage`` (an index into ``Checkpoint.storages``). Any other ``layout``
    (``sparse_coo``, ``nested``, ``meta``, ``dtensor``, …) has none and lists its component tensors in
    ``parts``, as names and node indices. A ``chunked`` tensor is a dense one whose boxes lie apart: its parts
    are strided tensors named by their first coordinates (``boxes.named``), its ``stride`` is that of the whole in
    row-major order, and its content is that of the whole. ``form`` is the function that rebuilds it. ``call`` is
    the node of the call kept whole, None where these fields say everything.
    """

    dtype: DType
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    storage: int | None
    requires_grad: bool = False
    layout: str = "strided"
    form: str = "torch._utils._rebuild_tensor_v2"
    parts: tuple[tuple[str, int], ...] = ()
    call: int | None = None

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the logical content, row-major; 0 for meta tensors' missing content is not implied."""
        return self.dtype.nbytes(self.numel)

    @property
    def dense(self) -> bool:
        """Whether the content is one plain array, in one piece or in several."""
        return self.layout in ("strided", "chunked")

    @property
    def contiguous(self) -> bool:
        """Whether the elements lie row-major without gaps."""
        expected = 1
        for size, step in zip(reversed(self.shape), reversed(self.stride), strict=False):
            if size == 0:
                return True
            if size != 1 and step != expected:
                return False
            expected *= size
        return True

    @property
    def extent(self) -> int:
        """Elements from ``offset`` to just past the last one addressed."""
        if 0 in self.shape:
            return 0
        found = 1
        for size, step in zip(self.shape, self.stride, strict=False):
            found += (size - 1) * step
        return found


Node: TypeAlias = "Value | Blob | Global | Mapping | Sequence | Call | Tensor"


@dataclass(frozen=True, slots=True)
class GlobalUse:
    """An imported name and how the file uses it. Gathered while the pickle is read, so popped calls count too.

    ``calls`` counts every call; ``odd_calls`` those whose arguments do not fit what torch itself writes.
    ``offset`` is the byte offset of the first mention in the file or record ``where``; ``largest`` the largest
    integer among the arguments of odd calls. ``beside`` marks names of a pickle that the tree does not use.
    """

    module: str
    name: str
    where: str
    offset: int
    mentions: int = 1
    calls: int = 0
    odd_calls: int = 0
    largest: int = 0
    beside: bool = False

    @property
    def dotted(self) -> str:
        return f"{self.module}.{self.name}"


# --- damage and findings -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Damage:
    """Something that reading met: named like the rule that explains it (``truncated``, ``header-mismatch``)."""

    rule: str
    where: str
    message: str
    facts: Facts = field(default_factory=dict, hash=False)
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """A judged statement about a target: which rule, where, what, with numbers, and what to run next."""

    code: str
    name: str
    severity: Severity
    where: str
    message: str
    facts: Facts = field(default_factory=dict, hash=False)
    hint: str = ""


# --- the checkpoint ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """A leaf of the tree: its path, the node's index and the node."""

    path: tuple[str, ...]
    index: int
    node: Node

    @property
    def key(self) -> str:
        """The path joined by dots."""
        return ".".join(self.path)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint as read from its headers.

    ``format`` names the layout (``torch-zip``, ``torch-legacy``, ``torch-tar``, ``torchscript``, ``pickle``,
    ``safetensors``, ``sharded``, ``directory``, ``dcp``) or, with ``kind`` set, what the file is instead of a
    checkpoint. ``root`` is the index of the tree's root, None if there is no tree. ``extents`` are the regions of the
    file; ``globals`` the names it asks to import; ``metadata`` what its container records (byte order, version, …).
    """

    source: str
    format: str
    nodes: tuple[Node, ...] = ()
    root: int | None = None
    storages: tuple[Storage, ...] = ()
    extents: tuple[Extent, ...] = ()
    globals: tuple[GlobalUse, ...] = ()
    damage: tuple[Damage, ...] = field(default=(), hash=False)
    files: tuple[str, ...] = ()
    nbytes: int = 0
    metadata: MappingABC[str, Json] = field(default_factory=dict, hash=False)
    kind: str = ""

    def entries(self) -> Iterator[Entry]:
        """Walk the tree's leaves in order; see ``ckpttool.tree.walk``."""
        from ckpttool.tree import walk

        return walk(self)

    def tensors(self) -> Iterator[tuple[Entry, Tensor]]:
        """The entries that are tensors. A tensor reached by several paths comes once for each."""
        for entry in self.entries():
            if isinstance(entry.node, Tensor):
                yield entry, entry.node
