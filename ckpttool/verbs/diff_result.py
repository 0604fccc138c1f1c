"""What a comparison came to: changes, what was compared and what was not, and the exit code that follows. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from ckpttool.changes import Change, Pairing, Tolerance
from ckpttool.errors import ExitCode
from ckpttool.frozen import dataclass
from ckpttool.model import Json
from ckpttool.units import count, plural
from ckpttool.verbs.diff_sides import Target


@dataclass(frozen=True, slots=True)
class Coverage:
    """What was compared and what was not. ``pairs`` of tensors, of which ``compared``; ``values`` are no tensors.

    ``beyond_format`` says what one side's format cannot hold; ``largest`` is the greatest absolute difference
    within the tolerance.
    """

    tensors_a: int = 0
    tensors_b: int = 0
    pairs: int = 0
    compared: int = 0
    equal: int = 0
    close: int = 0
    unread: tuple[tuple[str, str], ...] = ()
    values: int = 0
    as_saved: bool = False
    whole: bool = True
    beyond_format: tuple[str, ...] = ()
    largest: float = 0.0

    @property
    def json(self) -> Json:
        return {
            "tensors_a": self.tensors_a,
            "tensors_b": self.tensors_b,
            "pairs": self.pairs,
            "compared": self.compared,
            "equal": self.equal,
            "close": self.close,
            "not_compared": [{"key": key, "why": why} for key, why in self.unread],
            "values": self.values,
            "how": "as saved" if self.as_saved else "content",
            "selected": not self.whole,
            "beyond_format": [*self.beyond_format],
        }

    @property
    def text(self) -> str:
        """One sentence: what the answer rests on."""
        how = "by recorded checksums (as saved; damage after saving is for verify)" if self.as_saved else "by content"
        words = [f"{count(self.compared)} of {plural(self.pairs, 'pair')} of tensors compared {how}"]
        words += [f"{plural(self.values, 'value')}"] if self.values else []
        words += [] if self.whole else ["a selection only"]
        words += [f"{count(len(self.unread))} not compared"] if self.unread else []
        words += [f"not compared: {one}" for one in self.beyond_format]
        return "; ".join(words)


@dataclass(frozen=True, slots=True)
class Result:
    """All that a comparison came to; without a pairing the two could not be compared at all."""

    a: Target
    b: Target
    changes: tuple[Change, ...] = ()
    pairing: Pairing | None = None
    coverage: Coverage = field(default_factory=Coverage)
    tolerance: Tolerance = field(default_factory=Tolerance)
    deltas: Mapping[int, int] = field(default_factory=dict, hash=False)

    @property
    def sound(self) -> bool:
        """Whether both sides are whole, so that the answer is one."""
        return self.pairing is not None and not self.a.errors and not self.b.errors

    @property
    def complete(self) -> bool:
        return self.sound and not self.coverage.unread

    @property
    def identical(self) -> bool:
        return self.complete and not self.changes and not self.coverage.close

    @property
    def close(self) -> bool:
        return self.complete and not self.changes

    @property
    def exit_code(self) -> ExitCode:
        """Different counts even where not all was compared; equal only where everything was."""
        if not self.sound:
            return ExitCode.IMPOSSIBLE
        if self.changes:
            return ExitCode.FINDINGS
        return ExitCode.OK if self.complete else ExitCode.IMPOSSIBLE
