"""``ckpttool seal``."""

from __future__ import annotations

from typing import Any

import click

from ckpttool.cli.options import exit_status, output_of, output_options
from ckpttool.cli.output import emit
from ckpttool.cli.progress import progress_bar

EPILOG = exit_status("0  the manifest was written", "2  damaged, no checkpoint, or the manifest cannot be written")

FORMATS = ("text", "json", "markdown", "html")


@click.command("seal", epilog=EPILOG, short_help="Write down digests of the content, for verify to check.")
@click.argument("path", type=click.Path())
@click.option("--sha256", is_flag=True, help="Also the SHA-256 of each file: against changes made with care.")
@click.option("--inside", is_flag=True, help="Write the file again with the manifest in it: nothing to lose beside.")
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(dir_okay=False),
    help="Where the manifest goes, or with --inside the sealed file; default: beside the checkpoint, where verify "
    "looks for it, or with --inside in its own place.",
)  # fmt: skip
@output_options(FORMATS)
def command(path: str, sha256: bool, inside: bool, output: str | None, **options: Any) -> None:
    """Write a manifest of a checkpoint's content: a digest of every tensor and of every block of every file.

    `ckpttool verify` finds it beside the checkpoint and compares. It tells damage from a file that was written
    anew, also for formats without checksums of their own, and shows which tensors differ. With --inside the manifest
    travels in the file itself, which loads as before; it then covers the tensors and the tree, not the container.
    """
    out = output_of(FORMATS, **options)
    from ckpttool.verbs.seal import seal

    with progress_bar(out.chatty) as bar:
        report = seal(path, sha256=sha256, inside=inside, output=output, progress=bar)
    click.get_current_context().exit(int(emit(report, out)))
