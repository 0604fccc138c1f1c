"""A tensor holds infinite values.

What: Elements of a floating-point tensor are infinite. The finding names the tensor, how many elements are
infinite, and the row-major index of the first one. Masks, observers' ranges and single numbers outside the
weights (a best score that begins at infinity) are left out: they are infinite on purpose.

Why: An infinite weight turns into NaN as soon as it meets a zero or another infinity. Loading reports
nothing.

Cause: A value that did not fit when it was cast to half precision (above 65504), training that diverged, or
bytes that are damaged or read as another element type.

Remedy: If the checkpoint was cast from another one, cast again from the original to bfloat16, or scale the
weights. Otherwise take the newest earlier checkpoint on which `ckpttool verify` reports no infinity.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._content import Measured, listed, measured
from ckpttool.checks._places import Fault
from ckpttool.model import Damage
from ckpttool.rules import Context

_ON_PURPOSE = ("mask", "min_val", "max_val", "best", "bound")


@judges(__doc__, "CK402", "infinity", "error", content=True)
def infinity(context: Context) -> Iterator[Damage]:
    """Tensors with infinities that nobody put there."""
    found: list[tuple[str, Fault]] = []
    for one in measured(context, lambda m: m.inf > 0):
        if _on_purpose(one):
            continue
        m = one.measure
        first = m.first_bad if not m.nan else None
        place = "" if first is None else f", the first at index {first}"
        message = f"{m.inf} of {m.numel} elements are infinite{place}"
        found.append((one.key, (message, {"inf": m.inf, "numel": m.numel, "first": first})))
    yield from listed("infinity", found)


def _on_purpose(one: Measured) -> bool:
    name = one.path[-1].rpartition(".")[2].lower() if one.path else ""
    scalar = one.measure.numel == 1 and one.section not in ("weights", "optimizer", "ema")
    return scalar or any(word in name for word in _ON_PURPOSE)
