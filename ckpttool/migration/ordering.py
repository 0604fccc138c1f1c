"""The order of keys where tensors were split or merged: keys of one module stand together, as in every model. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from ckpttool.rewriting import Rewriting


def by_module(names: Iterable[str], homes: Collection[str] | None = None) -> list[str]:
    """Names in order, those of one module's own tensors together at the place of the first; or of ``homes`` alone.

    ``torch.nn.Module.state_dict`` lists them so: this changes nothing about names that come from one.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for name in names:
        home = home_of(name)
        together = homes is None or home in homes
        found.setdefault((home, "") if together else (home, name), []).append(name)
    return [name for listed in found.values() for name in listed]


def home_of(name: str) -> str:
    """The module that a key belongs to."""
    return name.rpartition(".")[0]


def ordered(names: Sequence[str], rewriting: Rewriting) -> Rewriting:
    """The rewriting with parts of split and merged tensors next to the other keys of their modules.

    ``names`` are those of the input; where they are in no model's order themselves nothing is said about the result.
    Keys that are only renamed never cause this: they stay at their place.
    """
    uses = Counter(name for output in rewriting.outputs for name in output.inputs)
    parts = [o.name for o in rewriting.outputs if len(o.inputs) > 1 or any(uses[name] > 1 for name in o.inputs)]
    if not parts or by_module(names) != list(names):
        return rewriting
    homes = {home_of(name) for name in parts}
    order = by_module((output.name for output in rewriting.outputs), homes)
    places = {name: at for at, name in enumerate(order)}
    return replace(rewriting, outputs=tuple(sorted(rewriting.outputs, key=lambda output: places[output.name])))


def comes_back(names: Sequence[str], rewriting: Rewriting) -> bool:
    """Whether the way back gives keys their order again: not where tensors that stood apart have become one."""
    order = dict.fromkeys(name for output in rewriting.outputs for name in output.inputs)
    kept = [name for name in names if name in order]
    merged = [name for output in rewriting.outputs if len(output.inputs) > 1 for name in output.inputs]
    return not merged or by_module(order, {home_of(name) for name in merged}) == kept
