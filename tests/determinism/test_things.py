"""Things that are kept without being kept alive: their order, and addresses that are used again."""

from __future__ import annotations

import gc

from hypothesis import given, strategies as st

from ckpttool.determinism.things import Things


class Thing:
    """Equal to all of its kind, and not to be hashed: as a script's own classes may be."""

    __slots__ = ("__weakref__", "name")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, name: int) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Thing)


def test_an_address_that_is_used_again_is_a_new_place() -> None:
    things: Things[Thing] = Things()
    first, second = Thing(1), Thing(2)
    things.add(first)
    things.add(second)
    address = id(first)
    del first
    others = []
    while True:  # the allocator hands out what was freed last first
        again = Thing(3)
        if id(again) == address:
            break
        others.append(again)
        assert len(others) < 100_000
    assert again not in things
    things.add(again)
    assert [thing.name for thing in things] == [2, 3]


def test_what_lies_in_a_cycle_is_let_go() -> None:
    class Node:
        def __init__(self) -> None:
            self.own = self

    things: Things[Node] = Things()
    things.add(Node())
    gc.collect()
    assert len(things) == 0


@given(st.lists(st.tuples(st.integers(0, 7), st.booleans()), max_size=40))
def test_the_order_is_that_of_the_first_meeting(moves: list[tuple[int, bool]]) -> None:
    things: Things[Thing] = Things()
    living: dict[int, Thing] = {}
    for name, dies in moves:
        if dies:
            living.pop(name, None)
        else:
            things.add(living.setdefault(name, Thing(name)))
    assert [thing.name for thing in things] == list(living)
    assert all(thing in things for thing in living.values())
    assert Thing(0) not in things
