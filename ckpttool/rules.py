"""Rules: a code, a name, a severity and a page. A rule is written once, in its own file under ``checks``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping as MappingABC
from dataclasses import field
from typing import Literal, TypeAlias

from ckpttool.frozen import dataclass
from ckpttool.layout import Layout
from ckpttool.measures import Measures
from ckpttool.model import Checkpoint, Damage, Json, Severity, Tensor

Axis: TypeAlias = Literal["integrity", "safety", "hostile", "none"]
"""What a finding of error severity says about its target.

``integrity``: bytes are not what was written. ``safety``: loading may run code. ``hostile``: both, for
structures that make two readers see two files. ``none``: neither.
"""

SECTIONS = ("What", "Why", "Cause", "Remedy")
"""The parts that every rule's page has, each a paragraph that starts with its name and a colon."""


@dataclass(frozen=True, slots=True)
class Context:
    """All that a check may look at. ``measures`` is None when only headers were read.

    ``walked`` keeps the tensors below nodes that several checks ask for, by node index.
    """

    checkpoint: Checkpoint
    layout: Layout
    measures: Measures | None = None
    settings: MappingABC[str, Json] = field(default_factory=dict, hash=False)
    walked: dict[int, dict[str, Tensor]] = field(default_factory=dict, compare=False, repr=False)


Judge: TypeAlias = Callable[[Context], Iterable[Damage]]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule. ``judge`` is None for rules whose damage the reader itself reports under the rule's name.

    ``content`` says that it needs the bytes measured, not only headers.
    """

    code: str
    name: str
    severity: Severity
    page: str
    axis: Axis = "none"
    content: bool = False
    judge: Judge | None = None

    @property
    def title(self) -> str:
        """The first line of the page."""
        return self.page.strip().splitlines()[0]


def check_page(page: str) -> None:
    """Raise ``ValueError`` unless ``page`` has a first line and all four parts."""
    missing = [name for name in SECTIONS if f"\n{name}: " not in page]
    if missing or not page.strip():
        raise ValueError(f"a rule's page lacks {', '.join(missing) or 'everything'}")
