"""The command line: parse, call one verb, render, exit.

Commands are loaded when they are named, so ``ckpttool --version`` costs the interpreter and click.
"""

from __future__ import annotations

from ckpttool.cli.group import Commands

main = Commands(
    name="ckpttool",
    help="""fsck, diff and migrate for PyTorch checkpoints.

    Reads torch, TorchScript, safetensors and sharded checkpoints without torch, and without running anything
    that a file contains.
    """,
    epilog=(
        "Exit status: 0 fine; 1 findings, or not as ready as required; 2 could not be done. "
        "Of several targets the highest wins."
    ),
)
"""The command group, and the entry point of the ``ckpttool`` script."""

__all__ = ["main"]
