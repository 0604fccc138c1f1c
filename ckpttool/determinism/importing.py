"""The start of recording, once torch has been imported, whenever that is, or at once if it has been already."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

Then = Callable[[ModuleType], None]


def when_imported(name: str, then: Then) -> None:
    """Call ``then`` with the module, after it has been executed."""
    if name in sys.modules:
        then(sys.modules[name])
    else:
        sys.meta_path.insert(0, _Finder(name, then))


def record(_torch: ModuleType) -> None:
    """Start the recorder, or end the process: a run that is not recorded would only be found out at its end."""
    try:
        from ckpttool.determinism.recorder import install
    except Exception as error:  # another version of Python or torch, or no hash for it
        raise SystemExit(
            f"ckpttool cannot record in {sys.executable}: {type(error).__name__}: {error}; pip install ckpttool there"
        ) from None
    install()


class _Finder(MetaPathFinder):
    def __init__(self, name: str, then: Then) -> None:
        self.name, self.then = name, then

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _Executing(spec.loader, self.then)
        return spec


class _Executing(Loader):
    def __init__(self, inner: Loader, then: Then) -> None:
        self.inner, self.then = inner, then

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self.inner
        module.__loader__ = self.inner
        self.inner.exec_module(module)
        self.then(module)
