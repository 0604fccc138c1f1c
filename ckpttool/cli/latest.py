"""``ckpttool latest``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from ckpttool.cli.group import complain
from ckpttool.cli.options import exit_status, output_of, output_options
from ckpttool.cli.output import emit
from ckpttool.cli.progress import progress_bar
from ckpttool.config import REQUIRE
from ckpttool.errors import printable

EPILOG = exit_status(
    "0  its path is on stdout, and nothing else",
    "1  there is none that is complete and verified",
    "2  the folder cannot be read, or holds no checkpoint",
)
FORMATS = ("text", "json")


@click.command("latest", epilog=EPILOG, short_help="The newest checkpoint that is complete and verified.")
@click.argument("folder", metavar="RUN_DIR", type=click.Path())
@click.option("--require", type=click.Choice(REQUIRE), help="What must be possible with it, as in verify.")
@click.option("--trust", metavar="MODULE.NAME", multiple=True, help="Count this global as plain data. Repeatable.")
@click.option("--headers-only", is_flag=True, help="Trust the content: quicker for large checkpoints.")
@output_options(FORMATS)
def command(folder: str, require: str | None, trust: Sequence[str], headers_only: bool, **options: Any) -> None:
    """Print the path of the newest checkpoint below RUN_DIR that is complete and verified.

    For scripts: train.py --resume "$(ckpttool latest runs/x --require exact)". Newer ones that will not do are named
    on stderr, with the reason; so are trackers and links (`latest`, `last.ckpt`) that name what is missing or damaged.
    """
    out = output_of(FORMATS, **options)
    from ckpttool.verbs.latest import latest

    with progress_bar(out.chatty) as bar:
        report = latest(folder, require=require, trust=trust, headers_only=headers_only, progress=bar)
    if out.format == "text":
        _say(report.data, out.quiet)
        click.get_current_context().exit(int(report.exit_code))
    click.get_current_context().exit(int(emit(report, out)))


def _say(data: Any, quiet: bool) -> None:
    for skipped in () if quiet else data["skipped"]:
        complain(f"skipped: {printable(skipped['path'])} – {printable(skipped['why'])}")
    for tracker in () if quiet else data["trackers"]:
        if tracker["wrong"]:
            complain(f"warning: {tracker['wrong']}")
    if data["path"] is not None:
        click.echo(data["path"])
    elif not quiet:
        complain(f"error: {printable(data['folder'])} – no checkpoint here is complete and verified")
