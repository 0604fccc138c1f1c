"""``ckpttool migrate``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import click

from ckpttool.cli.options import exit_status, output_of, output_options, stacked, writing_options
from ckpttool.cli.output import emit, print_text
from ckpttool.cli.progress import progress_bar
from ckpttool.errors import UsageError, printable
from ckpttool.layout import SectionName

EPILOG = exit_status(
    "0  migrated, or nothing was left to do; with --dry-run: it could be",
    "2  not possible: damaged or no checkpoint, rules that do not fit, an optimizer that cannot be matched, rules "
    "that would be carried out twice, no room, the target exists",
)
FORMATS = ("text", "json", "markdown", "html")


def _list_presets(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from ckpttool.verbs.presets import presets

    found = presets()
    width = max((len(one.name) for one in found), default=0)
    print_text("".join(f"{one.name:<{width}}  {one.about}\n" for one in found))
    ctx.exit(0)


def _settings(ctx: click.Context, param: click.Parameter, value: Sequence[str]) -> dict[str, int | float | str]:
    found: dict[str, int | float | str] = {}
    for text in value:
        name, sign, told = text.partition("=")
        if not sign or not name:
            raise UsageError(f"--set {printable(text)} – is no NAME=VALUE")
        found[name] = _number(told)
    return found


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


settings = stacked([
    click.option(
        "-o", "--output", metavar="DST", type=click.Path(),
        help="The checkpoint to write: a file, a new folder, or an index (*.index.json) for shards.",
    ),
    click.option("--rules", metavar="FILE", type=click.Path(), help="Rules, as a YAML file."),
    click.option("--preset", metavar="NAME", default="", help="Rules that ship with ckpttool."),
    click.option(
        "--chain", metavar="DIR", type=click.Path(),
        help="A folder of migrations: carry out every step from the checkpoint's version to --to-version. Its Python "
        "files are yours, and run.",
    ),
    click.option(
        "--to-version", metavar="VERSION", default="",
        help="With --chain: where to, forth or back; default: head, the newest.",
    ),
    click.option(
        "--from-version", metavar="VERSION", default="",
        help="With --chain: the version of a checkpoint that does not tell it.",
    ),
    click.option(
        "--to", metavar="TARGET", type=click.Path(),
        help="A checkpoint, or keys of 'inspect --keys': with --rules it checks every key and shape of the result and "
        "gives their order; alone it tells the way.",
    ),
    click.option(
        "--to-model", metavar="MODULE:FACTORY", default="",
        help="Instead of --to: import this module of yours, call the factory and take its model's keys.",
    ),
    click.option(
        "--set", "given", metavar="NAME=VALUE", multiple=True, callback=_settings,
        help="A value that the rules ask for. Repeatable.",
    ),
    click.option("--reverse", is_flag=True, help="The way back."),
    click.option("--cast", is_flag=True, help="With --to alone: change element types where TARGET has others."),
    click.option("--dry-run", is_flag=True, help="Print the plan; write nothing."),
    click.option(
        "--under", metavar="KEY", help="Migrate the dict at this key, and nothing else; default: the weights."
    ),
    click.option(
        "--section", "sections", multiple=True, type=click.Choice(get_args(SectionName)),
        help="Move only this beside the weights: weights alone leaves optimizers and averages. Repeatable.",
    ),
    click.option(
        "--assume-order", is_flag=True,
        help="Optimizers without names hold their parameters in the model's order, though shapes do not prove it.",
    ),
    click.option(
        "--force", is_flag=True, help="Replace a file that is there; repeat rules that were carried out already."
    ),
    click.option(
        "--list-presets", is_flag=True, is_eager=True, expose_value=False, callback=_list_presets,
        help="List the presets and exit.",
    ),
])  # fmt: skip


@click.command("migrate", epilog=EPILOG, short_help="Other names, shapes and layouts; the whole checkpoint at once.")
@click.argument("src", type=click.Path())
@settings
@writing_options()
@output_options(FORMATS)
def command(
    src: str,
    output: str | None,
    rules: str | None,
    preset: str,
    chain: str | None,
    to_version: str,
    from_version: str,
    to: str | None,
    to_model: str,
    given: dict[str, int | float | str],
    reverse: bool,
    cast: bool,
    dry_run: bool,
    in_place: bool,
    backup: bool | None,
    verify: bool,
    target: str | None,
    max_shard_size: str | None,
    under: str | None,
    sections: Sequence[str],
    assume_order: bool,
    force: bool,
    **rendering: Any,
) -> None:
    """Carry a whole checkpoint over to another model's names and shapes: SRC is a file, a folder or a URL.

    Weights, their averages, optimizer state and _metadata move together, planned before a byte moves. Bytes that do
    not change are copied as they lie; the result gets its name only when it is complete and read back. Nothing in SRC
    is imported or run; --to-model and the Python files of a --chain run your own code.
    """
    out = output_of(FORMATS, **rendering)
    from ckpttool.verbs.migrate import migrate

    with progress_bar(out.chatty) as bar:
        report = migrate(
            src,
            output,
            rules=rules,
            preset=preset,
            chain=chain,
            to_version=to_version,
            from_version=from_version,
            to=to,
            to_model=to_model,
            settings=given,
            reverse=reverse,
            dry_run=dry_run,
            in_place=in_place,
            backup=backup,
            verify=verify,
            format=target,
            max_shard_size=max_shard_size,
            under=under,
            sections=sections,
            assume_order=assume_order,
            cast=cast,
            force=force,
            progress=bar,
        )
    click.get_current_context().exit(int(emit(report, out)))
