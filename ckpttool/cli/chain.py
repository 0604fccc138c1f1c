"""``ckpttool chain``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from ckpttool.cli.options import exit_status, output_of, output_options
from ckpttool.cli.output import emit

FORMATS = ("text", "json", "markdown", "html")
SHORT = "Where checkpoints stand in a chain of migrations."

chain_option = click.option(
    "--chain", "folder", metavar="DIR", required=True, type=click.Path(), help="The folder of migrations."
)
version_option = click.option(
    "--to-version", metavar="VERSION", default="head", show_default=True,
    help="The version to compare with; head is the newest.",
)  # fmt: skip


@click.group("chain", short_help=SHORT)
def command() -> None:
    """Where checkpoints stand in a chain of migrations: a folder of rules, each with 'from' and 'to' versions.

    'ckpttool migrate --chain DIR' carries out what is missing.
    """


@command.command(
    "status",
    epilog=exit_status("0  said, wherever they stand", "2  a checkpoint, or the chain, cannot be read"),
    short_help="The version of each checkpoint, and how many steps are missing.",
)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path())
@chain_option
@version_option
@output_options(FORMATS)
def status(paths: Sequence[str], folder: str, to_version: str, **rendering: Any) -> None:
    """The version of each checkpoint, and how many steps are missing; of a run directory, each of its checkpoints.

    Headers are read, and nothing is run: neither checkpoints nor migrations in Python.
    """
    out = output_of(FORMATS, **rendering)
    from ckpttool.verbs.chain import chain_status

    report = chain_status(paths, folder, to_version=to_version)
    click.get_current_context().exit(int(emit(report, out)))


@command.command(
    "check",
    epilog=exit_status(
        "0  all are at the wanted version",
        "1  one is not, or tells no version; with --strict: or a step's file has changed since",
        "2  a checkpoint, or the chain, cannot be read",
    ),
    short_help="Fail where a checkpoint is behind.",
)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path())
@chain_option
@version_option
@click.option("--strict", is_flag=True, help="Fail also where a step's file has changed since it was carried out.")
@output_options(FORMATS)
def check(paths: Sequence[str], folder: str, to_version: str, strict: bool, **rendering: Any) -> None:
    """Fail where a checkpoint is not at the newest version of the chain: for CI, before a run resumes.

    As status otherwise.
    """
    out = output_of(FORMATS, **rendering)
    from ckpttool.verbs.chain import chain_check

    report = chain_check(paths, folder, to_version=to_version, strict=strict)
    click.get_current_context().exit(int(emit(report, out)))


@command.command(
    "history",
    epilog=exit_status("0  said", "2  the checkpoint cannot be read"),
    short_help="The migrations that a checkpoint went through.",
)
@click.argument("path", type=click.Path())
@output_options(FORMATS)
def history(path: str, **rendering: Any) -> None:
    """The migrations that a checkpoint records: which steps, when, by which ckpttool, digests of files.

    A checkpoint that training has saved again records nothing.
    """
    out = output_of(FORMATS, **rendering)
    from ckpttool.verbs.chain import chain_history

    report = chain_history(path)
    click.get_current_context().exit(int(emit(report, out)))
