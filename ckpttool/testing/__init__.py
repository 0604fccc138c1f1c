"""For tests, ours and yours: strategies that make checkpoints, faults that break them, a suite for formats.

- ``ckpttool.testing.strategies``: Hypothesis strategies, from dtypes to whole checkpoints.
- ``ckpttool.testing.faults``: every known way to break a checkpoint, each with its rule.
- ``ckpttool.testing.conformance``: what every format reader has to keep, as a base class for tests.
- ``ckpttool.testing.samples``, ``writers``, ``plain``, ``edit``: sound files without torch, and their making.
- ``assert_checkpoints_equal``: an assertion whose failure message says what changed.
"""

from ckpttool.testing.assertions import assert_checkpoints_equal

__all__ = ["assert_checkpoints_equal"]
