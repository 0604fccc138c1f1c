"""Every kind of rule, and what it takes: the one table that reading, printing and help go by."""

from __future__ import annotations

from typing import Literal, TypeAlias

from ckpttool.frozen import dataclass

Takes: TypeAlias = Literal[
    "whole", "wholes", "term", "terms", "ratio", "scalar", "flag", "dtype", "word", "name", "names", "table"
]


@dataclass(frozen=True, slots=True)
class Field:
    """An option of a rule: what it takes and whether it must be there. ``choices`` are the words that it may be."""

    name: str
    takes: Takes
    required: bool = False
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of rule.

    ``role``: ``name`` rules decide what a key is called, so the first one that matches wins; ``content`` rules change
    a tensor and add up; ``extra`` rules make keys from nothing or from others' content; ``strip`` is a stage alone.
    ``target`` is the key that holds the new names, empty where there are none. ``many``: which sides are lists.
    """

    name: str
    role: Literal["name", "content", "extra", "strip"]
    target: str = ""
    many: Literal["", "sources", "targets"] = ""
    fields: tuple[Field, ...] = ()
    regex: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """Everything that may stand in such a rule."""
        own = (self.name, self.target) if self.target else (self.name,)
        return (*own, *(field.name for field in self.fields), *COMMON)


COMMON = ("when", "reverse_when", "optional", "in")
"""What may stand in any rule."""

DIM = Field("dim", "whole")
MODES = ("bicubic", "bilinear")
MODE = Field("mode", "word", choices=MODES)
ANTIALIAS = Field("antialias", "flag")

_KINDS = (
    Kind("strip", "strip", many="sources", fields=(Field("wrap", "name"),)),
    Kind("drop", "name", fields=(Field("restore", "table"),), regex=True),
    Kind("rename", "name", "to", fields=(Field("reverse", "table"),), regex=True),
    Kind("split", "name", "into", "targets", (DIM, Field("sizes", "terms"), Field("sections", "term"))),
    Kind("unstack", "name", "into", "targets", (DIM,)),
    Kind("concat", "name", "into", "sources", (DIM, Field("sizes", "terms"), Field("sections", "term"))),
    Kind("stack", "name", "into", "sources", (DIM,)),
    Kind(
        "fold", "name", "into", "sources",
        (Field("by", "word", True, ("weight_norm", "multiply", "add", "lora", "matmul")), DIM,
         Field("scale", "ratio"), Field("rows_last", "flag")),
    ),
    Kind("unfold", "name", "into", "targets", (Field("by", "word", True, ("weight_norm",)), DIM)),
    Kind("transpose", "content", fields=(Field("dims", "wholes"),), regex=True),
    Kind(
        "permute", "content", regex=True,
        fields=(Field("axes", "wholes", True), Field("view", "terms"), Field("shape", "terms"),
                Field("from", "terms")),
    ),
    Kind("reshape", "content", fields=(Field("shape", "terms", True), Field("from", "terms")), regex=True),
    Kind("squeeze", "content", fields=(Field("dim", "whole", True),), regex=True),
    Kind("unsqueeze", "content", fields=(Field("dim", "whole", True),), regex=True),
    Kind(
        "slice", "content", "into", regex=True,
        fields=(DIM, Field("start", "term"), Field("stop", "term"), Field("step", "term")),
    ),
    Kind("roll", "content", fields=(DIM, Field("shift", "term", True)), regex=True),
    Kind("reorder", "content", fields=(DIM, Field("indices", "wholes", True)), regex=True),
    Kind("repeat", "content", fields=(Field("times", "terms", True),), regex=True),
    Kind("expand", "content", fields=(Field("shape", "terms", True),), regex=True),
    Kind("sum", "content", fields=(DIM,), regex=True),
    Kind("cast", "content", fields=(Field("dtype", "dtype", True), Field("from", "dtype")), regex=True),
    Kind("scale", "content", fields=(Field("by", "ratio", True),), regex=True),
    Kind(
        "pad", "content", regex=True,
        fields=(DIM, Field("to", "term", True), Field("value", "scalar"), Field("from", "term")),
    ),
    Kind(
        "interpolate", "content", regex=True,
        fields=(Field("size", "terms", True), MODE, ANTIALIAS, Field("dims", "wholes")),
    ),
    Kind(
        "resize_patches", "content", regex=True,
        fields=(Field("size", "terms", True), MODE, ANTIALIAS, Field("dims", "wholes")),
    ),
    Kind(
        "resize_positions", "content", regex=True,
        fields=(Field("grid", "terms", True), Field("prefix", "term"), Field("old", "terms"), MODE, ANTIALIAS),
    ),
    Kind(
        "add", "extra",
        fields=(Field("zeros_like", "name"), Field("ones_like", "name"), Field("copy", "name"),
                Field("full", "scalar"), Field("arange", "term"), Field("shape", "terms"), Field("like", "name"),
                Field("for", "name"), Field("dtype", "dtype")),
    ),
    Kind("tie", "extra", "to", fields=(Field("new", "flag"),)),
)  # fmt: skip

KINDS: dict[str, Kind] = {kind.name: kind for kind in _KINDS}

REVERSE = (Field("regex", "name"), Field("name", "name"), Field("to", "name"))
"""What ``reverse`` of a regular expression holds: the rename that undoes it."""

MAKES = ("zeros_like", "ones_like", "copy", "full", "arange")
"""How ``add`` may make a tensor: one of these."""
