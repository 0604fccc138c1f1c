"""``ckpttool determinism check``, ``… record`` and ``… compare``."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import click

from ckpttool.cli.group import complain
from ckpttool.cli.options import exit_status, output_of, output_options
from ckpttool.cli.output import emit
from ckpttool.errors import UsageError, printable

EPILOG = exit_status(
    "0  exact: interrupted and resumed equals uninterrupted",
    "1  diverged, or a resume failed",
    "2  the command fails, is not reproducible, or would show no loss at all",
)
RECORDED = exit_status("That of the command; 0 where --steps ended it; 2 where nothing could be recorded.")
COMPARED = exit_status(
    "0  every step that both have agrees in every field",
    "1  they depart",
    "2  one of them is no trace that this version reads, or they have no step in common",
)
LEVELS = ("boundary", "data", "trajectory", "artifact", "recovery")
FORMATS = ("text", "json", "markdown", "html", "junit", "github")


@click.group("determinism", short_help="Does a resumed run equal an uninterrupted one? If not, why?")
def command() -> None:
    """Prove that interrupted, then resumed equals uninterrupted, or say where and why it does not."""


@command.command("check", epilog=EPILOG, context_settings={"ignore_unknown_options": True})
@click.option("--steps", type=click.IntRange(min=2), required=True, help="Optimizer steps to look at.")
@click.option("--cuts", type=click.IntRange(min=1), default=6, show_default=True, help="Interruptions to try.")
@click.option(
    "--cut", "at", metavar="STEP[,STEP]", multiple=True,
    help="Interrupt after this step, and resumed after that; in the place of those that are chosen.",
)  # fmt: skip
@click.option("--resume-arg", "resume", metavar="TEXT", default="", help="Added on a resume; {last}: newest save.")
@click.option(
    "--kills", type=click.IntRange(min=0), default=6, show_default=True,
    help="Kills inside saves, at file events and at bytes, and by SIGTERM.",
)  # fmt: skip
@click.option(
    "--power-cuts", type=click.IntRange(min=0), default=0, show_default=True,
    help="Kills after a save that also cost what it did not flush to the disk, as a power cut does.",
)  # fmt: skip
@click.option(
    "--level", type=click.Choice(LEVELS), default="recovery", show_default=True,
    help="The widest promise that has to hold; those before it are part of it.",
)  # fmt: skip
@click.option(
    "--without-saves", metavar="TEXT", default="", help="Added for a run that saves never, or at other steps."
)
@click.option("--without-evaluation", metavar="TEXT", default="", help="The same for evaluation.")
@click.option("--ignore", metavar="NAME", multiple=True, help="A value in checkpoints that is right to differ.")
@click.option("--grace", type=float, default=5.0, show_default=True, help="Seconds that SIGTERM leaves.")
@click.option("--fork/--no-fork", default=True, help="Fork runs from a process that has imported torch: much faster.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Branches at a time.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random cuts.")
@click.option("--timeout", type=float, default=600.0, show_default=True, help="Seconds for one run of the command.")
@click.option("--keep", type=click.Path(file_okay=False), help="Work in this folder and keep it.")
@click.option("--power/--no-power", default=True, help="Break parts on purpose, to see which losses would show.")
@click.argument("words", metavar="-- COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
@output_options(FORMATS)
def check(
    steps: int, cuts: int, at: tuple[str, ...], resume: str, kills: int, power_cuts: int, level: Any,
    without_saves: str, without_evaluation: str, ignore: tuple[str, ...], grace: float, fork: bool, jobs: int,
    seed: int, timeout: float, keep: str | None, power: bool, words: tuple[str, ...], **options: Any,
) -> None:  # fmt: skip
    """Run COMMAND twice, then kill it after chosen steps, resume it, and compare every step bit for bit.

    {out} in COMMAND is a folder of its own for each run. The script needs no change: it has to resume by itself from
    {out}, or through --resume-arg.
    """
    out = output_of(FORMATS, **options)
    from ckpttool.determinism.check import Wishes, check as run, work_folder
    from ckpttool.determinism.reporting import report
    from ckpttool.determinism.running import Command

    named = tuple(_cut_of(text, steps) for text in at)
    more = tuple(_words_of(text) for text in (resume, without_saves, without_evaluation))
    given = [("--resume-arg", resume), ("--without-saves", without_saves), ("--without-evaluation", without_evaluation)]
    given += [("--ignore", name) for name in ignore] + ([("--level", level)] if level != LEVELS[-1] else [])
    again = ["ckpttool", "determinism", "check", "--steps", str(steps), *([] if fork else ["--no-fork"])]
    again += [word for name, text in given if text for word in (name, text)]
    work, clear = work_folder(keep)
    say = complain if out.chatty else lambda _: None
    try:
        with _ended_by_signals():
            found = run(
                Command(words, more[0], timeout, fork),
                Wishes(
                    steps,
                    cuts,
                    jobs,
                    seed,
                    power,
                    kills=kills,
                    power_cuts=power_cuts,
                    level=level,
                    grace=grace,
                    ignore=ignore,
                    without_saves=more[1],
                    without_evaluation=more[2],
                    tidy=keep is None,
                    at=named,
                ),
                work,
                say,
            )
    finally:
        clear()
    told = report(found, shlex.join(words), check=shlex.join(again))
    click.get_current_context().exit(int(emit(told, out)))


def _cut_of(text: str, steps: int) -> tuple[int, ...]:
    """The steps that a cut names. Raises ``UsageError``."""
    try:
        cut = tuple(int(part) for part in text.split(","))
    except ValueError:
        cut = ()
    if not cut or cut[0] < 1 or cut[-1] >= steps or any(a >= b for a, b in pairwise(cut)):
        raise UsageError(f"--cut {printable(text)} – steps from 1 to {steps - 1} are needed, ascending, as 7 or 7,12")
    return cut


def _words_of(text: str) -> tuple[str, ...]:
    """The words of an option, as a shell takes them. Raises ``UsageError``."""
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise UsageError(f"{printable(text)} – {str(error).lower()}") from None


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does: processes that it has started and folders go with it."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@command.command("record", epilog=RECORDED, context_settings={"ignore_unknown_options": True})
@click.option(
    "--trace", "folder", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to write to."
)
@click.option("--steps", type=click.IntRange(min=1), help="End the command after so many optimizer steps.")
@click.option("--full", is_flag=True, help="Digests of single tensors at every step.")
@click.argument("words", metavar="-- COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
def record(folder: Path, steps: int | None, full: bool, words: tuple[str, ...]) -> None:
    """Run COMMAND once and write down every step, to be compared with a run elsewhere.

    The command has the terminal to itself and ends as it always does. Of torchrun every process is recorded.
    """
    from ckpttool.determinism.recording import record as run

    click.get_current_context().exit(run(words, folder, steps=steps, full=full))


@command.command("compare", epilog=COMPARED)
@click.argument("first", metavar="TRACE_A", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("second", metavar="TRACE_B", type=click.Path(exists=True, file_okay=False, path_type=Path))
@output_options(FORMATS)
def compare(first: Path, second: Path, **options: Any) -> None:
    """Compare two traces that were recorded elsewhere: two machines, two versions, two commits."""
    out = output_of(FORMATS, **options)
    from ckpttool.determinism.traces import compare_traces

    click.get_current_context().exit(int(emit(compare_traces(first, second), out)))
