"""Contents, read where a plan needs to know them: counters of parameters that are merged, what code asks for."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ckpttool.draft import Input, Made
from ckpttool.expressions import Form, Leaf

if TYPE_CHECKING:
    import numpy as np

LARGEST = 1024
"""Elements that a counter may have; anything larger is no counter."""


def counter(one: Input) -> bytes:
    """The bytes of a small tensor, row-major. Reads them from the file; raises ``Unreadable``."""
    from ckpttool.writing.evaluate import evaluate

    form = Form(one.tensor.dtype, one.tensor.shape)
    return bytes(evaluate(Made(Leaf(one.name), (one,), form)))


def numbers(made: Made) -> np.ndarray:
    """A tensor's numbers, types that NumPy lacks as float32. Reads its bytes; raises ``Unreadable``, ``OpError``."""
    import numpy as np

    from ckpttool.writing.elements import carrier, decode
    from ckpttool.writing.evaluate import evaluate

    dtype = made.form.dtype
    bits = np.frombuffer(evaluate(made, sys.byteorder == "big"), carrier(dtype)).reshape(made.form.shape)
    return decode(bits, dtype)
