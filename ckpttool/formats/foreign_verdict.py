"""What a file is instead of a checkpoint."""

from __future__ import annotations

from dataclasses import field

from ckpttool.frozen import dataclass
from ckpttool.model import Facts


@dataclass(frozen=True, slots=True)
class Verdict:
    """A short identifier, what people call it, the message with its numbers, what to do next, and facts."""

    ident: str
    title: str
    message: str
    hint: str = ""
    facts: Facts = field(default_factory=dict, hash=False)
