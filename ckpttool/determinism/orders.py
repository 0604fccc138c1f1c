"""What the runner asks of a recorder: where to write, when to die, what to change. Handed over in the environment."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

VARIABLE = "CKPTTOOL_TRACE_DIR"
DETAILS = "CKPTTOOL_TRACE_ORDERS"
LONGEST = 60_000  # Linux takes 128 KiB in one variable


@dataclass(slots=True)
class Orders:
    """``kill_at``: the step after which the process dies, by ``signal``; ``only_rank`` spares the other ranks.

    Of SIGTERM the process may make what it likes for ``grace`` seconds, and no further than to step ``last``; it comes
    ``again`` before this file event of the first save that follows it.
    ``kill_in_save`` and ``event``: die right before this file event of this save (0: as it begins). ``torn`` and
    ``torn_at``: die as a file that this save writes grows beyond so many bytes. Saves are counted from 1 in each
    process. ``known`` are digests of earlier saves with their steps: a load of one says at which step this process
    goes on. ``snapshots``: steps after which the state is written out; ``first``: and as the first forward pass finds
    it. ``transplant``: a folder of such states, of which ``parts`` of that after step ``start`` replace what was
    restored, each rank's by its own; ``batches``: those that steps after ``start`` consume are written out, up to so
    many bytes. ``drop``: a part that is broken on purpose. ``full``: digests of single tensors at
    every step. ``disk``: note what the last save did to files, and what of it was flushed.
    """

    folder: Path
    kill_at: int | None = None
    signal: int = signal.SIGKILL
    grace: float = 5.0
    again: int = 0
    last: int | None = None
    only_rank: int | None = None
    kill_in_save: int | None = None
    event: int = 0
    torn: int | None = None
    torn_at: int = 0
    known: Mapping[str, int] | None = None
    snapshots: tuple[int, ...] = ()
    first: bool = False
    transplant: str = ""
    start: int = 0
    batches: int = 0
    parts: tuple[str, ...] = ()
    drop: str = ""
    full: bool = False
    disk: bool = False

    @classmethod
    def from_environment(cls) -> Orders | None:
        """The orders of this process; None where nothing is to be recorded."""
        folder = os.environ.get(VARIABLE)
        if not folder:
            return None
        text = os.environ.get(DETAILS) or "{}"
        given = json.loads(Path(text[1:]).read_text() if text.startswith("@") else text)
        for name in ("snapshots", "parts"):
            given[name] = tuple(given.get(name) or ())
        return cls(Path(folder), **given)

    def to_environment(self) -> dict[str, str]:
        """The variables that hand these orders to a process and its children; long ones go by way of a file."""
        text = json.dumps({key: value for key, value in asdict(self).items() if key != "folder"})
        if len(text) > LONGEST:
            self.folder.mkdir(parents=True, exist_ok=True)
            number = sum(1 for _ in self.folder.glob("orders-*.json"))
            place = self.folder / f"orders-{number}.json"
            place.write_text(text)
            text = f"@{place}"
        return {VARIABLE: str(self.folder), DETAILS: text}

    def means(self, rank: int) -> bool:
        """Whether the kill is meant for this rank."""
        return self.only_rank is None or self.only_rank == rank

    def step_of(self, digests: Mapping[str, object]) -> int | None:
        """The step of the save that was just loaded, or a part of it; None where it is none that is known."""
        known = self.known or {}
        parts = digests.get("parts")
        wanted = [str(digests.get("digest")), *(parts.values() if isinstance(parts, dict) else ())]
        found = [known[digest] for digest in wanted if digest in known]
        return max(set(found), key=found.count) if found else None
