"""YAML as plain data that knows its lines: no tags, no anchors, no keys twice, bounded in size and depth."""

from __future__ import annotations

from typing import TypeAlias

import yaml

from ckpttool.errors import printable
from ckpttool.frozen import dataclass
from ckpttool.migration.rule_errors import RuleError

MAX_BYTES = 4 << 20
"""A rules file with a line for each of 40,000 keys stays below it."""

MAX_DEPTH = 12

Plain: TypeAlias = "None | bool | int | float | str"


@dataclass(frozen=True, slots=True)
class Leaf:
    """A scalar: its text as written and, from its form and quotes, its value. ``no`` and ``on`` are text."""

    text: str
    value: Plain
    line: int


@dataclass(frozen=True, slots=True)
class Listing:
    """A list."""

    items: tuple[Item, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Table:
    """A mapping with text keys, in the file's order."""

    items: tuple[tuple[str, Item], ...]
    line: int

    def get(self, key: str) -> Item | None:
        """The item under a key; None where there is none."""
        return next((item for name, item in self.items if name == key), None)


Item: TypeAlias = "Leaf | Listing | Table"


def read_yaml(text: str, where: str) -> Item:
    """The document that a text holds. Raises ``RuleError`` with file and line for whatever is not plain data."""
    if len(text) > MAX_BYTES:
        raise RuleError(where, f"the file has {len(text):,} characters; rules files up to {MAX_BYTES:,} are read")
    try:
        _check_events(text, where)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(part for part in (error.context, error.problem) if part)
        raise RuleError(_at(where, mark), f"this is not YAML: {printable(problem)}") from None
    except (yaml.YAMLError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RuleError(where, f"this is not YAML: {printable(reason)}") from None
    if node is None:
        raise RuleError(where, "the file is empty; it begins with 'ckpttool: 1'")
    return _item(node, where)


def _at(where: str, mark: object) -> str:
    line = getattr(mark, "line", None)
    return f"{where}:{line + 1}" if isinstance(line, int) else where


def _check_events(text: str, where: str) -> None:
    """Refuse what plain data does not need, before anything is built from it."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise RuleError(_at(where, event.start_mark), "anchors and aliases (& and *) are not read; repeat it")
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise RuleError(_at(where, event.start_mark), f"tags ({printable(str(tag))}) are not read")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise RuleError(_at(where, event.start_mark), f"nested deeper than {MAX_DEPTH} levels")


def _item(node: yaml.Node, where: str) -> Item:
    line = node.start_mark.line + 1
    if isinstance(node, yaml.ScalarNode):
        return Leaf(node.value, _value(node), line)
    if isinstance(node, yaml.SequenceNode):
        return Listing(tuple(_item(child, where) for child in node.value), line)
    return Table(tuple(_pairs(node, where)), line)


def _pairs(node: yaml.Node, where: str) -> list[tuple[str, Item]]:
    seen: dict[str, int] = {}
    pairs = []
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise RuleError(f"{where}:{line}", "a key is a list or a mapping; keys are text")
        if key.value in seen:
            raise RuleError(
                f"{where}:{line}", f"'{printable(key.value)}' is given twice, first in line {seen[key.value]}"
            )
        seen[key.value] = line
        pairs.append((key.value, _item(value, where)))
    return pairs


def _value(node: yaml.ScalarNode) -> Plain:
    """Numbers in plain decimal, ``true``, ``false`` and ``null``; everything else is its text."""
    text = str(node.value)
    if node.style in ("'", '"', "|", ">"):
        return text
    if text in ("", "~", "null"):
        return None
    if text in ("true", "false"):
        return text == "true"
    return _number(text)


def _number(text: str) -> int | float | str:
    if not text.isascii() or len(text) > 40 or not (text[-1].isdigit() or text[-1] == "."):
        return text
    for kind in (int, float):
        try:
            return text if "_" in text else kind(text)
        except ValueError:
            continue
    return text
