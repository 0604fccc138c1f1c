"""Put on the path of a traced process: starts the recorder when torch has been imported, then makes way.

Python imports one ``sitecustomize``; the one that this hides is imported in its turn.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder
from types import ModuleType


def _record(_torch: ModuleType) -> None:
    from ckpttool.determinism.recorder import install

    install()


def _next_sitecustomize() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    rest = [entry for entry in sys.path if os.path.abspath(entry or ".") != here]
    spec = PathFinder.find_spec("sitecustomize", rest)
    if spec is not None and spec.loader is not None:
        import importlib.util

        spec.loader.exec_module(importlib.util.module_from_spec(spec))


if os.environ.get("CKPTTOOL_TRACE_DIR"):
    from ckpttool.determinism.importing import when_imported

    when_imported("torch", _record)
_next_sitecustomize()
