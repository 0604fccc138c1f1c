"""Assertions for tests of training code."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ckpttool.changes import Tolerance
from ckpttool.errors import ExitCode

WIDTH = 100
"""Columns of a failure message."""


def assert_checkpoints_equal(
    a: str | os.PathLike[str] | object,
    b: str | os.PathLike[str] | object,
    *,
    atol: float = 0.0,
    rtol: float = 0.0,
    ulp: int = 0,
    only: Sequence[str] = (),
    ignore: Sequence[str] = (),
) -> None:
    """Pass where two checkpoints are equal; fail with what changed from ``a`` to ``b``.

    Each is a path, a state dict or a module, in any mix; see ``ckpttool.diff``. Without a tolerance every
    bit counts. ``only`` and ``ignore`` are globs over keys. Raises ``AssertionError`` whose message is the
    report of ``ckpttool diff``, also where the two cannot be compared; ``Unreadable`` where there is no file.
    """
    __tracebackhide__ = True
    from ckpttool.render import render
    from ckpttool.verbs.diff import diff

    report = diff(a, b, tolerance=Tolerance(atol, rtol, ulp), only=tuple(only), ignore=tuple(ignore))
    if report.exit_code != ExitCode.OK:
        raise AssertionError("the checkpoints differ\n\n" + render(report, "text", width=WIDTH))
