"""The keys that a stage makes, in order; two that want one name are an error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ckpttool.errors import printable
from ckpttool.migration.compiled import Compiled
from ckpttool.migration.rule_errors import RuleError, listed
from ckpttool.migration.stage_items import Item


class Emission:
    """Collects a stage's result. ``makers`` says by which rule, and of which keys, each name was made."""

    def __init__(self, given: Mapping[str, Item]) -> None:
        self.given = given
        self.slots: list[Item | None] = []
        self.places: dict[str, int] = {}
        self.makers: dict[str, tuple[Compiled | None, tuple[str, ...]]] = {}
        self.became: dict[str, list[str]] = {}
        self.late: dict[int, list[Item]] = {}
        self.parents: dict[str, int] | None = None

    def reserve(self) -> int:
        """A place in the order for something that is put later."""
        self.slots.append(None)
        return len(self.slots) - 1

    def put(self, item: Item, rule: Compiled | None, *sources: str, place: int | None = None) -> None:
        """Add a key made of ``sources``. Raises ``RuleError`` where the name is taken."""
        if item.name in self.makers:
            raise self._collision(item.name, rule, sources)
        at = self.reserve() if place is None else place
        self.slots[at] = item
        self.places[item.name] = at
        self.makers[item.name] = (rule, sources)
        for source in sources:
            self.became.setdefault(source, []).append(item.name)

    def insert(self, item: Item, rule: Compiled, after: str = "") -> None:
        """Add a key that takes nothing away: behind ``after``, else behind the last key of its module, else last."""
        if item.name in self.makers:
            raise self._collision(item.name, rule, ())
        self.makers[item.name] = (rule, ())
        at = self.places.get(after, self._sibling(item.name))
        self.late.setdefault(at, []).append(item)

    def item(self, name: str) -> Item | None:
        """What is called so by now."""
        at = self.places.get(name)
        return None if at is None else self.slots[at]

    def swap(self, item: Item, rule: Compiled) -> None:
        """Put another content under a name that there is."""
        self.slots[self.places[item.name]] = item
        self.makers[item.name] = (rule, self.makers[item.name][1])

    def finish(self) -> dict[str, Item]:
        """Every key in order; ties follow the keys that they lead to."""
        order = list(self.late.get(-1, []))
        for at, item in enumerate(self.slots):
            order.extend([] if item is None else [item])
            order.extend(self.late.get(at, []))
        return {item.name: self._followed(item) for item in order}

    def _followed(self, item: Item) -> Item:
        """A tie that an earlier stage made leads to the name that its key has now."""
        if not item.tied or self._made_here(item):
            return item
        names = self.became.get(item.tied, [])
        return replace(item, tied=names[0] if len(names) == 1 else "")

    def _made_here(self, item: Item) -> bool:
        rule, _ = self.makers.get(item.name, (None, ()))
        return rule is not None and rule.rule.kind == "tie"

    def _sibling(self, name: str) -> int:
        if self.parents is None:
            self.parents = {other.rpartition(".")[0]: at for other, at in self.places.items()}
        parent = name.rpartition(".")[0]
        return self.parents.get(parent, len(self.slots) - 1) if parent else len(self.slots) - 1

    def _collision(self, name: str, rule: Compiled | None, sources: tuple[str, ...]) -> RuleError:
        """Both rules and both keys; the rule that comes later in the file is the one that is located."""
        first = self.makers[name]
        (early, early_keys), (late, late_keys) = first, (rule, sources)
        if late is None or (early is not None and early.number > late.number):
            (early, early_keys), (late, late_keys) = (rule, sources), first
        assert late is not None
        problem = (
            f"two sources for '{printable(name)}': {_made(late_keys)} by this rule, and {_made(early_keys)} "
            + (f"by {printable(early.rule.where)}, {printable(early.rule.text)}" if early else "as it is")
            + ("; drop one of them, or guard the rule with when: {missing: …}" if early is None else "")
        )
        return RuleError(late.rule.where, problem, rule=late.rule.text, keys=(*late_keys, *early_keys))


def _made(keys: tuple[str, ...]) -> str:
    return listed(keys) if keys else "a new tensor"
