"""A file that was sealed is not there.

What: The manifest lists a file that does not stand in the checkpoint's folder or cannot be read.

Why: A part of the checkpoint is lost, and whoever loads the rest may not notice.

Cause: A copy that left files out, a clean-up that took too much, or a manifest that was copied alone.

Remedy: Copy the whole folder again. If the file was taken away on purpose, run `ckpttool seal` again.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._seals import seal_of
from ckpttool.errors import printable
from ckpttool.model import Damage
from ckpttool.rules import Context


@judges(__doc__, "CK138", "sealed-file-missing", "error", axis="integrity", content=True)
def sealed_file_missing(context: Context) -> Iterator[Damage]:
    """Sealed files that are not there."""
    seal = seal_of(context)
    if seal is None or seal.manifest is None:
        return
    for file in seal.manifest.files:
        if file.name not in seal.lengths:
            message = f"{file.nbytes} bytes were sealed under this name, and it is not there"
            yield Damage("sealed-file-missing", printable(file.name), message, {"sealed_bytes": file.nbytes})
