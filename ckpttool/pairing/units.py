"""What guesses are made about: modules of all layers at once, tensors of all layers, single ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import TypeAlias

from ckpttool.frozen import dataclass
from ckpttool.pairing.entries import One, Path
from ckpttool.pairing.names import template

Numbers: TypeAlias = "tuple[int, ...]"


@dataclass(frozen=True, slots=True, eq=False)
class Unit:
    """Modules, or tensors, whose names differ in whole numbers alone and whose shapes are the same.

    ``members`` are by those numbers; each has its tensors by the last segment (one tensor by the empty name).
    """

    pattern: Path
    kind: Hashable
    members: dict[Numbers, dict[str, One]]

    @property
    def module(self) -> Path:
        """The pattern without the tensor's own name: that both are called ``weight`` says little."""
        single = any("" in leaves for leaves in self.members.values())
        return self.pattern[:-1] if single and len(self.pattern) > 1 else self.pattern

    @property
    def at(self) -> int:
        return min(one.at for leaves in self.members.values() for one in leaves.values())


def _trait(one: One) -> tuple[str, str, tuple[int, ...]]:
    return one.side.section, one.tensor.dtype.kind, one.tensor.shape


def _kind(one: One) -> Hashable:
    """What a single tensor has to have in common with its partner: a bias is never a weight."""
    return _trait(one), "bias" in one.words[-1] or one.words[-1] == "beta"


def modules(ones: Sequence[One]) -> list[Unit]:
    """The modules of all layers, those with more than one tensor."""
    return _units((words, kind, leaves) for words, kind, leaves in _by_module(ones))


def single_modules(ones: Sequence[One]) -> list[Unit]:
    """Each layer's module by itself: one side may name the stages that the other counts."""
    return [Unit(words, kind, {(): leaves}) for words, kind, leaves in _by_module(ones)]


def _by_module(ones: Sequence[One]) -> Iterator[tuple[Path, Hashable, dict[str, One]]]:
    """Modules with more than one tensor: name, what is in them, and their tensors by last segment."""
    modules: dict[tuple[Path, Path], dict[str, One]] = defaultdict(dict)
    for one in ones:
        modules[one.root, one.words[:-1]][one.words[-1]] = one
    for (_, words), leaves in modules.items():
        if len(leaves) > 1:
            yield words, tuple(sorted((leaf, _trait(one)) for leaf, one in leaves.items())), leaves


def tensors(ones: Sequence[One]) -> list[Unit]:
    """The tensors of all layers."""
    return _units((one.words, _kind(one), {"": one}) for one in ones)


def singles(ones: Sequence[One]) -> list[Unit]:
    """Each tensor by itself."""
    return [Unit(one.words, _kind(one), {(): {"": one}}) for one in ones]


def _units(found: Iterable[tuple[Path, Hashable, dict[str, One]]]) -> list[Unit]:
    units: dict[tuple[Path, Hashable], Unit] = {}
    for words, kind, leaves in found:
        pattern, numbers = template(words)
        unit = units.setdefault((pattern, kind), Unit(pattern, (kind, len(numbers)), {}))
        unit.members.setdefault(numbers, leaves)
    return list(units.values())
