"""Where a checkpoint stands in a chain: what it records, in its own tree or in its note of migrations. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ckpttool.draft import Draft
from ckpttool.editing import Editor
from ckpttool.errors import printable
from ckpttool.frozen import dataclass
from ckpttool.migration.chains import Chain, ChainError, Link, shown
from ckpttool.model import Checkpoint, Entry, Mapping, Scalar, Sequence as SequenceNode, Value
from ckpttool.stamps import Stamp, stamps_of
from ckpttool.tree import children


@dataclass(frozen=True, slots=True)
class Standing:
    """The version of a checkpoint, empty where nothing tells it, and what told it.

    ``recorded`` is what its key says and ``noted`` what its note says; each empty where there is none.
    """

    version: str
    told_by: str
    recorded: str = ""
    noted: str = ""

    @property
    def agrees(self) -> bool:
        return not (self.recorded and self.noted) or self.recorded == self.noted


def standing(checkpoint: Checkpoint, chain: Chain | None, told: str = "") -> Standing:
    """Where a checkpoint stands. ``told`` is what a user said, which counts where the checkpoint tells nothing.

    The key of the chain's settings goes first, since training writes it anew; then the note; then what is told;
    then what the settings say of checkpoints that tell none.
    """
    noted = next((stamp.version for stamp in reversed(stamps_of(checkpoint)) if stamp.version), "")
    recorded = "" if chain is None or not chain.key else recorded_version(checkpoint, chain.key)
    told_by = {
        f"its value '{'' if chain is None else printable(chain.key)}'": recorded,
        "its note of migrations": noted,
        "--from-version": told,
        "the chain's settings (unstamped)": "" if chain is None else chain.unstamped,
    }
    for words, version in told_by.items():
        if version:
            return Standing(version, words, recorded, noted)
    return Standing("", "", recorded, noted)


def recorded_version(checkpoint: Checkpoint, key: str) -> str:
    """The plain value at a key as a version; empty where there is none."""
    entry = entry_at(checkpoint, key)
    value = entry.node.value if entry is not None and isinstance(entry.node, Value) else None
    return str(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else ""


def entry_at(checkpoint: Checkpoint, key: str) -> Entry | None:
    """The plain value at a key; None where there is none."""
    found = (one for one in checkpoint.entries() if isinstance(one.node, Value) and one.key == key)
    return next(found, None)


def changed_since(chain: Chain, stamps: Sequence[Stamp]) -> list[tuple[Link, Stamp]]:
    """Steps that were carried out with another content than their files have now."""
    found = []
    for stamp in stamps:
        link = chain.link(stamp.from_, stamp.to) if stamp.version and not stamp.back else None
        if link is not None and link.digest != stamp.digest:
            found.append((link, stamp))
    return found


# --- writing -------------------------------------------------------------------------------------------------


def with_version(draft: Draft, key: str, version: str) -> Draft:
    """The draft whose value at a key is this version, a number where it was one; as it is where nothing is there."""
    entry = entry_at(draft.checkpoint, key)
    if entry is None or not isinstance(entry.node, Value):
        return draft
    numbered = isinstance(entry.node.value, int) and version.isdecimal()
    return with_value(draft, key, int(version) if numbered else version)


def with_value(draft: Draft, key: str, value: Scalar) -> Draft:
    """The draft with another plain value at a key. Raises ``ChainError`` where none stands there in a dict or list."""
    checkpoint = draft.checkpoint
    entry = entry_at(checkpoint, key)
    home = None if entry is None else _home(checkpoint, entry)
    if home is None or isinstance(value, (complex, bytes)):
        raise ChainError(
            f"{printable(checkpoint.source)} – {shown(key)} is no plain value in a dict or a list, so it cannot be set"
        )
    at, place = home
    editor = Editor(checkpoint, draft.contents)
    node = checkpoint.nodes[at]
    fresh = editor.value(value)
    if isinstance(node, Mapping):
        values = (*node.values[:place], fresh, *node.values[place + 1 :])
        editor.replace(at, replace(node, values=values))
    elif isinstance(node, SequenceNode):
        editor.replace(at, replace(node, items=(*node.items[:place], fresh, *node.items[place + 1 :])))
    return editor.finish()


def _home(checkpoint: Checkpoint, entry: Entry) -> tuple[int, int] | None:
    """The container that holds a value, and its place in it; None where it is neither a dict nor a list."""
    index = checkpoint.root
    for depth in range(len(entry.path)):
        if index is None:
            return None
        below = children(checkpoint.nodes, checkpoint.nodes[index])
        named = [place for place, (step, _) in enumerate(below) if step == (entry.path[depth],)]
        if not named:
            return None
        if depth == len(entry.path) - 1:
            held = isinstance(checkpoint.nodes[index], (Mapping, SequenceNode))
            return (index, named[-1]) if held else None
        index = below[named[-1]][1]
    return None
