"""``ckpttool git-diff``, which git runs as an external diff driver."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace

import click

from ckpttool.cli.options import exit_status
from ckpttool.cli.output import columns, print_text, wants_color
from ckpttool.cli.textconv import resolved
from ckpttool.errors import CkpttoolError, printable
from ckpttool.report import Block, Report, Text

EPILOG = exit_status("0  always, as git demands of its drivers", "2  git gave other arguments than it documents")

NOTHING = "/dev/null"
"""What git names where a side has no such file."""


@click.command("git-diff", epilog=EPILOG, hidden=True, short_help="git's external diff driver.")
@click.argument("arguments", nargs=-1)
def command(arguments: tuple[str, ...]) -> None:
    """Compare as git asks: PATH OLD-FILE OLD-HEX OLD-MODE NEW-FILE NEW-HEX NEW-MODE [NEW-PATH WORDS]."""
    if len(arguments) == 1:
        print_text(f"unmerged: {printable(arguments[0])}\n")
        return
    if len(arguments) not in (7, 8, 9):
        raise click.UsageError("git passes 1, 7 or 9 arguments: see gitattributes(5)")
    path, old, new = arguments[0], arguments[1], arguments[4]
    new_path = arguments[7] if len(arguments) > 7 else path
    print_text(f"ckpttool diff a/{printable(path)} b/{printable(new_path)}\n")
    if NOTHING in (old, new):
        print_text("".join(f"{line}\n" for line in _one_sided(old, new)))
        return
    color = wants_color() or bool(os.environ.get("GIT_PAGER_IN_USE") and not os.environ.get("NO_COLOR"))
    from ckpttool.render import render

    print_text(render(_compared(old, new, path, new_path), "text", columns(), color), color)


def _one_sided(old: str, new: str) -> Iterator[str]:
    """A file that was added or removed, line by line."""
    from ckpttool.verbs.textconv import textconv

    sign, file = ("+", new) if old == NOTHING else ("-", old)
    yield from (f"{sign}{line}" for line in textconv(resolved(file)))


def _compared(old: str, new: str, path: str, new_path: str) -> Report:
    """The comparison, with the names that git shows instead of those of its temporary files."""
    from ckpttool.verbs.diff import diff

    one, other = resolved(old), resolved(new)
    try:
        report = diff(one, other)
    except CkpttoolError as error:
        return Report("diff", {}, (Text(str(error), "warning"),))
    names = {one: f"a/{path}", other: f"b/{new_path}"}
    return replace(report, blocks=tuple(_named(block, names) for block in report.blocks))


def _named(block: Block, names: dict[str, str]) -> Block:
    if not isinstance(block, Text):
        return block
    # At once, the longest first: a file in the work tree has a name that is a part of the other's.
    files = "|".join(re.escape(file) for file in sorted(names, key=len, reverse=True))
    text = re.sub(files, lambda found: names[found[0]], block.text)
    return replace(block, text=text)
