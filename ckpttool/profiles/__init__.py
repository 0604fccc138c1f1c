"""Who wrote a checkpoint, which part of its tree plays which role, and what a resume finds in it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ckpttool.layout import Confidence, Layout, Optimizer, Section, nested
from ckpttool.model import Checkpoint, Tensor
from ckpttool.profiles.alignment import align
from ckpttool.profiles.discovery import Found, discover
from ckpttool.profiles.generators import generators_below
from ckpttool.profiles.optimizers import Shape, optimizers_at, read_optimizer
from ckpttool.profiles.parameters import parameters_of
from ckpttool.profiles.readiness import Evidence, judge
from ckpttool.profiles.sections import of_role, sections_of, weight_sections
from ckpttool.profiles.view import Path, View
from ckpttool.profiles.writers import notes_of, profile_of, writer_of

__all__ = ["lay_out"]


def lay_out(checkpoint: Checkpoint, order: Sequence[str] = ()) -> Layout:
    """The roles found in a checkpoint: sections, optimizers, writer, readiness. Total, for any tree.

    ``order`` are the keys of a model's parameters in its own order, for files that do not keep it.
    Looks at descriptors only; the cost is linear in the arena (100,000 tensors: a fraction of a second).
    """
    view = View(checkpoint)
    found = discover(view)
    profile = profile_of(view)
    writer = None if profile is None else writer_of(view, profile)
    sure: Confidence = "inferred" if writer is None else writer.confidence
    sections = sections_of(view, profile, found, sure)
    weights = weight_sections(view, sections)
    models = [(s, _own(s, sections, parameters_of(view, s.index))) for s in weights]
    wholes = [parameters_of(view, s.index) for s in nested(checkpoint, weights) if s not in weights]
    ordered = not any(_is_sorted(checkpoint, s) for s, _ in models)
    if order and not ordered:
        models = [(s, _in_order(model, order)) for s, model in models]
        ordered = True
    optimizers = _optimizers(view, sections, found, [model for _, model in models], wholes, ordered)
    rng = _generators(view, sections)
    readiness = judge(Evidence(view, profile, sections, optimizers, rng))
    notes = () if profile is None else notes_of(view, profile)
    main = max((*wholes, *(model for _, model in models)), key=len, default=())
    return Layout(sections, optimizers, writer, readiness, main, ordered, rng, notes)


def _in_order(model: tuple[tuple[str, int], ...], order: Sequence[str]) -> tuple[tuple[str, int], ...]:
    places = {key: place for place, key in enumerate(order)}
    return tuple(sorted((pair for pair in model if pair[0] in places), key=lambda pair: places[pair[0]]))


def _own(
    section: Section, sections: tuple[Section, ...], parameters: tuple[tuple[str, int], ...]
) -> tuple[tuple[str, int], ...]:
    """A section's parameters; where it is the whole tree, those of parts with other roles are not among them."""
    others = tuple(f"{s.key}." for s in sections if s.path and s.name != section.name)
    if section.path or not others:
        return parameters
    return tuple((key, index) for key, index in parameters if not key.startswith(others))


def _is_sorted(checkpoint: Checkpoint, section: Section) -> bool:
    """safetensors sorts tensors by type and name, so their order says nothing about the model's."""
    name = section.path[0] if section.path else ""
    return checkpoint.format == "safetensors" or ".safetensors" in name


def _optimizers(
    view: View,
    sections: tuple[Section, ...],
    found: list[Found],
    models: list[tuple[tuple[str, int], ...]],
    wholes: list[tuple[tuple[str, int], ...]],
    ordered: bool,
) -> tuple[Optimizer, ...]:
    places: dict[Path, int] = {}
    for section in of_role(sections, "optimizer"):
        places.update(optimizers_at(view, section.path, section.index))
    for part in found:
        if part.role == "optimizer":
            places.update(optimizers_at(view, part.path, part.index))
    plain, joined = (_shaped(view, some) for some in (models, wholes))
    return tuple(align(read_optimizer(view, path, i), plain, ordered, joined) for path, i in places.items())


def _shaped(view: View, models: list[tuple[tuple[str, int], ...]]) -> list[list[tuple[str, int, Shape]]]:
    return [[(key, i, t.shape) for key, i in model if isinstance(t := view.node(i), Tensor)] for model in models]


def _generators(view: View, sections: tuple[Section, ...]) -> tuple[tuple[str, int], ...]:
    found: dict[int, str] = {}
    for section in of_role(sections, "rng"):
        name = section.path[-1] if section.path else ""
        found.update((i, kind) for kind, i in generators_below(view, section.index, name))
    return tuple((kind, i) for i, kind in found.items())
