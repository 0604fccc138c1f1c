"""``ckpttool train``: one option for each field of the trainer's configuration."""

from __future__ import annotations

import os
import runpy
import sys
import time
import tomllib
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

import click

from ckpttool import CkpttoolError, MissingExtra, UsageError
from ckpttool.trainer.config import Config, Share, Value, make_config

if TYPE_CHECKING:
    from ckpttool.trainer.logs import Watch
    from ckpttool.trainer.train import Result

SIGNALS = {"SIGINT": 2, "SIGTERM": 15}
"""What a run that a signal ended exits with, plus 128, as shells do: so a script can tell it from one that is done."""

PAUSE = 0.1
"""Seconds between two looks of the progress line."""

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


def config_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """A click option for each setting; what is not given stays None."""
    kinds = get_type_hints(Config, include_extras=True)
    for field in reversed(fields(Config)):
        function = _option(field.name, kinds[field.name], field.default)(function)
    return function


def _option(name: str, kind: Any, default: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    flag = name.replace("_", "-")
    text = HELP.get(name, "")
    shown = f"{text} Default: {default}.".strip() if default != "" else text
    if kind is bool:
        return click.option(f"--{flag}/--no-{flag}", name, default=None, help=shown)
    of = get_args(kind)
    shape = click.Choice(of) if get_origin(kind) is Literal else str if kind in (str, Share) else of[0]  # 2% is a share
    return click.option(f"--{flag}", name, type=shape, default=None, help=shown)


@click.command("train", short_help="Train a small model, exactly resumable.")
@click.option("--out", type=_FOLDER, required=True, help="Where checkpoints and logs go.")
@click.option("--config", "config_file", type=_FILE, help="Settings in a TOML or Python file.")
@click.option("--plot", type=_FILE, help="A picture of loss, metric and rate at the end.")
@click.option("--quiet", is_flag=True, help="No progress and no summary.")
@config_options
def command(out: Path, config_file: Path | None, plot: Path | None, quiet: bool, **given: Value) -> None:
    """Train one of three small models on real data, in --out. Run again, it goes on where it stopped, bit for bit.

    Settings come from --config, then from the options. SIGTERM and Ctrl-C save and stop (exit status 143 and 130),
    SIGUSR1 saves and goes on. What a task has not been told comes from its own defaults.
    """
    speaks = os.environ.get("RANK", "0") == "0"  # of the processes of torchrun one
    config = settled(config_file, given)
    if plot is not None:
        from ckpttool.render.curves import need_plot

        need_plot(plot)
    with _ending_at_once(), warnings.catch_warnings(), progress(config, wanted=speaks and not quiet) as watch:
        warnings.showwarning = _plainly
        result = _train(config, out, watch)
    counters = result.counters
    if speaks and not quiet:
        for note in result.notes:
            click.echo(note, err=True)
        best = "" if counters.best is None else f"; best {result.metric_name} {counters.best:.4f}"
        best += f" at step {counters.best_step}" if best else ""
        click.echo(f"{result.why} after {counters.step} steps{best}")
    if plot is not None and speaks:
        from ckpttool.render.curves import curves

        curves(out / "log.csv", plot, f"{config.task}: {result.why} after {counters.step} steps")
    if result.why in SIGNALS:
        raise SystemExit(128 + SIGNALS[result.why])


def _train(config: Config, out: Path, watch: Watch | None) -> Result:
    try:
        from ckpttool.trainer.train import train
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "train") from error
    return train(config, out, watch)


def _plainly(message: Warning | str, *_: Any, **__: Any) -> None:
    """Without the line of code that warns."""
    click.echo(f"warning: {message}", err=True)


@contextmanager
def _ending_at_once() -> Iterator[None]:
    """Where torchrun has started this process, an error ends it there and then.

    A group that lost a process may not let go of this one otherwise: its threads wait for each other.
    """
    try:
        yield
    except CkpttoolError:  # which all of them have
        raise
    except Exception:
        if "RANK" not in os.environ:
            raise
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


# --- settings -----------------------------------------------------------------------------------------------------


def settled(file: Path | None, given: dict[str, Value]) -> Config:
    """The configuration that a file and the options that were given make. Raises ``UsageError``, naming the file."""
    settings = read_config(file) if file else {}
    try:
        make_config(settings)
    except UsageError as error:
        raise UsageError(f"{file} – {error}") from None
    return make_config({**settings, **{name: value for name, value in given.items() if value is not None}})


def read_config(path: Path) -> dict[str, Value]:
    """The settings in a TOML file, or the plain values under lower-case names of a Python file (which is run)."""
    try:
        if path.suffix == ".py":
            names = runpy.run_path(str(path)).items()
            return {name: value for name, value in names if name.islower() and name[0] != "_" and _plain(value)}
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} – {error.strerror}") from error
    except Exception as error:  # a Python file may raise anything
        raise UsageError(f"{path} – {type(error).__name__}: {error}") from error


def _plain(value: object) -> bool:
    return isinstance(value, (bool, int, float, str))


# --- progress -----------------------------------------------------------------------------------------------------


@contextmanager
def progress(config: Config, *, wanted: bool) -> Iterator[Watch | None]:
    """A line on a terminal while the block runs: how far it is, its newest numbers, how long it will take."""
    if not (wanted and config.progress and sys.stderr.isatty()):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(20), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False) as bar:  # no thread: workers are forked
        line, shown = bar.add_task("", total=config.steps, start=False), 0.0

        def watch(step: int, values: dict[str, float]) -> None:
            nonlocal shown
            if not bar.tasks[0].started:  # where a resume starts from took no time
                bar.reset(line, completed=step)
            numbers = "  ".join(f"{k} {v:.4g}" for k, v in values.items() if k in ("loss", "metric", "lr"))
            bar.update(line, completed=step, description=numbers)
            if time.monotonic() - shown > PAUSE:
                shown = time.monotonic()
                bar.refresh()

        yield watch
