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


@dataclass(slots=True)
class Orders:
    """``kill_at``: the step after which the process dies, by ``signal``; ``only_rank`` spares the other ranks.

    ``kill_in_save`` and ``events``: die at this file event of this save; ``torn`` and ``torn_share``: cut the file of
    this save at a share of its bytes, then die. ``known`` are digests of earlier saves with their steps: a load of one
    says at which step this process goes on. ``snapshots``: steps after which the state is written out.
    ``transplant``: a snapshot, of which ``parts`` replace what was restored. ``drop``: a part that is broken on
    purpose. ``full``: digests of single tensors too.
    """

    folder: Path
    kill_at: int | None = None
    signal: int = signal.SIGKILL
    only_rank: int | None = None
    kill_in_save: int | None = None
    events: int = 1
    torn: int | None = None
    torn_share: float = 0.5
    known: Mapping[str, int] | None = None
    snapshots: tuple[int, ...] = ()
    transplant: str = ""
    parts: tuple[str, ...] = ()
    drop: str = ""
    full: bool = False

    @classmethod
    def from_environment(cls) -> Orders | None:
        """The orders of this process; None where nothing is to be recorded."""
        folder = os.environ.get(VARIABLE)
        if not folder:
            return None
        given = json.loads(os.environ.get(DETAILS) or "{}")
        for name in ("snapshots", "parts"):
            given[name] = tuple(given.get(name) or ())
        return cls(Path(folder), **given)

    def to_environment(self) -> dict[str, str]:
        """The variables that hand these orders to a process and its children."""
        given = {key: value for key, value in asdict(self).items() if key != "folder"}
        return {VARIABLE: str(self.folder), DETAILS: json.dumps(given)}

    def ranks(self, mine: int) -> tuple[int, ...]:
        """The ranks that the kill is meant for."""
        return (mine,) if self.only_rank is None else (self.only_rank,)

    def step_of(self, digests: Mapping[str, object]) -> int | None:
        """The step of the save that was just loaded, or a part of it; None where it is none that is known."""
        known = self.known or {}
        parts = digests.get("parts")
        wanted = [str(digests.get("digest")), *(parts.values() if isinstance(parts, dict) else ())]
        found = [known[digest] for digest in wanted if digest in known]
        return max(set(found), key=found.count) if found else None
