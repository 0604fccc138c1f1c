"""A file in a sealed folder that was not there when it was sealed.

What: The manifest of the folder does not list a file that stands in it.

Why: Nothing says what this file should hold. A loader may take it: another shard, a newer optimizer state, code.

Cause: Something was saved or copied into the folder after it was sealed.

Remedy: If the file belongs there, run `ckpttool seal` again; else take it away.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._seals import seal_of
from ckpttool.errors import printable
from ckpttool.model import Damage, Json
from ckpttool.rules import Context
from ckpttool.units import plural


@judges(__doc__, "CK139", "not-sealed", "info", content=True)
def not_sealed(context: Context) -> Iterator[Damage]:
    """Files beside sealed ones that are not sealed."""
    seal = seal_of(context)
    if seal is None or not seal.extra:
        return
    names: list[Json] = [printable(name) for name in seal.extra[:20]]
    message = f"{plural(len(seal.extra), 'file')} in this folder came after it was sealed"
    yield Damage("not-sealed", printable(seal.extra[0]), message, {"files": len(seal.extra), "names": names})
