"""A tensor's values look like bytes of something else.

What: Among elements sampled from fixed places of a floating-point tensor at least 3 % are nonzero and below
1e-30 and at least 3 % are above 1e30 in magnitude. Trained values span a few orders of magnitude, not
sixty.

Why: Numbers like these are what other bytes look like when they are read as floats. A model with such
weights computes nonsense, and loading reports nothing.

Cause: The wrong byte order (a file from a big-endian machine without its byte order record), the wrong
element type, a wrong offset into the storage, compressed or encrypted bytes, or damage.

Remedy: Look at `ckpttool inspect` for the byte order and element type that the file records. If `verify`
also reports `crc-mismatch`, fetch the file again.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._content import listed, measured
from ckpttool.checks._places import Fault
from ckpttool.measures import TensorMeasure
from ckpttool.model import Damage
from ckpttool.rules import Context

_LEAST = 64
_SHARE = 0.03


@judges(__doc__, "CK406", "denormal-garbage", "warning", content=True)
def denormal_garbage(context: Context) -> Iterator[Damage]:
    """Tensors with many tiny and many huge values at once."""
    found: list[tuple[str, Fault]] = []
    for one in measured(context, _garbage):
        m = one.measure
        message = f"of {m.sampled} sampled values {m.tiny} are below 1e-30 and {m.huge} above 1e30 in magnitude"
        found.append((one.key, (message, {"sampled": m.sampled, "tiny": m.tiny, "huge": m.huge})))
    yield from listed("denormal-garbage", found)


def _garbage(m: TensorMeasure) -> bool:
    return m.sampled >= _LEAST and min(m.tiny, m.huge) >= _SHARE * m.sampled
