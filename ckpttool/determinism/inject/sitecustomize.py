"""Put on the path of a traced process: starts the recorder when torch has been imported, then makes way.

Python imports one ``sitecustomize``; the one that this hides is imported in its turn. Of the interpreter that this tool
lives in nothing else may come into the traced one, which may be another: only the recorder, and the hash that it needs
where there is none.
"""

from __future__ import annotations

import os
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

HERE = os.path.dirname(os.path.abspath(__file__))
LIBRARIES = "CKPTTOOL_TRACE_LIBRARIES"
"""The variable that names the folder in which this tool has its hash."""


class _Package(MetaPathFinder):
    """Finds one package in one folder, and nothing else that lies there."""

    def __init__(self, name: str, folder: str) -> None:
        self.name, self.folder = name, folder

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        return PathFinder.find_spec(name, [self.folder]) if name == self.name else None


def _next_sitecustomize() -> None:
    rest = [entry for entry in sys.path if os.path.abspath(entry or ".") != HERE]
    spec = PathFinder.find_spec("sitecustomize", rest)
    if spec is not None and spec.loader is not None:
        import importlib.util

        spec.loader.exec_module(importlib.util.module_from_spec(spec))


sys.meta_path.insert(0, _Package("ckpttool", os.path.dirname(os.path.dirname(os.path.dirname(HERE)))))
if os.environ.get(LIBRARIES):
    sys.meta_path.append(_Package("xxhash", os.environ[LIBRARIES]))
if os.environ.get("CKPTTOOL_TRACE_DIR"):
    from ckpttool.determinism.importing import record, when_imported

    when_imported("torch", record)
_next_sitecustomize()
