"""What the judges of content share: measured tensors with the places where they stand."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ckpttool.checks._places import LONGEST, MOST, Fault, capped
from ckpttool.errors import printable
from ckpttool.frozen import dataclass
from ckpttool.layout import SectionName
from ckpttool.measures import TensorMeasure
from ckpttool.model import Checkpoint, Damage, Extent, Storage, Tensor
from ckpttool.rules import Context

LARGE = 256
"""Elements from which on a weight's values say something by being all the same."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A tensor that was measured, the path that leads to it and the section that it belongs to."""

    path: tuple[str, ...]
    index: int
    tensor: Tensor
    measure: TensorMeasure
    section: SectionName

    @property
    def key(self) -> str:
        return shown(self.path)

    @property
    def is_matrix_weight(self) -> bool:
        """Whether this is a trained matrix: large, floating, of two or more dimensions, named weight."""
        named = self.path[-1:] and self.path[-1].rpartition(".")[2] == "weight"
        large = len(self.tensor.shape) >= 2 and self.tensor.numel >= LARGE
        floating = self.tensor.dtype.kind in ("float", "complex")
        return bool(named and large and floating and self.section in ("weights", "ema", "other"))


def shown(path: tuple[str, ...]) -> str:
    """A path as a message shows it."""
    return printable(".".join(path)[:LONGEST])


def measured(context: Context, wanted: Callable[[TensorMeasure], bool] = lambda _: True) -> Iterator[Measured]:
    """The measured tensors that are ``wanted``, in the tree's order, each node once under its first path.

    Parts of sparse, nested and quantized tensors come under the tensor's path and their name. Costs one look
    at each measure, and a walk over the tree only if one of them is wanted.
    """
    measures = {} if context.measures is None else context.measures.tensors
    chosen = {index for index, found in measures.items() if wanted(found)}
    if not chosen:
        return
    for path, index in reached(context.checkpoint):
        if index in chosen:
            chosen.discard(index)
            tensor = context.checkpoint.nodes[index]
            assert isinstance(tensor, Tensor)
            yield Measured(path, index, tensor, measures[index], context.layout.section_of(path))


def reached(checkpoint: Checkpoint) -> Iterator[tuple[tuple[str, ...], int]]:
    """Every path that leads to a tensor with bytes of its own, and its node; parts count as such."""
    opened: set[int] = set()
    for entry, tensor in checkpoint.tensors():
        if tensor.storage is not None or tensor.layout == "chunked":
            yield entry.path, entry.index
        if tensor.layout == "chunked":
            continue  # the same however it is cut: its boxes are measured as one
        if tensor.parts and entry.index not in opened:
            yield from _parts(checkpoint, entry.path, entry.index, opened)


def _parts(
    checkpoint: Checkpoint, path: tuple[str, ...], index: int, opened: set[int]
) -> Iterator[tuple[tuple[str, ...], int]]:
    stack = [(path, index)]
    while stack:
        here, top = stack.pop()
        tensor = checkpoint.nodes[top]
        if not isinstance(tensor, Tensor) or top in opened:
            continue
        opened.add(top)
        if top != index and tensor.storage is not None:
            yield here, top
        # A Parameter's data is the Parameter itself.
        inner = [(name, part) for name, part in tensor.parts if not _same(checkpoint, tensor, part)]
        stack.extend(((*here, name), part) for name, part in reversed(inner))


def _same(checkpoint: Checkpoint, tensor: Tensor, part: int) -> bool:
    other = checkpoint.nodes[part]
    return isinstance(other, Tensor) and tensor.storage is not None and _view(other) == _view(tensor)


def _view(tensor: Tensor) -> tuple[object, ...]:
    return tensor.storage, tensor.dtype, tensor.offset, tensor.shape, tensor.stride


def listed(rule: str, faults: list[tuple[str, Fault]], things: str = "tensors", hint: str = "") -> Iterator[Damage]:
    """Faults as damage, the first of them one by one and then their number."""
    yield from capped(rule, faults[:MOST], len(faults), things, hint)


def expected_bytes(extent: Extent) -> int:
    """Bytes of an extent's content as the file declares it, inflated where it is deflated."""
    return extent.span.nbytes if extent.size is None else extent.size


def contradicted(context: Context) -> dict[str, Extent]:
    """Extents by name that were read whole and do not match the CRC-32 that the file records."""
    spans = {} if context.measures is None else context.measures.spans
    wrong: dict[str, Extent] = {}
    for extent in context.checkpoint.extents:
        found = spans.get(extent.name)
        if found is None or extent.checksum is None or extent.checksum.algorithm != "crc32":
            continue
        if found.read >= expected_bytes(extent) and found.crc32 != extent.checksum.value:
            wrong[extent.name] = extent
    return wrong


def proved(context: Context) -> frozenset[str]:
    """Names of extents that were read whole and match the CRC-32 that the file records, or have no bytes."""
    spans = {} if context.measures is None else context.measures.spans
    return frozenset(
        e.name
        for e in context.checkpoint.extents
        if not expected_bytes(e)
        or (
            e.checksum is not None
            and (found := spans.get(e.name)) is not None
            and found.read == expected_bytes(e)
            and found.crc32 == e.checksum.value
        )
    )


def file_range(tensor: Tensor, storage: Storage) -> tuple[int, int] | None:
    """The bytes of the file between a tensor's first and last element; None if they lie in no file."""
    if storage.span is None:
        return None
    start = storage.span.start + tensor.offset * tensor.dtype.bits // 8
    return start, start + tensor.dtype.nbytes(tensor.extent)
