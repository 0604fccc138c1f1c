"""``ckpttool prune``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from ckpttool.cli.options import exit_status, output_of, output_options, stacked
from ckpttool.cli.output import emit
from ckpttool.cli.progress import progress_bar
from ckpttool.config import REQUIRE

EPILOG = exit_status(
    "0  deleted, or shown what would be",
    "1  a checkpoint that should stay is not sound: nothing was deleted",
    "2  the folder cannot be read, or the options make no sense",
)
FORMATS = ("text", "json", "markdown", "html")

settings = stacked([
    click.option("--keep-last", type=click.IntRange(min=1), metavar="N", help="Keep the newest N."),
    click.option("--keep-every", type=click.IntRange(min=1), metavar="N", help="Keep steps that N divides."),
    click.option(
        "--keep-best", is_flag=False, flag_value=1, default=0, type=click.IntRange(min=0), metavar="[N]",
        help="Keep the best N (1) by --metric, or by what CheckpointStore noted.",
    ),
    click.option("--metric", metavar="KEY", help="Key of a number in each checkpoint; lower is better."),
    click.option("--higher", is_flag=True, help="A higher metric is better."),
    click.option("--delete", is_flag=True, help="Do it. Without this, only show what would be done."),
    click.option("--require", type=click.Choice(REQUIRE), help="What must be possible with those that stay."),
    click.option("--trust", metavar="MODULE.NAME", multiple=True, help="Count this global as plain data."),
])  # fmt: skip


@click.command("prune", epilog=EPILOG, short_help="Delete old checkpoints, once those that stay are verified.")
@click.argument("folder", metavar="RUN_DIR", type=click.Path())
@settings
@output_options(FORMATS)
def command(
    folder: str,
    keep_last: int | None,
    keep_every: int | None,
    keep_best: int,
    metric: str | None,
    higher: bool,
    delete: bool,
    require: str | None,
    trust: Sequence[str],
    **options: Any,
) -> None:
    """Delete the old checkpoints of a run, after every one that stays has been verified.

    Shows what would go; --delete does it. If one that should stay is damaged or incomplete, nothing is deleted.
    """
    out = output_of(FORMATS, **options)
    from ckpttool.verbs.prune import prune

    with progress_bar(out.chatty) as bar:
        report = prune(
            folder,
            keep_last=keep_last,
            keep_every=keep_every,
            keep_best=keep_best,
            metric=metric,
            higher=higher,
            delete=delete,
            require=require,
            trust=trust,
            progress=bar,
        )
    click.get_current_context().exit(int(emit(report, out)))
