"""Which optimizer and group a new parameter joins. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ckpttool.migration.alignment import Aligned, Trains
from ckpttool.migration.groups import adopt
from ckpttool.migration.products import Product
from ckpttool.migration.target import Target
from ckpttool.migration.workshop import Workshop

Adopted = dict[int, dict[int, tuple[int, str]]]
"""For each optimizer by number: group and reason of new parameters by their place in the order of the result."""


def adopted(
    shop: Workshop, aligned: Sequence[Aligned], parameters: Sequence[Product], trains: Trains, target: Target | None
) -> Adopted:
    """New parameters go where the target has them, into the only group, or to their like or their neighbours."""
    homes = [_home(product, aligned) for product in parameters]
    known = [
        None if home is None or (tensor := shop.tensor(product.index)) is None else (product.name, tensor.shape, i)
        for i, (home, product) in enumerate(zip(homes, parameters, strict=True))
    ]
    found: Adopted = {}
    trained = None if target is None or not target.parameters else set(target.parameters)
    for at, product in enumerate(parameters):
        tensor = shop.tensor(product.index)
        if not product.new or product.tied or tensor is None:
            continue
        if product.name not in trained if trained is not None else not trains(product.name, tensor):
            continue
        places = sorted({home for home in homes if home is not None})
        ranks = {home: rank for rank, home in enumerate(places)}
        seen = [
            None if one is None or (home := homes[one[2]]) is None else (one[0], one[1], ranks[home]) for one in known
        ]
        choice = adopt(product.name, tensor.shape, seen, at)
        if choice is not None:
            optimizer, group = places[choice[0]]
            found.setdefault(optimizer, {})[at] = (group, choice[1])
    return found


def _home(product: Product, aligned: Sequence[Aligned]) -> tuple[int, int] | None:
    """The optimizer and group of a parameter that was there before."""
    for number, one in enumerate(aligned):
        slot = next((one.slots[leaf.index] for leaf in product.sources if leaf.index in one.slots), None)
        if slot is not None:
            return number, slot.group
    return None
