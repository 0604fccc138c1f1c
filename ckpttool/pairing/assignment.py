"""The best one-to-one assignment by likeness, and how clear it is. lapx does the work."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Matrix: TypeAlias = "NDArray[np.float64]"

CLEAR = 0.15
"""How much likelier than the next best a pair has to be to count as clear."""


def assign(likeness: Matrix) -> list[tuple[int, int, float]]:
    """Row, column and clearness (0: a draw, 1: clear or without alternative) of each pair of the best assignment.

    Every row or every column is assigned, whichever are fewer. Cubic in the larger side at worst.
    """
    import lap
    import numpy as np

    if not likeness.size:
        return []
    _, columns, _ = lap.lapjv(1.0 - likeness, extend_cost=True)
    found = []
    for row, column in enumerate(columns.tolist()):
        if column >= 0:
            others = np.concatenate([np.delete(likeness[row], column), np.delete(likeness[:, column], row)])
            margin = float(likeness[row, column] - others.max()) if others.size else CLEAR
            found.append((row, column, min(1.0, max(0.0, margin / CLEAR))))
    return found
