"""Small contents, read where a plan needs to know them: the counters of parameters that are merged."""

from __future__ import annotations

from ckpttool.draft import Input, Made
from ckpttool.expressions import Form, Leaf
from ckpttool.writing.evaluate import evaluate

LARGEST = 1024
"""Elements that a counter may have; anything larger is no counter."""


def counter(one: Input) -> bytes:
    """The bytes of a small tensor, row-major. Reads them from the file; raises ``Unreadable``."""
    form = Form(one.tensor.dtype, one.tensor.shape)
    return bytes(evaluate(Made(Leaf(one.name), (one,), form)))
