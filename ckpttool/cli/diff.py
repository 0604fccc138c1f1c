"""``ckpttool diff``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from ckpttool.cli.options import exit_status, jobs_option, output_of, output_options, selection_options, stacked
from ckpttool.cli.output import emit
from ckpttool.cli.progress import progress_bar
from ckpttool.errors import UsageError

EPILOG = exit_status(
    "0  identical, or equal within the tolerance; with --against: everything would load",
    "1  different",
    "2  not comparable: damaged, not a checkpoint, not everything compared; or the options make no sense",
)
FORMATS = ("text", "json", "markdown", "html", "github")

settings = stacked([
    click.option(
        "--atol", type=click.FloatRange(min=0), default=0.0, metavar="X",
        help="Absolute difference that still counts as equal; default: every bit counts.",
    ),
    click.option(
        "--rtol", type=click.FloatRange(min=0), default=0.0, metavar="X",
        help="Difference relative to the larger of two values that still counts as equal.",
    ),
    click.option(
        "--ulp", type=click.IntRange(min=0), default=0, metavar="N",
        help="Units in the last place that still count as equal.",
    ),
    click.option(
        "--quick", is_flag=True,
        help="Believe recorded checksums: says what was saved, in milliseconds at any size.",
    ),
    click.option(
        "--against", metavar="KEYS.json", type=click.Path(dir_okay=False),
        help="Instead of B: keys as 'inspect --keys' writes them. What of A would load there?",
    ),
    click.option("--no-infer", is_flag=True, help="Pair only what names or content prove."),
    click.option(
        "--top", type=click.IntRange(min=0), default=20, show_default=True, metavar="N",
        help="Rows of the tables, most changed first.",
    ),
    click.option("--all", "everything", is_flag=True, help="Every row."),
])  # fmt: skip


@click.command("diff", epilog=EPILOG, short_help="What changed between two checkpoints.")
@click.argument("a", type=click.Path())
@click.argument("b", type=click.Path(), required=False)
@settings
@selection_options()
@jobs_option()
@output_options(FORMATS)
def command(
    a: str,
    b: str | None,
    atol: float,
    rtol: float,
    ulp: int,
    quick: bool,
    against: str | None,
    no_infer: bool,
    top: int,
    everything: bool,
    only: Sequence[str],
    ignore: Sequence[str],
    sections: Sequence[str],
    jobs: int | None,
    **output: Any,
) -> None:
    """Show what changed from A to B: files, folders or URLs of any two formats.

    Tensors are paired by name, then by content; optimizer state by parameter. Both sides are read once, and
    nothing that they name is imported or run. --section also selects the values of that section.
    """
    out = output_of(FORMATS, **output)
    if (b is None) is (against is None):
        raise UsageError("diff compares A with B, or A with the keys of --against: give one of the two")
    if against is not None:
        from ckpttool.verbs.against import against as compare_keys

        report = compare_keys(a, against, only=only, ignore=ignore, sections=sections, top=None if everything else top)
        click.get_current_context().exit(int(emit(report, out)))
    from ckpttool.changes import Tolerance
    from ckpttool.verbs.diff import diff

    with progress_bar(out.chatty) as bar:
        report = diff(
            a,
            b,
            tolerance=Tolerance(atol, rtol, ulp),
            only=only,
            ignore=ignore,
            sections=sections,
            quick=quick,
            infer=not no_infer,
            top=top,
            everything=everything,
            jobs=jobs,
            progress=bar,
        )
    click.get_current_context().exit(int(emit(report, out)))
