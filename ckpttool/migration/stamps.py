"""What a checkpoint records of the migrations that it went through, so that none is done twice. Pure.

The note stands in a record of its own in torch's archives (``.data/ckpttool_migrations``, which torch passes over)
and in ``__metadata__`` of safetensors files. torch's older formats and folders have no place for one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from ckpttool.draft import Draft
from ckpttool.model import Checkpoint, Json

ROOMY = ("torch-zip", "safetensors")
"""Formats that have a place for the note."""

KEY = "ckpttool.migrations"


@dataclass(frozen=True, slots=True)
class Stamp:
    """One migration: a digest of its rules and settings, which way it went, and what it was about."""

    digest: str
    back: bool = False
    about: str = ""


def digest_of(rules: str, settings: Mapping[str, object]) -> str:
    """The name under which rules with their settings are remembered: equal texts have equal ones."""
    text = json.dumps([rules, sorted((key, repr(value)) for key, value in settings.items())])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def stamps_of(checkpoint: Checkpoint) -> tuple[Stamp, ...]:
    """The migrations that a checkpoint records, oldest first; none where it has no note or an unreadable one."""
    text = checkpoint.metadata.get("migrations")
    entries = checkpoint.metadata.get("metadata")
    if text is None and isinstance(entries, dict):
        text = entries.get(KEY)
    try:
        listed = json.loads(text) if isinstance(text, str) else []
        return tuple(
            Stamp(str(one["digest"]), bool(one["back"]), str(one.get("about", ""))) for one in listed
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return ()


def stamped(known: Sequence[Stamp], new: Stamp) -> tuple[Stamp, ...]:
    """The record after one more migration; going back takes the one that is undone off."""
    if known and known[-1].digest == new.digest and known[-1].back != new.back:
        return tuple(known[:-1])
    return (*known, new)


def with_stamps(draft: Draft, stamps: Sequence[Stamp]) -> Draft:
    """The draft with this record, where its format will have a place for it."""
    text = json.dumps([asdict(one) for one in stamps], separators=(",", ":")) if stamps else ""
    metadata: dict[str, Json] = {**draft.checkpoint.metadata, "migrations": text}
    return replace(draft, checkpoint=replace(draft.checkpoint, metadata=metadata))
