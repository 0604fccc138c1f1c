"""Chains: migrations in one line, each leading from a version to the next. Pure.

A chain has no branches: every version has one step that leads to it and one that leads on, the ends apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ckpttool.errors import printable
from ckpttool.frozen import dataclass
from ckpttool.migration.errors import MigrationError
from ckpttool.migration.rule_nouns import RuleFile

HEAD = "head"
"""The word for the newest version."""


class ChainError(MigrationError):
    """A folder of migrations is no chain, or does not lead where it should; the text names the files."""


@dataclass(frozen=True, slots=True)
class Link:
    """One step: its file's name, where it stands for messages, and its versions.

    ``rules`` is None for a step in Python, whose functions are called ``up`` and ``down`` (empty: no way back).
    ``digest`` changes with what the step does: for rules, whatever the layout of their text.
    """

    name: str
    where: str
    from_: str
    to: str
    digest: str
    about: str = ""
    rules: RuleFile | None = None
    up: str = ""
    down: str = ""

    @property
    def text(self) -> str:
        return f"{printable(self.where)}: {shown(self.from_)} → {shown(self.to)}"


@dataclass(frozen=True, slots=True)
class Turn:
    """A step as it is to be taken: ``back`` against the direction in which it is written."""

    link: Link
    back: bool

    @property
    def versions(self) -> tuple[str, str]:
        return (self.link.to, self.link.from_) if self.back else (self.link.from_, self.link.to)


@dataclass(frozen=True, slots=True)
class Chain:
    """Steps in order. ``key`` is where checkpoints record their version; ``unstamped`` that of those that tell none."""

    where: str
    links: tuple[Link, ...]
    key: str = ""
    unstamped: str = ""

    @property
    def versions(self) -> tuple[str, ...]:
        """Every version, the oldest first."""
        return (self.links[0].from_, *(link.to for link in self.links))

    @property
    def head(self) -> str:
        return self.links[-1].to

    def version(self, name: str, what: str = "") -> str:
        """A version of the chain by its name or ``head``. Raises ``ChainError`` with those that there are."""
        if name in self.versions:
            return name
        if name == HEAD:
            return self.head
        known = ", ".join(map(shown, self.versions))
        raise ChainError(f"{printable(what or self.where)} – the chain has no version {shown(name)}; it has {known}")

    def way(self, from_: str, to: str) -> tuple[Turn, ...]:
        """The steps from one version of the chain to another one; none where they are the same."""
        start, stop = self.versions.index(from_), self.versions.index(to)
        if start <= stop:
            return tuple(Turn(link, False) for link in self.links[start:stop])
        return tuple(Turn(link, True) for link in reversed(self.links[stop:start]))

    def link(self, from_: str, to: str) -> Link | None:
        """The step between two versions; None where there is none."""
        return next((link for link in self.links if (link.from_, link.to) == (from_, to)), None)


def shown(version: str) -> str:
    """A version in a message."""
    return f"'{printable(version)}'"


# --- the line ------------------------------------------------------------------------------------------------


def chain_of(links: Iterable[Link], where: str, key: str = "", unstamped: str = "") -> Chain:
    """The steps in their order. Raises ``ChainError`` for branches, circles and gaps, with every file concerned."""
    found = tuple(links)
    if not found:
        raise ChainError(
            f"{printable(where)} – holds no migrations: files of rules with 'from' and 'to', or of Python with "
            "@ckpttool.migration"
        )
    _refuse_branches(found, where)
    chain = Chain(where, tuple(_in_line(found, where)), key, unstamped)
    if HEAD in chain.versions:
        raise ChainError(f"{printable(where)} – a version is called '{HEAD}', which means the newest one")
    if unstamped:
        chain.version(unstamped, f"{where}: unstamped")
    return chain


def _refuse_branches(links: Sequence[Link], where: str) -> None:
    starts: dict[str, Link] = {}
    ends: dict[str, Link] = {}
    for link in links:
        for seen, version, words in ((starts, link.from_, "lead on from"), (ends, link.to, "lead to")):
            other = seen.setdefault(version, link)
            if other is not link:
                raise ChainError(
                    f"{printable(where)} – two steps {words} version {shown(version)}: {other.text}; {link.text}; a "
                    "chain has no branches"
                )


def _in_line(links: Sequence[Link], where: str) -> Iterator[Link]:
    by_start = {link.from_: link for link in links}
    ends = {link.to for link in links}
    first = [link for link in links if link.from_ not in ends]
    lines = [list(_from(link, by_start)) for link in first]
    placed = {id(link) for line in lines for link in line}
    circle = [link for link in links if id(link) not in placed]
    if circle:
        steps = list(_from(circle[0], by_start))
        said = "; ".join(link.text for link in steps)
        raise ChainError(f"{printable(where)} – the steps go in a circle: {said}")
    if len(lines) > 1:
        one, other = lines[0][-1], lines[1][0]
        raise ChainError(
            f"{printable(where)} – a step is missing: {one.text} is followed by nothing, and nothing leads to "
            f"{other.text}"
        )
    return iter(lines[0])


def _from(link: Link, by_start: dict[str, Link]) -> Iterator[Link]:
    """A step and those that follow it, each once."""
    seen: set[str] = set()
    here: Link | None = link
    while here is not None and here.from_ not in seen:
        seen.add(here.from_)
        yield here
        here = by_start.get(here.to)
