"""``seal``: write down what a checkpoint's content is, so that any later change of it shows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from datetime import UTC, datetime
from pathlib import Path

from ckpttool.errors import UsageError, printable
from ckpttool.formats import describe
from ckpttool.limits import DEFAULT, Limits
from ckpttool.manifest import ALGORITHMS, SIDECAR, FileSeal, Manifest, block_size, sidecar, to_json
from ckpttool.model import Checkpoint
from ckpttool.report import Facts, Report, Text
from ckpttool.units import plural, size

Progress = Callable[[int, int], None]


def seal(
    path: str | os.PathLike[str],
    *,
    sha256: bool = False,
    inside: bool = False,
    output: str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
    limits: Limits = DEFAULT,
) -> Report:
    """Write a manifest of a checkpoint's content beside it or inside, which ``verify`` then checks.

    A file's manifest is ``FILE.manifest.json``, a folder's ``ckpttool.manifest.json`` inside it, or ``output``.
    XXH3-128 of every block and of every tensor shows damage; ``sha256`` adds the SHA-256 of every file, which also
    shows what was changed with care. The checkpoint itself is not touched, unless the manifest goes ``inside``: then
    the file is written again with it, to ``output`` or in its own place, every other byte of content as it was. Such
    a manifest covers the tensors and the tree. Reads the bytes once, in parallel; ``sha256`` and ``inside`` once more.

    Raises ``Unreadable``, ``WriteFailed``, and ``UsageError`` for what is damaged or no checkpoint: a seal would call
    it sound; and for formats that have no room inside.
    """
    from ckpttool.writing.durable import replacing

    name = os.fspath(path)
    checkpoint = sound(name, limits)
    if inside:
        return _seal_inside(checkpoint, name, sha256, output, executor, progress)
    manifest = manifest_of(checkpoint, name, sha256=sha256, executor=executor, progress=progress)
    place = Path(output) if output is not None else sidecar(name)
    with replacing(place) as file:
        file.write(to_json(manifest).encode())
    return _report(name, str(place), manifest)


def _seal_inside(
    checkpoint: Checkpoint,
    name: str,
    sha256: bool,
    output: str | os.PathLike[str] | None,
    executor: Executor | None,
    progress: Progress | None,
) -> Report:
    from ckpttool.measure.one_pass import sealed_at_once
    from ckpttool.verbs.sealed import tree_seal
    from ckpttool.writing.sealing import write_inside

    if sha256:
        raise UsageError("a file's SHA-256 cannot stand inside it: leave out --sha256 or --inside")
    if checkpoint.format not in ("torch-zip", "safetensors"):
        kind = checkpoint.format
        why = f"a {kind} checkpoint has no room for a manifest; without --inside it goes beside"
        raise UsageError(f"{printable(name)} – {why}")
    _, tensors = sealed_at_once(checkpoint, [(checkpoint.source, 1 << 20)], executor=executor)
    manifest = _manifest((tree_seal(checkpoint),), tensors)
    place = name if output is None else os.fspath(output)
    write_inside(checkpoint, to_json(manifest, compact=True), place, progress)
    return _report(place, f"{place} (inside)", manifest, Path(place).stat().st_size)


def sound(name: str, limits: Limits) -> Checkpoint:
    """A checkpoint in which reading met no damage; raises ``UsageError`` for any other."""
    from ckpttool.checks import rules

    if "://" in name:
        raise UsageError(f"{printable(name)} – a manifest is written beside a local checkpoint only")
    checkpoint = describe(name, limits, audit=True)
    if checkpoint.kind:
        raise UsageError(f"{printable(name)} – not a checkpoint: {checkpoint.kind}")
    for damage in checkpoint.damage:
        rule = rules().get(damage.rule)
        if rule is not None and rule.severity == "error" and rule.axis in ("integrity", "hostile"):
            raise UsageError(
                f"{printable(name)} – damaged: {damage.message}; see `ckpttool verify`, then seal what was repaired"
            )
    return checkpoint


def manifest_of(
    checkpoint: Checkpoint,
    path: str,
    *,
    sha256: bool = False,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """The manifest of a checkpoint as its files are now; names are relative to its folder."""
    from ckpttool.measure import seals
    from ckpttool.measure.one_pass import sealed_at_once

    base, names = files_of(checkpoint, path)
    facts = {name: (base / name).stat() for name in names}
    done = _Counter(progress, sum(fact.st_size for fact in facts.values()))
    # A file of the checkpoint goes by the name that the checkpoint has for it: so its tensors are found in it.
    own = {os.path.realpath(file): file for file in checkpoint.files or (checkpoint.source,)}
    places = {name: own.get(os.path.realpath(base / name), str(base / name)) for name in names}
    files = [(places[name], block_size(facts[name].st_size)) for name in names]
    blocks, tensors = sealed_at_once(checkpoint, files, executor=executor, progress=done)
    sealed = tuple(
        FileSeal(
            name,
            facts[name].st_size,
            facts[name].st_mtime_ns,
            block,
            blocks[place],
            seals.sha256(place) if sha256 else "",
        )
        for name, (place, block) in zip(names, files, strict=True)
    )
    changed = next((f for f in sealed if (base / f.name).stat().st_mtime_ns != f.mtime_ns), None)
    if changed is not None:
        raise UsageError(f"{printable(changed.name)} – written to while it was sealed; wait until its writer is done")
    return _manifest(sealed, tensors)


def _manifest(files: tuple[FileSeal, ...], tensors: tuple[object, ...]) -> Manifest:
    from ckpttool.version import __version__

    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Manifest(files, tensors, f"ckpttool {__version__}", now)  # type: ignore[arg-type]


class _Counter:
    """Adds what each file reports up to one total."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def __call__(self, nbytes: int) -> None:
        self.done = min(self.total, self.done + nbytes)
        if self.progress is not None:
            self.progress(self.done, self.total)


def files_of(checkpoint: Checkpoint, path: str) -> tuple[Path, tuple[str, ...]]:
    """The folder that names are relative to, and the files that belong to a checkpoint, its manifest left out."""
    place = Path(path)
    base = place if place.is_dir() else place.parent
    known = checkpoint.files or (checkpoint.source,)
    names = {os.path.relpath(file, base) for file in known}
    if place.is_dir():
        names.update(files_below(place))
    return base, tuple(sorted(name for name in names if not name.endswith(SIDECAR)))


def files_below(folder: Path) -> Iterator[str]:
    """The regular files in a folder, hidden and temporary ones left out, a DCP's ``.metadata`` not."""
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if (not name.startswith(".") or name == ".metadata") and (Path(here) / name).is_file():
                yield os.path.relpath(Path(here) / name, folder)


def _report(name: str, place: str, manifest: Manifest, nbytes: int | None = None) -> Report:
    nbytes = sum(file.nbytes for file in manifest.files) if nbytes is None else nbytes
    algorithm = dict(ALGORITHMS)
    if not any(file.sha256 for file in manifest.files):
        del algorithm["sha256"]
    counted = f"{plural(len(manifest.files), 'file')}, {plural(len(manifest.tensors), 'tensor')}, {size(nbytes)}"
    rows = (("manifest", printable(place)), ("covers", counted), ("algorithms", "; ".join(algorithm.values())))
    head = Text(f"{printable(name)} is sealed", "good")
    return Report(
        "seal",
        {
            "path": name,
            "manifest": place,
            "algorithm": {**algorithm},
            "entries": len(manifest.tensors),
            "files": len(manifest.files),
            "bytes": nbytes,
        },
        (head, Facts(rows)),
    )
