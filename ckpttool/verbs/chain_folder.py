"""A folder of migrations as a chain; and functions of its Python files, run because the user names the folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from ckpttool.errors import Unreadable, printable
from ckpttool.migration.chain_files import SETTINGS, code_links, settings_of, yaml_link
from ckpttool.migration.chains import Chain, ChainError, Link, Turn, chain_of
from ckpttool.migration.code_steps import Code, Migration
from ckpttool.ops.called import told
from ckpttool.verbs.migrate_rules import text_of

NO_WAY_BACK = "the step has no function that leads back (@….down)"


def chain_in(folder: str | os.PathLike[str]) -> Chain:
    """The chain of a folder's ``.yaml`` and ``.py`` files; hidden ones and those that begin with ``_`` are passed over.

    Python files are read, not run. Raises ``Unreadable``; ``RuleError`` and ``ChainError`` with file and line.
    """
    where = os.fspath(folder)
    names = _names(Path(where))
    settings = next((name for name in names if name in SETTINGS), "")
    key, unstamped = "", ""
    if settings:
        path = os.path.join(where, settings)  # noqa: PTH118 - the folder as the user wrote it
        key, unstamped = settings_of(text_of(path), path)
    links = [link for name in names if name not in SETTINGS for link in _links(where, name)]
    return chain_of(links, where, key, unstamped)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(
            one.name
            for one in folder.iterdir()
            if one.suffix in (".yaml", ".yml", ".py") and not one.name.startswith((".", "_")) and one.is_file()
        )
    except OSError as error:
        raise Unreadable(str(folder), f"{error.strerror or error}: a chain is a folder of migrations") from error


def _links(where: str, name: str) -> Iterator[Link]:
    path = os.path.join(where, name)  # noqa: PTH118
    text = text_of(path)
    if name.endswith(".py"):
        yield from code_links(text, name, path)
    else:
        yield yaml_link(text, name, path)


# --- code ----------------------------------------------------------------------------------------------------


def code_of(folder: str, turn: Turn) -> Code:
    """The function of a step in Python: its file is run. Raises ``ChainError`` where it does not hold what it did."""
    link = turn.link
    module = _run(os.path.join(folder, link.name))  # noqa: PTH118
    found: object = getattr(module, link.up, None)
    if not isinstance(found, Migration) or (found.from_, found.to) != (link.from_, link.to):
        raise ChainError(
            f"{printable(link.where)} – '{link.up}' is another thing once the file has run; @ckpttool.migration is its "
            "outermost decorator"
        )
    function: Callable[..., object] | None = found.back if turn.back else found.up
    if function is None:
        raise ChainError(f"{printable(link.where)} – {NO_WAY_BACK}")
    lossy = "" if turn.back or found.back is not None else NO_WAY_BACK
    return Code(function, link.where, found.scope, lossy)  # type: ignore[arg-type]


def _run(path: str) -> ModuleType:
    """The module of a file, without a place among the imported ones; its neighbours can be imported from it."""
    spec = spec_from_file_location(f"ckpttool_chain_{Path(path).stem}", path)
    if spec is None or spec.loader is None:
        raise Unreadable(path, "this is no Python file")
    module = module_from_spec(spec)
    with _beside(str(Path(path).resolve().parent)):
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            raise ChainError(told(path, error)) from error
    return module


@contextmanager
def _beside(folder: str) -> Iterator[None]:
    """The folder goes first where modules are looked for; no caches are written into it."""
    kept = sys.dont_write_bytecode
    sys.path.insert(0, folder)
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = kept
        if folder in sys.path:
            sys.path.remove(folder)
