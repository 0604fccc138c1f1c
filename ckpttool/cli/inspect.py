"""``ckpttool inspect``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from ckpttool.cli.options import exit_status, jobs_option, output_of, output_options, selection_options
from ckpttool.cli.output import Output, emit, print_text, write_file
from ckpttool.cli.progress import progress_bar

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from ckpttool.report import Report
    from ckpttool.verbs.inspect import View

EPILOG = exit_status(
    "0  the checkpoint was described",
    "1  it is not a checkpoint, or too damaged to show a tree",
    "2  it could not be read, or the options make no sense",
)
FORMATS = ("text", "json", "markdown", "html")


@click.command("inspect", epilog=EPILOG, short_help="What is inside; headers only.")
@click.argument("path", type=click.Path())
@click.option("--tree", is_flag=True, help="The whole tree, values too, with repetition folded.")
@click.option("--tensors", is_flag=True, help="Every tensor on a line: type, shape, bytes, storage.")
@click.option("--stats", is_flag=True, help="Read the content: min, max, mean, std, NaN, zeros, histogram.")
@click.option(
    "--keys",
    "keys_file",
    metavar="FILE",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Write keys, shapes and types as JSON ('-': to stdout), a target for diff and migrate.",
)
@selection_options()
@jobs_option()
@output_options(FORMATS)
def command(
    path: str,
    tree: bool,
    tensors: bool,
    stats: bool,
    keys_file: str | None,
    only: Sequence[str],
    ignore: Sequence[str],
    sections: Sequence[str],
    jobs: int | None,
    **output: Any,
) -> None:
    """Show what is inside a checkpoint: PATH is a file, a folder or a URL.

    Reads headers only, unless --stats asks for the content. Nothing that the file names is imported or run.
    """
    chosen: dict[View, bool] = {"tree": tree, "tensors": tensors, "stats": stats}
    views: list[View] = [view for view, wanted in chosen.items() if wanted]
    out = output_of(FORMATS, **output)
    from ckpttool.verbs.inspect import inspect

    with _threads(jobs) if stats else nullcontext() as executor, progress_bar(out.chatty) as bar:
        report = inspect(
            path, only=only, ignore=ignore, sections=sections, views=views, executor=executor, progress=bar
        )
    if keys_file is not None:
        _write_keys(report, keys_file)
    if keys_file == "-":
        out = Output("text", out.reports, quiet=True)
    click.get_current_context().exit(int(emit(report, out)))


def _threads(jobs: int | None) -> Executor:
    from concurrent.futures import ThreadPoolExecutor

    from ckpttool.pool import workers

    return ThreadPoolExecutor(jobs or workers())


def _write_keys(report: Report, path: str) -> None:
    from ckpttool.render.json import document
    from ckpttool.verbs.inspect import keys

    text = document(keys(report))
    if path == "-":
        print_text(text)
    else:
        write_file(path, text)
