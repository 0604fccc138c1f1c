"""A harmless function is called in a way that no writer calls it.

What: A name on the list of data-only globals is called with arguments that torch never writes, such as
`bytearray(68719476736)`. The finding names the call and where in the tree it stands.

Why: `torch.load` allows the name and carries the call out, whatever the arguments, with `weights_only=True`
as well: it allocates gigabytes, or builds objects that later crash the process.

Cause: A file built to exhaust memory or to reach code behind an allowed name, or a damaged argument.

Remedy: Do not load the file. Fetch it again or take the previous checkpoint; if a program of yours writes
such calls, let it save tensors and plain values.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._names import names_of, statements
from ckpttool.model import Damage, GlobalUse
from ckpttool.rules import Context
from ckpttool.safety import LARGEST_ARGUMENT, may_be_called


@judges(__doc__, "CK209", "malformed-call", "error", axis="safety")
def malformed_call(context: Context) -> Iterator[Damage]:
    """Calls of plain names that no writer of plain data makes."""
    odd = [use for use in names_of(context, "plain") if _is_odd(use)]
    what = "no writer calls it like this"
    yield from statements(context, "malformed-call", odd, what, "do not load this file")


def _is_odd(use: GlobalUse) -> bool:
    if not use.odd_calls:
        return False
    manner = may_be_called(use.module, use.name)
    if manner == "with plain data":
        return use.largest > LARGEST_ARGUMENT
    return manner != "unknown"
