"""Checkpoints that are no files: state dicts and modules in this process, described as ``torch.save`` would write them.

torch is never imported here: who hands over tensors has it already.
"""

from __future__ import annotations

import bisect
import io
import itertools
import pickle
import sys
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Protocol, cast

from ckpttool.errors import UsageError, printable
from ckpttool.formats.pickled import Reading, lift_arrays, read_pickle
from ckpttool.limits import Limits
from ckpttool.model import Checkpoint, Extent, Span, Storage
from ckpttool.source import Source

FORMAT = "memory"
"""What stands for the name of a format."""

_UNBOUNDED = Limits(operations=1 << 62, pickle_bytes=1 << 62)
"""The objects are there already, so no description of them can be a bomb."""

_described_before = itertools.count(1)

_PROTOCOL = 2
"""The one of ``torch.save``: so trees compare equal with those of files."""


def describe_state(obj: object, name: str = "", *, stateful: bool = True) -> tuple[Checkpoint, Source]:
    """Describe an object as its saved file would be, and give the source that its bytes are read from.

    ``obj`` is anything that ``torch.save`` takes: nested containers of values and tensors, Parameters, views,
    ties, sparse and quantized ones among them. What has a ``state_dict`` method (a module, an optimizer, a
    schedule), alone or as a value of a dict, stands for what that returns, unless ``stateful`` is off: then it is
    pickled whole, as ``torch.save`` does. ``name`` is the source's; it has to
    differ between two that are measured together, as it does where none is given.

    The bytes of tensors on the CPU are neither copied nor kept apart: changing a tensor changes what is read.
    Those on other devices are copied here. Storages are the same where they begin at one address. Raises
    ``UsageError`` for what pickle cannot take. Costs one pickling without the tensors' bytes.
    """
    name = name or f"<{type(obj).__name__} {next(_described_before)}>"
    pickler = _Pickler()
    try:
        pickler.dump(_stateful(obj) if stateful else obj)
    except (pickle.PicklingError, TypeError, AttributeError, RecursionError, NotImplementedError) as error:
        reason = printable(str(error)) or type(error).__name__
        raise UsageError(f"{printable(name)} – holds what cannot be saved: {reason}") from error
    tree = pickler.file.getbuffer()
    source = Buffers([tree, *(_bytes_of(storage) for storage in pickler.storages)], name)
    return _described(tree, source), source


class Buffers:
    """Runs of bytes in this process, one after the other. Like ``Memory``, it does not pickle."""

    def __init__(self, buffers: list[memoryview], name: str = "<memory>") -> None:
        self.name = name
        self._buffers = buffers
        self.starts = [0]
        for buffer in buffers:
            self.starts.append(self.starts[-1] + len(buffer))
        self.size = self.starts.pop()

    def read(self, start: int, nbytes: int) -> bytes:
        """Up to ``nbytes`` bytes from ``start``; fewer only at the end."""
        space = bytearray(max(0, min(nbytes, self.size - start)))
        return bytes(space[: self.readinto(start, memoryview(space))])

    def readinto(self, start: int, buffer: memoryview) -> int:
        """Fill ``buffer`` from ``start``; the number of bytes read, short only at the end."""
        done = 0
        while done < len(buffer) and start + done < self.size:
            piece = self._piece(start + done, len(buffer) - done)
            buffer[done : done + len(piece)] = piece
            done += len(piece)
        return done

    def window(self, start: int, stop: int) -> bytes | memoryview:
        """The bytes of a range, not copied where they are of one run."""
        piece = self._piece(start, stop - start) if start < self.size else memoryview(b"")
        return piece if len(piece) >= min(stop, self.size) - start else self.read(start, stop - start)

    def changed(self) -> bool:
        return False

    def close(self) -> None:
        self._buffers, self.starts, self.size = [], [], 0

    def _piece(self, start: int, most: int) -> memoryview:
        """Bytes from ``start`` on as far as they are of one run; ``start`` is within the source."""
        which = bisect.bisect_right(self.starts, start) - 1
        begin = start - self.starts[which]
        return self._buffers[which][begin : begin + most]


# --- what torch's objects offer ------------------------------------------------------------------------------


