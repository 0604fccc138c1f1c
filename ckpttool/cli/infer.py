"""``ckpttool infer``."""

from __future__ import annotations

from typing import Any

import click

from ckpttool.cli.options import exit_status, jobs_option, output_of, output_options
from ckpttool.cli.output import Output, emit, print_text, write_file
from ckpttool.cli.progress import progress_bar

EPILOG = exit_status(
    "0  every key of NEW is led to",
    "1  some keys have to be asked about, or nothing leads to them",
    "2  not possible: damaged, not a checkpoint, no weights; or the options make no sense",
)
FORMATS = ("text", "json", "markdown", "html")


@click.command("infer", epilog=EPILOG, short_help="The rules that lead from one checkpoint to another.")
@click.argument("old", type=click.Path())
@click.argument("new", type=click.Path(), required=False)
@click.option(
    "-o",
    "--output",
    "rules_file",
    metavar="RULES.yaml",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Write the rules that were found ('-': to stdout), for migrate --rules.",
)
@click.option(
    "--to-model",
    "model",
    metavar="MODULE:FACTORY",
    default="",
    help="Instead of NEW: import this module of yours, call the factory and take its model's keys.",
)
@click.option("--no-content", is_flag=True, help="Go by names and forms alone; reads headers only.")
@click.option("--cast", is_flag=True, help="Change element types where NEW has others; otherwise they are noted.")
@jobs_option()
@output_options(FORMATS)
def command(
    old: str,
    new: str | None,
    rules_file: str | None,
    model: str,
    no_content: bool,
    cast: bool,
    jobs: int | None,
    **output: Any,
) -> None:
    """Find the rules that lead from OLD's names to NEW's: a checkpoint, or keys as 'inspect --keys' writes them.

    Contents prove what names do not tell where both are checkpoints of one training state; renames, other orders,
    transposes, splits and concatenations are found. What cannot be decided is asked, not guessed. Nothing that the
    files name is imported or run; --to-model runs your own code.
    """
    out = output_of(FORMATS, **output)
    from ckpttool.verbs.infer import infer, rules_text

    with progress_bar(out.chatty) as bar:
        report = infer(old, new, model=model, content=not no_content, cast=cast, jobs=jobs, progress=bar)
    text = rules_text(report)
    if rules_file is not None and text:
        print_text(text) if rules_file == "-" else write_file(rules_file, text)
    if rules_file == "-":
        out = Output("text", out.reports, quiet=True)
    click.get_current_context().exit(int(emit(report, out)))
