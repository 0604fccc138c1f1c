"""What a profile is: where one framework keeps what, declared as one frozen value per framework."""

from __future__ import annotations

from ckpttool.frozen import dataclass
from ckpttool.model import Scalar


@dataclass(frozen=True, slots=True)
class Next:
    """Where training continues: the counter at ``path`` plus ``offset``, counted in ``unit``."""

    path: str
    offset: int = 0
    unit: str = "epoch"


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence about files with all of ``has``, none of ``lacks``, where each of ``equals`` holds."""

    text: str
    has: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    equals: tuple[tuple[str, Scalar], ...] = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """One framework's checkpoint. Paths are keys joined by ``>``; ``a|b`` are spellings, ``*`` matches
    any text.

    A file matches if all of ``requires`` stand in it and none of ``forbids``; one of ``confirms``
    makes it sure.
    ``version`` is where the framework's version stands. ``needs`` are parts that a resume needs beside
    weights,
    optimizer and counter; ``never`` parts that this framework never saves; ``recomputes`` parts that
    it rebuilds
    from the counter, so that nothing is lost without them. ``rng_kinds`` are the generators that its
    runs use.
    """

    framework: str
    requires: tuple[str, ...]
    confirms: tuple[str, ...] = ()
    forbids: tuple[str, ...] = ()
    version: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    optimizer: tuple[str, ...] = ()
    scheduler: tuple[str, ...] = ()
    scaler: tuple[str, ...] = ()
    ema: tuple[str, ...] = ()
    rng: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    counters: tuple[str, ...] = ()
    config: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    recomputes: tuple[str, ...] = ()
    rng_kinds: tuple[str, ...] = ("python", "numpy", "torch")
    next: tuple[Next, ...] = ()
    notes: tuple[Note, ...] = ()