class _Untyped(Protocol):
    """The part of ``torch.UntypedStorage`` that is used here."""

    device: object

    def data_ptr(self) -> int: ...
    def nbytes(self) -> int: ...
    def cpu(self) -> _Untyped: ...


class _Typed(Protocol):
    """The part of ``torch.TypedStorage`` that is used here; torch pickles it so."""

    _untyped_storage: _Untyped

    def _pickle_storage_type(self) -> str: ...
    def _size(self) -> int: ...


class _Pickler(pickle.Pickler):
    """Writes what ``torch.save`` writes into ``data.pkl``, and keeps the storages in order of first mention.

    Source: torch 2.13 ``torch/serialization.py`` ``_save``.
    """

    def __init__(self) -> None:
        self.file = io.BytesIO()
        super().__init__(self.file, protocol=_PROTOCOL)
        self.storages: list[_Untyped] = []
        self._keys: dict[object, str] = {}
        self._torch: ModuleType | None = sys.modules.get("torch")

    def persistent_id(self, obj: object) -> tuple[str, object, str, str, int] | None:
        if self._torch is None:
            return None
        if isinstance(obj, self._torch.storage.TypedStorage):
            typed = cast(_Typed, obj)
            untyped, numel = typed._untyped_storage, typed._size()
            cls: object = getattr(self._torch, typed._pickle_storage_type())
        elif isinstance(obj, self._torch.UntypedStorage):
            untyped, numel, cls = cast(_Untyped, obj), obj.nbytes(), self._torch.UntypedStorage
        else:
            return None
        return ("storage", cls, self._key(untyped), str(untyped.device), numel)

    def _key(self, storage: _Untyped) -> str:
        """The number of a storage: one for each address, since two storage objects may share memory."""
        pointer = storage.data_ptr()
        identity: object = (str(storage.device), pointer, storage.nbytes()) if pointer else id(storage)
        if identity not in self._keys:
            self._keys[identity] = str(len(self.storages))
            self.storages.append(storage)  # and so it lives as long as its id is a key
        return self._keys[identity]


def _stateful(obj: object) -> object:
    """The state of what has one, a dict's values included; anything else as it is."""
    if not isinstance(obj, dict):
        method = _state_of(obj)
        return obj if method is None else method()
    if not any(_state_of(value) for value in obj.values()):
        return obj
    states = {key: _state_of(value) for key, value in obj.items()}
    return {key: value if (method := states[key]) is None else method() for key, value in obj.items()}


def _state_of(obj: object) -> Callable[[], object] | None:
    method = None if isinstance(obj, (type, dict)) else getattr(obj, "state_dict", None)
    return cast("Callable[[], object]", method) if callable(method) else None


def _bytes_of(storage: _Untyped) -> memoryview:
    """A storage's memory itself; a copy where it is on another device."""
    torch = sys.modules["torch"]
    if not storage.nbytes():
        return memoryview(b"")
    here = storage if str(storage.device) == "cpu" else storage.cpu()
    return memoryview(torch.empty(0, dtype=torch.uint8).set_(here).numpy())


def _described(tree: memoryview, source: Buffers) -> Checkpoint:
    """The checkpoint of a pickle and the storages that follow it in the source."""
    reading = Reading(source.name, _UNBOUNDED)
    root = read_pickle(reading, tree, "state").root
    spans = [Span(source.name, start, stop) for start, stop in _ranges(source)]
    swapped = sys.byteorder == "big"
    storages = tuple(
        _placed(storage, span, swapped) for storage, span in zip(reading.storages, spans[1:], strict=False)
    )
    nodes, storages = lift_arrays(reading, storages, "state")
    return Checkpoint(
        source.name,
        FORMAT,
        nodes,
        root,
        storages,
        tuple(Extent(name, span) for name, span in zip(_names(len(spans)), spans, strict=True)),
        tuple(reading.globals),
        nbytes=source.size,
        metadata={"byteorder": sys.byteorder, "crc_recorded": False},
    )


def _placed(storage: Storage, span: Span, swapped: bool) -> Storage:
    return replace(storage, span=span, record=f"storage {storage.key}", swapped=swapped)


def _ranges(source: Buffers) -> list[tuple[int, int]]:
    return list(zip(source.starts, [*source.starts[1:], source.size], strict=True))


def _names(count: int) -> list[str]:
    return ["state", *(f"storage {number}" for number in range(count - 1))]
