"""The nouns of repairs: what is asked, what each storage's bytes are worth, and what one repair makes of a draft."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Literal, TypeAlias

from ckpttool.draft import Draft
from ckpttool.frozen import dataclass
from ckpttool.layout import Layout
from ckpttool.measures import Measures
from ckpttool.model import Checkpoint, Storage
from ckpttool.plan import Step

State: TypeAlias = Literal["proved", "unprovable", "unproved", "damaged", "partial", "lost"]
"""What bytes are worth, best first.

``proved``: a checksum in the file agrees, or the digest of a manifest. ``unprovable``: whole, and the format has no
checksums. ``unproved``: whole, and the checksum that the format has for it is gone. ``damaged``: whole, and the
checksum disagrees. ``partial``: some bytes are missing. ``lost``: none are there.
"""

Equal: TypeAlias = "Callable[[Draft, Sequence[int]], Sequence[Sequence[int]]]"
"""Which of some storages of a draft hold the same bytes, in groups. Whoever calls a repair reads them."""

Filling: TypeAlias = Literal["", "zero", "nan", "donor"]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the caller asks for. Damage is salvaged in any case; every other repair looks here whether it is wanted.

    ``include_unproved`` keeps whole tensors that nothing proves, or that their checksum contradicts. ``fill``
    completes what is partly or wholly lost. ``sections`` are the parts to keep, all by default.
    """

    include_unproved: bool = False
    fill: Filling = ""
    fix_bit: bool = False
    sanitize: bool = False
    extract_weights: bool = False
    compact: bool = False
    sections: tuple[str, ...] = ()
    recrc: bool = False
    repack: bool = False
    reindex: bool = False
    dedupe: bool = False


@dataclass(frozen=True, slots=True)
class Proof:
    """What one storage's bytes are worth and why. ``kept`` counts the bytes from its start on that are there.

    ``by`` says what proves them where that is not the file's own checksum: ``manifest``.
    """

    state: State
    reason: str = ""
    kept: int = 0
    by: str = ""


@dataclass(frozen=True, slots=True)
class Loss:
    """A tensor that the output lacks or has completed: its key, why, and how many elements are gone.

    ``missing`` is None where it is not known which elements are meant. ``filled`` says with what it was completed.
    """

    key: str
    reason: str
    numel: int
    missing: int | None = None
    filled: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """What a repair looks at: the draft as the repairs before left it, its roles, and what was measured.

    ``measures`` are of the checkpoint as it was read (extents by name). ``proofs`` hold every storage that was read;
    storages that repairs add have none. ``donor`` is another checkpoint of the same run. ``unsound`` are tensors whose
    content makes no tensor (indices out of bounds), by key, and why. ``equal`` tells storages of equal bytes.
    """

    draft: Draft
    layout: Layout
    measures: Measures
    proofs: Mapping[Storage, Proof]
    wishes: Wishes
    donor: Checkpoint | None = None
    unsound: Mapping[str, str] = field(default_factory=dict)
    equal: Equal | None = None


@dataclass(frozen=True, slots=True)
class Mended:
    """What one repair came to: a draft, its steps with reasons, what is lost by it, and what to tell.

    A repair that finds nothing to do has no steps. Losses of what the damage took are ``lost``; what the
    caller asked to leave out is a step alone.
    """

    draft: Draft
    steps: tuple[Step, ...] = ()
    lost: tuple[Loss, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """All repairs together. ``kept`` are the keys of the tensors that the output holds, with their proofs."""

    draft: Draft
    steps: tuple[Step, ...]
    lost: tuple[Loss, ...]
    notes: tuple[str, ...]
    kept: Mapping[str, Proof] = field(default_factory=dict, hash=False)
