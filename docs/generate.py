"""Write the reference pages from the code that they describe: `python docs/generate.py [--check]`.

With `--check` nothing is written, and the exit status is 1 if a page is not what the code says.
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Callable, Iterator
from inspect import cleandoc
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import yaml

from ckpttool import checks
from ckpttool.migration import RuleError, load
from ckpttool.rules import Rule
from ckpttool.verbs.presets import Preset, presets

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
    rules = list(checks.rules().values())
    yield from ("", "| code | name | severity | |", "|---|---|---|---|")
    for rule in rules:
        title = visible(cell(rule.title))
        yield f"| [{rule.code}](#{anchor(rule)}) | {rule.name} | {rule.severity} | {title} |"
    series = ""
    for rule in rules:
        if rule.code[2] != series:
            series = rule.code[2]
            yield from ("", f"## {SERIES[series]}")
        yield from ("", f"### {rule.code} {rule.name}", "", f"*{rule.severity}*", "", page(rule))


def page(rule: Rule) -> str:
    """The rule's page; the names of its parts stand out."""
    return re.sub(r"^([A-Z][a-z]+): ", r"**\1:** ", visible(cleandoc(rule.page)), flags=re.MULTILINE)


def anchor(rule: Rule) -> str:
    """What the heading of a rule is called in links, here and on code hosts."""
    return f"{rule.code} {rule.name}".lower().replace(" ", "-")


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
    yield from ("```", "", *help_text(command.help or ""))
    yield from options_table(command, context)
    if command.epilog:
        yield from ("", *help_text(command.epilog))
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                yield ""
                yield from command_section(click.Context(below, info_name=name, parent=context), level + 1)


def help_text(text: str) -> Iterator[str]:
    """Paragraphs; what click is told not to wrap (a line with \\b before it) stays as it is."""
    blocks = cleandoc(text).split("\n\n")
    for number, block in enumerate(blocks):
        yield from [""] if number else []
        yield f"```text\n{block[2:]}\n```" if block.startswith("\b\n") else visible(block)


def options_table(command: click.Command, context: click.Context) -> Iterator[str]:
    """Every option but --help, which all commands have."""
    options = [param for param in command.params if isinstance(param, click.Option)]
    records = [record for option in options if (record := option.get_help_record(context))]
    if records:
        yield from ("", "| option | |", "|---|---|")
    for names, text in records:
        yield f"| `{cell(names)}` | {visible(cell(text))} |"


def presets_page() -> Iterator[str]:
    """Every preset, with its source, what it asks for, what becomes of moments, and its rules."""
    yield from (NOTE, "", "# Presets", "")
    yield "Migrations that ship with ckpttool: `ckpttool migrate SRC -o DST --preset NAME`, and back with `--reverse`"
    yield "where the table says so. `ckpttool migrate --list-presets` prints the list."
    yield from ("", "| preset | | back |", "|---|---|---|")
    for found in presets():
        back = "yes" if reversible(found) else ""
        yield f"| [{found.name}](#{found.name}) | {visible(cell(found.about))} | {back} |"
    for found in presets():
        yield from ("", f"## {found.name}", "", *preset_section(found))


def preset_section(found: Preset) -> Iterator[str]:
    """One preset."""
    read = yaml.safe_load(found.text)
    yield from (visible(found.about) + ".", "", visible(read["notes"].strip()), "")
    yield f"**Source:** {visible(found.source)}"
    for name, given in (read.get("given") or {}).items():
        yield from ("", f"**Asks for** `{name}`: {visible(given['about'])}{found_at(given)}.")
    back = "with `--reverse`" if reversible(found) else "none; `--reverse` names the rules that keep too little for it"
    yield from ("", f"**Back:** {back}.")
    yield from ("", "```yaml", rules_text(found.text).rstrip(), "```")


def found_at(given: dict[str, Any]) -> str:
    """Where a value comes from that is not said with --set."""
    places = given.get("from", [])
    listed = ", ".join(f"`{place}`" for place in ([places] if isinstance(places, str) else places))
    parts = [f"read from {listed} where the file has it"] if listed else []
    parts += [f"otherwise {given['default']}"] if "default" in given else []
    return "".join(f"; {part}" for part in parts)


