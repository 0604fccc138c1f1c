"""Reading a torch archive that was unzipped into a folder, for whoever writes it as one file again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ckpttool.draft import contents_of
from ckpttool.formats import unzipped
from ckpttool.limits import Limits
from ckpttool.profiles import lay_out
from ckpttool.repairing.proof import prove
from ckpttool.rules import Context
from ckpttool.verbs.findings import judge
from ckpttool.verbs.repair_broken import Broken, hurt_of


def unzipped_at(path: str | os.PathLike[str]) -> Path | None:
    """The folder of an unzipped archive; None for a file, a URL or any other folder."""
    where = os.fspath(path)
    return None if "://" in where or not Path(where).is_dir() else unzipped.home_of(Path(where))


def read_unzipped(home: Path, limits: Limits, progress: Callable[[int, int], None] | None) -> Broken:
    """Describe and measure. Its files record no checksums, so nothing proves them. Raises ``Unreadable``."""
    from ckpttool.measure import measure

    seen = unzipped.read_folder(home, limits)
    measures = measure(seen, progress=progress)
    hurt = hurt_of(judge(Context(seen, lay_out(seen), measures)), seen)
    return Broken(seen, measures, contents_of(seen), prove(seen, measures), hurt)
