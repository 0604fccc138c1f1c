"""The manifest beside the checkpoint cannot be read.

What: A file with a manifest's name stands beside the checkpoint and is not JSON of a known schema, or its numbers
contradict each other.

Why: The checkpoint counts as not sealed: nothing that the manifest says could be compared.

Cause: A save or a copy that was cut, a manifest of a newer version, or another program's file of the same name.

Remedy: Remove the manifest, verify the checkpoint, and seal it again with `ckpttool seal`.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.errors import printable
from ckpttool.model import Damage
from ckpttool.rules import Context


@judges(__doc__, "CK137", "manifest-malformed", "warning", content=True)
def manifest_malformed(context: Context) -> Iterator[Damage]:
    """Manifests that could not be read."""
    seal = None if context.measures is None else context.measures.seal
    if seal is not None and seal.error:
        yield Damage("manifest-malformed", printable(seal.where), printable(seal.error))
