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
    output: str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
    limits: Limits = DEFAULT,
) -> Report:
    """Write a manifest of a checkpoint's content beside it, which ``verify`` then checks.

    A file's manifest is ``FILE.manifest.json``, a folder's ``ckpttool.manifest.json`` inside it, or ``output``.
    XXH3-128 of every block and of every tensor shows damage; ``sha256`` adds the SHA-256 of every file, which also
    shows what was changed with care. Reads the bytes twice, in parallel; the checkpoint itself is not touched.
    Raises ``Unreadable``, and ``UsageError`` for what is damaged or no checkpoint: a seal would call it sound.
    """
    from ckpttool.writing.durable import replacing

    name = os.fspath(path)
    checkpoint = sound(name, limits)
    manifest = manifest_of(checkpoint, name, sha256=sha256, executor=executor, progress=progress)
    place = Path(output) if output is not None else sidecar(name)
    with replacing(place) as file:
        file.write(to_json(manifest).encode())
    return _report(name, place, manifest)


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
    from ckpttool.measure.seals import tensor_seals
    from ckpttool.version import __version__

    base, names = files_of(checkpoint, path)
    total = sum((base / name).stat().st_size for name in names)
    done = _Counter(progress, total)
    files = tuple(_file_seal(base, name, sha256, executor, done) for name in names)
    tensors = tensor_seals(checkpoint, executor=executor)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Manifest(files, tensors, f"ckpttool {__version__}", now)


class _Counter:
    """Adds what each file reports up to one total."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def __call__(self, nbytes: int) -> None:
        self.done = min(self.total, self.done + nbytes)
        if self.progress is not None:
            self.progress(self.done, self.total)


def _file_seal(base: Path, name: str, sha256: bool, executor: Executor | None, done: _Counter) -> FileSeal:
    from ckpttool.measure import seals

    place = base / name
    facts = place.stat()
    block = block_size(facts.st_size)
    blocks = seals.block_digests(str(place), block, executor=executor, progress=done)
    digest = seals.sha256(str(place)) if sha256 else ""
    return FileSeal(name, facts.st_size, facts.st_mtime_ns, block, blocks, digest)


def files_of(checkpoint: Checkpoint, path: str) -> tuple[Path, tuple[str, ...]]:
    """The folder that names are relative to, and the files that belong to a checkpoint, its manifest left out."""
    place = Path(path)
    base = place if place.is_dir() else place.parent
    known = checkpoint.files or (checkpoint.source,)
    names = {os.path.relpath(file, base) for file in known}
    if place.is_dir():
        names.update(_below(place))
    return base, tuple(sorted(name for name in names if not name.endswith(SIDECAR)))


def _below(folder: Path) -> Iterator[str]:
    """The regular files in a folder, hidden and temporary ones left out, a DCP's ``.metadata`` not."""
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if (not name.startswith(".") or name == ".metadata") and (Path(here) / name).is_file():
                yield os.path.relpath(Path(here) / name, folder)


def _report(name: str, place: Path, manifest: Manifest) -> Report:
    nbytes = sum(file.nbytes for file in manifest.files)
    algorithm = dict(ALGORITHMS)
    if not any(file.sha256 for file in manifest.files):
        del algorithm["sha256"]
    counted = (
        f"{plural(len(manifest.files), 'file')}, {plural(len(manifest.tensors), 'tensor')}, {size(nbytes)}"
    )
    rows = (
        ("manifest", printable(str(place))),
        ("covers", counted),
        ("algorithms", "; ".join(algorithm.values())),
    )
    head = Text(f"{printable(name)} is sealed", "good")
    return Report(
        "seal",
        {
            "path": name,
            "manifest": str(place),
            "algorithm": {**algorithm},
            "entries": len(manifest.tensors),
            "files": len(manifest.files),
            "bytes": nbytes,
        },
        (head, Facts(rows)),
    )
