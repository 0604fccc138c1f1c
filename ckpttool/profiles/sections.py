"""The sections of a checkpoint: what a profile says stands where, then what the tree itself shows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from ckpttool.layout import Confidence, Section, SectionName
from ckpttool.model import Blob, Call, Global, Mapping, Sequence, Tensor, Value
from ckpttool.profiles.discovery import Found, holds_tensors
from ckpttool.profiles.names import PARTS, is_ema, is_weights
from ckpttool.profiles.profile import Profile
from ckpttool.profiles.view import FILE_ONLY, View

_ROLES: tuple[SectionName, ...] = get_args(SectionName)
MODEL_SHARE = 0.2
"""A nameless dict of tensors counts as weights if it holds this part of the largest one's tensors."""


def sections_of(view: View, profile: Profile | None, found: list[Found], confidence: Confidence) -> tuple[Section, ...]:
    """All sections, outer ones first where they nest, in the file's order otherwise."""
    declared = [] if profile is None else list(_declared(view, profile, confidence))
    shown = list(_shown(view, found, any(s.name == "weights" for s in declared)))
    kept = [s for s in shown if not _covered(s, declared)]
    return tuple(sorted([*_loose(view, [*declared, *kept]), *declared, *kept], key=lambda s: len(s.path)))


def _loose(view: View, sections: list[Section]) -> list[Section]:
    """The root as weights, where its tensors stand beside counters or in no known order at all."""
    root = view.checkpoint.root
    if root is None or any(s.name in ("weights", "ema") for s in sections):
        return []
    optimizers = of_role(sections, "optimizer")
    if optimizers:
        known = any(_knows(view, s.index, name) for s in optimizers for name in list(view.fields(root))[:64])
        return [Section("weights", (), root)] if known else []
    if not sections:
        return [Section("weights", (), root)] if holds_tensors(view, root) else []
    nodes = (view.node(i) for i in view.fields(root).values())
    direct = any(isinstance(n, Tensor) and n.shape and n.dtype.kind != "uint" for n in nodes)
    return [Section("weights", (), root)] if direct else []


def _knows(view: View, optimizer: int, name: str) -> bool:
    """Whether an optimizer keeps state under the name of a tensor, in its own mapping or with flat names."""
    own = view.fields(optimizer)
    flat = any(f"state.{name}.{moment}" in own for moment in ("step", "exp_avg", "momentum_buffer"))
    return "." in name and (flat or name in view.fields(own.get("state")))


def _declared(view: View, profile: Profile, confidence: Confidence) -> Iterable[Section]:
    for role in _ROLES:
        for path in getattr(profile, role, ()):
            for place, index in view.find(path):
                if index != FILE_ONLY and is_there(view, index):
                    yield Section(role, place, index, confidence)


def _covered(section: Section, declared: list[Section]) -> bool:
    """Whether the profile speaks of the same place, or of one around it that plays the same role."""
    return any(
        d.path == section.path or (d.name == section.name and section.path[: len(d.path)] == d.path) for d in declared
    )


def _shown(view: View, found: list[Found], declared: bool) -> Iterable[Section]:
    largest = max((part.tensors for part in found if part.role in ("weights", None)), default=0)
    named = declared or any(part.role == "weights" for part in found)
    halves = _halves(found)
    for part in found:
        role = part.role
        if role is None:
            if part.path[:-1] in halves:
                role = "weights"
            elif any(is_ema(step) for step in part.path):
                role = "ema"
            else:
                role = "other" if named or part.tensors < MODEL_SHARE * largest else "weights"
        yield Section(role, part.path, part.index)


def _halves(found: list[Found]) -> set[tuple[str, ...]]:
    """Places of models in parts: what stands beside an ``encoder`` below ``model`` is a part too, whatever its name."""
    names: dict[tuple[str, ...], list[str]] = {}
    for part in found:
        if part.role == "weights" and part.path[:-1] and is_weights(part.path[-2]):
            names.setdefault(part.path[:-1], []).append(part.path[-1])
    return {path for path, below in names.items() if PARTS.issuperset(below)}


def is_there(view: View, index: int) -> bool:
    """Whether a node is more than ``None``; an empty dict or list stands for a part that is switched off."""
    node = view.node(index)
    return not (isinstance(node, Value) and node.value is None)


def has_content(view: View, index: int) -> bool:
    """Whether a node holds anything: a plain value, a tensor, a container with something in it."""
    node = view.node(index)
    if isinstance(node, Mapping):
        return bool(node.keys)
    if isinstance(node, Sequence):
        return any(has_content(view, i) for i in node.items)
    return isinstance(node, (Call, Blob, Global)) or is_there(view, index)


def of_role(sections: Iterable[Section], role: SectionName) -> list[Section]:
    """The sections that play one role."""
    return [s for s in sections if s.name == role]


def weight_sections(view: View, sections: Iterable[Section]) -> list[Section]:
    """The sections of weights that hold any tensor."""
    return [s for s in of_role(sections, "weights") if holds_tensors(view, s.index)]
