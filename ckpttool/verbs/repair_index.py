"""``repair --reindex``: the index of a set of shards, made anew from what the shards say themselves."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from ckpttool.errors import CkpttoolError, ExitCode, Unreadable, UsageError, printable
from ckpttool.formats import describe
from ckpttool.formats.natural import natural
from ckpttool.formats.sharded import SUFFIX, Index, read_index
from ckpttool.frozen import dataclass
from ckpttool.limits import DEFAULT, Limits
from ckpttool.model import Checkpoint, Json, Tensor
from ckpttool.report import Block, Facts, Report, Table, Text
from ckpttool.units import plural, size
from ckpttool.writing.durable import replacing

_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.(safetensors|bin)", re.DOTALL | re.ASCII)


@dataclass(frozen=True, slots=True)
class _Family:
    """The shards of one set: what their names begin and end with, and how many they say there are."""

    stem: str
    suffix: str
    count: int
    names: tuple[str, ...]

    @property
    def index(self) -> str:
        return f"{self.stem}.{self.suffix}{SUFFIX}"

    @property
    def missing(self) -> tuple[str, ...]:
        all_of_them = (
            f"{self.stem}-{number:05d}-of-{self.count:05d}.{self.suffix}" for number in range(1, self.count + 1)
        )
        numbered = {int(found[2]) for name in self.names if (found := _SHARD.fullmatch(name))}
        # Some writers count from 0.
        return () if 0 in numbered else tuple(name for name in all_of_them if name not in self.names)


def reindex(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    force: bool = False,
    limits: Limits = DEFAULT,
) -> Report:
    """Write the index of the shards in a folder from their headers; ``path`` is the folder or an index in it.

    ``output`` is the index to write, or a folder, where it gets its usual name; without it the plan is all. An index
    that says the same already is left as it is. What an old index says beside sizes is carried over. Missing and
    unreadable shards are losses. Raises ``CkpttoolError`` where there are no shards, or a key stands in two of them
    and no index says which counts. Reads headers only.
    """
    folder, named = _places(path)
    family = _family(folder, named)
    old = _old(folder / (named or family.index), limits)
    parts, broken = _read(folder, family, limits)
    table = _table(parts, old)
    text = _text(parts, table, old)
    lost = [*((name, "the shard is not here") for name in family.missing), *broken]
    same = old is not None and old.weight_map == table and _same(folder / (named or family.index), text)
    target = None if output is None or same else _target(output, family)
    if target is not None:
        with replacing(target, overwrite=force, expected=len(text)) as out:
            out.write(text)
    data: dict[str, Json] = {
        "path": os.fspath(path),
        "sound": same and not lost,
        "recovered": [{"key": key, "proof": "unprovable"} for key in table],
        "lost": [{"key": name, "reason": why} for name, why in lost],
        "plan": [{"op": "reindex", "from": [], "to": [], "reason": _reason(old, table, same), "lossy": None}],
        "damage": [],
        "notes": [],
        "written": None if target is None else os.fspath(target),
        "files": [] if target is None else [os.fspath(target)],
        "bytes": 0 if target is None else len(text),
    }
    code = ExitCode.FINDINGS if lost else ExitCode.OK
    return Report("repair", data, tuple(_blocks(data, family, lost, target)), code)


def _places(path: str | os.PathLike[str]) -> tuple[Path, str]:
    """The folder of the shards, and the index's name where one is given."""
    where = Path(path)
    if where.name.endswith(SUFFIX):
        return where.parent, where.name
    if not where.is_dir():
        raise UsageError(f"{printable(str(where))} – --reindex takes a folder of shards, or the index in it")
    return where, ""


def _family(folder: Path, named: str) -> _Family:
    try:
        found = [match for one in folder.iterdir() if (match := _SHARD.fullmatch(one.name))]
    except OSError as error:
        raise Unreadable(str(folder), error.strerror or str(error)) from error
    families: dict[tuple[str, str, int], list[str]] = {}
    for match in found:
        families.setdefault((match[1], match[4], int(match[3])), []).append(match[0])
    wanted = {key: names for key, names in families.items() if not named or f"{key[0]}.{key[1]}{SUFFIX}" == named}
    where = printable(str(folder))
    if not wanted:
        raise CkpttoolError(f"{where} – holds no shards (NAME-00001-of-0000N.safetensors or .bin)")
    if len(wanted) > 1:
        said = ", ".join(sorted(f"{stem}…-of-{count:05d}.{suffix}" for stem, suffix, count in wanted))
        raise UsageError(f"{where} – holds several sets of shards: {printable(said)}; name the index of one")
    (stem, suffix, count), names = next(iter(wanted.items()))
    return _Family(stem, suffix, count, tuple(sorted(names, key=natural)))


