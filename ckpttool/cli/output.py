"""Getting a report out: to stdout in the asked format, to files beside it, with the right exit code."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from ckpttool.cli.group import complain, muzzle
from ckpttool.errors import CkpttoolError, ExitCode, UsageError, printable
from ckpttool.frozen import dataclass
from ckpttool.render import FORMATS, SUFFIXES, render
from ckpttool.report import Report

WIDEST = 120
"""Columns that text is laid out for at most: longer lines are hard to read."""


_PLAIN = str.maketrans(
    dict(zip("─│├└█▏▎▍▌▋▊▉▁▂▃▄▅▆▇░▒▓·×–", "-||`#:::::::.:-=+*#-+*.x-", strict=True))
    | {"→": "->", "…": "...", "≥": ">=", "≠": "!"}
)
"""Lines, bars and signs for terminals that know only ASCII or an old code page."""


@dataclass(frozen=True, slots=True)
class Output:
    """Where a command's result goes, as its options say."""

    format: str = "text"
    reports: tuple[str, ...] = ()
    quiet: bool = False
    progress: bool = True

    @property
    def chatty(self) -> bool:
        """Whether progress may be shown."""
        return self.progress and not self.quiet and is_terminal(sys.stderr)


def report_format(path: str, formats: Sequence[str] = FORMATS) -> str:
    """The format that a report file's suffix asks for; raises ``UsageError`` for any other suffix."""
    known = {suffix: format_ for suffix, format_ in SUFFIXES.items() if format_ in formats}
    suffix = Path(path).suffix.lower()
    if suffix not in known:
        raise UsageError(f"{printable(path)} – a report's suffix says its format: {', '.join(known)}")
    return known[suffix]


def emit(report: Report, output: Output) -> ExitCode:
    """Write the result and the reports; what the command exits with.

    A report that cannot be written is one line on stderr and exit code 2; the result is printed all the same.
    """
    code = report.exit_code
    if output.format == "sarif" or any(report_format(path) == "sarif" for path in output.reports):
        report = with_rules(report)
    if not (output.quiet and output.format == "text"):
        color = output.format == "text" and wants_color()
        print_text(render(report, output.format, columns(), color), color)
    for path in output.reports:
        try:
            write_file(path, render(report, report_format(path)))
        except CkpttoolError as error:
            complain(f"error: {error}")
            code = ExitCode.IMPOSSIBLE
    return code


def with_rules(report: Report) -> Report:
    """The report with every rule's page, which SARIF quotes."""
    from ckpttool.checks import rules

    return report if report.rules else replace(report, rules=tuple(rules().values()))


def print_text(text: str, color: bool = False) -> None:
    """To stdout. A reader that has gone is fine; any other failure raises ``CkpttoolError``."""
    stream = sys.stdout
    if stream is None:
        return
    try:
        click.echo(_encodable(text, stream.encoding), nl=False, color=color)
        stream.flush()
    except OSError as error:
        muzzle(stream)
        if error.errno not in (errno.EPIPE, errno.EINVAL):
            raise CkpttoolError(f"standard output – cannot be written: {error.strerror}") from error


def _encodable(text: str, encoding: str | None) -> str:
    """The text as a stream of this encoding can take it: plain lines and bars, other letters escaped."""
    name = encoding or "utf-8"
    try:
        text.encode(name)
    except UnicodeEncodeError:
        return text.translate(_PLAIN).encode(name, "backslashreplace").decode(name)
    return text


def write_file(path: str, text: str) -> None:
    """Write a file whole or not at all; raises ``CkpttoolError`` with the reason.

    A temporary sibling is written, flushed to the disk and renamed. Devices and pipes are written directly.
    """
    target = Path(path)
    try:
        if target.exists() and not stat.S_ISREG(target.stat().st_mode):
            target.write_text(text, encoding="utf-8")
        else:
            _replace(target.resolve(), text)
    except (OSError, ValueError, RuntimeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise CkpttoolError(f"{printable(path)} – cannot be written: {why}") from error


def _replace(target: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{target.name[:100]}.", dir=target.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(_mode(target))
        Path(name).replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def _mode(target: Path) -> int:
    """The permissions that the file has, or that a new one would get."""
    with contextlib.suppress(OSError):
        return stat.S_IMODE(target.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def columns() -> int:
    """The terminal's width, 80 where there is none."""
    return min(shutil.get_terminal_size((80, 24)).columns or 80, WIDEST)


def wants_color() -> bool:
    """Colour on a terminal, unless ``NO_COLOR`` is set (no-color.org) or the terminal is dumb."""
    return is_terminal(sys.stdout) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def is_terminal(stream: object) -> bool:
    """Whether a person reads it; False for a closed or missing stream."""
    try:
        return bool(stream is not None and stream.isatty())  # type: ignore[attr-defined]
    except ValueError:
        return False
