"""Dataclasses made cheaply are what the standard library makes of the same class."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any, ClassVar, Generic, TypeVar

import pytest

from ckpttool.frozen import dataclass

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Point:
    """A place."""

    x: int
    y: int = 2
    tags: dict[str, int] = dataclasses.field(default_factory=dict, hash=False)
    note: str = dataclasses.field(default="n", compare=False, repr=False)

    @property
    def total(self) -> int:
        return self.x + self.y


@dataclasses.dataclass(frozen=True, slots=True)
class Twin:
    """A place."""

    x: int
    y: int = 2
    tags: dict[str, int] = dataclasses.field(default_factory=dict, hash=False)
    note: str = dataclasses.field(default="n", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Single(Generic[T]):
    """One thing."""

    value: T


@dataclass(frozen=True, slots=True)
class Nothing:
    """No field."""


@pytest.mark.parametrize("args", [(1,), (1, 3), (1, 3, {"a": 1}), (1, 3, {}, "other")])
def test_instances_are_like_those_of_dataclasses(args: tuple[Any, ...]) -> None:
    mine, theirs = Point(*args), Twin(*args)
    assert dataclasses.astuple(mine) == dataclasses.astuple(theirs)
    assert repr(mine) == repr(theirs).replace("Twin", "Point")
    assert hash(mine) == hash(theirs)
    assert mine.total == mine.x + mine.y
    assert Point.__match_args__ == Twin.__match_args__
    assert Point.__slots__ == Twin.__slots__


def test_equality_looks_at_the_compared_fields_of_the_same_class() -> None:
    assert Point(1, note="a") == Point(1, note="b")
    assert Point(1) != Point(1, 3)
    assert Point(1) != Twin(1)
    assert Single(1) == Single(1)
    assert Single(1) != Single(2)
    assert Nothing() == Nothing()
    assert len({Nothing(), Nothing(), Single(1), Single(1)}) == 2


def test_each_instance_has_a_default_of_its_own() -> None:
    assert Point(1).tags is not Point(1).tags


def test_nothing_can_be_changed() -> None:
    one = Point(1)
    for name in ("x", "new"):
        with pytest.raises(dataclasses.FrozenInstanceError, match=f"cannot assign to field '{name}'"):
            setattr(one, name, 5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        del one.x
    assert not hasattr(one, "__dict__")


def test_wrong_arguments_are_a_type_error() -> None:
    for wrong in ((), (1, 2, {}, "", 5)):
        with pytest.raises(TypeError, match=r"Point\.__init__\(\)"):
            Point(*wrong)
    with pytest.raises(TypeError, match="unexpected keyword"):
        Point(x=1, z=2)  # type: ignore[call-arg]


def test_the_standard_library_works_with_them() -> None:
    one = Point(1, tags={"a": 1})
    assert dataclasses.replace(one, y=7) == Point(1, 7, {"a": 1})
    assert dataclasses.asdict(one) == {"x": 1, "y": 2, "tags": {"a": 1}, "note": "n"}
    assert [f.name for f in dataclasses.fields(Point)] == ["x", "y", "tags", "note"]
    assert dataclasses.is_dataclass(Point)
    for again in (pickle.loads(pickle.dumps(one)), copy.copy(one), copy.deepcopy(one)):
        assert again == one
    match Point(4, 5):
        case Point(x, y):
            assert (x, y) == (4, 5)


def test_what_is_not_frozen_and_slotted_is_left_to_the_standard_library() -> None:
    @dataclass(slots=True)
    class Open:
        """Changes."""

        x: int = 0

    one = Open()
    one.x = 3
    assert one.x == 3


def test_what_runs_after_init_is_left_to_the_standard_library() -> None:
    @dataclass(frozen=True, slots=True)
    class Checked:
        """Looks at itself."""

        x: int

        def __post_init__(self) -> None:
            if self.x < 0:
                raise ValueError("negative")

    assert Checked(1).x == 1
    with pytest.raises(ValueError, match="negative"):
        Checked(-1)


def test_what_belongs_to_the_class_is_no_field() -> None:
    @dataclass(frozen=True, slots=True)
    class Named:
        """Called something."""

        value: int
        name: ClassVar[str] = "named"

    assert Named.name == "named"
    assert repr(Named(1)).endswith("Named(value=1)")