def _old(path: Path, limits: Limits) -> Index | None:
    return read_index(str(path), limits) if path.is_file() else None


def _read(folder: Path, family: _Family, limits: Limits) -> tuple[dict[str, Checkpoint], list[tuple[str, str]]]:
    """Each shard that can be described, and why the others cannot."""
    parts: dict[str, Checkpoint] = {}
    broken: list[tuple[str, str]] = []
    for name in family.names:
        try:
            part = describe(folder / name, limits)
        except Unreadable as error:
            broken.append((name, f"the shard cannot be read: {error.why}"))
            continue
        if part.kind or part.root is None:
            said = part.kind or (part.damage[0].message if part.damage else "there is no tree in it")
            broken.append((name, f"no tensor can be found in it: {said}"))
            continue
        parts[name] = part
    return parts, broken


def _table(parts: dict[str, Checkpoint], old: Index | None) -> dict[str, str]:
    """Which file holds each key. Raises ``CkpttoolError`` where that cannot be told."""
    chosen: dict[str, str] = {}
    for name, part in parts.items():
        for entry, _ in part.tensors():
            if chosen.setdefault(entry.key, name) == name:
                continue
            said = None if old is None else old.weight_map.get(entry.key)
            if said not in (chosen[entry.key], name):
                raise CkpttoolError(
                    f"{printable(part.source)} – '{printable(entry.key)}' stands in {printable(chosen[entry.key])} "
                    "too, and no index says which of the two counts; move the wrong shard away"
                )
            chosen[entry.key] = said or name
    return chosen


def _text(parts: dict[str, Checkpoint], table: dict[str, str], old: Index | None) -> bytes:
    total = 0
    for name, part in parts.items():
        seen: set[int] = set()
        for entry, tensor in part.tensors():
            if table[entry.key] == name:
                total += _bytes_of(part, tensor, seen)
    metadata = {**({} if old is None else old.metadata), "total_size": total}
    return json.dumps({"metadata": metadata, "weight_map": table}, indent=2).encode()


def _bytes_of(part: Checkpoint, tensor: Tensor, seen: set[int]) -> int:
    """A tensor's bytes; in a pickle those of its storage, once for all that share it."""
    if part.format == "safetensors" or tensor.storage is None:
        return tensor.nbytes
    if tensor.storage in seen:
        return 0
    seen.add(tensor.storage)
    return part.storages[tensor.storage].nbytes


def _same(path: Path, text: bytes) -> bool:
    """Whether a file says what the text says."""
    try:
        found: object = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return bool(found == json.loads(text))


def _target(output: str | os.PathLike[str], family: _Family) -> Path:
    target = Path(output)
    if target.is_dir():
        return target / family.index
    if not target.name.endswith(SUFFIX):
        raise UsageError(f"{printable(str(target))} – an index is called NAME{SUFFIX}; or name its folder")
    return target


# --- what is told ----------------------------------------------------------------------------------------------


def _reason(old: Index | None, table: dict[str, str], same: bool) -> str:
    if same:
        return "the index says what the shards hold"
    shards = len(set(table.values()))
    made = f"{plural(len(table), 'key')} of {plural(shards, 'shard')}"
    if old is None:
        return f"there is no index: made of {made}"
    wrong = sum(old.weight_map.get(key) != name for key, name in table.items())
    gone = sum(key not in table for key in old.weight_map)
    return f"the index is wrong about {plural(wrong + gone, 'key')}: made anew of {made}"


def _blocks(
    data: dict[str, Json], family: _Family, lost: list[tuple[str, str]], target: Path | None
) -> Iterator[Block]:
    yield Text(printable(str(data["path"])), "title")
    plan = data["plan"]
    reason = plan[0].get("reason") if isinstance(plan, list) and isinstance(plan[0], dict) else ""
    yield Text(printable(str(reason)), "warning" if lost else "good")
    if lost:
        rows = tuple((printable(name), printable(why)) for name, why in lost)
        yield Table(("shard", "why"), rows, "ll", f"not in the index: {plural(len(lost), 'shard')}")
    if target is not None:
        yield Facts((("written", f"{printable(str(target))}, {size(int(str(data['bytes'])))}"),))
    elif not data["sound"]:
        yield Text(f"this is the plan; -o FOLDER writes {printable(family.index)} there", "dim")
