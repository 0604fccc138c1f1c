"""Something about this file that is known of the framework that wrote it.

What: A habit of the framework that changes what the file means: which of two weights are the averaged
ones, what a
counter counts, what was left out on purpose.

Why: Who does not know it takes the wrong weights or resumes an epoch too late.

Cause: The framework works this way; nothing is wrong with the file.

Remedy: None is needed. Follow the note when you load the file by hand.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.model import Damage
from ckpttool.rules import Context


@judges(__doc__, "CK704", "framework-note", "info")
def framework_note(context: Context) -> Iterator[Damage]:
    """One finding for each note that holds for this very file."""
    writer = context.layout.writer
    for note in context.layout.notes:
        facts = {} if writer is None else {"framework": writer.framework}
        yield Damage("framework-note", "", note, facts)
