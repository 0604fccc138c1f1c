"""``ckpttool textconv``, which git runs to show a checkpoint as text."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ckpttool.cli.options import exit_status

EPILOG = exit_status("0  the lines were printed, whatever the file is", "2  the path cannot be opened")


@click.command("textconv", epilog=EPILOG, short_help="A checkpoint as lines of text, for git.")
@click.argument("path", type=click.Path())
@click.option("--content", is_flag=True, help="Digests of the content, even where checksums are recorded.")
def command(path: str, content: bool) -> None:
    """Print a line for each tensor and value of a checkpoint, in the file's order.

    Equal content gives equal lines. `ckpttool git-setup` makes git run this. For a pointer of Git LFS the file that
    it names is shown if the repository has it.
    """
    from ckpttool.verbs.textconv import textconv

    # UTF-8 whatever the locale: git compares bytes.
    for line in textconv(resolved(path), content=content):
        sys.stdout.buffer.write(f"{line}\n".encode())
    sys.stdout.flush()


def resolved(path: str) -> str:
    """The file that a pointer of Git LFS stands for, if it is here; else the path itself."""
    from ckpttool.verbs.textconv import pointer

    oid = pointer(path) if Path(path).is_file() else None
    if oid is None:
        return path
    from ckpttool.verbs.git_setup import lfs_object

    # git runs its helpers at the top of the work tree, with the pointer in a temporary file.
    found = lfs_object(oid, Path.cwd())
    return path if found is None else str(found)
