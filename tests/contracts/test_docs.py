"""The reference is what the code says, and every command explains itself."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest

GENERATE = Path(__file__).parents[2] / "docs" / "generate.py"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """docs/generate.py, which is a script and not part of the package."""
    spec = importlib.util.spec_from_file_location("generate", GENERATE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commands(command: click.Command, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    """The command and all below it, loaded."""
    yield context.command_path, command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None, f"{context.command_path} lists {name!r} and cannot load it"
            yield from commands(below, click.Context(below, info_name=name, parent=context))


def test_generated_pages_are_fresh(generate: ModuleType) -> None:
    assert generate.stale() == [], "run `python docs/generate.py`"


def test_every_command_and_option_has_help() -> None:
    cli = pytest.importorskip("ckpttool.cli", reason="ckpttool.cli is not there yet")
    if not hasattr(cli, "main"):
        pytest.skip("ckpttool.cli has no main yet")
    mute = []
    for path, command in commands(cli.main, click.Context(cli.main, info_name="ckpttool")):
        mute += [path] if not command.help else []
        mute += [f"{path} {p.opts[0]}" for p in command.params if isinstance(p, click.Option) and not p.help]
    assert mute == []
