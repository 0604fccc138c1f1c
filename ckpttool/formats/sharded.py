"""A checkpoint in several files and the index that says which tensor is in which: ``*.index.json``.

Source: ``save_torch_state_dict`` of huggingface_hub (``serialization/_torch.py``), which writes it, and
``get_checkpoint_shard_files`` of transformers (``utils/hub.py``), which reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from pathlib import Path

from ckpttool.errors import Unreadable, printable
from ckpttool.formats import shard_sets
from ckpttool.formats.merge import Merged, merge
from ckpttool.formats.natural import natural
from ckpttool.formats.strict_json import Parsed, parse
from ckpttool.frozen import dataclass
from ckpttool.limits import Limits
from ckpttool.model import Checkpoint, Damage, Extent, Json, Mapping, Node, Span
from ckpttool.source import open_source
from ckpttool.tree import key_text
from ckpttool.units import plural

NAME = "sharded"
SUFFIX = ".index.json"

Describe = Callable[[str], Checkpoint]


def sniff_path(path: str) -> bool:
    """Whether the path names an index of shards; its content is not looked at."""
    return path.endswith(SUFFIX) and Path(path).is_file()


def read_path(path: str, limits: Limits, describe_file: Describe) -> Checkpoint:
    """Describe all shards as one checkpoint whose root holds every tensor; total.

    What is missing or broken does not hide the rest. Raises ``Unreadable`` for the index alone.
    """
    index = read_index(path, limits)
    damage = list(index.damage)
    parts = _read_shards(path, index, describe_file, damage)
    merged = merge([(name, part) for name, part in parts.items() if not part.kind])
    damage += merged.damage
    shards = _shards_of(merged, parts)
    damage += shard_sets.judge(index.weight_map, shards, index.total_size)
    damage += shard_sets.judge_names(Path(path).parent, sorted(set(index.weight_map.values())))
    return _assemble(path, index, merged, shards, damage)


# --- the index -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Index:
    """What an index file says; ``weight_map`` holds plain file names only, ``nbytes`` is its own size."""

    weight_map: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, Json] = field(default_factory=dict)
    total_size: int | None = None
    nbytes: int = 0
    damage: tuple[Damage, ...] = ()


def read_index(path: str, limits: Limits) -> Index:
    """Read an index; what cannot be used is left out and reported. Raises ``Unreadable``."""
    source = open_source(path)
    try:
        size = source.size
        data = source.read(0, size) if size <= limits.json_bytes else None
    finally:
        source.close()
    where = Path(path).name
    if data is None:
        message = f"the index has {size} bytes, and {limits.json_bytes} are read at most"
        return Index(nbytes=size, damage=(Damage("over-limit", where, message, {"needs": size}),))
    parsed = parse(data)
    damage = _judge_json(where, parsed)
    value = parsed.value if isinstance(parsed.value, dict) else {}
    weight_map = _weight_map(where, value.get("weight_map"), damage) if not parsed.error else {}
    metadata = value.get("metadata")
    kept = metadata if isinstance(metadata, dict) else {}
    return Index(weight_map, kept, _total(kept.get("total_size")), size, tuple(damage))


def _judge_json(where: str, parsed: Parsed) -> list[Damage]:
    damage: list[Damage] = []
    if parsed.error:
        hint = "write it anew from the shards' headers, or fetch it again"
        damage.append(Damage("index-malformed", where, f"the index is {parsed.error}", hint=hint))
    elif not isinstance(parsed.value, dict) or not isinstance(parsed.value.get("weight_map"), dict):
        damage.append(Damage("index-malformed", where, "the index has no weight_map"))
    damage += [
        Damage("index-malformed", where, f"the key {printable(key)!r} stands twice", {"key": key})
        for key in parsed.duplicates[:20]
    ]
    return damage


def _weight_map(where: str, found: Json, damage: list[Damage]) -> dict[str, str]:
    if not isinstance(found, dict):
        return {}
    wrong = [key for key, name in found.items() if not isinstance(name, str)]
    if wrong:
        message = f"{plural(len(wrong), 'key')} without a file name, the first is {printable(wrong[0])!r}"
        damage.append(Damage("index-malformed", where, message, {"keys": len(wrong)}))
    named = {key: name for key, name in found.items() if isinstance(name, str)}
    outside = sorted({name for name in named.values() if not is_plain(name)})
    for name in outside[:20]:
        message = f"the index names {printable(name)[:200]!r}, which is not a file of this folder; it is not opened"
        damage.append(Damage("shard-path", where, message, {"name": name}, "take the index from a source you trust"))
    return {key: name for key, name in named.items() if is_plain(name)}


def is_plain(name: str) -> bool:
    """Whether a name is one of a file in the same folder, on any system."""
    return name not in ("", ".", "..") and not set(name) & set("/\\:\0")


def _total(value: Json) -> int | None:
    """The recorded size; some writers store a float or a string."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return int(value)
    except (ValueError, OverflowError):
        return None


