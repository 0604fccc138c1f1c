"""The command line of the trainer: one option for each field of the configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click

from ckpttool import CkpttoolError, MissingExtra
from ckpttool.trainer.config import Config, Value, make_config, read_config

HELP = {
    "task": "digits (pictures), gpt (text) or tabular (measurements).",
    "steps": "Optimizer steps in all.",
    "save_budget": "Share of time that saving may take, as 0.02: it chooses the interval.",
    "failures_every": "Seconds between failures, for the advice on intervals.",
    "inject": "Faults on purpose, separated by commas; see the documentation for names.",
    "threads": "Threads of a process; part of the run, since another number gives other bits.",
}


_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)


def config_options() -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A click option for each setting; what is not given stays None."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        kinds = get_type_hints(Config)
        for field in reversed(fields(Config)):
            function = _option(field.name, kinds[field.name], field.default)(function)
        return function

    return decorate


def _option(name: str, kind: Any, default: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    flag = name.replace("_", "-")
    text = HELP.get(name, "")
    shown = f"{text} Default: {default}.".strip() if default != "" else text
    if kind is bool:
        return click.option(f"--{flag}/--no-{flag}", name, default=None, help=shown)
    choices = get_args(kind)
    return click.option(
        f"--{flag}", name, type=click.Choice(choices) if choices else kind, default=None, help=shown
    )


@click.command("train", short_help="Train a small model, exactly resumable.")
@click.option("--out", type=_FOLDER, required=True, help="Where checkpoints and logs go.")
@click.option("--config", "config_file", type=_FILE, help="Settings in a TOML or Python file.")
@click.option("--plot", type=_FILE, help="A picture of loss, metric and rate at the end.")
@click.option("--quiet", is_flag=True, help="No progress and no summary.")
@config_options()
def command(out: Path, config_file: Path | None, plot: Path | None, quiet: bool, **given: Value) -> None:
    """Train one of three small models on real data, in --out. Run again, it goes on where it stopped, bit for bit.

    Settings come from --config, then from the options. SIGTERM saves and stops, SIGUSR1 saves and goes on.
    """
    settings = read_config(config_file) if config_file else {}
    settings.update({name: value for name, value in given.items() if value is not None})
    config = make_config({**settings, "progress": not quiet and settings.get("progress", True)})
    try:
        from ckpttool.trainer.train import train
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "train") from error

    result = train(config, out)
    if plot is not None:
        from ckpttool.trainer.logs import plot as draw

        draw(out / "log.csv", plot)
    if not quiet:
        for note in result.notes:
            click.echo(note, err=True)
        best = "" if result.best is None else f"; best {result.metric_name} {result.best:.4f}"
        best += f" at step {result.best_step}" if best else ""
        click.echo(f"{result.why} after {result.step} steps{best}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status."""
    try:
        command.main(args=None if arguments is None else list(arguments), standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.exceptions.Exit as done:
        return int(done.exit_code)
    except click.Abort:
        return 130
    except CkpttoolError as error:
        click.echo(f"error: {error}", err=True)
        return int(error.exit_code)
    return 0
