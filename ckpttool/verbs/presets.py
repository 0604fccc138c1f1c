"""Rules that ship with the tool: ``ckpttool/presets/*.yaml``, by name."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from ckpttool.errors import UsageError, printable
from ckpttool.frozen import dataclass

SUFFIX = ".yaml"


@dataclass(frozen=True, slots=True)
class Preset:
    """A rules file of the package. ``where`` is what messages call it; ``text`` is YAML, as ``load`` takes it."""

    name: str
    text: str

    @property
    def where(self) -> str:
        return f"preset {self.name}"

    @property
    def about(self) -> str:
        """The sentence that it starts with."""
        return self._line("about")

    @property
    def source(self) -> str:
        """The public code that it follows."""
        return self._line("source")

    def _line(self, key: str) -> str:
        # Presets say these on one line each, so that a list of them needs no YAML reader (held by a test).
        start = f"{key}: "
        return next((line[len(start) :] for line in self.text.splitlines() if line.startswith(start)), "")


@cache
def presets() -> tuple[Preset, ...]:
    """All of them, by name. Reads the package's own files, once."""
    found = [path for path in _folder().iterdir() if path.name.endswith(SUFFIX)]
    return tuple(
        Preset(path.name.removesuffix(SUFFIX), path.read_text(encoding="utf-8"))
        for path in sorted(found, key=lambda path: path.name)
    )


def preset(name: str) -> Preset:
    """The one with this name. Raises ``UsageError`` for an unknown one, with the nearest that exist."""
    wanted = name.strip().lower().removesuffix(SUFFIX).replace("_", "-")
    every = {found.name: found for found in presets()}
    if wanted in every:
        return every[wanted]
    near = [*get_close_matches(wanted, every, 3, cutoff=0.5)]
    near += [other for other in every if len(wanted) > 2 and wanted in other]
    hint = f"; did you mean {' or '.join(list(dict.fromkeys(near))[:3])}?" if near else ""
    raise UsageError(f"no preset is called '{printable(name)}'{hint} (`ckpttool migrate --list-presets` lists all)")


def _folder() -> Traversable:
    return files("ckpttool") / "presets"
