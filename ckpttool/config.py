"""Project configuration: ``[tool.ckpttool]`` in ``pyproject.toml``, or ``ckpttool.toml``.

The nearest folder from the working directory upward that has one decides. Its keys::

    ignore-codes = ["CK602", "stale-buffer"]       # findings that are not reported
    trust = ["mypackage.config.TrainConfig"]       # globals that count as plain data
    fail-on = "warning"                            # as --fail-on
    require = "resumable"                          # as --require
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias, get_args

from ckpttool.errors import UsageError, printable
from ckpttool.frozen import dataclass

FailOn: TypeAlias = Literal["error", "warning", "info", "never"]
FAIL_ON: tuple[FailOn, ...] = get_args(FailOn)
REQUIRE = ("weights", "resumable", "exact")

_LISTS = ("ignore-codes", "trust")
_CHOICES = {"fail-on": FAIL_ON, "require": REQUIRE}


@dataclass(frozen=True, slots=True)
class Config:
    """What a project has settled. ``path`` is the file that says so, None where there is none."""

    path: Path | None = None
    ignore_codes: tuple[str, ...] = ()
    trust: tuple[str, ...] = ()
    fail_on: FailOn | None = None
    require: str | None = None


def find_config(start: Path | None = None) -> Config:
    """The nearest configuration from ``start`` (default: the working directory) upward; an empty one if none.

    Raises ``UsageError`` for a file that cannot be read or says what makes no sense.
    """
    try:
        here = (start or Path.cwd()).absolute()
    except OSError:
        return Config()  # the working directory is gone
    for folder in (here, *here.parents):
        for name in ("ckpttool.toml", "pyproject.toml"):
            table = _table(folder / name)
            if table is not None:
                return _config(folder / name, table)
    return Config()


def load_config(path: Path) -> Config:
    """The configuration in this very file; raises ``UsageError`` where it has none."""
    table = _table(path)
    if table is None:
        raise UsageError(f"{printable(str(path))} – no such file, or it has no [tool.ckpttool]")
    return _config(path, table)


def _table(path: Path) -> dict[str, object] | None:
    """The tool's table; a whole ``ckpttool.toml`` counts as one unless it has ``[tool.ckpttool]``."""
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageError(f"{printable(str(path))} – {error.strerror}") from error
    import tomllib  # most folders have nothing to parse

    try:
        document: dict[str, object] = tomllib.loads(text.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        if path.name == "pyproject.toml" and "[tool.ckpttool" not in _lenient(path):
            return None  # broken, and none of our business
        raise UsageError(f"{printable(str(path))} – not valid TOML: {printable(str(error))}") from error
    tools = document.get("tool")
    table = tools.get("ckpttool") if isinstance(tools, dict) else None
    if table is None and path.name != "pyproject.toml":
        return document
    if table is not None and not isinstance(table, dict):
        raise UsageError(f"{printable(str(path))} – tool.ckpttool is not a table")
    return table


def _lenient(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _config(path: Path, table: dict[str, object]) -> Config:
    known = (*_LISTS, *_CHOICES)
    for key in table:
        if key not in known:
            from difflib import get_close_matches

            near = get_close_matches(key, known, 1)
            hint = f"; did you mean '{near[0]}'?" if near else f": there are {', '.join(known)}"
            raise UsageError(f"{printable(str(path))} – no key is called '{printable(key)}'{hint}")
    return Config(
        path,
        _strings(path, table, "ignore-codes"),
        _strings(path, table, "trust"),
        next((choice for choice in FAIL_ON if choice == _choice(path, table, "fail-on")), None),
        _choice(path, table, "require"),
    )


def _strings(path: Path, table: dict[str, object], key: str) -> tuple[str, ...]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise UsageError(f"{printable(str(path))} – {key} is not a list of strings")
    return tuple(value)


def _choice(path: Path, table: dict[str, object], key: str) -> str | None:
    value = table.get(key)
    if value is None or value in _CHOICES[key]:
        return None if value is None else str(value)
    options = ", ".join(_CHOICES[key])
    raise UsageError(f"{printable(str(path))} – {key} is {printable(repr(value))}: it can be {options}")
