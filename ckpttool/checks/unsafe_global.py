"""The file asks to import a name that no checkpoint needs.

What: A pickle in the file names a function or class that is neither plain data nor part of a project or training
framework: something of the standard library, of torch's or numpy's functions, of pip, or a name with a dot in it.

Why: Unpickling imports the name and usually calls it, with arguments from the file. ``os.system`` is the
plain form; hundreds of others lead to the same place, which is why ckpttool allows known names instead of
forbidding bad ones. ``torch.load`` with its default ``weights_only=True`` refuses these files; every loader
that unpickles fully runs them.

Cause: A file made to attack whoever loads it; rarely, an object that somebody put into a checkpoint without noticing
what it drags along, such as a partial function or a logger.

Remedy: Do not load the file. Get it from its author in another form (safetensors, or a state dict alone). If you know
the name and its author, say so with ``--trust MODULE.NAME`` or in the configuration.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._names import names_of, statements
from ckpttool.model import Damage
from ckpttool.rules import Context


@judges(__doc__, "CK201", "unsafe-global", "error", axis="safety")
def unsafe_global(context: Context) -> Iterator[Damage]:
    """Every name that an attacker can count on."""
    what = "loading this file with pickle would import and run it"
    hint = "do not load this file; ask its author for safetensors or a plain state dict"
    yield from statements(context, "unsafe-global", names_of(context, "unsafe"), what, hint)
