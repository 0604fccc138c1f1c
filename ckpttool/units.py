"""Numbers as people read them. Pure; sizes are decimal (1 MB is 10^6 bytes), as disks and hubs count."""

from __future__ import annotations

import math

_STEPS = ("", "k", "M", "G", "T", "P", "E")


def size(nbytes: int) -> str:
    """Bytes as text with three or four significant digits: ``999 bytes``, ``1.23 kB``, ``45.6 MB``."""
    if abs(nbytes) < 1000:
        return plural(nbytes, "byte")
    return f"{_scaled(nbytes, ' ')}B"


def count(number: int) -> str:
    """An exact count with thousands apart: ``1,234,567``."""
    return f"{number:,}"


def short_count(number: int) -> str:
    """A count as models are named: ``999``, ``124 M``, ``1.56 G``."""
    return str(number) if abs(number) < 1000 else _scaled(number, " ")


def plural(number: int, noun: str, many: str = "") -> str:
    """A count with its noun: ``1 tensor``, ``1,200 tensors``."""
    return f"{count(number)} {noun if number == 1 else many or noun + 's'}"


def shape(sizes: tuple[int, ...]) -> str:
    """A tensor's shape: ``512×64``; ``scalar`` where it has no dimension."""
    return "×".join(map(str, sizes)) if sizes else "scalar"


def real(value: float) -> str:
    """A measured number in at most ten characters: ``0.02``, ``-1.235e-05``, ``NaN``."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return f"{value:.4g}"


def sparkline(bins: tuple[int, ...]) -> str:
    """A histogram as one line of block characters; a bin that holds anything is never blank."""
    top = max(bins, default=0)
    if top <= 0:
        return ""
    return "".join("▁▂▃▄▅▆▇█"[(n * 7 + top - 1) // top] if n else " " for n in bins)


def _scaled(number: int, gap: str) -> str:
    """Divide by a thousand until it fits; one step further where rounding would show ``1000``."""
    step, value = 0, float(number)
    while abs(value) >= 999.5 and step < len(_STEPS) - 1:
        value /= 1000
        step += 1
    digits = max(0, 3 - len(str(int(abs(value)))))
    return f"{value:.{digits}f}{gap}{_STEPS[step]}"
