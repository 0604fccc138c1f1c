"""``ckpttool git-setup``."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from shlex import quote
from typing import Any

import click

from ckpttool.cli.options import exit_status, output_of, output_options
from ckpttool.cli.output import emit

EPILOG = exit_status("0  git shows checkpoints, or would", "2  no repository here, or git refused")

FORMATS = ("text", "json")


@click.command("git-setup", epilog=EPILOG, short_help="Make git diff show what changed in checkpoints.")
@click.option("--local/--global", "local", default=True, help="This repository (default), or all of this user's.")
@click.option("--dry-run", is_flag=True, help="Print what would be written; write nothing.")
@click.option("--external", is_flag=True, help="`git diff` runs `ckpttool diff` instead of comparing lines of text.")
@click.option(
    "--pattern", "patterns", metavar="GLOB", multiple=True,
    help="Files that are checkpoints, instead of the usual names. Repeatable.",
)  # fmt: skip
@output_options(FORMATS)
def command(local: bool, dry_run: bool, external: bool, patterns: Sequence[str], **output: Any) -> None:
    """Make git show changes of checkpoints as text: `git diff`, `git log -p`, `git show`.

    Adds lines to .gitattributes and settings to git's configuration. What is there already stays; a second run
    changes nothing.
    """
    out = output_of(FORMATS, **output)
    from ckpttool.verbs.git_setup import PATTERNS, git_setup

    report = git_setup(
        "local" if local else "global",
        patterns=patterns or PATTERNS,
        command=_command(),
        external=external,
        dry_run=dry_run,
    )
    click.get_current_context().exit(int(emit(report, out)))


def _command() -> str:
    """How git's shell finds this program: by name where it is on the path, else through this interpreter."""
    return "ckpttool" if shutil.which("ckpttool") else f"{quote(sys.executable)} -m ckpttool"
