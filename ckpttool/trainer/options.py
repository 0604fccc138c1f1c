"""The command line of the trainer: one option for each field of the configuration."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click

from ckpttool import CkpttoolError, MissingExtra
from ckpttool.trainer.config import Config, Value, make_config, read_config

SIGNALS = {"SIGINT": 2, "SIGTERM": 15}
"""What a run that a signal ended exits with, plus 128, as shells do: so a script can tell it from one that is done."""

HELP = {
    "task": "digits (pictures), gpt (text) or tabular (measurements).",
    "steps": "Optimizer steps in all.",
    "save_budget": "Share of time that saving may take, as 2%: it chooses the interval.",
    "save_async": "Write off a copy while training goes on.",
    "on_full_disk": "What to do when a checkpoint does not fit; the last good one stays.",
    "patience": "Evaluations without a better metric before it stops; 0: never.",
    "keep": "Newest checkpoints to keep.",
    "keep_every": "And those whose step this divides.",
    "keep_best": "And this many of the best.",
    "parallel": "How the processes of torchrun work together: gradients added (ddp), or parameters spread too (fsdp2).",
    "save_as": "One file, or a folder (dcp) to which every process writes what it holds.",
    "workers": "Processes that load data.",
    "batch_size": "Samples of a micro-batch, over all processes.",
    "accumulate": "Micro-batches of a step.",
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
    shape = click.Choice(choices) if choices else str if name == "save_budget" else kind  # 2% is one
    return click.option(f"--{flag}", name, type=shape, default=None, help=shown)


@click.command("train", short_help="Train a small model, exactly resumable.")
@click.option("--out", type=_FOLDER, required=True, help="Where checkpoints and logs go.")
@click.option("--config", "config_file", type=_FILE, help="Settings in a TOML or Python file.")
@click.option("--plot", type=_FILE, help="A picture of loss, metric and rate at the end.")
@click.option("--quiet", is_flag=True, help="No progress and no summary.")
@config_options()
def command(out: Path, config_file: Path | None, plot: Path | None, quiet: bool, **given: Value) -> None:
    """Train one of three small models on real data, in --out. Run again, it goes on where it stopped, bit for bit.

    Settings come from --config, then from the options. SIGTERM and Ctrl-C save and stop (exit status 143 and 130),
    SIGUSR1 saves and goes on. What a task has not been told comes from its own defaults.
    """
    speaks = os.environ.get("RANK", "0") == "0"  # of the processes of torchrun one
    settings = read_config(config_file) if config_file else {}
    settings.update({name: value for name, value in given.items() if value is not None})
    config = make_config({**settings, "progress": not quiet and settings.get("progress", True)})
    try:
        from ckpttool.trainer.train import train
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "train") from error

    from ckpttool.trainer import logs

    if plot is not None:
        logs.need_plot(plot)
    result = train(config, out)
    if speaks and not quiet:
        for note in result.notes:
            click.echo(note, err=True)
        best = "" if result.best is None else f"; best {result.metric_name} {result.best:.4f}"
        best += f" at step {result.best_step}" if best else ""
        click.echo(f"{result.why} after {result.step} steps{best}")
    if plot is not None and speaks:
        logs.plot(out / "log.csv", plot, f"{config.task}: {result.why} after {result.step} steps")
    if result.why in SIGNALS:
        raise SystemExit(128 + SIGNALS[result.why])


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
    except Exception:
        if "RANK" not in os.environ:
            raise
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # a group that lost a process may not let go of this one: its threads wait for each other
    return 0
