"""What a checkpoint records of the migrations and repairs that it went through, so that none is done twice. Pure.

The note stands in a record of its own in torch's archives (``.data/ckpttool_migrations``, which torch passes over)
in ``__metadata__`` of safetensors files, and in the ``metadata`` of an index of shards; of a folder of files that are
one checkpoint, in one of its files. torch's older formats have no place for one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from ckpttool.draft import Draft
from ckpttool.frozen import dataclass
from ckpttool.model import Checkpoint, Json

ROOMY = ("torch-zip", "safetensors", "sharded", "sharded-bin", "directory", "folder")
"""Formats that have a place for the note."""

KEY = "ckpttool.migrations"

Setting: TypeAlias = "int | float | str"
"""A value that a rule file was given."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """One migration: a digest of its rules and settings, which way it went, and what it was about.

    A step of a chain has a name (``03-heads.yaml``) and the versions that it leads ``from_`` and ``to``, in the
    direction in which it was written; ``when`` it was carried out (UTC, ISO 8601), by which version of this ``tool``,
    with which ``given`` values. A step's digest is that of its file alone.
    """

    digest: str
    back: bool = False
    about: str = ""
    step: str = ""
    from_: str = ""
    to: str = ""
    when: str = ""
    tool: str = ""
    given: tuple[tuple[str, Setting], ...] = ()

    @property
    def version(self) -> str:
        """The version that a step of a chain has led to; empty for other migrations."""
        return self.from_ if self.back else self.to


def digest_of(rules: str, settings: Mapping[str, object]) -> str:
    """The name under which rules with their settings are remembered: equal texts have equal ones."""
    text = json.dumps([rules, sorted((key, repr(value)) for key, value in settings.items())])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def stamps_of(checkpoint: Checkpoint) -> tuple[Stamp, ...]:
    """The migrations that a checkpoint records, oldest first; none where it has no note or an unreadable one."""
    try:
        return tuple(_read(one) for one in json.loads(note_of(checkpoint.metadata) or "[]"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return ()


def note_of(metadata: Mapping[str, Json]) -> str:
    """The note as it is written, wherever a format keeps it; empty where there is none."""
    said = metadata.get("migrations")
    if isinstance(said, str):
        return said
    for place in ("metadata", "index_metadata"):
        entries = metadata.get(place)
        found = entries.get(KEY) if isinstance(entries, dict) else None
        if isinstance(found, str):
            return found
    files = metadata.get("files")
    listed = files.values() if isinstance(files, dict) else ()
    return next((found for one in listed if isinstance(one, dict) and (found := note_of(one))), "")


def _read(one: dict[str, Json]) -> Stamp:
    given = one.get("given") or {}
    if not isinstance(given, dict):
        raise TypeError
    about, step, from_, to, when, tool = (str(one.get(key, "")) for key in ("about", *_TEXTS))
    values = tuple((name, value) for name, value in given.items() if isinstance(value, (int, float, str)))
    return Stamp(str(one["digest"]), bool(one["back"]), about, step, from_, to, when, tool, values)


_TEXTS = ("step", "from", "to", "when", "tool")
"""What a step of a chain notes beside, by its name in the note."""


def _note(stamp: Stamp) -> dict[str, Json]:
    texts = zip(_TEXTS, (stamp.step, stamp.from_, stamp.to, stamp.when, stamp.tool), strict=True)
    found: dict[str, Json] = {"digest": stamp.digest, "back": stamp.back, "about": stamp.about}
    return {**found, **{key: text for key, text in texts if text}, **_given(stamp)}


def _given(stamp: Stamp) -> dict[str, Json]:
    return {"given": dict(stamp.given)} if stamp.given else {}


def stamped(known: Sequence[Stamp], new: Stamp) -> tuple[Stamp, ...]:
    """The record after one more migration; going back takes the one that is undone off."""
    if known and known[-1].digest == new.digest and known[-1].back != new.back:
        return tuple(known[:-1])
    return (*known, new)


def with_stamps(draft: Draft, stamps: Sequence[Stamp]) -> Draft:
    """The draft with this record, where its format will have a place for it."""
    text = json.dumps([_note(one) for one in stamps], separators=(",", ":")) if stamps else ""
    metadata: dict[str, Json] = {**draft.checkpoint.metadata, "migrations": text}
    return replace(draft, checkpoint=replace(draft.checkpoint, metadata=metadata))