def rules_text(text: str) -> str:
    """A rules file without its head."""
    return text[re.search(r"^(rules|stages):", text, re.MULTILINE).start() :]  # type: ignore[union-attr]


def reversible(found: Preset) -> bool:
    """Whether `--reverse` leads back."""
    try:
        load(found.text, found.name).inverse()
    except RuleError:
        return False
    return True


FAULTS = Path(__file__).parents[1] / "ckpttool" / "trainer" / "faults"
SECTIONS = ("data", "optimizer", "model", "counters", "rng", "environment", "ranks")


def faults_page() -> Iterator[str]:
    """Every fault of the reference trainer. Its files are read, not imported: that would need torch."""
    yield from (NOTE, "", "# Faults of a resume", "")
    yield "`ckpttool train --inject NAME` breaks a resume on purpose, as real projects have."
    yield "*First* is the part that differs first from the uninterrupted run."
    yield "*Loss* is when its loss does: `+0` is that of the first step after the fault, `later` comes after some,"
    yield "`depends` is up to the processor, `never` says that no loss curve shows it."
    yield "*When* is the time at which it strikes."
    yield from ("", "| name | what happens | first | loss | when | cause |", "|---|---|---|---|---|---|")
    for name, (causes, first, loss, when), about in faults():
        yield f"| `{name}` | {visible(cell(about))} | {first} | {loss} | {when} | {causes} |"
    yield from ("", "Causes that one process on a CPU cannot show:", "")
    yield from (f"- {cause}: {why}." for cause, why in not_here())


def faults() -> Iterator[tuple[str, list[str], str]]:
    """The arguments of each decorator, and the first line of what it decorates."""
    files = [FAULTS / f"{section}.py" for section in SECTIONS]
    for function in (line for file in files for line in ast.parse(file.read_text(encoding="utf-8")).body):
        if isinstance(function, ast.FunctionDef):
            for call in function.decorator_list:
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "fault":
                    name, *rest = [str(ast.literal_eval(argument)) for argument in call.args]
                    about = (ast.get_docstring(function) or "").partition("\n")[0]
                    yield name, [*rest, "resume"][:4], about


def causes_page() -> Iterator[str]:
    """Every cause that a diagnosis names, with the faults that show it, as the matrix has them."""
    from ckpttool.determinism.causes import CAUSES

    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in _matrix()]
    shown = [(cells[0], cells[5]) for cells in rows if len(cells) == 8]
    yield from (NOTE, "", "# Causes", "")
    yield "What `ckpttool determinism check` names as the cause of a difference, in JSON as `cause`. The message that"
    yield "goes with it has the numbers, and a remedy follows. *Shown by* are [faults of the trainer](faults.md), each"
    yield "with its message in [the matrix](fault-matrix.md)."
    for group, causes in CAUSES.items():
        yield from ("", f"## {group}", "", "| cause | means | shown by |", "|---|---|---|")
        for name, means in causes.items():
            yield f"| `{name}` | {means} | {', '.join(fault for fault, cause in shown if cause == name)} |"


def _matrix() -> list[str]:
    return (REFERENCE / "fault-matrix.md").read_text(encoding="utf-8").splitlines()


def not_here() -> Iterator[tuple[str, str]]:
    """The causes that no fault stands for, and why."""
    for line in ast.parse((FAULTS / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "NOT_HERE":
            yield from ast.literal_eval(line.value).items()


def cell(text: str) -> str:
    """Safe inside a table."""
    return text.replace("|", r"\|")


def visible(text: str) -> str:
    """`<` outside code is a character, not the start of a tag."""
    return re.sub(r"(`[^`]*`)|<", lambda found: found[1] or r"\<", text)


def module(name: str) -> ModuleType | None:
    """The module, or None as long as it has not been written."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name is None or not missing.name.startswith("ckpttool"):
            raise
        return None


PAGES: dict[str, Callable[[], Iterator[str]]] = {
    "causes.md": causes_page,
    "cli.md": cli_page,
    "faults.md": faults_page,
    "presets.md": presets_page,
    "rules.md": rules_page,
}


def pages() -> dict[Path, str]:
    """Each generated page, as it should be."""
    return {REFERENCE / name: "\n".join(lines()).rstrip() + "\n" for name, lines in PAGES.items()}


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
