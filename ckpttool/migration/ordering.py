"""The order of keys where tensors were split or merged: keys of one module stand together, as in every model. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ckpttool.rewriting import Rewriting


def by_module(names: Iterable[str]) -> list[str]:
    """Names in order, those of one module's own tensors together at the place of the first.

    ``torch.nn.Module.state_dict`` lists them so: this changes nothing about names that come from one.
    """
    homes: dict[str, list[str]] = {}
    for name in names:
        homes.setdefault(name.rpartition(".")[0], []).append(name)
    return [name for listed in homes.values() for name in listed]


def ordered(names: Sequence[str], rewriting: Rewriting) -> Rewriting:
    """The rewriting with outputs by module, where parts of tensors stand between others' that they do not belong to.

    ``names`` are those of the input; where they are in no model's order themselves nothing is said about the result.
    Keys that are only renamed never cause this: they stay at their place.
    """
    uses = Counter(name for output in rewriting.outputs for name in output.inputs)
    parts = any(len(output.inputs) > 1 for output in rewriting.outputs) or any(n > 1 for n in uses.values())
    made = [output.name for output in rewriting.outputs]
    if not parts or by_module(names) != list(names):
        return rewriting
    places = {name: at for at, name in enumerate(by_module(made))}
    return replace(
        rewriting, outputs=tuple(sorted(rewriting.outputs, key=lambda output: places[output.name]))
    )


def comes_back(names: Sequence[str], rewriting: Rewriting) -> bool:
    """Whether the way back gives keys their order again: not where tensors that stood apart have become one."""
    order = dict.fromkeys(name for output in rewriting.outputs for name in output.inputs)
    kept = [name for name in names if name in order]
    return list(order) == kept or by_module(order) == kept or not _merges(rewriting)


def _merges(rewriting: Rewriting) -> bool:
    return any(len(output.inputs) > 1 for output in rewriting.outputs)
