"""``ckpttool verify``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ckpttool.cli.group import complain
from ckpttool.cli.options import exit_status, jobs_option, output_of, output_options, stacked
from ckpttool.cli.output import Output, emit
from ckpttool.cli.progress import progress_bar
from ckpttool.config import FAIL_ON, REQUIRE, Config, FailOn, find_config, load_config
from ckpttool.errors import printable

if TYPE_CHECKING:
    from ckpttool.report import Report

EPILOG = exit_status(
    "0  nothing at or above --fail-on, and as ready as --require asks",
    "1  findings at or above --fail-on, or not as ready as required",
    "2  a target could not be read, or the options make no sense",
    "Of several targets the highest wins.",
)
FORMATS = ("text", "json", "markdown", "html", "github", "junit", "sarif")

settings = stacked([
    click.option(
        "--require", type=click.Choice(REQUIRE),
        help="What must be possible: load the weights, resume training, resume bit for bit.",
    ),
    click.option("--fail-on", type=click.Choice(FAIL_ON), help="Findings that fail; default: error."),
    click.option("--headers-only", is_flag=True, help="Skip the content: quick at any size; less is proved."),
    click.option(
        "--trust", metavar="MODULE.NAME", multiple=True, help="Count this global as plain data. Repeatable."
    ),
    click.option(
        "--ignore-code", "ignore", metavar="CODE", multiple=True,
        help="Leave out this rule's findings. Repeatable.",
    ),
    click.option(
        "--config", "config_file", metavar="FILE", type=click.Path(dir_okay=False),
        help="Configuration instead of the nearest ckpttool.toml or pyproject.toml.",
    ),
    click.option("--no-config", is_flag=True, help="No configuration: options and defaults alone."),
])  # fmt: skip


@click.command("verify", epilog=EPILOG, short_help="Is it whole, safe to load, enough to resume from?")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path())
@settings
@jobs_option()
@output_options(FORMATS)
def command(
    paths: Sequence[str],
    require: str | None,
    fail_on: FailOn | None,
    headers_only: bool,
    trust: Sequence[str],
    ignore: Sequence[str],
    config_file: str | None,
    no_config: bool,
    jobs: int | None,
    **output: Any,
) -> None:
    """Check checkpoints: integrity, safety, consistency, and whether training can resume from them.

    Each PATH is a file, a folder (sharded checkpoint, run directory) or a URL. Every byte is read once;
    nothing that a file names is imported or run.
    """
    out = output_of(FORMATS, **output)
    config = _configuration(config_file, no_config)
    threshold = fail_on or config.fail_on or "error"
    ignored = _codes([*config.ignore_codes, *ignore])
    _announce(config, out)
    from ckpttool.verbs.verify import verify

    with progress_bar(out.chatty) as bar:
        report = verify(
            paths,
            require=require or config.require,
            fail_on=threshold,
            headers_only=headers_only,
            trust=(*config.trust, *trust),
            ignore=ignored,
            jobs=jobs,
            progress=bar,
        )
    _tell_unreadable(report)
    click.get_current_context().exit(int(emit(report, out)))


def _configuration(path: str | None, none: bool) -> Config:
    if none:
        return Config()
    return find_config() if path is None else load_config(Path(path))


def _codes(names: Iterable[str]) -> tuple[str, ...]:
    """Rules' codes from codes or names; raises ``UsageError`` for one that does not exist."""
    wanted = list(names)
    if not wanted:
        return ()
    from ckpttool.verbs.explain import find_rule

    return tuple(dict.fromkeys(find_rule(name).code for name in wanted))


def _announce(config: Config, out: Output) -> None:
    """Say when a file in the working directory makes the judgement milder: it may not be the user's own."""
    if out.quiet or config.path is None or not (config.trust or config.ignore_codes):
        return
    parts = [f"trusts {', '.join(config.trust)}"] if config.trust else []
    parts += [f"ignores {', '.join(config.ignore_codes)}"] if config.ignore_codes else []
    complain(printable(f"note: {config.path} {' and '.join(parts)}"))


def _tell_unreadable(report: Report) -> None:
    for subject in report.subjects:
        if subject.error:
            complain(f"error: {printable(subject.error)}")
