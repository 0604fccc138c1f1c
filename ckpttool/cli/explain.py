"""``ckpttool explain``."""

from __future__ import annotations

from typing import Any

import click

from ckpttool.cli.options import exit_status, output_of, output_options
from ckpttool.cli.output import emit

EPILOG = exit_status("0  the page was shown", "2  no rule has that code or name")

FORMATS = ("text", "json", "markdown", "html")


@click.command("explain", epilog=EPILOG, short_help="What a rule means, and what to do about it.")
@click.argument("rule", required=False)
@output_options(FORMATS)
def command(rule: str | None, **output: Any) -> None:
    """Show a rule's page: what it found, why it matters, what causes it, what to do.

    RULE is a code (CK101) or a name (truncated). Without one, all rules are listed.
    """
    out = output_of(FORMATS, **output)
    from ckpttool.verbs.explain import explain

    click.get_current_context().exit(int(emit(explain(rule), out)))
