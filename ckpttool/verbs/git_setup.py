"""``git-setup``: make git show checkpoints as text. Plans first, then writes two files of git's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, TypeAlias

from ckpttool.errors import CkpttoolError, UsageError, printable
from ckpttool.frozen import dataclass
from ckpttool.model import Json
from ckpttool.report import Block, Facts, Report, Text, Tree

Scope: TypeAlias = Literal["local", "global"]

PATTERNS = ("*.pt", "*.pth", "*.ckpt", "*.safetensors", "pytorch_model*.bin")
"""Files that are checkpoints by their names."""

DRIVER = "ckpttool"
"""The name of the diff driver, in attributes and configuration."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What setting up changes: lines to add to the attributes file, and settings that differ from git's own."""

    scope: Scope
    attributes: Path
    lines: tuple[str, ...]
    settings: tuple[tuple[str, str], ...]

    @property
    def empty(self) -> bool:
        return not (self.lines or self.settings)


def git_setup(
    scope: Scope = "local",
    *,
    patterns: Sequence[str] = PATTERNS,
    command: str = "ckpttool",
    external: bool = False,
    dry_run: bool = False,
) -> Report:
    """Make ``git diff`` and ``git log -p`` show checkpoints through ``command``; a second run changes nothing.

    ``local`` writes ``.gitattributes`` at the top of the repository, to be committed, and its configuration;
    ``global`` the user's. ``external`` also makes ``git diff`` run the whole comparison instead of comparing text.
    ``dry_run`` writes nothing. Raises ``UsageError`` outside of a repository (``local``) or for a pattern that
    git would read otherwise, ``CkpttoolError`` where git or a file refuses.
    """
    made = plan(scope, patterns, command, external)
    if not dry_run:
        apply(made)
    return _report(made, dry_run)


def plan(scope: Scope, patterns: Sequence[str], command: str, external: bool) -> Plan:
    """What is still to be done. Reads git's configuration and the attributes file."""
    for pattern in patterns:
        if not pattern or pattern[0] in '#!"' or any(c.isspace() for c in pattern):
            raise UsageError(f"the pattern {pattern!r} cannot stand in .gitattributes: use one without spaces")
    where = _attributes(scope)
    text = where.read_text("utf-8", "surrogateescape") if where.exists() else ""
    lines = tuple(f"{pattern} diff={DRIVER}" for pattern in patterns if _driver(text, pattern) != DRIVER)
    wanted = {"textconv": f"{command} textconv", "binary": "true"}
    if external:
        wanted["command"] = f"{command} git-diff"
    settings = tuple(
        (f"diff.{DRIVER}.{name}", value)
        for name, value in wanted.items()
        if _git("config", f"--{scope}", "--get", f"diff.{DRIVER}.{name}", missing="") != value
    )
    return Plan(scope, where, lines, settings)


def apply(made: Plan) -> None:
    """Add the lines and write the settings. Nothing that is there is changed or removed."""
    if made.lines:
        where = made.attributes
        try:
            before = where.read_bytes() if where.exists() else b""
            gap = b"\n" if before and not before.endswith(b"\n") else b""
            added = "".join(f"{line}\n" for line in made.lines).encode("utf-8", "surrogateescape")
            where.parent.mkdir(parents=True, exist_ok=True)
            with where.open("ab") as file:
                file.write(gap + added)
        except OSError as error:
            raise CkpttoolError(f"{printable(str(where))} – cannot be written: {error.strerror}") from error
    for name, value in made.settings:
        _git("config", f"--{made.scope}", name, value)


def lfs_object(oid: str, top: Path) -> Path | None:
    """Where the repository around ``top`` keeps the file that an LFS pointer names; None if it has not got it."""
    common = _git("-C", str(top), "rev-parse", "--path-format=absolute", "--git-common-dir", missing="")
    if not common:
        return None
    path = Path(common, "lfs", "objects", oid[:2], oid[2:4], oid)
    return path if path.is_file() else None


def _attributes(scope: Scope) -> Path:
    """The file that attributes go to."""
    if scope == "local":
        top = _git("rev-parse", "--show-toplevel", missing="")
        if not top:
            raise UsageError("no git repository here: run this in one, or use --global")
        return Path(top, ".gitattributes")
    named = _git("config", "--global", "--type=path", "--get", "core.attributesFile", missing="")
    config = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(named) if named else Path(config, "git", "attributes")


def _driver(text: str, pattern: str) -> str:
    """The diff driver that a file named like the pattern gets; the last line that speaks of it wins."""
    found = ""
    sample = pattern.replace("*", "x")
    for line in text.splitlines():
        words = line.split()
        if words and not words[0].startswith("#") and (words[0] == pattern or fnmatchcase(sample, words[0])):
            found = next((w.removeprefix("diff=") for w in words[1:] if w.startswith("diff=")), found)
            found = "" if {"-diff", "diff", "!diff", "binary"} & set(words[1:]) else found
    return found


def _git(*arguments: str, missing: str | None = None) -> str:
    """What git prints; ``missing`` where it fails, else ``CkpttoolError`` with its words."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CkpttoolError(f"git – cannot be run: {error}") from error
    if done.returncode and missing is None:
        words = done.stderr.decode("utf-8", "replace").strip()
        raise CkpttoolError(f"git {arguments[0]} – {printable(words)}")
    return os.fsdecode(done.stdout).rstrip("\n") if not done.returncode else missing or ""


def _report(made: Plan, dry_run: bool) -> Report:
    data: dict[str, Json] = {
        "scope": made.scope,
        "attributes": str(made.attributes),
        "lines": list(made.lines),
        "settings": dict(made.settings),
        "written": not dry_run and not made.empty,
    }
    return Report("git-setup", data, tuple(_blocks(made, dry_run)))


def _blocks(made: Plan, dry_run: bool) -> Iterator[Block]:
    if made.empty:
        yield Text("git shows checkpoints already; nothing to do", "good")
        return
    yield Text("would be written" if dry_run else "written", "heading")
    if made.lines:
        yield Facts((("attributes", str(made.attributes)),))
        yield Tree(tuple((0, line) for line in made.lines))
    if made.settings:
        where = "this repository" if made.scope == "local" else "this user"
        yield Facts((("configuration", f"of {where}"),))
        yield Tree(tuple((0, f"git config --{made.scope} {name} '{value}'") for name, value in made.settings))
    if made.lines and made.scope == "local" and not dry_run:
        yield Text("Commit .gitattributes; each clone runs `ckpttool git-setup` once for the configuration.", "dim")


__all__ = ["PATTERNS", "Plan", "apply", "git_setup", "lfs_object", "plan"]
