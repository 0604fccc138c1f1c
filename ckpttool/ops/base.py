"""What operations share: two bases, and checks whose errors name both numbers. No NumPy until something is computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

from ckpttool.expressions import Form, Op, OpError

Moments: TypeAlias = Literal["follow", "stay", "are dropped"]
"""What becomes of an optimizer's moments: the same operation, no change, or a fresh start."""

Shape: TypeAlias = "tuple[int, ...]"


class Moves:
    """Operations that put elements elsewhere as bits. Moments of the parameter follow through the same operation."""

    __slots__ = ()

    @property
    def bijective(self) -> bool:
        return True

    @property
    def decodes(self) -> bool:
        return False

    @property
    def moments(self) -> Moments:
        return "follow"

    def for_moments(self) -> Op | None:
        """The operation that moments go through; None where they are dropped or stay as they are."""
        return self if isinstance(self, Op) else None


class Mixes:
    """Operations that compute new values from numbers. Moments of the old values say nothing about the new ones."""

    __slots__ = ()

    @property
    def bijective(self) -> bool:
        return False

    @property
    def decodes(self) -> bool:
        return True

    @property
    def moments(self) -> Moments:
        return "are dropped"

    def for_moments(self) -> Op | None:
        """The operation that moments go through; None where they are dropped or stay as they are."""
        return None

    def inverse(self, inputs: tuple[Form, ...]) -> Op | None:
        """None: the old values cannot be had back from the new ones."""
        return None


def taken(name: str, inputs: tuple[Form, ...], count: int) -> tuple[Form, ...]:
    """The inputs, checked: ``count`` of them (-1 for one or more), of whole bytes each."""
    if len(inputs) != count and not (count < 0 < len(inputs)):
        wanted = "one or more inputs" if count < 0 else plural(count, "input")
        raise OpError(f"{name}: takes {wanted}, is given {len(inputs)}")
    for form in inputs:
        if form.dtype.bits % 8:
            raise OpError(
                f"{name}: elements of {form.dtype.name} have {form.dtype.bits} bits, "
                "and only whole bytes of 8 can be moved"
            )
    return inputs


def only(name: str, inputs: tuple[Form, ...]) -> Form:
    """The single input, checked."""
    return taken(name, inputs, 1)[0]


def numbers(name: str, inputs: tuple[Form, ...], kinds: str = "float int uint bool complex") -> None:
    """Raise ``OpError`` unless every input's elements are numbers of one of these kinds."""
    for form in inputs:
        narrow = form.dtype.kind in ("int", "uint") and form.dtype.name.lstrip("uint") not in _WIDTHS
        if form.dtype.kind not in kinds.split() or narrow:
            raise OpError(f"{name}: elements of {form.dtype.name} cannot be computed with here")


_WIDTHS = ("8", "16", "32", "64")


def axis(name: str, dim: int, form: Form, extra: int = 0) -> int:
    """A dimension counted from the front; ``extra`` allows that many past the last one."""
    rank = len(form.shape) + extra
    if not -rank <= dim < rank:
        raise OpError(f"{name}: dimension {dim} of a tensor with {len(form.shape)} ({shown(form.shape)})")
    return dim % rank


def with_size(form: Form, dim: int, size: int) -> Form:
    """The form with another size of one dimension."""
    return Form(form.dtype, (*form.shape[:dim], size, *form.shape[dim + 1 :]))


def resolved(name: str, shape: Sequence[int], numel: int) -> Shape:
    """A shape in which one -1 stands for what is left of ``numel`` elements."""
    unknown = [i for i, size in enumerate(shape) if size == -1]
    known = math.prod(size for size in shape if size != -1)
    if len(unknown) > 1 or any(size < -1 for size in shape):
        raise OpError(f"{name}: at most 1 size of {shown(shape)} may be left open with -1, none below")
    if unknown and (known == 0 or numel % known):
        raise OpError(f"{name}: {plural(numel, 'element')} cannot be divided into {shown(shape)}")
    if not unknown and known != numel:
        raise OpError(f"{name}: {plural(numel, 'element')} do not fit {shown(shape)}, which has {known}")
    return tuple(numel // known if size == -1 else size for size in shape)


def permutation(name: str, order: Sequence[int], count: int, what: str) -> Shape:
    """An order of ``count`` things, negative numbers counted from the end. Each must stand once."""
    if len(order) != count:
        raise OpError(f"{name}: {len(order)} {what} given, the tensor has {count}")
    found = tuple(place + count if place < 0 else place for place in order)
    if sorted(found) != list(range(count)):
        raise OpError(f"{name}: {what} {list(order)} are not each of 0 to {count - 1} once")
    return found


def inverted(order: Sequence[int]) -> Shape:
    """The order that undoes this one."""
    return tuple(sorted(range(len(order)), key=order.__getitem__))


def shown(shape: Sequence[int]) -> str:
    """A shape for people: ``4 × 8``; ``scalar`` for none."""
    return " × ".join(map(str, shape)) or "scalar"


def plural(count: int, what: str) -> str:
    """``1 input``, ``2 inputs``."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def numel_of(form: Form) -> int:
    """How many elements a form has."""
    return math.prod(form.shape)
