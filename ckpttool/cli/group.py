"""The command group: finds commands by name, and turns what goes wrong into one line and an exit code."""

from __future__ import annotations

import atexit
import contextlib
import errno
import gc
import os
import sys
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click

from ckpttool import __version__
from ckpttool.errors import CkpttoolError, ExitCode

COMMANDS = (
    "inspect", "verify", "diff", "migrate", "chain", "infer", "convert", "repair", "seal",
    "latest", "prune", "train", "determinism", "explain", "git-setup", "textconv", "git-diff",
)  # fmt: skip
"""The commands in the order in which help lists them; each is a module here with a ``command``, `-` spelled `_`."""

INTERRUPTED = 130
"""What shells expect of a command that Ctrl-C ended: 128 + SIGINT."""


class Commands(click.Group):
    """A group whose commands are imported when they are asked for."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(context_settings={"help_option_names": ["-h", "--help"]}, **settings)
        version = click.version_option(__version__, prog_name="ckpttool", message="%(prog)s %(version)s")
        version(self)
        self.params.extend(reversed(self.__dict__.pop("__click_params__", [])))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"ckpttool.cli.{cmd_name.replace('-', '_')}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            near = get_close_matches(name, COMMANDS, 1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            ctx.fail(f"No such command {name!r}.{hint}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was named; what goes wrong for a user becomes one line and an exit code."""
        # A tree of 100,000 tensors is a million small objects without cycles: looking for some costs a third.
        gc.set_threshold(200_000, 50, 50)
        atexit.register(gc.freeze)  # nor at the very end
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            complain("interrupted")
            ctx.exit(INTERRUPTED)
        except CkpttoolError as error:
            complain(f"error: {error}")
            ctx.exit(int(error.exit_code))
        except MemoryError:
            complain("error: out of memory")
            ctx.exit(int(ExitCode.IMPOSSIBLE))
        except OSError as error:
            if error.errno == errno.EPIPE:
                muzzle(sys.stdout)
                ctx.exit(int(ExitCode.OK))
            where = f"{error.filename} – " if error.filename else ""
            complain(f"error: {where}{error.strerror or error}")
            ctx.exit(int(ExitCode.IMPOSSIBLE))


def complain(message: str) -> None:
    """One line on stderr, if there is one that takes it."""
    try:
        click.echo(message, err=True)
    except OSError:
        muzzle(sys.stderr)


def muzzle(stream: Any) -> None:
    """Point a stream that nobody reads at nothing, so that the interpreter's last flush stays silent."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
