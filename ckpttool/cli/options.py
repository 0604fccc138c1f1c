"""Options that several commands share, each spelled once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, get_args

import click

from ckpttool.cli.output import Output, report_format
from ckpttool.layout import SectionName
from ckpttool.render import SUFFIXES

F = TypeVar("F", bound=Callable[..., Any])
TARGETS = ("torch", "torch-legacy", "safetensors", "sharded", "sharded-bin")
"""Formats that are written."""


def exit_status(*lines: str) -> str:
    """The section that ends every command's help."""
    return "\b\nExit status:\n" + "\n".join(f"  {line}" for line in lines)


def output_options(formats: Sequence[str]) -> Callable[[F], F]:
    """``--format``, ``--json``, ``--report``, ``--quiet`` and ``--no-progress``."""
    suffixes = (suffix for suffix, format_ in SUFFIXES.items() if format_ in formats)
    options = [
        click.option(
            "--format", "format_", type=click.Choice(formats), default="text",
            show_default=True, help="What stdout gets.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Short for --format json."),
        click.option(
            "--report", "reports", metavar="FILE", multiple=True, type=click.Path(dir_okay=False),
            help=f"Also write a report; its suffix says the format: {' '.join(suffixes)}.",
        ),
        click.option("-q", "--quiet", is_flag=True, help="No text and no progress: the exit status says it."),
        click.option("--no-progress", is_flag=True, help="No progress bar, even on a terminal."),
    ]  # fmt: skip
    return stacked(options)


def selection_options() -> Callable[[F], F]:
    """``--only``, ``--ignore`` and ``--section``."""
    return stacked([
        click.option(
            "--only", metavar="GLOB", multiple=True,
            help="Only keys that match; '*' crosses dots. Repeatable.",
        ),
        click.option(
            "--ignore", metavar="GLOB", multiple=True, help="Leave out keys that match. Repeatable."
        ),
        click.option(
            "--section", "sections", multiple=True, type=click.Choice(get_args(SectionName)),
            help="Only tensors of this section. Repeatable.",
        ),
    ])  # fmt: skip


def writing_options() -> Callable[[F], F]:
    """``--as``, ``--max-shard-size``, ``--in-place``, ``--backup`` and ``--verify``."""
    return stacked([
        click.option(
            "--as", "target", type=click.Choice(TARGETS), help="The format; default: what DST's name says."
        ),
        click.option(
            "--max-shard-size", metavar="SIZE",
            help="Bytes of a shard at most, like 5GB or 500MB; a larger tensor has one of its own. Default: 5GB.",
        ),
        click.option(
            "--in-place", is_flag=True, help="Instead of -o: replace SRC, and keep the old file as SRC.bak."
        ),
        click.option(
            "--backup/--no-backup", default=None,
            help="Keep the file that is replaced as .bak; default: where it is SRC.",
        ),
        click.option("--verify", is_flag=True, help="Compare copied bytes too before anything is replaced."),
    ])  # fmt: skip


def jobs_option() -> Callable[[F], F]:
    """``--jobs``."""
    return click.option(
        "-j", "--jobs", type=click.IntRange(min=1), metavar="N", help="Threads that read; default: processors."
    )


def stacked(options: Sequence[Callable[[Any], Any]]) -> Callable[[F], F]:
    """Several option decorators as one, in the order in which help shows them."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def output_of(
    formats: Sequence[str], *, format_: str, as_json: bool, reports: Sequence[str], quiet: bool, no_progress: bool
) -> Output:
    """The options of ``output_options`` as one value; raises ``UsageError`` for an unknown report format."""
    for path in reports:
        report_format(path, formats)
    return Output("json" if as_json else format_, tuple(reports), quiet, not no_progress)
