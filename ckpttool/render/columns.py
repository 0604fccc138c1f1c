"""Fitting text into columns of a terminal. Pure; widths count cells, not characters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_PIECES = re.compile(r"[^./,:]*[./,:]+|[^./,:]+")


def cells(text: str) -> int:
    """How many terminal cells a text takes: two for wide East Asian characters, none for combining marks."""
    if text.isascii():
        return len(text)
    return sum(map(_cell, text))


def pad(text: str, width: int, align: str = "l") -> str:
    """Fill up with spaces; ``r`` puts them in front."""
    gap = " " * max(0, width - cells(text))
    return gap + text if align == "r" else text + gap


def wrap(text: str, width: int) -> list[str]:
    """Break into lines of at most ``width`` cells: at spaces, else after a separator, else anywhere.

    Nothing is left out but the spaces at a break. At least one line, which may be empty.
    """
    width = max(width, 2)
    if cells(text) <= width:
        return [text]
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        joined = f"{line} {word}" if line else word
        if cells(joined) <= width:
            line = joined
            continue
        if line:
            lines.append(line)
        *full, line = _broken(word, width)
        lines.extend(full)
    lines.append(line)
    return lines


def _broken(word: str, width: int) -> list[str]:
    """One long word, broken after dots, slashes and the like where possible."""
    if cells(word) <= width:
        return [word]
    lines, line = [], ""
    for piece in _fitting(word, width):
        if cells(line) + cells(piece) > width:
            lines.append(line)
            line = ""
        line += piece
    return [*lines, line]


def _fitting(word: str, width: int) -> Iterator[str]:
    """Pieces no wider than ``width`` that make up the word."""
    for piece in _PIECES.findall(word):
        if cells(piece) <= width:
            yield piece
        else:
            # A wide character takes two cells, so half as many characters always fit.
            step = width if piece.isascii() else width // 2
            yield from (piece[i : i + step] for i in range(0, len(piece), step))


def _cell(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
