"""Three lines in a training script: what hooks cannot see is named. Without a trace to write nothing is imported.

>>> recorder = Recorder.from_env(ema=ema, counters=lambda: {"best": best})  # doctest: +SKIP
>>> recorder.step(ids=ids)  # doctest: +SKIP
>>> recorder.saved(path)  # doctest: +SKIP
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckpttool.determinism.orders import VARIABLE

if TYPE_CHECKING:
    from ckpttool.determinism import recorder as live
    from ckpttool.determinism.living import Living

BLOCK = 1 << 20


class Recorder:
    """The recorder of this process, as a script sees it. Every method does nothing where no trace is asked for."""

    def __init__(self, inner: live.Recorder | None = None) -> None:
        self._inner = inner

    @classmethod
    def from_env(cls, *, ignore: tuple[str, ...] = (), **parts: Any) -> Recorder:
        """The recorder of this process, with parts to watch; records where ``CKPTTOOL_TRACE_DIR`` names a folder.

        Costs the look at one environment variable where it does not.
        """
        if not os.environ.get(VARIABLE):
            return cls()
        from ckpttool.determinism.recorder import install

        found = cls(install())
        found.watch(ignore=ignore, **parts)
        return found

    def __bool__(self) -> bool:
        """Whether a trace is being written."""
        return self._inner is not None

    def watch(self, *, ignore: tuple[str, ...] = (), **parts: Any) -> None:
        """Watch parts by name: ``model=``, ``optimizer=``, ``scheduler=``, ``scaler=``, ``ema=``, ``loader=``, others.

        A part is a module, anything with a ``state_dict``, or a function without arguments that gives plain data.
        torch's own optimizers, schedulers, scalers and averages are seen without being named, but for those that were
        made before recording began. Name a ``model`` whose forward pass is not a call of itself. A ``loader`` counts
        where it has a state. ``ignore`` names values that are right to differ after a resume, as ``counters.resumes``.
        """
        if self._inner is None:
            return
        self._inner.living.ignored.update(ignore)
        for name, part in parts.items():
            if part is not None:
                _watch(self._inner.living, name, part)

    def step(self, number: int | None = None, *, ids: object = None, loss: Any = None) -> None:
        """Say, before the optimizer steps, which samples this step consumes, and its loss: both join its line.

        ``number`` is for the reader of the script: steps are counted as optimizers take them.
        """
        if self._inner is not None:
            self._inner.gathered.told(ids, None if loss is None else float(loss))

    def saved(self, path: str | os.PathLike[str]) -> None:
        """Say that a checkpoint is complete: for writers that are none of torch.save, safetensors and torch's DCP."""
        if self._inner is not None and not self._inner.window.since:
            digest = digest_of_files(Path(path))
            number = self._inner.begin_save(os.fspath(path), digest=digest, parts={}, leaves={})
            self._inner.write("saved", save=number)

    def loaded(self, path: str | os.PathLike[str]) -> None:
        """Say that a checkpoint was loaded whose ``saved`` was told: the process goes on from its step."""
        if self._inner is not None:
            self._inner.went_on(os.fspath(path), digest=digest_of_files(Path(path)), parts={})


def _watch(living: Living, name: str, part: Any) -> None:
    """One part: where torch's own kinds are, else under its name."""
    import torch
    from torch.optim.lr_scheduler import LRScheduler
    from torch.optim.swa_utils import AveragedModel

    if name == "model" and isinstance(part, torch.nn.Module):
        living.watched.add(part)
    elif isinstance(part, torch.optim.Optimizer):
        living.optimizers.add(part)
    elif isinstance(part, LRScheduler):
        living.schedulers.add(part)
    elif isinstance(part, torch.amp.GradScaler):
        living.scalers.add(part)
    elif isinstance(part, AveragedModel):
        living.averages.add(part)
    elif name != "loader":
        living.extra[name] = part
    elif hasattr(part, "state_dict"):
        living.extra["counters.loader"] = part


def digest_of_files(path: Path) -> str:
    """Over a file, or over all files below a folder with their names; of nothing where there is none."""
    total = hashlib.sha256()
    for name, file in _files(path):
        total.update(f"{name}|".encode())
        with file.open("rb") as stream:
            while block := stream.read(BLOCK):
                total.update(block)
    return f"files:{total.hexdigest()}"


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    if path.is_file():
        yield "", path
    elif path.is_dir():
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            yield file.relative_to(path).as_posix(), file
