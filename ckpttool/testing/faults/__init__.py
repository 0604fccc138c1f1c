"""Named faults: every way a checkpoint is known to break, and the rule that has to say so.

A fault damages the bytes of a sound file (``Fault``) or a folder of files (``FolderFault``). It never
touches a disk. ``FAULTS`` has them all by name; ``faults_of`` selects by format or rule.
"""

from __future__ import annotations

from ckpttool.testing.faults import (
    archive,
    consistency,
    containers,
    content,
    distributed,
    folders,
    geometry,
    legacy,
    pickles,
    safetensors,
    seals,
    spans,
)
from ckpttool.testing.faults.registry import FAULTS, Fault, FolderFault, Inapplicable, faults_of

__all__ = [
    "FAULTS",
    "Fault",
    "FolderFault",
    "Inapplicable",
    "archive",
    "consistency",
    "containers",
    "content",
    "distributed",
    "faults_of",
    "folders",
    "geometry",
    "legacy",
    "pickles",
    "safetensors",
    "seals",
    "spans",
]
