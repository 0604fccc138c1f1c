"""Write the reference pages from the code that they describe: `python docs/generate.py [--check]`.

With `--check` nothing is written, and the exit status is 1 if a page is not what the code says.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from inspect import cleandoc
from pathlib import Path
from types import ModuleType
from typing import Any

import click

REFERENCE = Path(__file__).parent / "reference"
NOTE = "<!-- Written by docs/generate.py from the code. Do not edit. -->"
SERIES = {
    "1": "Container",
    "2": "Safety",
    "3": "Geometry",
    "4": "Content",
    "5": "Consistency",
    "6": "Hygiene",
    "7": "Readiness",
    "8": "Shards and directories",
}


def rules_page() -> Iterator[str]:
    """Every rule, by series, with its page."""
    yield from (NOTE, "", "# Rules", "")
    yield "What `ckpttool verify` may find. A code never changes its meaning."
    yield "`ckpttool explain CODE` prints the same text."
    rules = sorted(getattr(module("ckpttool.checks"), "RULES", {}).values(), key=lambda rule: rule.code)
    yield from ("", "| code | name | severity |", "|---|---|---|")
    for rule in rules:
        yield f"| [{rule.code}](#{rule.code.lower()}) | {rule.name} | {severity(rule)} |"
    series = ""
    for rule in rules:
        if rule.code[2] != series:
            series = rule.code[2]
            yield from ("", f"## {SERIES[series]}")
        yield from ("", f"({rule.code.lower()})=", f"### {rule.code} {rule.name}", "")
        yield from (f"*{severity(rule)}*", "", cleandoc(rule.page))


def severity(rule: Any) -> str:
    """As text, whether it is an enum or a string."""
    return str(getattr(rule.severity, "value", rule.severity))


def cli_page() -> Iterator[str]:
    """Every command, with its arguments and options."""
    yield from (NOTE, "", "# Command line", "")
    main = getattr(module("ckpttool.cli"), "main", None)
    if main is not None:
        yield from command_section(click.Context(main, info_name="ckpttool"), level=2)


def command_section(context: click.Context, level: int) -> Iterator[str]:
    """One command; then, for a group, those below it."""
    command = context.command
    yield from ("#" * level + f" {context.command_path}", "", "```text")
    yield " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield from ("```", "", cleandoc(command.help or "").replace("\b\n", ""))
    options = [p.get_help_record(context) for p in command.get_params(context)]
    if records := [record for record in options if record]:
        yield from ("", "| option | |", "|---|---|")
        for names, text in records:
            yield f"| `{cell(names)}` | {cell(text)} |"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                yield ""
                yield from command_section(click.Context(below, info_name=name, parent=context), level + 1)


def cell(text: str) -> str:
    """Safe inside a table."""
    return text.replace("|", r"\|")


def module(name: str) -> ModuleType | None:
    """The module, or None as long as it has not been written."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name is None or not missing.name.startswith("ckpttool"):
            raise
        return None


PAGES: dict[str, Callable[[], Iterator[str]]] = {"cli.md": cli_page, "rules.md": rules_page}


def pages() -> dict[Path, str]:
    """Each generated page, as it should be."""
    return {REFERENCE / name: "\n".join(page()).rstrip() + "\n" for name, page in PAGES.items()}


def stale() -> list[Path]:
    """Pages that are not what the code says."""
    return [p for p, text in pages().items() if not p.exists() or p.read_text(encoding="utf-8") != text]


def write() -> None:
    """Write those."""
    for path in stale():
        path.parent.mkdir(exist_ok=True)
        path.write_text(pages()[path], encoding="utf-8")
        print(f"wrote {path.relative_to(REFERENCE.parent.parent)}")


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        old = [str(path.relative_to(REFERENCE.parent.parent)) for path in stale()]
        sys.exit(f"stale: {', '.join(old)}; run `python docs/generate.py`" if old else 0)
    write()
