"""The archive holds a pickle or code that the checkpoint does not use.

What: A record outside of the checkpoint's own tree looks like a pickle or like Python source. The finding
names the record and what it asks to import.

Why: `torch.load` does not touch it, so the checkpoint may load well. A program that unpacks the archive or
loads every pickle in it runs it, and scanners that look at one pickle alone do not see it.

Cause: A payload that waits for another loader, or a script packed along by mistake.

Remedy: Do not unpack the archive. Get the file from its author without the record, or take the previous
checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._names import trusted
from ckpttool.errors import printable
from ckpttool.model import Damage
from ckpttool.rules import Context
from ckpttool.safety import standing


@judges(__doc__, "CK207", "hidden-pickle", "error", axis="safety")
def hidden_pickle(context: Context) -> Iterator[Damage]:
    """Names that a pickle beside the tree asks to import, one damage for each record."""
    vouched = trusted(context)
    beside: dict[str, list[str]] = {}
    for use in context.checkpoint.globals:
        if use.beside and standing(use.module, use.name, vouched) != "plain":
            beside.setdefault(use.where, []).append(use.dotted)
    for where, names in list(beside.items())[:100]:
        shown = ", ".join(printable(name) for name in names[:5])
        message = f"a pickle that the checkpoint does not use asks to import {shown}"
        yield Damage("hidden-pickle", printable(where), message, {"globals": list(names[:20])})
