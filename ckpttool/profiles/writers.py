"""Who wrote a checkpoint: the first profile whose keys are all there."""

from __future__ import annotations

from ckpttool.layout import Confidence, Writer
from ckpttool.model import Scalar
from ckpttool.profiles.frameworks import PROFILES
from ckpttool.profiles.profile import Note, Profile
from ckpttool.profiles.view import View


def profile_of(view: View) -> Profile | None:
    """The profile that fits this tree; None where no framework is recognised."""
    return next((p for p in PROFILES if _fits(view, p)), None)


def _fits(view: View, profile: Profile) -> bool:
    return all(view.has(path) for path in profile.requires) and not any(view.has(p) for p in profile.forbids)


def writer_of(view: View, profile: Profile) -> Writer:
    """The framework, its version where the file records it, and the keys that gave it away."""
    sure = [path for path in profile.confirms if view.has(path)]
    clues = tuple(dict.fromkeys(_shown(view, path) for path in (*sure, *profile.requires)))
    confidence: Confidence = "confirmed" if sure else "inferred"
    return Writer(profile.framework, _version(view, profile), confidence, clues, profile.never)


def _shown(view: View, path: str) -> str:
    return ".".join(view.find(path)[0][0])


def _version(view: View, profile: Profile) -> str | None:
    values = (view.plain(path) for path in profile.version)
    return next((str(v) for v in values if isinstance(v, (str, int, float)) and not isinstance(v, bool)), None)


def notes_of(view: View, profile: Profile) -> tuple[str, ...]:
    """What the framework's habits mean for this very file."""
    return tuple(note.text for note in profile.notes if _holds(view, note))


def _holds(view: View, note: Note) -> bool:
    if not all(view.has(p) for p in note.has) or any(view.has(p) for p in note.lacks):
        return False
    return all(_same(view.plain(path), value) for path, value in note.equals)


def _same(left: Scalar, right: Scalar) -> bool:
    return type(left) is type(right) and left == right


def next_of(view: View, profile: Profile | None) -> str:
    """Where training continues, in words; empty if no profile says how the counter is meant."""
    for step in () if profile is None else profile.next:
        value = view.plain(step.path)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value + step.offset >= 0:
            return (
                f"{step.unit} {value + step.offset:g}"
                if isinstance(value, float)
                else f"{step.unit} {value + step.offset}"
            )
    return ""
