"""A verb's answer as data, and the generic blocks that every renderer takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping as MappingABC
from dataclasses import field
from functools import cached_property
from typing import Literal, TypeAlias

from ckpttool.errors import ExitCode
from ckpttool.frozen import dataclass
from ckpttool.model import Finding, Json, Severity
from ckpttool.rules import Rule


class Deferred(MappingABC[str, Json]):
    """JSON that is made when it is first looked at: people who read text do not wait for it."""

    def __init__(self, make: Callable[[], MappingABC[str, Json]]) -> None:
        self._make = make

    @cached_property
    def _made(self) -> MappingABC[str, Json]:
        return self._make()

    def __getitem__(self, key: str) -> Json:
        return self._made[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph. ``style`` is a role, not a colour."""

    text: str
    style: Literal["plain", "title", "heading", "good", "bad", "warning", "dim"] = "plain"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text cells. ``align`` has ``l`` or ``r`` for each column; the first column may wrap."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    align: str = ""
    title: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """Label and value pairs, one to a line."""

    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Findings:
    """Findings of one target, to be shown worst first."""

    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Tree:
    """An indented tree: depth and text of each line, in order."""

    lines: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class Bars:
    """Labelled quantities drawn as bars, with the text that stands behind each.

    ``parts`` says that the quantities are parts of one whole, so that a share of it means something.
    """

    rows: tuple[tuple[str, float, str], ...]
    title: str = ""
    parts: bool = True


@dataclass(frozen=True, slots=True)
class Cell:
    """One field of a heat map: its quantity, 0 for none and NaN for what has no size; a short text; a long one."""

    quantity: float
    text: str = ""
    title: str = ""


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Quantities over two named axes, drawn as shades on a logarithmic scale.

    ``cells`` has a line for each of ``rows`` with a cell for each of ``columns``, None where there is nothing.
    ``quantity``, ``zero`` and ``sizeless`` say in the legend what shades, blank and marked cells mean.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[Cell | None, ...], ...]
    title: str = ""
    quantity: str = ""
    zero: str = "none"
    sizeless: str = "has no size"


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts over ranges that follow each other: a short label of each range, its count, the range in words."""

    bins: tuple[tuple[str, int, str], ...]
    title: str = ""
    axis: str = ""


Mark: TypeAlias = Literal["save", "kill", "resume", "depart"]


@dataclass(frozen=True, slots=True)
class Lane:
    """One process on a timeline: its name, the first and the last step that it took, and what happened at steps.

    ``save`` and ``kill`` come after the step, ``resume`` and ``depart`` with it.
    """

    name: str
    first: int
    last: int
    marks: tuple[tuple[int, Mark], ...] = ()


@dataclass(frozen=True, slots=True)
class Timeline:
    """What processes did, over the same steps from 1 to ``last``."""

    lanes: tuple[Lane, ...]
    last: int
    title: str = ""


@dataclass(frozen=True, slots=True)
class Curves:
    """Quantities over steps, one upon the other: each with a name; the first is what others are held to."""

    curves: tuple[tuple[str, tuple[tuple[int, float], ...]], ...]
    title: str = ""
    axis: str = "step"


@dataclass(frozen=True, slots=True)
class Details:
    """Blocks that most readers skip: folded behind ``summary`` where a format can fold, else under it."""

    summary: str
    blocks: tuple[Block, ...]


Block: TypeAlias = "Text | Table | Facts | Findings | Tree | Bars | HeatMap | Histogram | Timeline | Curves | Details"


@dataclass(frozen=True, slots=True)
class Subject:
    """One target of a report, for formats that list findings by file (JUnit, SARIF, GitHub).

    ``failed`` says that it alone would make the command fail; ``error`` why it could not be examined at all.
    ``name`` is what it is called where one path has several; by default its path.
    """

    path: str
    verdict: str
    findings: tuple[Finding, ...]
    failed: bool = False
    error: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What a verb found: ``data`` is the JSON object of the contract, ``blocks`` are for people.

    ``data`` lacks ``schema``, ``ok`` and ``exit_code``, which are computed from here. ``fail_on`` is the
    mildest severity that counts as a failure; ``rules`` those whose pages a format may quote (SARIF's help).
    """

    verb: str
    data: MappingABC[str, Json] = field(hash=False)
    blocks: tuple[Block, ...] = ()
    exit_code: ExitCode = ExitCode.OK
    subjects: tuple[Subject, ...] = ()
    fail_on: Severity | Literal["never"] = "error"
    rules: tuple[Rule, ...] = field(default=(), hash=False)

    @property
    def json(self) -> dict[str, Json]:
        """The complete JSON object."""
        head: dict[str, Json] = {
            "schema": f"ckpttool.{self.verb}/1",
            "ok": self.exit_code == ExitCode.OK,
            "exit_code": int(self.exit_code),
        }
        return {**head, **self.data}