# --- the shards ------------------------------------------------------------------------------------------


def _read_shards(path: str, index: Index, describe_file: Describe, damage: list[Damage]) -> dict[str, Checkpoint]:
    folder = Path(path).parent
    keys: dict[str, int] = {}
    for name in index.weight_map.values():
        keys[name] = keys.get(name, 0) + 1
    parts: dict[str, Checkpoint] = {}
    for name in sorted(keys, key=natural):
        member = folder / name
        if not member.exists():
            damage.append(_missing(name, keys[name], link=member.is_symlink()))
            continue
        try:
            part = describe_file(str(member))
        except Unreadable as error:
            damage.append(Damage("unreadable-part", name, f"the shard cannot be read: {error.why}"))
            continue
        if part.kind or part.root is None:
            damage.append(_broken(name, part, keys[name]))
        parts[name] = part
    return parts


def _missing(name: str, count: int, *, link: bool) -> Damage:
    why = "is a link that leads nowhere" if link else "is not here"
    message = f"the shard {why}; the index puts {plural(count, 'tensor')} in it"
    return Damage("missing-shard", name, message, {"tensors": count}, "fetch this file again")


def _broken(name: str, part: Checkpoint, count: int) -> Damage:
    said = part.damage[0].message if part.damage else "nothing in it can be read"
    what = said if part.kind else f"no tensor can be found in it ({said})"
    message = f"the shard of {plural(count, 'tensor')} is no checkpoint: {what}"
    hint = part.damage[0].hint if part.damage else ""
    return Damage("shard-damaged", name, message, {"tensors": count}, hint)


def _shards_of(merged: Merged, parts: dict[str, Checkpoint]) -> list[shard_sets.Shard]:
    """Each readable shard with its keys as indices of the merged arena."""
    shards = []
    names = [name for name, part in parts.items() if not part.kind]
    for name, root in zip(names, merged.roots, strict=True):
        node = None if root is None else merged.nodes[root]
        keys: dict[str, tuple[int, int]] = {}
        if isinstance(node, Mapping):
            pairs = zip(node.keys, node.values, strict=True)
            keys = {key_text(merged.nodes[k]): (k, v) for k, v in pairs}
        sizes = {key: shard_sets.size_of(merged.nodes, v) for key, (_, v) in keys.items()}
        shards.append(shard_sets.Shard(name, keys, sizes, parts[name].nbytes, root is not None))
    return shards


def _assemble(
    path: str, index: Index, merged: Merged, shards: list[shard_sets.Shard], damage: list[Damage]
) -> Checkpoint:
    """The root that holds each key once: where the index puts it, else in the first shard that has it."""
    chosen: dict[str, tuple[int, int]] = {}
    for shard in shards:
        for key, place in shard.keys.items():
            if key not in chosen or index.weight_map.get(key) == shard.name:
                chosen[key] = place
    root = Mapping("dict", tuple(k for k, _ in chosen.values()), tuple(v for _, v in chosen.values()))
    nodes: tuple[Node, ...] = (*merged.nodes, root)
    described: dict[str, Json] = {
        "index": Path(path).name,
        "total_size": index.total_size,
        "index_metadata": index.metadata,
        "shards": merged.metadata,
    }
    return Checkpoint(
        path,
        NAME,
        nodes,
        len(nodes) - 1,
        merged.storages,
        (Extent("index", Span(path, 0, index.nbytes)), *merged.extents),
        merged.globals,
        tuple(damage),
        (path, *merged.files),
        index.nbytes + merged.nbytes,
        described,
    )
