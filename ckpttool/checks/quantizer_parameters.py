"""A quantized tensor's scale or zero point makes no sense.

What: The scale of a quantized tensor is NaN, infinite, zero or negative, or its zero point is no value of
the integer type. The finding gives the number.

Why: Every element is multiplied by the scale, so one such number spoils the whole tensor or channel.
`torch.load` accepts it.

Cause: Calibration on data with NaN, a channel that is zero throughout, or damaged bytes.

Remedy: Quantize again from the floating-point checkpoint. If `verify` also reports `crc-mismatch`, fetch
the file again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._content import listed
from ckpttool.checks._places import keys_of
from ckpttool.measures import Measures
from ckpttool.model import Call, Damage, Scalar, Sequence, Tensor, Value
from ckpttool.rules import Context

_RANGES = {"qint8": (-128, 127), "quint8": (0, 255), "quint4x2": (0, 15), "quint2x4": (0, 3)}
_WIDEST = (-(1 << 31), (1 << 31) - 1)


@judges(__doc__, "CK309", "quantizer-parameters", "warning", content=True)
def quantizer_parameters(context: Context) -> Iterator[Damage]:
    """Quantized tensors with impossible parameters, whether plain numbers or one for each channel."""
    faults: dict[int, str] = {}
    for index, node in enumerate(context.checkpoint.nodes):
        if isinstance(node, Tensor) and node.layout == "quantized":
            why = _plain(context, node) or _by_channel(context.measures or Measures(), node)
            if why:
                faults[index] = why
    places = keys_of(context.checkpoint, faults) if faults else {}
    yield from listed("quantizer-parameters", [(places[i], (why, {})) for i, why in faults.items()])


def _plain(context: Context, tensor: Tensor) -> str:
    """One scale for the whole tensor: ``(scheme, scale, zero point)`` among its call's arguments."""
    nodes = context.checkpoint.nodes
    call = None if tensor.call is None else nodes[tensor.call]
    quantizer = nodes[call.args[4]] if isinstance(call, Call) and len(call.args) > 4 else None
    if not isinstance(quantizer, Sequence) or len(quantizer.items) < 3:
        return ""
    scale, zero = (nodes[i] for i in quantizer.items[1:3])
    if isinstance(scale, Value) and _is_no_scale(scale.value):
        return f"the scale is {scale.value!r}, not a positive number"
    if isinstance(zero, Value) and isinstance(zero.value, int):
        return _outside(tensor, zero.value, zero.value)
    return ""


def _is_no_scale(value: Scalar) -> bool:
    return isinstance(value, (int, float)) and not 0 < value < math.inf


def _by_channel(measures: Measures, tensor: Tensor) -> str:
    parts = dict(tensor.parts)
    scales, zeros = parts.get("quantizer[1]", -1), parts.get("quantizer[2]", -1)
    found, bounds = measures.tensors.get(scales), measures.bounds.get(scales)
    if found is not None and (found.nan or found.inf):
        return f"{found.nan + found.inf} of {found.numel} scales are NaN or infinite"
    if bounds is not None and bounds.rows and bounds.rows[0][0] <= 0:
        return f"the least of {bounds.numel} scales is {bounds.rows[0][0]}, not a positive number"
    bounds = measures.bounds.get(zeros)
    return _outside(tensor, *bounds.rows[0]) if bounds is not None and len(bounds.rows) == 1 else ""


def _outside(tensor: Tensor, low: float, high: float) -> str:
    least, most = _RANGES.get(tensor.dtype.name, _WIDEST)
    if low >= least and high <= most:
        return ""
    wrong = low if low < least else high
    return f"a zero point is {wrong}, {tensor.dtype.name} goes from {least} to {most}"
