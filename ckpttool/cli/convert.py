"""``ckpttool convert``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import click

from ckpttool.cli.options import exit_status, output_of, output_options, stacked, writing_options
from ckpttool.cli.output import emit
from ckpttool.cli.progress import progress_bar
from ckpttool.layout import SectionName

EPILOG = exit_status(
    "0  written, or with --dry-run: it could be",
    "1  --strict, and something would be left behind: nothing was written",
    "2  not possible: damaged or no checkpoint, no room, no permission, the target exists",
)
FORMATS = ("text", "json", "markdown", "html")

settings = stacked([
    click.option(
        "-o", "--output", metavar="DST", type=click.Path(),
        help="The checkpoint to write: a file, a new folder, or an index (*.index.json) for shards.",
    ),
    click.option(
        "--section", "sections", multiple=True, type=click.Choice(get_args(SectionName)),
        help="Only this part, as a checkpoint of its own. Repeatable.",
    ),
    click.option("--force", is_flag=True, help="Replace a file that is there. Folders are never replaced."),
    click.option("--dry-run", is_flag=True, help="Say what would be written and left behind; write nothing."),
    click.option("--strict", is_flag=True, help="Write nothing where values, tensors or names would be left."),
])  # fmt: skip


@click.command("convert", epilog=EPILOG, short_help="Another format; says what it cannot carry.")
@click.argument("src", type=click.Path())
@settings
@writing_options()
@output_options(FORMATS)
def command(
    src: str,
    output: str | None,
    target: str | None,
    max_shard_size: str | None,
    sections: Sequence[str],
    in_place: bool,
    force: bool,
    backup: bool | None,
    dry_run: bool,
    verify: bool,
    strict: bool,
    **rendering: Any,
) -> None:
    """Write a checkpoint in another format: SRC is a file, a folder or a URL.

    Bytes are copied as they lie; what a format cannot carry is listed, never dropped in silence. The output
    gets its name only when it is complete, flushed to the disk and read back. Nothing in SRC is imported or run.
    """
    out = output_of(FORMATS, **rendering)
    from ckpttool.verbs.convert import convert

    with progress_bar(out.chatty) as bar:
        report = convert(
            src,
            output,
            format=target,
            sections=sections,
            max_shard_size=max_shard_size,
            in_place=in_place,
            force=force,
            backup=backup,
            dry_run=dry_run,
            verify=verify,
            strict=strict,
            progress=bar,
        )
    click.get_current_context().exit(int(emit(report, out)))
