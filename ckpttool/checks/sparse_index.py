"""A sparse tensor's indices point outside it.

What: The index tensors of a sparse tensor do not fit its shape: an index is negative or too large, row
pointers do not begin at zero, go down or do not end at the number of values, or the counts differ.

Why: `torch.load` accepts it by default. Computing with it reads or writes memory outside the tensor: a
wrong result, or a crash of the process without a message.

Cause: Damaged bytes, a shape edited by hand, or a file made to crash its reader.

Remedy: Do not use the tensor. Fetch the file again; if it comes from someone else, treat it as hostile.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._content import listed
from ckpttool.checks._places import Fault, keys_of
from ckpttool.measures import Bounds, Measures
from ckpttool.model import Checkpoint, Damage, Tensor
from ckpttool.rules import Context

_ROWS = ("sparse_csr", "sparse_bsr")


@judges(__doc__, "CK308", "sparse-index", "error", axis="integrity", content=True)
def sparse_index(context: Context) -> Iterator[Damage]:
    """Sparse tensors whose measured indices are out of bounds."""
    if context.measures is None:
        return
    faults: dict[int, str] = {}
    for index, node in enumerate(context.checkpoint.nodes):
        if isinstance(node, Tensor) and node.layout.startswith("sparse_"):
            why = _fault(context.checkpoint, context.measures, node)
            if why:
                faults[index] = why
    places = keys_of(context.checkpoint, faults) if faults else {}
    found: list[tuple[str, Fault]] = [(places[i], (why, {})) for i, why in faults.items()]
    yield from listed("sparse-index", found, "sparse tensors")


def _fault(checkpoint: Checkpoint, measures: Measures, tensor: Tensor) -> str:
    parts = dict(tensor.parts)
    values = checkpoint.nodes[parts["values"]] if "values" in parts else None
    if not isinstance(values, Tensor):
        return ""
    if tensor.layout == "sparse_coo" and "indices" in parts:
        return _coo(tensor, values, checkpoint.nodes[parts["indices"]], measures.bounds.get(parts["indices"]))
    if "compressed" not in parts or "plain" not in parts:
        return ""
    compressed, plain = checkpoint.nodes[parts["compressed"]], checkpoint.nodes[parts["plain"]]
    if not isinstance(compressed, Tensor) or not isinstance(plain, Tensor):
        return ""
    counts = _compressed_counts(tensor, values, compressed, plain)
    return counts or _compressed_bounds(
        tensor, values, plain, measures.bounds.get(parts["compressed"]), measures.bounds.get(parts["plain"])
    )


def _coo(tensor: Tensor, values: Tensor, indices: object, bounds: Bounds | None) -> str:
    if not isinstance(indices, Tensor) or len(indices.shape) != 2 or indices.shape[0] > len(tensor.shape):
        return "its indices are not a matrix with a row for each sparse dimension"
    if values.shape[:1] != indices.shape[1:]:
        return f"it has {indices.shape[1]} index columns and values of shape {list(values.shape)}"
    if bounds is None or len(bounds.rows) != indices.shape[0]:
        return ""
    for dim, (low, high) in enumerate(bounds.rows):
        if low < 0 or high >= tensor.shape[dim]:
            return f"indices of dimension {dim} go from {low} to {high}, its size is {tensor.shape[dim]}"
    return ""


def _compressed_counts(tensor: Tensor, values: Tensor, compressed: Tensor, plain: Tensor) -> str:
    batch = len(compressed.shape) - 1
    if batch < 0 or len(tensor.shape) < batch + 2 or len(plain.shape) != batch + 1:
        return "its index tensors do not have the dimensions that its layout needs"
    if values.shape[: batch + 1] != plain.shape:
        return f"it has indices of shape {list(plain.shape)} and values of shape {list(values.shape)}"
    rows, _ = _grid(tensor, values, batch)
    if compressed.shape[-1] != rows + 1:
        return f"it has {compressed.shape[-1]} pointers for {rows} rows, one more than rows is needed"
    return ""


def _compressed_bounds(
    tensor: Tensor, values: Tensor, plain: Tensor, pointers: Bounds | None, others: Bounds | None
) -> str:
    batch = len(plain.shape) - 1
    _, columns = _grid(tensor, values, batch)
    if pointers is not None and pointers.numel:
        if pointers.first != 0 or pointers.last != plain.shape[-1]:
            return f"its pointers go from {pointers.first} to {pointers.last}, not from 0 to {plain.shape[-1]}"
        if not pointers.ascending:
            return "its pointers go down"
    if others is not None and others.rows:
        low, high = min(r[0] for r in others.rows), max(r[1] for r in others.rows)
        if low < 0 or high >= columns:
            return f"its indices go from {low} to {high}, there are {columns} places"
    return ""


def _grid(tensor: Tensor, values: Tensor, batch: int) -> tuple[int, int]:
    """Compressed rows and places in one, in blocks where the layout has blocks."""
    height, width = tensor.shape[batch], tensor.shape[batch + 1]
    if tensor.layout in ("sparse_bsr", "sparse_bsc") and len(values.shape) >= batch + 3:
        height //= max(1, values.shape[batch + 1])
        width //= max(1, values.shape[batch + 2])
    return (height, width) if tensor.layout in _ROWS else (width, height)
