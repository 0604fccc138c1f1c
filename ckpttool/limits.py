"""What a reader may spend on one file, as one frozen value. Real checkpoints stay far below each bound."""

from __future__ import annotations

from ckpttool.frozen import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on reading. Past one, the reader stops and reports ``over-limit`` with both numbers.

    A state dict of a million tensors needs about 40 million pickle operations and a 120 MB pickle.
    """

    operations: int = 60_000_000
    pickle_bytes: int = 1 << 30
    inflated_bytes: int = 256 << 20
    inflate_ratio: int = 200
    line_bytes: int = 4096
    long_bytes: int = 255
    key_leaves: int = 4096
    depth: int = 400
    leaves: int = 20_000_000
    records: int = 5_000_000
    json_bytes: int = 100_000_000


DEFAULT = Limits()
