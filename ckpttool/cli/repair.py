"""``ckpttool repair``."""

from __future__ import annotations

from typing import Any, get_args

import click

from ckpttool.cli.options import exit_status, output_of, output_options, stacked
from ckpttool.cli.output import emit
from ckpttool.cli.progress import progress_bar
from ckpttool.layout import SectionName

EPILOG = exit_status(
    "0  repaired without loss, or nothing was to be done; without -o: it could be",
    "1  repaired with losses: they are listed",
    "2  not possible: nothing to get back, no room, no permission, the target exists",
)
FORMATS = ("text", "json", "markdown", "html")

settings = stacked([
    click.option(
        "-o", "--output", metavar="DST", type=click.Path(),
        help="The file to write; without it the plan is printed and nothing is touched.",
    ),
    click.option(
        "--like", metavar="GOOD", type=click.Path(),
        help="A sound checkpoint of the same run: it names what lost its names, and its equal parts heal.",
    ),
    click.option(
        "--fill", metavar="zero|nan|GOOD", default="",
        help="Complete what is partly or wholly lost, instead of leaving it out: with zeros, NaN, or from a file.",
    ),
    click.option(
        "--fix-bit", is_flag=True,
        help="Turn back a single flipped bit where a checksum says which; the odds of a mistake are stated.",
    ),
    click.option(
        "--include-unproved", is_flag=True,
        help="Also keep whole tensors that no checksum proves, or that theirs contradicts.",
    ),
    click.option(
        "--sanitize", is_flag=True, help="Plain data in place of what torch.load(weights_only=True) refuses."
    ),
    click.option("--extract-weights", is_flag=True, help="A whole pickled module becomes its state dict."),
    click.option("--compact", is_flag=True, help="Drop bytes that no tensor needs."),
    click.option(
        "--dedupe", is_flag=True, help="Tie tensors of weights and averages whose contents are equal."
    ),
    click.option(
        "--section", "sections", multiple=True, type=click.Choice(get_args(SectionName)),
        help="Only this part. Repeatable.",
    ),
    click.option("--recrc", is_flag=True, help="Write checksums where they are missing."),
    click.option(
        "--repack", is_flag=True, help="Write a re-zipped archive, or the folder of an unzipped one, as torch does."
    ),
    click.option("--reindex", is_flag=True, help="Write the index of shards anew from what is in them."),
    click.option("--force", is_flag=True, help="Replace DST if it is there. SRC is never replaced."),
])  # fmt: skip


@click.command("repair", epilog=EPILOG, short_help="Get back what is left of a damaged checkpoint.")
@click.argument("src", type=click.Path())
@settings
@output_options(FORMATS)
def command(src: str, **options: Any) -> None:
    """Get back what is left of a damaged checkpoint: cut off, overwritten, bits flipped, without its directory.

    Every tensor that is kept is whole, and proved by the file's own checksum where the format has one; what is lost is
    listed with the reason. Without -o only the plan is printed. SRC is never touched, and nothing in it is run.
    """
    named = ("format_", "as_json", "reports", "quiet", "no_progress")
    out = output_of(FORMATS, **{name: options.pop(name) for name in named})
    from ckpttool.verbs.repair import repair

    with progress_bar(out.chatty) as bar:
        report = repair(src, progress=bar, **options)
    click.get_current_context().exit(int(emit(report, out)))
