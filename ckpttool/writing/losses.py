"""What an output format cannot hold, said key by key."""

from __future__ import annotations

from typing import Literal, TypeAlias

from ckpttool.frozen import dataclass

Kind: TypeAlias = Literal["content", "form"]


@dataclass(frozen=True, slots=True)
class Loss:
    """Something of the source that the output lacks: where it stood, what it is, why it has no place.

    ``kind`` is ``content`` for values, tensors and names that cannot be had back from the output, ``form`` for
    how they were kept: order, container classes, strides, devices.
    """

    key: str
    what: str
    why: str
    kind: Kind = "content"
