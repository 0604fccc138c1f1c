"""``textconv``: a checkpoint as lines of text that stay the same where the content does, for ``git diff``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby

from ckpttool.errors import printable
from ckpttool.formats import describe
from ckpttool.model import Blob, Call, Checkpoint, Entry, Global, Json, Tensor, Value

LONGEST = 160
"""Characters of a value that a line shows; a digest stands for the rest."""

DEEPEST = 8
"""Levels of tensors inside of tensors that are followed."""


def textconv(path: str, *, content: bool = False) -> Iterator[str]:
    """The checkpoint's lines: its format, then every tensor and value in the file's order, then damage.

    A tensor's line is ``KEY  DTYPE [SHAPE]  DIGEST``. The digest is what the file records, ``crc32:…``, where it
    records one for just these bytes, so that no content is read; else ``xxh3:…`` of the content, as for every
    tensor with ``content``. A pointer of Git LFS, a damaged file and what is no checkpoint have lines too: only a
    path that cannot be opened raises ``Unreadable``. No line has the path in it: git passes temporary files.
    """
    checkpoint = describe(path)
    if checkpoint.kind:
        yield from _foreign(checkpoint)
        return
    yield f"format: {checkpoint.format}"
    entries = list(checkpoint.entries())
    digests = _digests(checkpoint, entries, content)
    seen: dict[tuple[object, ...], str] = {}
    for parent, group in groupby(entries, _run):
        run = list(group)
        # Keys of a mapping may be numbers too; only those that count from 0 are as good as a list's places.
        if parent is not None and [entry.path[-1] for entry in run] == [str(i) for i in range(len(run))]:
            yield f"{printable('.'.join(parent))}: {_listed(run)}"
        else:
            yield from (_line(checkpoint, entry, digests, seen) for entry in run)
    for damage in checkpoint.damage:
        message = damage.message.replace(checkpoint.source, "the file")
        yield f"damage: {damage.rule}: {printable(message)}"


def pointer(path: str) -> str | None:
    """The SHA-256 that a Git LFS pointer names, in hexadecimal; None for any other file. Reads a kilobyte."""
    with open(path, "rb") as file:  # noqa: PTH123 - one call, before anything else is loaded
        head = file.read(1024)
    if not head.startswith(b"version https://git-lfs.github.com/spec/v1"):
        return None
    named = [line.removeprefix(b"oid sha256:") for line in head.splitlines() if line.startswith(b"oid sha256:")]
    text = named[0].decode("ascii", "replace") if named else ""
    return text if len(text) == 64 and set(text) <= set("0123456789abcdef") else None


def _foreign(checkpoint: Checkpoint) -> Iterator[str]:
    """What the file is instead of a checkpoint, with the facts that tell two of them apart."""
    yield f"not a checkpoint: {printable(checkpoint.kind)}"
    for damage in checkpoint.damage:
        facts = {name: value for name, value in damage.facts.items() if isinstance(value, (str, int))}
        yield from (f"{name}: {printable(str(value))}" for name, value in facts.items() if value != "")


def _digests(checkpoint: Checkpoint, entries: list[Entry], content: bool) -> Mapping[int, str]:
    """A digest of each tensor at or below an entry, by node."""
    nodes = dict.fromkeys(index for entry in entries for index, _ in _strided(checkpoint, entry.index, ""))
    if not nodes:
        return {}
    from ckpttool.comparing.recorded import recorded
    from ckpttool.measure.digests import digests

    known = {} if content else recorded(checkpoint, list(nodes))
    found = {index: f"{algorithm}:{value:08x}" for index, (algorithm, value, *_) in known.items()}
    read = digests(checkpoint, [index for index in nodes if index not in found])
    found.update((index, f"xxh3:{digest}") for index, digest in read.items())
    return found


def _strided(checkpoint: Checkpoint, index: int, name: str, depth: int = 0) -> Iterator[tuple[int, str]]:
    """The tensors with bytes that one is made of: itself, or the parts of a sparse or nested one."""
    node = checkpoint.nodes[index]
    if isinstance(node, Tensor) and node.layout == "chunked":
        yield index, name
    elif isinstance(node, Tensor) and node.parts and depth < DEEPEST:
        for part, below in node.parts[:LONGEST]:
            yield from _strided(checkpoint, below, f"{name}.{part}" if name else part, depth + 1)
    elif isinstance(node, Tensor) and node.storage is not None:
        yield index, name


def _line(checkpoint: Checkpoint, entry: Entry, digests: Mapping[int, str], seen: dict[tuple[object, ...], str]) -> str:
    key, node = printable(entry.key), entry.node
    if not isinstance(node, Tensor):
        return f"{key}: {_value(node)}"
    layout = "" if node.dense else f" {node.layout}"
    words = [f"{key}  {node.dtype.name} [{', '.join(map(str, node.shape))}]{layout}"]
    for index, name in _strided(checkpoint, entry.index, ""):
        digest = digests.get(index, "unreadable")
        words.append(f"{printable(name)}={digest}" if name else digest)
    place = (node.storage, node.offset, node.shape, node.stride)
    if node.storage is not None and node.numel:
        first = seen.setdefault(place, key)
        words += [f"tied to {first}"] if first != key else []
    return "  ".join(words)


def _run(entry: Entry) -> tuple[str, ...] | None:
    """What entries of one list of plain values have in common; None for any other entry."""
    within = isinstance(entry.node, Value) and entry.path and entry.path[-1].isdecimal()
    return entry.path[:-1] if within else None


def _listed(run: list[Entry]) -> str:
    """A list of plain values: whole where it is short, else its digest and how many there are."""
    held = [entry.node.value for entry in run if isinstance(entry.node, Value)]
    integers = [value for value in held if isinstance(value, int) and not isinstance(value, bool)]
    values = list(_ranges(integers)) if len(integers) == len(run) else [_plain(value) for value in held]
    text = f"[{', '.join(values)}]"
    if len(text) <= LONGEST:
        return text
    return f"{len(run)} values, sha256:{_sha256(text.encode())}"


def _ranges(numbers: Iterable[int]) -> Iterator[str]:
    """The numbers in their order; three and more that count up become ``0..147``."""
    for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        members = [_plain(number) for _, number in run]
        yield from [f"{members[0]}..{members[-1]}"] if len(members) > 2 else members


def _value(node: object) -> str:
    if isinstance(node, Value):
        return _plain(node.value)
    if isinstance(node, Blob):
        return f"{node.span.nbytes} bytes"
    if isinstance(node, (Global, Call)):
        return printable(node.dotted) + ("()" if isinstance(node, Call) else "")
    return f"empty {getattr(node, 'kind', 'container')}"


def _plain(value: object) -> str:
    """A value in one line: as JSON spells it where JSON can, with a digest where it is long."""
    json_too = value is None or isinstance(value, (bool, str, int, float))
    text = json.dumps(_exact(value), ensure_ascii=False) if json_too else repr(value)
    text = printable(text)
    if len(text) <= LONGEST:
        return text
    return f"{text[: LONGEST // 2]}…  {len(text)} characters, sha256:{_sha256(text.encode())}"


def _exact(value: object) -> Json:
    """The value, or what stands for an integer too long to be spelled."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 4 * LONGEST:
        return hex(value)
    return value if value is None or isinstance(value, (bool, str, int, float)) else repr(value)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
